"""The tasks on the benchmarks' own data; skipped where these aren't."""

import ast
import os

import pytest

from ioa_jax.graders.registry import check_golds, make_grader
from suite.data import DataSource
from suite.tasks import load_task, maths
from suite.tasks.instructions import DOLLY_ALL, DOLLY_MAX_CHARACTERS, dolly_splits

pytestmark = pytest.mark.skipif(
    not os.environ.get("IOA_DATA_DIR"), reason="IOA_DATA_DIR names no folder with the data"
)

# Items of the whole split; a folder may hold a part of it.
TOTALS = {
    "math": 5000,
    "math500": 500,
    "gsm8k": 1319,
    "mbpp": 500,
    "mbpp_sanitized": 257,
    "ifeval": 541,
    "amc23": 40,
    "humaneval_plus": 164,
    "mbpp_plus": 378,
}


def load(name, shots=0):
    return load_task(name).load(DataSource.open(), shots)


@pytest.mark.parametrize("name", TOTALS)
def test_items_are_those_of_the_split(name):
    data = load(name)
    source = data.sources[0]
    assert source.total == TOTALS[name]
    assert source.checked
    known = ("test", "math500", "mbpp", "sanitized", "input_data", "amc23", "HumanEval", "Mbpp")
    assert source.subset.startswith(known)
    assert 0 < len(data.items) == source.items <= source.total
    assert len({item.id for item in data.items}) == len(data.items)


@pytest.mark.parametrize("name", ["math", "gsm8k", "mbpp", "mbpp_sanitized"])
def test_examples_are_no_test_items(name):
    shots = load_task(name).default_shots["base"]
    data = load(name, shots)
    assert len(data.examples) == shots > 0
    asked = {" ".join(item.prompt.split()) for item in data.items}
    assert not any(" ".join(one.item.prompt.split()) in asked for one in data.examples)


def test_math_examples_are_the_ones_that_are_documented():
    data = load("math", 4)
    ids = [one.item.id for one in data.examples]
    assert ids == [
        "train/algebra/0.json",
        "train/counting_and_probability/1.json",
        "train/geometry/1.json",
        "train/intermediate_algebra/1001.json",
    ]


def test_published_answers_are_the_boxed_ones():
    for item in load("math500").items:
        assert maths.boxed_answer(item.data["solution"], item.id) == item.references[0].strip()


# Regular expressions in the data that aren't raw strings.
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("name", ["mbpp", "mbpp_sanitized"])
def test_the_tested_function_is_in_the_solution(name):
    for item in load(name).items:
        tree = ast.parse(item.references[0])
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert item.data["entry_point"] in defined, item.id


@pytest.mark.slow
@pytest.mark.parametrize("name", ["humaneval_plus", "mbpp_plus"])
def test_reference_solutions_pass_all_tests(name):
    with make_grader("code") as grader:
        assert check_golds(grader, load(name).items, threads=2) == []


def test_amcs_answers_are_numbers():
    assert all(item.references[0].isdigit() for item in load("amc23").items)


def test_ifeval_has_arguments_for_every_instruction():
    for item in load("ifeval").items:
        assert len(item.data["kwargs"]) == len(item.data["instruction_id_list"])


def test_dollys_parts_share_no_question():
    splits = dolly_splits(DataSource.open().load(DOLLY_ALL).rows)
    parts = [{item.prompt for item in part} for part in (splits.test, splits.dev, splits.train)]
    assert [len(part) for part in parts[:2]] == [500, 1000]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]
    assert all(item.references for item in splits.test)
    # Most questions are short: MiniLLM's limit leaves 85 % of the rows.
    assert len(splits.train) > 11_000
    assert max(len(item.prompt) for item in splits.test) <= DOLLY_MAX_CHARACTERS + 2


def test_dolly_says_what_is_left_out():
    data = load("dolly")
    assert len(data.items) == 500
    assert any("over 900 characters" in note for note in data.notes)


def test_vicuna_scores_what_has_a_reference():
    data = load("vicuna")
    assert (len(data.items), len(data.unscored)) == (10, 70)
    assert all(item.references for item in data.items)


def test_mt_bench_has_two_turns_a_question():
    data = load("mt_bench")
    assert len(data.items) == 2 * data.sources[0].items
    assert len({item.data["category"] for item in data.items}) == 8
    with_reference = {item.data["category"] for item in data.items if item.references}
    assert with_reference == {"math", "reasoning", "coding"}


def test_self_instruct_says_which_set_it_is():
    data = load("self_instruct")
    whole = data.sources[0].total == 252
    assert whole or "the seed tasks, not the 252" in data.sources[0].subset
