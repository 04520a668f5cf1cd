"""One decoder for the Llama, Qwen2 and Qwen3 families.

Flax NNX modules used as plain pytrees: `jax.jit`, `jax.grad`, `jax.vmap` and optax take the module
itself. Blocks are stacked along a leading layer axis and scanned. Matrices keep Hugging Face's
[out, in] orientation, so that loading is a copy; projections that read the same input are fused
(query, key and value by key/value head; gate and up).

Shapes in this file: B batch, T tokens of a row, S cache slots, L layers, D hidden size, F MLP
width, K key/value heads, G query heads per key/value head, H head width, V vocabulary rows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Bool, Float, Float32, Int, PRNGKeyArray

from ioa_jax.errors import InputError
from ioa_jax.models.attention import MASKED, attention, cached_attention
from ioa_jax.models.config import DecoderConfig
from ioa_jax.models.lora import Adapter, LoRA
from ioa_jax.models.precision import Precision, linear

REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["block_input"],
        offload_src="device",
        offload_dst="pinned_host",
    ),
    "none": None,
}


class Block(nnx.Module):
    """One transformer block; with a leading layer axis on every array, a stack of them.

    Attributes:
        input_norm: Scale of the norm before attention.
        qkv: Per key/value head its G query heads, then key, then value.
        qkv_bias: Qwen2's.
        q_norm: Qwen3's, of each query head.
        k_norm: Qwen3's, of each key head.
        out: From attended values back to the residual stream.
        mlp_norm: Scale of the norm before the MLP.
        gate_up: The MLP's two projections of one input.
        down: From the MLP's width back to the residual stream.
    """

    input_norm: nnx.Param[Float[Array, "*L D"]]
    qkv: nnx.Param[Float[Array, "*L K G+2 H D"]]
    qkv_bias: nnx.Param[Float[Array, "*L K G+2 H"]] | None
    q_norm: nnx.Param[Float[Array, "*L H"]] | None
    k_norm: nnx.Param[Float[Array, "*L H"]] | None
    out: nnx.Param[Float[Array, "*L D K G H"]]
    mlp_norm: nnx.Param[Float[Array, "*L D"]]
    gate_up: nnx.Param[Float[Array, "*L 2 F D"]]
    down: nnx.Param[Float[Array, "*L D F"]]

    def __init__(self, config: DecoderConfig, key: PRNGKeyArray, dtype: Any = jnp.float32) -> None:
        """Random weights of the usual scale (normal, 0.02)."""
        k, g, h = config.num_kv_heads, config.queries_per_kv, config.head_dim
        d, f = config.hidden_size, config.intermediate_size
        keys = jax.random.split(key, 4)

        def matrix(key: PRNGKeyArray, *shape: int) -> nnx.Param[Float[Array, "*shape"]]:
            return nnx.Param(0.02 * jax.random.normal(key, shape, dtype))

        def constant(value: float, *shape: int) -> nnx.Param[Float[Array, "*shape"]]:
            return nnx.Param(jnp.full(shape, value, dtype))

        self.input_norm = constant(1.0, d)
        self.qkv = matrix(keys[0], k, g + 2, h, d)
        self.qkv_bias = constant(0.0, k, g + 2, h) if config.qkv_bias else None
        self.q_norm = constant(1.0, h) if config.qk_norm else None
        self.k_norm = constant(1.0, h) if config.qk_norm else None
        self.out = matrix(keys[1], d, k, g, h)
        self.mlp_norm = constant(1.0, d)
        self.gate_up = matrix(keys[2], 2, f, d)
        self.down = matrix(keys[3], d, f)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer; slot s of a row holds the token at position s.

    Attributes:
        keys: All layers' in one array, or one a layer for an unstacked decoder. Slots last: the
            product with a query then runs along contiguous memory.
        values: Likewise.
    """

    keys: Float[Array, "L B K H S"] | tuple[Float[Array, "B K H S"], ...]
    values: Float[Array, "L B K S H"] | tuple[Float[Array, "B K S H"], ...]

    @property
    def num_slots(self) -> int:
        """S, the longest text that fits."""
        keys = self.keys[0] if isinstance(self.keys, tuple) else self.keys
        return keys.shape[-1]


Queries = Float[Array, "B T K G H"]
Keys = Float[Array, "B T K H"]
# (query, key, value, layer state) -> (attended, new layer state)
Attend = Callable[[Queries, Keys, Keys, Any], tuple[Queries, Any]]
# Cosines and sines.
Rope = tuple[Float32[Array, "B T half"], Float32[Array, "B T half"]]


class Decoder(nnx.Module):
    """A causal language model.

    `hidden()` is apart from `head_weight()`, so that losses and scoring never need [B, T, V].

    Attributes:
        embedding: Row v stands for token v.
        blocks: Stacked `Block` (scanned), or a list of them (looped; see `unstacked`).
        final_norm: Scale of the last norm.
        head: Row v scores token v; None when tied to the embedding.
        config: Architecture.
        precision: Dtypes of the arithmetic.
    """

    embedding: nnx.Param[Float[Array, "V D"]]
    final_norm: nnx.Param[Float[Array, " D"]]
    head: nnx.Param[Float[Array, "V D"]] | None

    def __init__(
        self,
        config: DecoderConfig,
        key: PRNGKeyArray,
        precision: Precision | None = None,
        dtype: Any = jnp.float32,
    ) -> None:
        """Random weights.

        Args:
            config: Architecture.
            key: PRNG key.
            precision: Default float32.
            dtype: Dtype of the stored weights.
        """
        # One key a part, so that a tied head changes no other weight.
        embed_key, head_key, block_key = jax.random.split(key, 3)
        shape = (config.vocab_size, config.hidden_size)
        self.config = config
        self.precision = precision or Precision.named("float32")
        self.embedding = nnx.Param(0.02 * jax.random.normal(embed_key, shape, dtype))
        self.blocks: Any = nnx.data(
            jax.vmap(lambda key: Block(config, key, dtype))(
                jax.random.split(block_key, config.num_layers)
            )
        )
        self.final_norm = nnx.Param(jnp.ones((config.hidden_size,), dtype))
        self.head = (
            None
            if config.tie_embeddings
            else nnx.Param(0.02 * jax.random.normal(head_key, shape, dtype))
        )

    # -- variants of the same weights ------------------------------------------------------------

    def astype(self, dtype: Any) -> Decoder:
        """Every weight stored as `dtype`."""
        return jax.tree.map(lambda x: x.astype(dtype), self)

    @property
    def is_stacked(self) -> bool:
        """Whether blocks have a layer axis and are scanned."""
        return isinstance(self.blocks, Block)

    def unstacked(self) -> Decoder:
        """One `Block` a layer, run by a Python loop.

        On CPU a scan copies each layer's slice of the stacked weights before every product; when a
        decoding step has few rows, that copy costs as much as the product. Compiles more slowly.
        """
        other = jax.tree.map(lambda x: x, self)
        other.blocks = nnx.data(
            [jax.tree.map(lambda x, i=i: x[i], self.blocks) for i in range(self.config.num_layers)]
        )
        return other

    # -- forward ---------------------------------------------------------------------------------

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"] | None = None,
        mask: Bool[Array, "B T T"] | None = None,
        *,
        lora: LoRA | None = None,
        remat: str = "none",
    ) -> Float[Array, "B T D"]:
        """Final hidden states (after the last norm) of whole rows.

        Args:
            tokens: int32.
            positions: Rotary positions; default 0..T-1 in every row.
            mask: True where query t (second axis) may see key s (third axis); default causal.
                Packed rows pass `engine.batching.packed_mask`.
            lora: Adapters to apply.
            remat: What the backward pass keeps: `none` (everything), `dots`, `full` (only each
                block's input) or `offload` (that input, on the host).

        Raises:
            InputError: Unknown `remat`.
        """
        if remat not in REMAT_POLICIES:
            raise InputError(f"remat={remat!r} is unknown; choose from {sorted(REMAT_POLICIES)}")
        length = tokens.shape[1]
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(length)[None], tokens.shape)
        if mask is None:
            mask = jnp.broadcast_to(
                jnp.tril(jnp.ones((length, length), bool))[None], (*tokens.shape, length)
            )

        def attend(q: Queries, k: Keys, v: Keys, state: None) -> tuple[Queries, None]:
            return attention(q, k, v, mask, self.precision), None

        x, _ = self._run_blocks(tokens, positions, attend, None, lora, remat)
        return x

    def hidden_cached(
        self,
        tokens: Int[Array, "B T"],
        start: Int[Array, " B"],
        cache: KVCache,
        *,
        lora: LoRA | None = None,
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Hidden states of T new tokens a row that continue what the cache holds.

        Row b's tokens stand at positions `start[b] … start[b] + T - 1`; their keys and values
        are written there and each sees slots up to its own position. Whatever lies beyond is
        ignored, so right padding needs no mask: the next call overwrites it.

        Args:
            tokens: int32.
            start: int32.
            cache: Donate it when jitting; the result reuses its memory.
            lora: Adapters to apply.

        Returns:
            Hidden states after the last norm, and the updated cache.
        """
        # Slots are positions, so that a mask of slots is a comparison with the query's position.
        batch, length = tokens.shape
        positions = start[:, None] + jnp.arange(length)[None]
        mask = jnp.arange(cache.num_slots)[None, None] <= positions[:, :, None]
        rows = jnp.arange(batch)[:, None]

        def write(
            buffer: Float[Array, "*slots"], new: Float[Array, "*new"], index: tuple[Any, ...]
        ) -> Float[Array, "*slots"]:
            return buffer.at[index].set(new.astype(buffer.dtype), mode="drop", unique_indices=True)

        def attend(q: Queries, k: Keys, v: Keys, state: Any) -> tuple[Queries, Any]:
            if self.is_stacked:
                (keys, values), layer = state
                at: tuple[Any, ...] = (layer,)
            else:
                (keys, values), layer, at = state, None, ()
            keys = write(keys, k, (*at, rows, slice(None), slice(None), positions))
            values = write(values, v, (*at, rows, slice(None), positions))
            out = cached_attention(
                q,
                keys[layer] if at else keys,
                values[layer] if at else values,
                mask,
                self.precision,
            )
            return out, ((keys, values), layer) if at else (keys, values)

        x, (keys, values) = self._run_blocks(
            tokens, positions, attend, (cache.keys, cache.values), lora, "none"
        )
        return x, KVCache(keys, values)

    def init_cache(self, batch: int, num_slots: int) -> KVCache:
        """An empty cache in the activation dtype."""
        c = self.config
        dtype = self.precision.activation
        keys = (batch, c.num_kv_heads, c.head_dim, num_slots)
        values = (batch, c.num_kv_heads, num_slots, c.head_dim)
        if self.is_stacked:
            return KVCache(
                jnp.zeros((c.num_layers, *keys), dtype), jnp.zeros((c.num_layers, *values), dtype)
            )
        return KVCache(
            tuple(jnp.zeros(keys, dtype) for _ in range(c.num_layers)),
            tuple(jnp.zeros(values, dtype) for _ in range(c.num_layers)),
        )

    def head_weight(self) -> Float[Array, "V D"]:
        """Output projection; row v scores token v."""
        return (self.embedding if self.head is None else self.head)[...]

    def logits(self, hidden: Float[Array, "*N D"]) -> Float32[Array, "*N V"]:
        """Logits; rows of a padded vocabulary that are no tokens get -1e30."""
        logits = linear(hidden, self.head_weight(), self.precision)
        return mask_padded_vocab(logits, self.config.num_tokens)

    # -- inside ----------------------------------------------------------------------------------

    def _run_blocks(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        attend: Attend,
        state: Any,
        lora: LoRA | None,
        remat: str,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Embed, run every block, norm. `state` is threaded through `attend`.

        For stacked blocks `state` (None, or a stacked cache) is the scan's carry, so that its
        buffers are updated in place; for a list of blocks it is one tuple of per-layer arrays.
        """
        x = _embed(self.embedding[...], tokens, self.precision)
        # Once for all layers: angles depend on positions alone.
        rope = rotary_tables(self.config, positions)
        layers = {} if lora is None else lora.layers

        def run(
            x: Float[Array, "B T D"], block: Block, adapters: dict[str, Adapter], layer_state: Any
        ) -> tuple[Float[Array, "B T D"], Any]:
            x = checkpoint_name(x, "block_input")
            return self._block(x, block, adapters, rope, attend, layer_state)

        if self.is_stacked:
            index = jnp.arange(self.config.num_layers)

            def body(
                carry: tuple[Float[Array, "B T D"], Any], xs: Any
            ) -> tuple[tuple[Float[Array, "B T D"], Any], None]:
                x, state = carry
                block, adapters, layer = xs
                if state is None:
                    x, _ = run(x, block, adapters, None)
                    return (x, None), None
                x, (state, _) = run(x, block, adapters, (state, layer))
                return (x, state), None

            # In a scan, XLA can't undo the checkpoint by merging common subexpressions.
            if remat != "none":
                body = jax.checkpoint(body, policy=REMAT_POLICIES[remat], prevent_cse=False)
            (x, state), _ = jax.lax.scan(body, (x, state), (self.blocks, layers, index))
        else:
            step = run
            if remat != "none":
                step = jax.checkpoint(run, policy=REMAT_POLICIES[remat])
            # Or XLA fuses sines and cosines into every layer's rotation.
            rope = jax.lax.optimization_barrier(rope)
            new_keys, new_values = [], []
            for i, block in enumerate(self.blocks):
                adapters = jax.tree.map(lambda a, i=i: a[i], layers)
                layer_state = None if state is None else (state[0][i], state[1][i])
                x, layer_state = step(x, block, adapters, layer_state)
                if layer_state is not None:
                    new_keys.append(layer_state[0])
                    new_values.append(layer_state[1])
            if state is not None:
                state = (tuple(new_keys), tuple(new_values))
        return rms_norm(x, self.final_norm[...], self.config.rms_norm_eps), state

    def _block(
        self,
        x: Float[Array, "B T D"],
        block: Block,
        adapters: dict[str, Adapter],
        rope: Rope,
        attend: Attend,
        state: Any,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Attention and MLP, each behind a norm and added to the residual stream `x`."""
        config, precision = self.config, self.precision
        g = config.queries_per_kv
        activation = precision.activation

        def adapted(
            name: str, y: Float32[Array, "B T *O"], x: Float[Array, "B T I"]
        ) -> Float32[Array, "B T *O"]:
            """A projection `y` of `x`, with its adapter if it has one."""
            return y + adapters[name].delta(x, precision) if name in adapters else y

        h = rms_norm(x, block.input_norm[...], config.rms_norm_eps)
        qkv = linear(h, block.qkv[...], precision)
        if block.qkv_bias is not None:
            qkv = qkv + block.qkv_bias[...].astype(jnp.float32)[None, None]
        q, k, v = qkv[..., :g, :], qkv[..., g, :], qkv[..., g + 1, :]
        q, k, v = adapted("q", q, h), adapted("k", k, h), adapted("v", v, h)
        if block.q_norm is not None and block.k_norm is not None:
            q = rms_norm(q, block.q_norm[...], config.rms_norm_eps)
            k = rms_norm(k, block.k_norm[...], config.rms_norm_eps)
        q, k = rotate(q, rope), rotate(k, rope)
        attended, state = attend(q, k, v, state)
        attended = attended.reshape(*x.shape[:2], -1)
        out = block.out[...].reshape(config.hidden_size, -1)
        x = x + adapted("o", linear(attended, out, precision), attended).astype(activation)

        h = rms_norm(x, block.mlp_norm[...], config.rms_norm_eps)
        gate_up = linear(h, block.gate_up[...], precision)
        gate, up = gate_up[..., 0, :], gate_up[..., 1, :]
        gate, up = adapted("gate", gate, h), adapted("up", up, h)
        h = jax.nn.silu(gate) * up
        down = adapted("down", linear(h, block.down[...], precision), h)
        return x + down.astype(activation), state


def _embed(
    embedding: Float[Array, "V D"], tokens: Int[Array, "B T"], precision: Precision
) -> Float[Array, "B T D"]:
    """Rows of the embedding in the activation dtype."""
    if precision.on_cpu and embedding.dtype == jnp.bfloat16:
        # XLA's CPU backend would convert the whole table to float32 to gather bf16 from it. Without
        # the barrier, it would copy the table before a loop over tokens, decoding's for one.
        embedding, tokens = jax.lax.optimization_barrier((embedding, tokens))
        bits = jax.lax.bitcast_convert_type(embedding, jnp.uint16)[tokens]
        return jax.lax.bitcast_convert_type(bits, jnp.bfloat16).astype(precision.activation)
    return embedding[tokens].astype(precision.activation)


def rms_norm(
    x: Float[Array, "*N D"], scale: Float[Array, " D"], eps: float
) -> Float[Array, "*N D"]:
    """RMSNorm in float32, returned in x's dtype."""
    # A mean of squares in bf16 would be off in the third digit.
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + eps)
    scale = scale.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
    return (y * scale).astype(x.dtype)


def rotary_frequencies(config: DecoderConfig) -> Float[Array, " half"]:
    """Angular frequencies in radians per position, after scaling."""
    exponents = jnp.arange(0, config.head_dim, 2, dtype=jnp.float32) / config.head_dim
    frequencies = 1.0 / (config.rope_theta**exponents)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    # Positions in a full turn. Rotations that turn often within the old context tell near tokens
    # apart and stay; slow ones, which it never completed, are stretched.
    wavelengths = 2 * jnp.pi / frequencies
    smooth = (scaling.original_max_position / wavelengths - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    smooth = jnp.clip(smooth, 0.0, 1.0)
    return smooth * frequencies + (1 - smooth) * frequencies / scaling.factor


def rotary_tables(config: DecoderConfig, positions: Int[Array, "B T"]) -> Rope:
    """Cosines and sines of every angle."""
    angles = positions[..., None].astype(jnp.float32) * rotary_frequencies(config)[None, None]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float32[Array, "B T *heads H"], rope: Rope) -> Float32[Array, "B T *heads H"]:
    """Rotary embedding on the halves (Hugging Face's order), in float32."""
    batch, length = x.shape[:2]
    shape = (batch, length, *(1,) * (x.ndim - 3), x.shape[-1] // 2)
    cos, sin = rope[0].reshape(shape), rope[1].reshape(shape)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def mask_padded_vocab(logits: Float32[Array, "*N V"], num_tokens: int) -> Float32[Array, "*N V"]:
    """Set the rows of a padded vocabulary that stand for no token to -1e30."""
    # Nothing to mask: spares a pass over the logits.
    if logits.shape[-1] == num_tokens:
        return logits
    real = (jnp.arange(logits.shape[-1]) < num_tokens).reshape((1,) * (logits.ndim - 1) + (-1,))
    return jnp.where(real, logits, MASKED)


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def init_decoder(
    config: DecoderConfig, key: PRNGKeyArray, precision: Precision, dtype: Any
) -> Decoder:
    """Random decoder, compiled as one program."""
    return Decoder(config, key, precision, dtype)
