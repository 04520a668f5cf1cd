"""Low-rank adapters over the stacked decoder (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Float32, PRNGKeyArray

from ioa_jax.errors import InputError
from ioa_jax.models.config import DecoderConfig
from ioa_jax.models.precision import Precision, einsum, linear

if TYPE_CHECKING:
    from ioa_jax.models.decoder import Decoder

# Our names of the projections that can carry an adapter, and the names of PEFT and Hugging Face.
PROJECTIONS: dict[str, str] = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Adapter:
    """One projection's adapter; `x -> scale * B (A x)`, with a leading layer axis when stacked.

    Attributes:
        a: Down to the rank; drawn at random.
        b: Up from the rank; zero at first, so that nothing changes.
        scale: alpha / r.
    """

    # Any: what a tree transformation puts in an array's place, such as a mask or a sharding.
    a: Float[Array, "*L r I"] | Any
    b: Float[Array, "*L_and_O r"] | Any
    scale: float = dataclasses.field(metadata={"static": True})

    def delta(self, x: Float[Array, "*N I"], precision: Precision) -> Float32[Array, "*N_and_O"]:
        """What the adapter adds to the projection of x."""
        return self.scale * linear(linear(x, self.a, precision), self.b, precision)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LoRA:
    """Adapters of a whole decoder; a pytree whose leaves are all trainable.

    Attributes:
        layers: Projection name (`q`, `k`, `v`, `o`, `gate`, `up`, `down`) to its stacked adapter.
    """

    layers: dict[str, Adapter]

    @property
    def rank(self) -> int:
        """r."""
        return next(iter(self.layers.values())).a.shape[-2]

    @property
    def alpha(self) -> float:
        """Numerator of the scale."""
        return next(iter(self.layers.values())).scale * self.rank


def projection_shapes(config: DecoderConfig) -> dict[str, tuple[tuple[int, ...], int]]:
    """Projection name to (output axes, input width), in the decoder's layout."""
    k, g, h = config.num_kv_heads, config.queries_per_kv, config.head_dim
    d, f = config.hidden_size, config.intermediate_size
    return {
        "q": ((k, g, h), d),
        "k": ((k, h), d),
        "v": ((k, h), d),
        "o": ((d,), k * g * h),
        "gate": ((f,), d),
        "up": ((f,), d),
        "down": ((d,), f),
    }


def init_lora(
    config: DecoderConfig,
    key: PRNGKeyArray,
    rank: int = 16,
    alpha: float = 32.0,
    targets: str = "q|k|v|o",
) -> LoRA:
    """Fresh adapters that change nothing yet: A normal with variance 1/in, B zero.

    Args:
        config: The decoder's architecture.
        key: Each projection draws from a key of its own.
        rank: r.
        alpha: Scale times r.
        targets: Regular expression that a projection's name (ours, or Hugging Face's such as
            `q_proj`) has to match in full.

    Raises:
        InputError: No projection matches, or the rank isn't positive.
    """
    if rank < 1:
        raise InputError(f"lora rank must be at least 1, not {rank}")
    layers: dict[str, Adapter] = {}
    for i, (name, (out, width)) in enumerate(projection_shapes(config).items()):
        hf_name = PROJECTIONS[name].split(".")[-1]
        if not (re.fullmatch(targets, name) or re.fullmatch(targets, hf_name)):
            continue
        # By the projection's number: other targets change no adapter that both choices have.
        a = jax.random.normal(jax.random.fold_in(key, i), (config.num_layers, rank, width))
        layers[name] = Adapter(
            a * width**-0.5, jnp.zeros((config.num_layers, *out, rank)), alpha / rank
        )
    if not layers:
        raise InputError(
            f"lora targets {targets!r} match no projection; projections: {', '.join(PROJECTIONS)}"
        )
    return LoRA(layers)


def merge_lora(decoder: Decoder, lora: LoRA) -> Decoder:
    """The decoder with `W + scale * B A` in place of each adapted matrix W.

    The sum is taken in float32 and stored in the dtype of W.
    """
    if not decoder.is_stacked:
        raise InputError("merge into the stacked decoder, before unstacked()")
    merged = jax.tree.map(lambda x: x, decoder)  # a new tree of the same arrays
    # Of the fused axis of query, key and value, the first g places are queries'.
    g = decoder.config.queries_per_kv
    for name, adapter in lora.layers.items():
        flat = adapter.b.reshape(adapter.b.shape[0], -1, adapter.b.shape[-1])
        product = (
            einsum("lor,lri->loi", flat, adapter.a, Precision.named("float32")) * adapter.scale
        )
        product = product.reshape(*adapter.b.shape[:-1], adapter.a.shape[-1])

        def add(
            weight: Float[Array, "*W"], delta: Float32[Array, "*W"] = product
        ) -> Float[Array, "*W"]:
            return (weight.astype(jnp.float32) + delta).astype(weight.dtype)

        blocks = merged.blocks
        # Projections of one input are fused: each has its place in the array.
        if name in ("q", "k", "v"):
            index = {"q": slice(0, g), "k": g, "v": g + 1}[name]
            qkv = blocks.qkv[...]
            blocks.qkv[...] = qkv.at[:, :, index].set(add(qkv[:, :, index]))
        elif name in ("gate", "up"):
            index = ("gate", "up").index(name)
            gate_up = blocks.gate_up[...]
            blocks.gate_up[...] = gate_up.at[:, index].set(add(gate_up[:, index]))
        elif name == "o":
            out = blocks.out[...]
            blocks.out[...] = add(out, product.reshape(out.shape))
        else:
            blocks.down[...] = add(blocks.down[...])
    return merged
