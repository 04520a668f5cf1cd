"""Shallower students: a decoder without some of its layers."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ioa_jax.errors import InputError
from ioa_jax.models.decoder import Decoder
from ioa_jax.models.load import LanguageModel


def drop_layers(decoder: Decoder, keep: Sequence[int]) -> Decoder:
    """The decoder with only the layers in `keep`, in their order.

    Args:
        decoder: Stacked.
        keep: Numbers of layers, from 0, ascending.

    Raises:
        InputError: `keep` is empty, not ascending, or names a layer that doesn't exist; or the
            decoder is unstacked.
    """
    if not decoder.is_stacked:
        raise InputError("drop layers of the stacked decoder, before unstacked()")
    total = decoder.config.num_layers
    kept = tuple(keep)
    if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= total:
        raise InputError(
            f"layers to keep have to be ascending numbers from 0 to {total - 1}, not {list(kept)}"
        )
    index = jnp.asarray(kept)
    other = jax.tree.map(lambda x: x, decoder)
    other.blocks = jax.tree.map(lambda x: jnp.take(x, index, axis=0), decoder.blocks)
    other.config = dataclasses.replace(decoder.config, num_layers=len(kept))
    return other


def evenly_spaced_layers(num_layers: int, keep_count: int) -> tuple[int, ...]:
    """Which layers to keep: `keep_count` of them, as evenly spaced as whole numbers allow.

    Layer i of the new model is layer `i * (num_layers - 1) / (keep_count - 1)` of the old one,
    rounded (halves up). The first and the last are always kept: they do the most to and from the
    embedding space.

    Raises:
        InputError: `keep_count` is under 2 (1 for a model of one layer) or above `num_layers`.
    """
    if num_layers == keep_count == 1:
        return (0,)
    if not 2 <= keep_count <= num_layers:
        raise InputError(
            f"can keep 2 to {num_layers} layers of {num_layers} (the first and the last always "
            f"stay), not {keep_count}"
        )
    steps = keep_count - 1
    # In whole numbers: a half in floating point rounds either way.
    return tuple((2 * i * (num_layers - 1) + steps) // (2 * steps) for i in range(keep_count))


def prune_model(
    model: LanguageModel, fraction: float | None = None, keep_count: int | None = None
) -> LanguageModel:
    """The model with evenly spaced layers.

    Args:
        model: Stays as it is.
        fraction: Share of the layers to keep, in (0, 1]; the number is rounded, to no less than 2.
        keep_count: Number of layers to keep, instead.

    Returns:
        The shallower model. Its spec names the layers, and its fingerprint follows from the
        original's and the layers.

    Raises:
        InputError: Both or neither of `fraction` and `keep_count`, or one out of range.
    """
    total = model.decoder.config.num_layers
    if (fraction is None) == (keep_count is None):
        raise InputError("give either fraction or keep_count")
    if fraction is not None:
        if not 0 < fraction <= 1:
            raise InputError(f"fraction has to be above 0 and at most 1, not {fraction}")
        keep_count = min(total, max(2, round(fraction * total)))
    assert keep_count is not None
    keep = evenly_spaced_layers(total, keep_count)
    layers = ",".join(map(str, keep))
    return dataclasses.replace(
        model,
        decoder=drop_layers(model.decoder, keep),
        spec=f"{model.spec}[layers {layers}]",
        fingerprint=hashlib.sha256(f"{model.fingerprint} layers {layers}".encode()).hexdigest(),
    )
