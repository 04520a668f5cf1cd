import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders.base import MAX_ANSWER, Item
from ioa_jax.graders.exact import ExactGrader


@pytest.mark.parametrize(
    ("reference", "text", "correct", "ignoring_case"),
    [
        ("a b", " a\n  b ", True, True),
        ("a b", "ab", False, False),
        ("Cat", "cat", False, True),
        # One letter with a dot above, and the same as letter and mark.
        ("\u017c", "z\u0307", True, True),
        # A power isn't a digit, though it looks like one.
        ("x\u00b2", "x2", False, False),
        ("cat", "the cat", False, False),
        ("cat", "", False, False),
    ],
)
def test_equality(reference, text, correct, ignoring_case):
    item = Item("1", "?", ("other", reference))
    assert ExactGrader().grade(item, text).correct == correct
    assert ExactGrader(ignore_case=True).grade(item, text).correct == ignoring_case


def test_the_rule_is_named():
    item = Item("1", "?", ("x",))
    assert ExactGrader().grade(item, " X ").rule == "whole"
    verdict = ExactGrader(ignore_case=True).grade(item, " X ")
    assert (verdict.rule, verdict.extracted, verdict.score) == ("whole_ignoring_case", "x", 1.0)


def test_an_item_without_a_reference():
    with pytest.raises(InputError, match=r"'1'.*'references'"):
        ExactGrader().check_item(Item("1", "?"))


def test_the_answer_alone_is_judged():
    item = Item("1", "?", ("42",))
    assert ExactGrader().grade(item, "<think>\n6 * 7\n</think>\n\n42").correct
    verdict = ExactGrader().grade(item, "<think>42")
    assert (verdict.correct, verdict.rule, verdict.extracted) == (False, "unfinished_thought", None)
    assert ExactGrader().grade(item, "42" + " " * MAX_ANSWER).rule == "too_long"
