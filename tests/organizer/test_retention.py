import re

import numpy as np
import pytest

from ioa_jax.errors import InputError
from ioa_jax.organizer.retention import (
    ForgettingMatrix,
    Retained,
    RetainedExample,
    prompt_variants,
)


def test_forgetting_is_the_fall_from_the_best():
    matrix = ForgettingMatrix(("a", "b", "c", "d"))
    matrix = matrix.with_stage(0, {"a": 0.2, "b": 0.5, "d": 0.1})
    matrix = matrix.with_stage(1, {"a": 0.9, "b": 0.6, "c": 0.4})
    matrix = matrix.with_stage(3, {"a": 0.7, "b": 0.8})
    assert matrix.stages == (0, 1, 3)
    assert matrix.ratios[2] == (0.7, 0.8, None, None)
    # b is at its best, c and d were measured once.
    assert matrix.forgetting() == {"a": pytest.approx(0.2), "b": pytest.approx(-0.2)}


def test_the_best_may_be_long_ago():
    matrix = ForgettingMatrix(("a",))
    for stage, ratio in enumerate((0.3, 0.9, 0.5, 0.6)):
        matrix = matrix.with_stage(stage, {"a": ratio})
    assert matrix.forgetting() == {"a": pytest.approx(0.3)}


def test_a_matrix_is_read_back_as_written():
    matrix = ForgettingMatrix(("a", "b")).with_stage(0, {"a": 0.2}).with_stage(1, {"b": 0.2})
    assert ForgettingMatrix.from_json(matrix.to_json(), "forgetting.json") == matrix
    retained = Retained(("a",), (RetainedExample("a", "How many?", "3", True),), 2)
    assert Retained.from_json(retained.to_json(), "retained.json") == retained


def test_rows_come_in_order_and_fit():
    matrix = ForgettingMatrix(("a",)).with_stage(1, {"a": 0.2})
    with pytest.raises(InputError, match="stage 1 after stage 1"):
        matrix.with_stage(1, {})
    with pytest.raises(InputError, match=r"\['z'\]"):
        matrix.with_stage(2, {"z": 0.1})
    with pytest.raises(InputError, match="stage 1 has 2 values"):
        ForgettingMatrix(("a",), (1,), ((0.1, 0.2),))


PROMPTS = (
    "What is 3 plus 14?",
    "What is 20 plus 7?",
    "What is 5 minus 1?",
    "How many eggs are in 4 boxes of 12?",
)


def test_variants_have_the_form_of_their_prompts_and_other_numbers():
    variants = prompt_variants(PROMPTS, 20, np.random.default_rng(0))
    assert 40 < len(variants) == len(set(variants)) <= 80
    assert not set(variants) & set(PROMPTS)
    forms = {re.sub(r"\d+", "N", text) for text in variants}
    assert forms == {
        "What is N plus N?",
        "What is N minus N?",
        "How many eggs are in N boxes of N?",
    }
    # As many digits as before, so that problems stay as large as they were.
    sizes = {len(number) for text in variants for number in re.findall(r"\d+", text)}
    assert sizes == {1, 2}
    # Words of one prompt occur in others of as many words.
    assert any(re.fullmatch(r"What is \d\d minus \d+\?", text) for text in variants)


def test_variants_depend_on_the_draws_alone():
    first, again, other = (
        prompt_variants(PROMPTS, 3, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert prompt_variants(PROMPTS, 0, np.random.default_rng(0)) == []
    # Without numbers and without another prompt there is nothing to change.
    assert prompt_variants(["Name a colour."], 5, np.random.default_rng(0)) == []


def test_numbers_that_are_names_stay():
    (variant,) = prompt_variants(
        ["Call 007 at 12345678901234567 now 5"], 1, np.random.default_rng(3)
    )
    assert variant.startswith("Call 007 at 12345678901234567 now ")
