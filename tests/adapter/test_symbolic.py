from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioa_jax.adapter.symbolic import direct_answer


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        ("Compute 3 + 4 * 2.", 11),
        ("What is 12 \u00d7 7?", 84),
        ("What is $12 \\div 8$?", Fraction(3, 2)),
        ("Calculate: (2 + 3)^2 - 1", 24),
        ("5 - 8 =", -3),
        ("Work out 0.1 + 0.2.", Fraction(3, 10)),
        ("Evaluate 2(3 + 4).", 14),
        ("Compute 1,200 + 34.", 1234),
        ("Compute $\\frac{1}{2} + \\frac{1}{3}$.", Fraction(5, 6)),
        ("What is -2^2?", -4),
        ("Solve 3x + 4 = 19.", 5),
        ("Solve 19 = 4 + 3x for x.", 5),
        ("Solve for y: 2(y - 1) = y + 5", 7),
        ("Find n if n/4 = 3.", 12),
        ("If 2x + 1 = 8, what is x?", Fraction(7, 2)),
        ("Solve 0.5x = 2", 4),
    ],
)
def test_covered_problems(problem, answer):
    assert direct_answer(problem) == answer


@pytest.mark.parametrize(
    "problem",
    [
        "Work modulo 5. Compute 3 + 4.",
        "Compute 3 + 4 in base 6.",
        "Tom has 3 + 4 apples. How many is that?",
        "What is 1/2(3 + 4)?",
        "Solve 1/2x = 3.",
        "Solve x = x.",
        "Solve 2x = 2x + 1.",
        "Solve x * x = 4.",
        "Solve x^2 = 4.",
        "Solve x + y = 4.",
        "Solve 3x = 9 for y.",
        "What is 3 / 0?",
        "What is 5 / (2 - 2)?",
        "Compute 1 1/2 + 1.",
        "Compute 5!.",
        "Compute 9^9^9.",
        "Compute 2^0.5.",
        "Compute 2^-1.",
        "Compute (((9^20)^20)^20)^20.",
        "Solve 3/x = 1.",
        "Compute 1.0000000000000001 + 1.",
        "What is it?",
        "",
        "(" * 100,
        "1" + " + 1" * 100,
    ],
)
def test_other_problems(problem):
    assert direct_answer(problem) is None


@given(st.integers(-50, 50).filter(bool), st.integers(-50, 50), st.integers(-50, 50))
def test_the_unknown_solves_the_equation(slope, constant, right):
    answer = direct_answer(f"Solve {slope}x + {constant} = {right}.".replace("+ -", "- "))
    assert answer is not None
    assert slope * answer + constant == right


@given(st.text(alphabet="0123456789+-*/^(). x=,", max_size=40))
def test_no_text_makes_it_fail(text):
    for problem in (text, "Solve " + text, "Compute " + text):
        answer = direct_answer(problem)
        assert answer is None or isinstance(answer, Fraction)
