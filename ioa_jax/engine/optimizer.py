"""The optimiser: AdamW behind a clipped gradient, without its learning rate."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import optax


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What a compiled step depends on; runs that agree in it share one program.

    Attributes:
        accumulation: Parts of a step.
        weight_decay: AdamW's.
        beta1: AdamW's.
        beta2: AdamW's.
        clip: Largest global gradient norm.
        remat: See `Decoder.hidden`.
        retained_rows: Of each part, the last rows that may have retained examples; all of its rows
            where it has no more.
        retention_weight: λ.
    """

    accumulation: int
    weight_decay: float
    beta1: float
    beta2: float
    clip: float
    remat: str
    retained_rows: int = 0
    retention_weight: float = 0.0

    def optimizer(self) -> optax.GradientTransformation:
        """Clipping, then AdamW without its learning rate, which the step multiplies in.

        The rate changes with each step; as part of the chain it would be part of the program.
        """
        chain = optax.chain(
            optax.clip_by_global_norm(self.clip),
            optax.scale_by_adam(self.beta1, self.beta2),
            optax.add_decayed_weights(self.weight_decay, mask=_decayed),
        )

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            # optax mixes Python floats with int32 counters, which strict promotion refuses.
            with jax.numpy_dtype_promotion("standard"):
                return chain.update(updates, state, params)

        return optax.GradientTransformation(chain.init, update)


def _decayed(tree: Any) -> Any:
    """True for matrices, False for norms and biases."""
    # By name and not by rank: stacked over layers, a norm's scale is a matrix too.
    return jax.tree_util.tree_map_with_path(
        lambda path, _: (
            "norm" not in jax.tree_util.keystr(path) and "bias" not in jax.tree_util.keystr(path)
        ),
        tree,
    )


@functools.partial(jax.jit, static_argnames=("settings",))
def init_optimizer(trainable: Any, *, settings: StepSettings) -> Any:
    """State before the first step: moments of every array of `trainable`, at zero."""
    return settings.optimizer().init(trainable)
