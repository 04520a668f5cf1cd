"""One optimiser step over packed rows: its losses, its gradient and its update."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float

from ioa_jax.engine import losses
from ioa_jax.engine.batching import Rows
from ioa_jax.engine.optimizer import StepSettings
from ioa_jax.engine.scoring import row_statistics
from ioa_jax.models.decoder import Decoder
from ioa_jax.models.lora import LoRA

# Sum over scored tokens, in nats, and their number.
LossSum = tuple[Float[Array, ""], Float[Array, ""]]


def loss_sum(decoder: Decoder, lora: LoRA | None, rows: Rows, remat: str) -> LossSum:
    """Negative log-likelihood summed over scored tokens, and their number."""
    statistics = row_statistics(decoder, rows, chunk=losses.CHUNK, lora=lora, remat=remat)
    weights = rows["weights"].astype(jnp.float32)
    return -jnp.sum(statistics.logprob * weights), jnp.sum(weights)


def retained_loss_sum(
    decoder: Decoder,
    lora: LoRA | None,
    before: Decoder,
    rows: Rows,
    settings: StepSettings,
) -> LossSum:
    """As `loss_sum`, with λ · KL(before ‖ now) on the tokens of retained examples.

    Args:
        decoder: As it is now.
        lora: Adapters, or None.
        before: The student before training; no gradient flows into it.
        rows: With `retained`, [R, N] float32: 1 at tokens of retained examples, which only the last
            `settings.retained_rows` rows may have.
        settings: λ, rows and what is computed again.
    """
    # Only the last rows meet the second model: its forward pass is the price of retention.
    last = min(settings.retained_rows, rows["tokens"].shape[0])
    first_rows = {name: x[: x.shape[0] - last] for name, x in rows.items()}
    last_rows = {name: x[x.shape[0] - last :] for name, x in rows.items()}
    total, count = jnp.float32(0), jnp.float32(0)
    if first_rows["tokens"].shape[0]:
        total, count = loss_sum(decoder, lora, first_rows, settings.remat)
    statistics = row_statistics(
        decoder,
        last_rows,
        chunk=losses.CHUNK,
        lora=lora,
        remat=settings.remat,
        reference=before,
    )
    assert statistics.forward_kl is not None
    weights = last_rows["weights"].astype(jnp.float32)
    kept = last_rows["retained"]
    divergence = settings.retention_weight * statistics.forward_kl * kept
    learnt = -statistics.logprob * (weights - kept)
    return total + jnp.sum(divergence + learnt), count + jnp.sum(weights)


@functools.partial(jax.jit, static_argnames=("settings",), donate_argnums=(0, 1))
def train_step(
    trainable: Any,
    optimizer_state: Any,
    frozen: Decoder | None,
    rows: Rows,
    learning_rate: Float[Array, ""],
    before: Decoder | None = None,
    *,
    settings: StepSettings,
) -> tuple[Any, Any, dict[str, Float[Array, ""]]]:
    """One optimiser step.

    `settings` stands beside six arguments that are traced: another value is another program.

    Args:
        trainable: The decoder, or a LoRA when `frozen` is given. Donated.
        optimizer_state: Donated.
        frozen: Base decoder of a LoRA run.
        rows: `PackedRows.device_arrays()` of the whole step, with `retained` where `before` is
            given.
        learning_rate: Of this step.
        before: The student before training, where examples are retained.
        settings: By name alone.

    Returns:
        New trainable, new optimiser state, and scalars `loss`, `grad_norm`, `scored_tokens`.
    """

    def objective(trainable: Any, part: Rows) -> LossSum:
        decoder, lora = (trainable, None) if frozen is None else (frozen, trainable)
        if before is None:
            return loss_sum(decoder, lora, part, settings.remat)
        return retained_loss_sum(decoder, lora, before, part, settings)

    gradient = jax.value_and_grad(objective, has_aux=True)
    if settings.accumulation == 1:
        (total, count), grads = gradient(trainable, rows)
    else:
        parts = jax.tree.map(lambda x: x.reshape(settings.accumulation, -1, *x.shape[1:]), rows)

        def add(carry: Any, part: Rows) -> tuple[Any, None]:
            (total, count), grads = gradient(trainable, part)
            return jax.tree.map(jnp.add, carry, (total, count, grads)), None

        # Summed in a scan, so that one part's activations exist at a time.
        start = (jnp.float32(0), jnp.float32(0), jax.tree.map(jnp.zeros_like, trainable))
        (total, count, grads), _ = jax.lax.scan(add, start, parts)
    # Divided once, by the whole step's tokens: a mean of the parts' means would weigh a token by
    # how full its part is.
    grads = jax.tree.map(lambda g: g / jnp.maximum(count, 1).astype(g.dtype), grads)
    updates, optimizer_state = settings.optimizer().update(grads, optimizer_state, trainable)
    return (
        jax.tree.map(lambda w, u: w - (learning_rate * u).astype(w.dtype), trainable, updates),
        optimizer_state,
        {
            "loss": total / jnp.maximum(count, 1),
            "grad_norm": optax.tree.norm(grads),
            "scored_tokens": count,
        },
    )
