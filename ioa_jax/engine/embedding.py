"""Texts as vectors: mean hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float32, Int

from ioa_jax.engine.batching import power_of_two, row_bucket
from ioa_jax.errors import InputError
from ioa_jax.models.decoder import Decoder
from ioa_jax.models.load import LanguageModel

TOKENS_PER_BATCH = 4096


def embed_texts(model: LanguageModel, texts: Sequence[str]) -> Float32[np.ndarray, "texts D"]:
    """Mean of the last layer's hidden states (after the last norm) over each text's tokens.

    Args:
        model: The model.
        texts: Tokenised as they stand.

    Returns:
        A vector a text, in input order.

    Raises:
        InputError: A text has no tokens, or more than the model's context.
    """
    encoded = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    context = model.decoder.config.max_position
    for i, tokens in enumerate(encoded):
        if not 1 <= len(tokens) <= context:
            raise InputError(f"text {i} has {len(tokens)} tokens; from 1 to {context} can be read")
    vectors = np.zeros((len(texts), model.decoder.config.hidden_size), np.float32)
    by_length: dict[int, list[int]] = {}
    for i, tokens in enumerate(encoded):
        by_length.setdefault(min(row_bucket(len(tokens)), context), []).append(i)
    for length, members in sorted(by_length.items()):
        per_batch = max(1, TOKENS_PER_BATCH // length)
        for start in range(0, len(members), per_batch):
            chosen = members[start : start + per_batch]
            # Of few numbers of rows, since each is a program.
            rows = np.zeros((power_of_two(len(chosen)), length), np.int32)
            lengths = np.ones(len(rows), np.int32)  # of rows without a text: nothing divides by 0
            for row, i in enumerate(chosen):
                rows[row, : len(encoded[i])] = encoded[i]
                lengths[row] = len(encoded[i])
            means = _mean_hidden(model.decoder, jnp.asarray(rows), jnp.asarray(lengths))
            vectors[chosen] = np.asarray(means)[: len(chosen)]
    return vectors


@jax.jit
def _mean_hidden(
    decoder: Decoder, tokens: Int[Array, "B T"], lengths: Int[Array, " B"]
) -> Float32[Array, "B D"]:
    # Padding comes last, where no real token sees it under the causal mask.
    hidden = decoder.hidden(tokens).astype(jnp.float32)
    real = jnp.arange(tokens.shape[1])[None] < lengths[:, None]
    totals = jnp.sum(hidden * real[..., None].astype(jnp.float32), axis=1)
    return totals / lengths[:, None].astype(jnp.float32)
