"""Texts of teachers and servers that are meant to end a run, or that would."""

import dataclasses
import json
import math

import pytest

from ioa_jax.adapter.plain_text import read_task, split_solution
from ioa_jax.adapter.programs import calls_under_test, renamed, stub_program
from ioa_jax.adapter.schema import RawExamples
from ioa_jax.adapter.symbolic import direct_answer
from ioa_jax.errors import InputError
from ioa_jax.identifier.decompose import Proposal
from ioa_jax.json_text import MAX_NESTING, parse_served_json, parse_written_json
from ioa_jax.teachers.base import Completion
from ioa_jax.teachers.protocol import ChatBody, Fault, http_fault, read_body, read_completion
from ioa_jax.teachers.structured import (
    MAX_REPAIRED_CHARACTERS,
    MAX_REPAIRED_SIGNS,
    Unfit,
    parse_completion,
)
from ioa_jax.terminal import shown
from ioa_jax.values import Value


@pytest.mark.parametrize("problem", ["solve 1.e999=2", "Solve e=1.e999.", "Solve 9.e999=x"])
def test_an_infinity_in_a_problem_is_not_covered(problem):
    assert direct_answer(problem) is None


def test_a_long_literal_in_another_base_is_no_defect():
    literal = "0x" + "f" * 6000
    with pytest.raises(InputError, match="can't be written out"):
        stub_program(f"x = {literal}\ndef f():\n    return 1\n", "0")
    with pytest.raises(InputError, match="can't be written out"):
        calls_under_test(f"assert f({literal}) == 1")
    with pytest.raises(InputError, match="can't be written out"):
        renamed([f"f({literal})"], "f", "g")


PROPOSAL = {"category": "a", "module": "b", "difficulty": 1}


def proposals(*entries: str) -> Completion:
    return Completion(f'{{"modules": [{", ".join(entries)}]}}', 1, 1, "stop")


@pytest.mark.parametrize(
    "entry",
    [
        "[" * 900 + "]" * 900,
        '{"a":' * 900 + "1" + "}" * 900,
        "9" * 4000,
        "9" * 5000,
        json.dumps(PROPOSAL | {"difficulty": math.nan}),
        json.dumps(PROPOSAL).replace("1", "1e999"),
    ],
)
def test_json_of_a_teacher_that_nothing_can_be_made_of_is_rejected(entry):
    with pytest.raises(Unfit):
        parse_completion(proposals(entry), Proposal)


def test_half_a_character_of_a_teacher_can_be_written():
    entry = json.dumps(PROPOSAL | {"category": "a \ud83d"})
    value, _ = parse_completion(proposals(entry), Proposal)
    assert value.modules[0].category == "a \ufffd"
    rows, _ = parse_completion(Completion(f"[{entry}]", 1, 1, "stop"), RawExamples)
    rows.model_dump_json().encode()


def test_of_a_key_that_a_teacher_writes_twice_the_last_counts():
    assert parse_written_json('x {"a": 1, "a": 2} y', 2) == ({"a": 2}, 18)


@pytest.mark.parametrize(
    "text",
    ['{"' * MAX_REPAIRED_SIGNS, '{"modules": [' + " " * MAX_REPAIRED_CHARACTERS + "'"],
    ids=["signs", "characters"],
)
def test_what_takes_the_square_of_its_length_is_not_repaired(text):
    with pytest.raises(Unfit, match="no JSON"):
        parse_completion(Completion(text, 1, 1, "stop"), Proposal)


@pytest.mark.parametrize(
    "text", ["Problem" + " " * 200_000, "Problem:" + "\t" * 200_000, "Tests" + "1" * 200_000]
)
def test_a_label_is_looked_for_once(text):
    with pytest.raises(Unfit):
        read_task(text, True)


def test_stars_are_read_once():
    assert split_solution("*" * 200_000 + "\n**Answer:** 7", "number") == (("*" * 200_000,), "7")


def test_a_statement_behind_stars_is_found():
    assert split_solution("It is so.\n***answer***: 7", "number") == (("It is so.",), "7")


def body(**changed) -> bytes:
    choice = {"message": {"content": "fine"}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice | changed.pop("choice", {})], **changed}).encode()


@pytest.mark.parametrize(
    "content",
    [
        body(usage={"prompt_tokens": math.nan, "completion_tokens": math.inf}),
        body(usage="much"),
        body(usage={"prompt_tokens": 10**900, "completion_tokens": True}),
        body(model=5, system_fingerprint=[]),
        body(choice={"logprobs": {"content": [{"logprob": math.nan}]}}),
    ],
)
def test_what_a_server_spoils_beside_an_answer_does_not_lose_it(content):
    found = read_completion(read_body(content, ChatBody), True, 10, 20)
    assert found.completion == Completion("fine", 10, 20, "stop")
    assert found.bounded


@pytest.mark.parametrize(
    "content",
    [
        '{"error": ' + "[" * 900 + '"x"' + "]" * 900 + "}",
        '{"error": ' * 900 + '"x"' + "}" * 900,
        '{"error": {"code": "\u00b2\u00b2\u00b2", "message": "x"}}',
        json.dumps({"error": {"code": "9" * 5000, "message": "x"}}),
        "<" * 300_000,
    ],
)
def test_errors_of_servers_are_read_whatever_they_are(content):
    assert http_fault(500, content.encode(), {}).status == 500
    with pytest.raises(Fault):
        read_body(content.encode(), ChatBody)


def test_a_server_is_read_as_deep_as_files_are():
    assert parse_served_json("[" * MAX_NESTING + "]" * MAX_NESTING)
    with pytest.raises(ValueError, match="nested"):
        parse_served_json("[" * (MAX_NESTING + 1) + "]" * (MAX_NESTING + 1))
    with pytest.raises(ValueError, match="Extra data"):
        parse_served_json("{} {}")


@dataclasses.dataclass(frozen=True)
class Nothing(Value):
    """No fields."""


@pytest.mark.parametrize("text", ['{"a": NaN}', "[" * 200 + "]" * 200, '{"a": 1, "a": 2}', "{"])
def test_values_are_read_as_strictly_as_other_files(text):
    with pytest.raises(InputError, match=r"there\.json: not JSON"):
        Nothing.from_json(text, "there.json")


def test_texts_move_no_cursor():
    assert shown("a\x1b[2Jb\rc\x07\x9b1m\u202ed\n\te\ud800") == (
        "a\\x1b[2Jb\\rc\\x07\\x9b1m\\u202ed\n\te\\ud800"
    )
    assert shown("\u00e4\u65e5\U0001f600") == "\u00e4\u65e5\U0001f600"
