"""Seed files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders.registry import make_grader
from ioa_jax.seeds import SeedItem, check_seeds, find_seeds, read_seeds

MATH = {"prompt": "1 + 1?", "reference": "Add: \\boxed{2}", "check": {"kind": "math"}}
CODE = {
    "id": "double",
    "prompt": "Write double(x).",
    "reference": "def double(x):\n    return 2 * x",
    "check": {"kind": "code", "entry_point": "double", "tests": "assert double(2) == 4"},
}
WORDS = {
    "prompt": "Say hello in lower case.",
    "reference": "hello",
    "check": {
        "kind": "instruction",
        "instruction_id_list": ["change_case:english_lowercase"],
        "kwargs": [{}],
    },
}


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "seeds.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_line_becomes_a_value_that_survives_json(tmp_path: Path) -> None:
    seeds = read_seeds(write(tmp_path, MATH | {"level": "Level 3"}, CODE, WORDS))
    assert [seed.id for seed in seeds] == ["line-1", "double", "line-3"]
    assert [seed.domain for seed in seeds] == ["math", "code", "instruction"]
    assert seeds[0].fields == {"level": "Level 3"}
    for seed in seeds:
        assert SeedItem.from_json(seed.to_json(), "seed") == seed


def test_the_domain_may_be_of_one_s_own_and_changes_no_check(tmp_path: Path) -> None:
    checks = ["math", "number", "exact", "rouge"]
    rows = [MATH | {"prompt": kind, "check": {"kind": kind}} for kind in checks]
    plain = read_seeds(write(tmp_path, *rows))
    assert [seed.domain for seed in plain] == ["math", "math", "instruction", "instruction"]
    own = read_seeds(write(tmp_path, *(row | {"domain": "kitchen"} for row in rows)))
    assert {seed.domain for seed in own} == {"kitchen"}
    assert [seed.item() for seed in own] == [seed.item() for seed in plain]
    assert [seed.kind for seed in own] == checks


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        (MATH, "It is \\boxed{2}.", "It is \\boxed{3}."),
        (WORDS, "hello there", "Hello There"),
        (MATH | {"check": {"kind": "exact", "answer": "2"}}, "2", "two"),
        (MATH | {"check": {"kind": "number", "answer": "2"}}, "It is 2.", "It is 5."),
    ],
)
def test_the_check_s_grader_takes_the_item(
    tmp_path: Path, row: dict[str, Any], right: str, wrong: str
) -> None:
    (seed,) = read_seeds(write(tmp_path, row))
    with make_grader(seed.kind) as grader:
        assert grader.grade(seed.item(), right).correct
        assert not grader.grade(seed.item(), wrong).correct


def test_the_code_grader_takes_the_item(tmp_path: Path) -> None:
    (seed,) = read_seeds(write(tmp_path, CODE))
    item = seed.item()
    assert item.data["test_list"] == ["assert double(2) == 4"]
    assert item.data["entry_point"] == "double"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prompt": " "}, "prompt"),
        ({"reference": None}, "reference"),
        ({"check": {"kind": "vibes"}}, "check"),
        ({"check": {"kind": "code", "tests": "assert f(1)"}}, "entry_point"),
        ({"module": "no category"}, "category/module"),
        ({"module": "a/!"}, "no letter or digit"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    path = write(tmp_path, CODE, MATH | change)
    with pytest.raises(InputError, match=f":2: .*{field}"):
        read_seeds(path)


def test_a_task_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=":2: field 'prompt': the same as in line 1"):
        read_seeds(write(tmp_path, MATH, MATH | {"prompt": "1  + 1?"}))
    with pytest.raises(InputError, match=":2: field 'id'"):
        read_seeds(write(tmp_path, CODE, MATH | {"id": "double"}))


def test_the_first_of_what_occurs_twice_can_be_used(tmp_path: Path) -> None:
    rows = [MATH, MATH | {"id": "same", "prompt": "1  + 1?"}, CODE, WORDS | {"id": "double"}]
    seeds, faults = find_seeds(write(tmp_path, *rows))
    assert [seed.id for seed in seeds] == ["line-1", "double"]
    assert [fault.split(": ")[1] for fault in faults] == ["field 'prompt'", "field 'id'"]


def test_too_few_seeds_are_refused(tmp_path: Path) -> None:
    seeds = read_seeds(write(tmp_path, MATH, CODE))
    with pytest.raises(InputError, match="2 seeds; at least 20"):
        check_seeds(seeds, "seeds.jsonl")
