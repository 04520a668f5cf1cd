"""Dropping layers."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.errors import InputError
from ioa_jax.models.prune import drop_layers, evenly_spaced_layers, prune_model
from tests.tiny import tiny_decoder, tiny_model

TOKENS = jnp.array([[5, 9, 11, 70]])


@pytest.mark.parametrize(
    ("total", "count", "layers"),
    [
        (30, 30, tuple(range(30))),
        (30, 2, (0, 29)),
        (6, 3, (0, 3, 5)),
        (7, 3, (0, 3, 6)),
        (30, 6, (0, 6, 12, 17, 23, 29)),
        (1, 1, (0,)),
    ],
)
def test_which_layers_stay(total, count, layers):
    assert evenly_spaced_layers(total, count) == layers


def test_spacing_is_as_even_as_can_be():
    for total, count in itertools.product(range(2, 33), range(2, 33)):
        if count > total:
            continue
        layers = evenly_spaced_layers(total, count)
        gaps = np.diff(layers)
        assert (len(layers), layers[0], layers[-1]) == (count, 0, total - 1)
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("count", [0, 1, 7])
def test_impossible_numbers_of_layers(count):
    with pytest.raises(InputError, match=f"2 to 6 layers of 6.*not {count}"):
        evenly_spaced_layers(6, count)


def test_the_layers_left_compute_as_before():
    decoder = tiny_decoder()
    pruned = drop_layers(decoder, [0, 2])
    assert (pruned.config.num_layers, decoder.config.num_layers) == (2, 3)
    # By hand: run the loop over the two blocks.
    loop = decoder.unstacked()
    loop.blocks = type(loop.blocks)([loop.blocks[0], loop.blocks[2]])
    np.testing.assert_allclose(pruned.hidden(TOKENS), loop.hidden(TOKENS), atol=1e-5)
    assert np.abs(pruned.hidden(TOKENS) - decoder.hidden(TOKENS)).max() > 0.1


@pytest.mark.parametrize("keep", [[], [2, 0], [0, 0], [-1, 1], [0, 3]])
def test_layers_that_cannot_be_kept(keep):
    with pytest.raises(InputError, match="ascending numbers from 0 to 2"):
        drop_layers(tiny_decoder(), keep)


def test_a_pruned_model_is_another_model():
    model = tiny_model()
    pruned = prune_model(model, keep_count=2)
    assert pruned.spec == "tiny[layers 0,2]"
    assert pruned.fingerprint not in (model.fingerprint, prune_model(model, 1.0).fingerprint)
    assert pruned.fingerprint == prune_model(model, fraction=0.5).fingerprint
    with pytest.raises(InputError, match="either fraction or keep_count"):
        prune_model(model)
    with pytest.raises(InputError, match="fraction has to be"):
        prune_model(model, fraction=1.5)
