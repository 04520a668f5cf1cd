import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioa_jax.adapter.dimensions import (
    count_syllables,
    is_concrete,
    matches_template,
    mean_measures,
    measure,
    operands,
    reading_ease,
)
from ioa_jax.adapter.schema import Example
from tests.adapter.examples import example


@pytest.mark.parametrize(
    "problem",
    [
        "Anna has 12 apples and buys 7 more.",
        "Three boxes and 4 apples hold 19 apples. Solve 3x + 4 = 19.",
        "The dog's bowl is n cm wide.",
        "Half (1/2) of the cherries are red.",
        "Two babies and a fox.",
    ],
)
def test_everyday_things_before_symbols_are_concrete(problem):
    assert is_concrete(problem)


@pytest.mark.parametrize(
    "problem",
    [
        "Solve 3x + 4 = 19.",
        "Solve 3x + 4 = 19, as with apples.",
        "Find the value of x for a box.",
        "What is 3 - 2 cakes?",
        "Write f(n), as a shop would.",
        r"Find \frac{1}{2} of the cake.",
        "What is the sum of 3 and 4?",
        "",
    ],
)
def test_symbols_first_or_nothing_from_everyday_life_is_not(problem):
    assert not is_concrete(problem)


@given(st.text())
def test_what_follows_a_symbol_never_makes_a_problem_concrete(text):
    assert not is_concrete("= " + text)
    assert is_concrete("An apple " + text)


@given(st.lists(st.integers(0, 10**12), max_size=8))
def test_operands_are_the_numbers_of_a_text(numbers):
    assert operands("a " + " + ".join(map(str, numbers)) + ".") == numbers
    assert operands(" and ".join(f"{n:,}" for n in numbers)) == numbers


def test_decimals_fractions_and_numbers_beyond_a_float():
    assert operands("2.5, .5 and 1/3 of $1,200.50 at x2") == [2.5, 0.5, 1, 3, 1200.5, 2]
    (huge,) = operands("9" * 400)
    assert 1e308 < huge < float("inf")


@pytest.mark.parametrize(
    ("steps", "matching"),
    [
        (("First 3 + 4 = 7.", "So x = 7."), {"numbered", "lines"}),
        (("1.5 + 2 = 3.5",), {"numbered", "lines"}),
        (("1. 3 + 4 = 7", "x = 7"), set()),
        (("Step 2: 3 + 4 = 7",), set()),
        (("- 3 + 4 = 7",), set()),
        (("3 + 4\n= 7",), set()),
        (("Extract: 3, 4", "Solve: 3 + 4 = 7", "Solve: 7", "Verify: 7 - 4 = 3"), "all"),
        (("Set up: 3 + 4", "Extract: 3, 4", "Solve: 7"), {"numbered", "lines"}),
        (("Extract: 3, 4", "Verify: 7"), {"numbered", "lines"}),
        (("Solve: 7", "and so"), {"numbered", "lines"}),
    ],
)
def test_templates(steps, matching):
    templates = ("labelled", "numbered", "lines")
    found = {template for template in templates if matches_template(steps, template)}
    assert found == (set(templates) if matching == "all" else matching)


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("the", 1),
        ("apple", 2),
        ("take", 1),
        ("takes", 1),
        ("boxes", 2),
        ("wanted", 2),
        ("played", 1),
        ("tree", 1),
        ("beautiful", 3),
        ("hmm", 1),
    ],
)
def test_syllables(word, count):
    assert count_syllables(word) == count


def test_the_grade_by_hand():
    # 9 words in 2 sentences, 10 syllables.
    figures = reading_ease("The cat has 3 apples. It eats two red ones.")
    assert figures["sentence_words"] == 4.5
    assert figures["grade"] == pytest.approx(0.39 * 4.5 + 11.8 * 10 / 9 - 15.59)
    assert reading_ease("3 + 4 = 7\n!") == {}


@given(st.lists(st.sampled_from(["cat", "banana", "run", "yesterday"]), min_size=1, max_size=30))
def test_shorter_sentences_are_easier(words):
    joined = reading_ease(" ".join(words) + ".")
    apart = reading_ease(". ".join(words) + ".")
    assert apart["sentence_words"] == 1
    assert apart["grade"] <= joined["grade"]


def test_the_figures_of_an_example():
    figures = measure(Example.model_validate(example()), "numbered")
    assert figures == pytest.approx(
        {
            "concrete_first": 1,
            "steps": 2,
            # "Take away 4 : 3x = 15 ." and "Share by 3 : x = 5 ."
            "step_tokens": 8,
            "operands": 5,
            "largest_operand": 19,
            # Three boxes and apples hold apples Solve
            "problem_words": 7,
            "template_match": 1,
        }
        | reading_ease(
            "Three boxes and 4 apples hold 19 apples. Solve 3x + 4 = 19.\n"
            "Take away 4: 3x = 15.\nShare by 3: x = 5."
        )
    )


def test_figures_that_do_not_exist_are_left_out():
    row = example(problem="?", solution={"steps": ["!"], "final_answer": "?", "verification": ""})
    figures = measure(Example.model_validate(row), "lines")
    assert not figures.keys() & {"largest_operand", "grade", "sentence_words"}
    assert mean_measures([figures, {"steps": 3.0, "grade": 2.0}])["grade"] == 2
    assert mean_measures([figures, {"steps": 3.0, "grade": 2.0}])["steps"] == 2
    assert mean_measures([]) == {}
