import concurrent.futures
import itertools
import os
import signal
import time

import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders.base import MAX_ANSWER, Item
from ioa_jax.graders.maths import MathGrader, last_boxed
from ioa_jax.graders.registry import check_golds
from suite.tasks.maths import boxed_answer
from tests.graders import data

MATH_VERIFY = "math-verify 0.9.0"
# Computing this takes SymPy far longer than any limit here.
ENDLESS = r"\boxed{7^{7^{7^{7}}}}"


@pytest.fixture(scope="module")
def grader():
    with MathGrader() as grader:
        yield grader


def item(*golds):
    return Item("test/1", "?", golds)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"so \boxed{12}.", "12"),
        (r"\boxed{1} then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.} and on", r"\left\{ x \right."),
        (r"\boxed{7} and cut short: \boxed{\frac{1}{2}", "7"),
        (r"\boxed{7}, written in \boxed{}", "7"),
        (r"\fbox{12}", "12"),
        (r"\boxed 8, at last", "8"),
        (r"\boxed{x = \boxed{5}}", "5"),
        # An escape too many.
        (r"\\boxed{\\frac{1}{2}}", r"\\frac{1}{2}"),
        (r"\boxed{12\\}", r"12\\"),
        (r"\boxed {3}", "3"),
        ("no box", None),
        (r"\boxed{", None),
        ("", None),
    ],
)
def test_last_boxed(text, box):
    assert last_boxed(text) == box


@pytest.mark.parametrize(
    ("gold", "text", "correct", "rule", "source"),
    [
        (r"\frac{1}{2}", r"It is $\boxed{\dfrac{1}{2}}$.", True, "boxed", "string"),
        (r"\frac{1}{2}", r"It is \boxed{0.5}", True, "boxed", MATH_VERIFY),
        (r"\frac{1}{2}", r"It is $\frac{2}{4}$.", True, "unboxed", MATH_VERIFY),
        ("12", "The final answer is 12.", True, "unboxed", MATH_VERIFY),
        ("12", r"First 12, but then \boxed{13}", False, "boxed", MATH_VERIFY),
        (r"\text{Evelyn}", r"\boxed{\text{Evelyn}}", True, "boxed", "string"),
        (r"\text{Evelyn}", r"\boxed{\text{Adam}}", False, "boxed", MATH_VERIFY),
        ("1,-2", r"\boxed{-2} and \boxed{1}", True, "boxed", MATH_VERIFY),
        (r"x^2+2x+1", r"\boxed{(x+1)^2}", True, "boxed", MATH_VERIFY),
        (r"(3, \frac{\pi}{2})", r"\boxed{(3, \pi/2)}", True, "boxed", MATH_VERIFY),
        (r"(3, \frac{\pi}{2})", r"\boxed{(\pi/2, 3)}", False, "boxed", MATH_VERIFY),
        (r"10\%", r"\boxed{0.1}", False, "boxed", MATH_VERIFY),
        (r"10\%", r"\boxed{10}", True, "boxed", "string"),
        ("20", r"$\boxed{10 + 10\%}$", True, "boxed", MATH_VERIFY),
        # Thousands are a number, and so are two boxes apart where two answers are asked for.
        ("5,-6", r"It is $\boxed{5}$. If not, one finds $\boxed{-6}$.", True, "boxed", MATH_VERIFY),
        ("5,-6", r"$\boxed{5}$; no, $\boxed{6}$, and $\boxed{-6}$.", False, "boxed", MATH_VERIFY),
        # But a value beside a letter isn't asked for, and only the last box is the answer.
        (r"\text{(C)}", r"$\boxed{\text{(C)}}$? No: $\boxed{7}$.", False, "boxed", MATH_VERIFY),
        (r"\text{(C)},", r"$\boxed{\text{(C)}}$? No: $\boxed{7}$.", False, "boxed", MATH_VERIFY),
        ("6", r"$\boxed{5}$ is wrong, it is $\boxed{6.}$.", True, "boxed", MATH_VERIFY),
        ("5", r"$\boxed{5}$ is wrong, it is $\boxed{6.}$.", False, "boxed", MATH_VERIFY),
        ("5,-6", r"$\boxed{5,-6}$ is wrong, it is $\boxed{7}$.", False, "boxed", MATH_VERIFY),
        ("3,4", r"The answers are $3$ and $4$, no: $\boxed{7}$.", False, "boxed", MATH_VERIFY),
        ("6", r"$\boxed{6.}$ or $\boxed{7}$", False, "boxed", MATH_VERIFY),
        ("19", "<answer>19</answer>", True, "unboxed", MATH_VERIFY),
        ("(-8,2)", "So the answer is (-8, 2).", True, "unboxed", MATH_VERIFY),
        ("2", "So the answer is (-8, 2).", False, "unboxed", MATH_VERIFY),
        ("3,4", "The answers are $3$ and $4$.", True, "unboxed", MATH_VERIFY),
        ("3", "**Answer:** $3$ (not $4$)", True, "unboxed", MATH_VERIFY),
        (r"\text{(B)}", "Answer: B", True, "unboxed", MATH_VERIFY),
        (r"\text{(B)}", "Answer: C", False, "unboxed", MATH_VERIFY),
        (r"\text{odd}", "odd", True, "unboxed", MATH_VERIFY),
        ("5", "I don't know.", False, "none", MATH_VERIFY),
        ("5", "", False, "none", MATH_VERIFY),
    ],
)
def test_verdicts(grader, gold, text, correct, rule, source):
    verdict = grader.grade(item(gold), text)
    assert (verdict.correct, verdict.rule, verdict.source) == (correct, rule, source)
    assert verdict.score == float(correct)
    assert (verdict.extracted is None) == (rule == "none")


def test_what_cannot_be_parsed_in_the_box_is_not_looked_for_elsewhere(grader):
    for box in (r"\text{nobody} \heartsuit", r"\heartsuit +", ")(", r"\frac{7}{"):
        verdict = grader.grade(item("7"), rf"We had $7$ apples. \boxed{{{box}}}}}")
        assert not verdict.correct
        assert verdict.rule == "boxed"


def test_any_reference_will_do(grader):
    assert grader.grade(item("2", "3"), r"\boxed{\frac{6}{2}}").correct
    assert grader.grade(item("3", "2"), r"\boxed{\frac{6}{2}}").correct
    assert not grader.grade(item("3", "2"), r"\boxed{\frac{8}{2}}").correct
    # As texts, too.
    assert grader.grade(item("2", "3"), r"\boxed{2}").source == "string"
    assert grader.grade(item("2", "3"), r"\boxed{3}").source == "string"


def test_the_reference_comes_first_in_the_comparison(grader):
    # Of an answer's equation the right side is enough, but not of a reference's.
    assert grader.grade(item("5"), r"\boxed{2x+z=5}").correct
    assert not grader.grade(item("2x+z=5"), r"\boxed{5}").correct


def test_percent_signs_are_left_out_on_both_sides(grader):
    assert grader.grade(item(r"25\%"), r"\boxed{20+5}").correct
    assert grader.grade(item("25"), r"\boxed{(20+5)\%}").correct
    assert not grader.grade(item(r"25\%"), r"\boxed{\frac{1}{4}}").correct


@pytest.mark.parametrize(
    "text", ["\x00\ud800", r"\boxed{" * 500, "$" * 5000, r"\boxed{\frac{1}{0}}", "9" * 5000 + "!"]
)
def test_whatever_the_text_is_there_is_a_verdict(grader, text):
    assert not grader.grade(item("5"), text).correct


@pytest.mark.parametrize(
    ("text", "correct", "rule"),
    [
        (r"<think>\boxed{5}</think>It is 6.", False, "unboxed"),
        (r"<think>\boxed{6}</think>It is \boxed{5}.", True, "boxed"),
        (r"\boxed{6}</think>It is \boxed{5}.", True, "boxed"),
        (r"<think>It is \boxed{5}", False, "unfinished_thought"),
        (r"\boxed{5}" + " " * MAX_ANSWER, False, "too_long"),
    ],
)
def test_the_answer_alone_is_judged(grader, text, correct, rule):
    verdict = grader.grade(item("5"), text)
    assert (verdict.correct, verdict.rule) == (correct, rule)


@pytest.mark.parametrize("inner", ["(" * 100_000, "{" * 50_000 + "}" * 50_000, "1," * 90_000])
def test_a_long_answer_is_not_compared(grader, inner):
    verdict = grader.grade(item("5"), rf"\boxed{{{inner}}}")
    assert (verdict.correct, verdict.rule, verdict.source) == (False, "boxed", MATH_VERIFY)
    assert verdict.detail.endswith("characters, more than 2000")


@pytest.mark.parametrize("text", [r"\boxed{", r"\boxed{}", "{", "\\", r"\boxed ", r"\boxed{a}"])
def test_boxes_are_found_in_time_with_the_length(text):
    start = time.process_time()
    last_boxed(text * 100_000)
    assert time.process_time() - start < 5


def test_a_comparison_without_end_is_killed_and_the_next_one_works():
    with MathGrader(workers=1, cpu_seconds=1.0) as grader:
        grader.grade(item("5"), r"\boxed{2+3}")
        verdict = grader.grade(item(r"\pi"), ENDLESS)
        assert (verdict.correct, verdict.rule, verdict.source) == (False, "boxed", "timeout")
        assert verdict.detail == "killed after 1 s of processor time"
        assert grader.grade(item("5"), r"\boxed{2+3}").correct


def test_the_wall_limit_ends_what_uses_no_processor():
    with MathGrader(workers=1, wall_seconds=4.0) as grader:
        grader.grade(item("5"), r"\boxed{2+3}")
        worker = grader._pool._idle.get()
        grader._pool._idle.put(worker)
        process = worker._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        verdict = grader.grade(item("5"), r"\boxed{2+3}")
        assert (verdict.source, verdict.detail) == ("timeout", "killed after 4 s")
        assert grader.grade(item("5"), r"\boxed{2+3}").correct


def test_threads_share_the_workers():
    golds = [str(n) for n in range(40)]
    with MathGrader(workers=2) as grader, concurrent.futures.ThreadPoolExecutor(8) as pool:
        texts = [rf"\boxed{{{n - 1} + 1}}" for n in range(40)]
        verdicts = list(
            pool.map(
                lambda pair: grader.grade(item(pair[0]), pair[1]), zip(golds, texts, strict=True)
            )
        )
        wrong = list(pool.map(lambda text: grader.grade(item("1000"), text), texts))
    assert all(verdict.correct for verdict in verdicts)
    assert not any(verdict.correct for verdict in wrong)


def test_closing_ends_the_processes():
    grader = MathGrader(workers=1)
    grader.grade(item("5"), r"\boxed{2+3}")
    worker = grader._pool._idle.get()
    grader._pool._idle.put(worker)
    process = worker._process
    assert process is not None
    grader.close()
    grader.close()
    assert process.returncode is not None
    with pytest.raises(RuntimeError, match="closed"):
        grader.grade(item("5"), r"\boxed{2+3}")


def test_bad_items_and_settings(grader):
    with pytest.raises(InputError, match=r"'test/1'.*'references'"):
        grader.check_item(item())
    with pytest.raises(InputError, match=r"'test/1'.*'references'"):
        grader.grade(item(" "), "5")
    with pytest.raises(InputError, match="cpu_seconds=0"):
        MathGrader(cpu_seconds=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["math500_even", "test_rest_even"])
def test_golds_of_math_equal_themselves_and_not_each_other(grader, name):
    rows = data.rows(f"math/{name}.jsonl")
    items = [
        Item(row["unique_id"], row["problem"], (boxed_answer(row["solution"], row["unique_id"]),))
        for row in rows
    ]
    assert check_golds(grader, items) == []
    # Of their solutions, through the extraction.
    solutions = [grader.grade(one, row["solution"]) for one, row in zip(items, rows, strict=True)]
    assert all(verdict.correct for verdict in solutions)
    # Each with the next one's gold: only equal ones pass.
    passed = [
        (one.references[0], other.references[0])
        for one, other in itertools.pairwise(items)
        if grader.grade(one, rf"\boxed{{{other.references[0]}}}").correct
    ]
    assert {(gold, other) for gold, other in passed if gold != other} <= {("4", r"\$4")}
