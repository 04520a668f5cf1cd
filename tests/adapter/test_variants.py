import re

import numpy as np

from ioa_jax.adapter.variants import prompt_variants

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
