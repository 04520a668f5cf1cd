"""JSON Lines and JSON files: what is read, what is refused, what is written."""

import json

import pytest
from pydantic import BaseModel

from ioa_jax.errors import InputError
from ioa_jax.files import read_json
from ioa_jax.jsonl import find_rows, read_objects, read_rows, write_rows


class Row(BaseModel):
    a: object


GOOD = '{"a": 1}'
HARD = [
    ('{"a": ' + "1" * 5000 + "}", "an integer of 5000 digits; at most 1000"),
    ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "brackets nested more than 100 deep"),
    ('{"a": ' + "[" * 100 + "]" * 100 + "}", "brackets nested more than 100 deep"),
    ('{"a": ' * 100 + "[]" + "}" * 100, "brackets nested more than 100 deep"),
    (r'{"a": "\ud83d"}', "half of a surrogate pair"),
    (r'{"a": "\uDE00 x"}', "half of a surrogate pair"),
    (r'{"a": "\uDE00\uD83D"}', "half of a surrogate pair"),
    (r'{"\ud83d": 1}', "half of a surrogate pair"),
    ('{"a": NaN}', "NaN is no JSON"),
    ('{"a": [-Infinity]}', "-Infinity is no JSON"),
    ('{"a": 1e999}', "1e999 is more than a number can hold"),
    ('{"a": 1, "a": 2}', "key 'a' stands twice"),
    ('{"a": [{"b": 1, "c": 2, "b": 1}]}', "key 'b' stands twice"),
    ("{]", "Expecting property name"),
]


@pytest.mark.parametrize(("line", "reason"), HARD)
def test_lines_that_parsers_disagree_about_are_named(line, reason, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
    with pytest.raises(InputError, match=rf"in\.jsonl:3: not JSON: .*{reason}"):
        read_rows(path, Row)
    with pytest.raises(InputError, match=rf"in\.jsonl:3: not JSON: .*{reason}"):
        list(read_objects(path))
    rows, faults = find_rows(path, Row)
    assert (list(rows), list(faults)) == ([1, 4], [3])
    (tmp_path / "in.json").write_text(line)
    with pytest.raises(InputError, match=rf"in\.json: not JSON: .*{reason}"):
        read_json(tmp_path / "in.json")


@pytest.mark.parametrize(
    "value",
    [
        {"a": "1" * 5000},
        {"a": int("1" * 1000)},
        {"a": "[" * 5000},
        {"a": json.loads("[" * 99 + "]" * 99)},
        {"a": "\U0001f600 \\ud83d", "\U0001f600": 1},
        {"a": [1e308, -0.0, 5e-324]},
    ],
)
def test_what_is_merely_unusual_is_read_and_written(value, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(value) + "\n")
    assert list(read_objects(path)) == [(1, value)]
    write_rows(path, [value])
    assert list(read_objects(path)) == [(1, value)]


def test_a_byte_order_mark_is_passed_over(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert list(read_rows(path, Row)) == [1]
    assert read_json(path) == {"a": 1}


def test_numbers_that_json_has_no_word_for_are_not_written(tmp_path):
    path = tmp_path / "out.jsonl"
    write_rows(path, [{"a": 1}])
    for value in (float("nan"), [1.0, float("-inf")]):
        with pytest.raises(InputError, match=r"out\.jsonl:2: .*field 'b' holds NaN or infinity"):
            write_rows(path, [{"a": 1}, {"a": 2, "b": value}])
    assert path.read_text() == '{"a": 1}\n'
