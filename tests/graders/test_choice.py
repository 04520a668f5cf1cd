import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from ioa_jax.graders.choice import find_letter
from ioa_jax.graders.registry import check_golds, make_grader

ITEM = Item("q", "Which?", ("C",), {"choices": ["w", "x", "y", "z"]})


@pytest.mark.parametrize(
    ("answer", "letter", "rule"),
    [
        (r"So it is \boxed{C}.", "C", "boxed"),
        (r"\boxed{\text{(C)}}", "C", "boxed"),
        (r"\boxed{C. the third}", "C", "boxed"),
        (r"\boxed{\text{Option C}}", "C", "boxed"),
        # What is in a box isn't always a letter.
        (r"$x = \boxed{12}$, so the answer is (B).", "B", "stated"),
        ("Let's see. The answer is (J).", "J", "stated"),
        ("The correct answer is: **B**", "B", "stated"),
        ("**Answer:** D", "D", "stated"),
        ("ANSWER: $A", "A", "stated"),
        ("The answer is option (H), since water boils.", "H", "stated"),
        ("At first the answer is (A). No: the answer is (B).", "B", "stated"),
        ("The final answer is $\\boxed{\\text{E}}$", "E", "boxed"),
        ("C", "C", "alone"),
        ("(C)", "C", "alone"),
        ("It grows.\n\n**C**", "C", "alone"),
        ("By elimination:\nC) the third", "C", "alone"),
        ("I think that A reason for it is unknown.", None, "none"),
        ("The answer is A matter of taste", None, "none"),
        ("The answer is Carbon", None, "none"),
        ("A plan is needed.", None, "none"),
        ("", None, "none"),
    ],
)
def test_the_letter_is_found_by_rule(answer, letter, rule):
    assert find_letter(answer) == (letter, rule)


def test_verdicts():
    with make_grader("choice") as grader:
        assert check_golds(grader, [ITEM]) == []
        right = grader.grade(ITEM, "<think>The answer is (A).</think>The answer is (C).")
        assert (right.correct, right.score, right.extracted) == (True, 1.0, "C")
        assert not grader.grade(ITEM, "The answer is (A).").correct
        assert not grader.grade(ITEM, "<think>The answer is (C).").correct
        for references in ((), ("c",), ("AB",), ("A", "B")):
            with pytest.raises(InputError, match=r"item 'q': field 'references'"):
                grader.grade(Item("q", "?", references), "C")
