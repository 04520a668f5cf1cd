import json
import re

import pytest

from ioa_jax.errors import InputError
from ioa_jax.identifier.decompose import Proposal
from ioa_jax.identifier.rendering import (
    PACKS,
    render_module_choice,
    render_module_name,
    render_proposal,
)

SEEDS = ["Add 2 and 3.", "Is {{ x }} < 7 & even?"]


def text(messages) -> str:
    (message,) = messages
    assert message["role"] == "user"
    return message["content"]


@pytest.mark.parametrize("pack", PACKS)
def test_a_proposal_shows_every_seed_as_it_stands_and_an_example_that_parses(pack):
    prompt = text(render_proposal(pack, SEEDS))
    assert all(seed in prompt for seed in SEEDS)
    (example,) = re.findall(r"\{\"modules\".*\}", prompt)
    name = Proposal.model_validate_json(example).modules[0].id
    assert name == name.lower()
    assert len(json.loads(example)["modules"]) == 1


@pytest.mark.parametrize("pack", PACKS)
def test_the_prior_is_asked_without_a_seed(pack):
    with_seed = text(render_module_name(pack, " Add 2 and 3.\n"))
    without = text(render_module_name(pack, ""))
    assert "Add 2 and 3." in with_seed
    assert "Add" not in without
    assert without.splitlines()[-1] == with_seed.splitlines()[-1]


@pytest.mark.parametrize("pack", PACKS)
def test_a_choice_lists_the_modules(pack):
    prompt = text(render_module_choice(pack, SEEDS[0], ["m/a", "m/b"]))
    assert prompt.index("m/a") < prompt.index("m/b")
    assert SEEDS[0] in prompt


def test_micro_prompts_are_short():
    assert len(text(render_proposal("micro", ["x"]))) < 200
    assert len(text(render_module_name("micro", "x"))) < 60


def test_bad_input():
    with pytest.raises(InputError, match="no seeds"):
        render_proposal("micro", [])
    with pytest.raises(InputError, match="no modules"):
        render_module_choice("micro", "a", [])
    with pytest.raises(InputError, match="prompt pack 'big'"):
        render_module_name("big", "a")
