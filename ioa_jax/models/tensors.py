"""The one mapping between Hugging Face's tensors and the decoder's stacked, fused arrays.

Hugging Face keeps one [out, in] matrix a projection and layer; the decoder stacks layers and fuses
projections that read the same input. `weights` declares how the two relate for every family.
Readers (safetensors, GGUF) and the export derive names, shapes and slices from it alone.

L layers, D hidden size, F MLP width, K key/value heads, G query heads per key/value head, H head
width, V vocabulary rows.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float, Int
from safetensors.numpy import save_file

from ioa_jax.errors import InputError, ModelFormatError
from ioa_jax.models.config import DecoderConfig
from ioa_jax.models.decoder import Decoder
from ioa_jax.models.precision import Precision

# (name of a Hugging Face tensor, one slice for each of its axes) -> those elements
ReadTensor = Callable[[str, tuple[slice, ...]], Float[np.ndarray, "*hf"]]
Bounds = tuple[tuple[int, int], ...]

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
FLOAT_DTYPES = ("F32", "F16", "BF16")  # of safetensors, as far as they are read
# Buffers that old checkpoints carry although they follow from the configuration.
NON_WEIGHTS = re.compile(r".*rotary_emb\.inv_freq")


@dataclasses.dataclass(frozen=True)
class Part:
    """A Hugging Face tensor, as it sits in one of the decoder's arrays.

    Attributes:
        name: Its name, with `{layer}` where the layer's number goes.
        shape: The axes that it fills in the decoder's array, without the layer axis.
        columns: How many trailing axes of `shape` make up the matrix's input axis; the others make
            up its output axis. 0: the tensor is a vector.
        start: Where it starts on the array's fused axis.
    """

    name: str
    shape: tuple[int, ...]
    columns: int = 0
    start: int = 0

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Axes of the decoder's array behind each axis of the tensor."""
        axes = tuple(range(len(self.shape)))
        if not self.columns:
            return (axes,)
        return axes[: -self.columns], axes[-self.columns :]

    @property
    def hf_shape(self) -> tuple[int, ...]:
        """Shape of the Hugging Face tensor."""
        return tuple(math.prod(self.shape[axis] for axis in group) for group in self.groups)

    def read(self, bounds: Bounds, layer: int, read: ReadTensor) -> Float[np.ndarray, "*axes"]:
        """Elements of the tensor in the decoder's layout.

        Args:
            bounds: Start and stop on each axis of `shape`.
            layer: Number of the layer.
            read: Reads the tensor by slices.
        """
        slices: list[slice] = []
        shape: list[int] = []
        rest: list[slice] = []
        for group in self.groups:
            # A run of rows (or columns) is contiguous in the outermost axis of several that are
            # merged; the ones within it are read whole and cut afterwards.
            outer = next((axis for axis in group if self.shape[axis] > 1), group[-1])
            start, stop = bounds[outer]
            width = math.prod(self.shape[axis] for axis in group if axis > outer)
            slices.append(slice(start * width, stop * width))
            for axis in group:
                shape.append(stop - start if axis == outer else self.shape[axis])
                rest.append(slice(None) if axis == outer else slice(*bounds[axis]))
        return read(self.name.format(layer=layer), tuple(slices)).reshape(shape)[tuple(rest)]


@dataclasses.dataclass(frozen=True)
class Weight:
    """One of the decoder's arrays and the Hugging Face tensors that make it up.

    Attributes:
        path: Attribute path in the decoder, such as `blocks.qkv`.
        shape: Shape, without the layer axis.
        parts: Its tensors.
        num_layers: Size of the leading layer axis, or None for an array without one.
        fused_axis: Axis of `shape` along which the parts lie, when there are several.
    """

    path: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]
    num_layers: int | None = None
    fused_axis: int | None = None

    @property
    def full_shape(self) -> tuple[int, ...]:
        """Shape in the decoder."""
        return self.shape if self.num_layers is None else (self.num_layers, *self.shape)

    def read(
        self, index: tuple[slice, ...], dtype: Any, read: ReadTensor
    ) -> Float[np.ndarray, "*axes"]:
        """A rectangle of the array, read from no more than the tensors that it touches.

        Args:
            index: One slice for each axis of `full_shape`.
            dtype: Dtype of the result.
            read: Reads a tensor by slices.
        """
        bounds = tuple(
            part.indices(size)[:2] for part, size in zip(index, self.full_shape, strict=True)
        )
        # In the target dtype at once: a float32 stack of a bf16 model would double the peak.
        out = np.empty([stop - start for start, stop in bounds], dtype)
        layers, inner = ((0, 1), bounds) if self.num_layers is None else (bounds[0], bounds[1:])
        stacked = out[None] if self.num_layers is None else out
        for layer in range(*layers):
            target = stacked[layer - layers[0]]
            for part in self.parts:
                wanted, place = list(inner), [slice(None)] * len(inner)
                if self.fused_axis is not None:
                    low, high = inner[self.fused_axis]
                    start = max(low, part.start)
                    stop = min(high, part.start + part.shape[self.fused_axis])
                    # No row of this tensor is wanted: its file isn't touched.
                    if start >= stop:
                        continue
                    wanted[self.fused_axis] = (start - part.start, stop - part.start)
                    place[self.fused_axis] = slice(start - low, stop - low)
                target[tuple(place)] = part.read(tuple(wanted), layer, read)
        return out

    def split(self, array: Float[np.ndarray, "*axes"], part: Part) -> Float[np.ndarray, "*hf"]:
        """A part's Hugging Face tensor, cut out of the array of one layer."""
        if self.fused_axis is not None:
            place = [slice(None)] * array.ndim
            stop = part.start + part.shape[self.fused_axis]
            place[self.fused_axis] = slice(part.start, stop)
            array = array[tuple(place)]
        return array.reshape(part.hf_shape)


@functools.lru_cache
def weights(config: DecoderConfig) -> tuple[Weight, ...]:
    """Every array of a decoder of this architecture, in the order of Hugging Face's files."""
    k, g, h = config.num_kv_heads, config.queries_per_kv, config.head_dim
    d, f, v = config.hidden_size, config.intermediate_size, config.vocab_size

    def block(
        path: str, shape: tuple[int, ...], *parts: Part, fused_axis: int | None = None
    ) -> Weight:
        named = tuple(
            dataclasses.replace(part, name="model.layers.{layer}." + part.name) for part in parts
        )
        return Weight(f"blocks.{path}", shape, named, config.num_layers, fused_axis)

    declared = [
        Weight("embedding", (v, d), (Part(EMBEDDING, (v, d), 1),)),
        block("input_norm", (d,), Part("input_layernorm.weight", (d,))),
        block(
            "qkv",
            (k, g + 2, h, d),
            Part("self_attn.q_proj.weight", (k, g, h, d), 1),
            Part("self_attn.k_proj.weight", (k, 1, h, d), 1, start=g),
            Part("self_attn.v_proj.weight", (k, 1, h, d), 1, start=g + 1),
            fused_axis=1,
        ),
    ]
    if config.qkv_bias:
        declared.append(
            block(
                "qkv_bias",
                (k, g + 2, h),
                Part("self_attn.q_proj.bias", (k, g, h)),
                Part("self_attn.k_proj.bias", (k, 1, h), start=g),
                Part("self_attn.v_proj.bias", (k, 1, h), start=g + 1),
                fused_axis=1,
            )
        )
    if config.qk_norm:
        declared.append(block("q_norm", (h,), Part("self_attn.q_norm.weight", (h,))))
        declared.append(block("k_norm", (h,), Part("self_attn.k_norm.weight", (h,))))
    declared += [
        block("out", (d, k, g, h), Part("self_attn.o_proj.weight", (d, k, g, h), 3)),
        block("mlp_norm", (d,), Part("post_attention_layernorm.weight", (d,))),
        block(
            "gate_up",
            (2, f, d),
            Part("mlp.gate_proj.weight", (1, f, d), 1),
            Part("mlp.up_proj.weight", (1, f, d), 1, start=1),
            fused_axis=0,
        ),
        block("down", (d, f), Part("mlp.down_proj.weight", (d, f), 1)),
        Weight("final_norm", (d,), (Part("model.norm.weight", (d,)),)),
    ]
    if not config.tie_embeddings:
        declared.append(Weight("head", (v, d), (Part(HEAD, (v, d), 1),)))
    return tuple(declared)


def hf_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every Hugging Face tensor of this architecture, layer by layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    for _, part, layer in _tensors(config):
        shapes[part.name.format(layer=layer)] = part.hf_shape
    return shapes


def _tensors(config: DecoderConfig) -> Iterator[tuple[Weight, Part, int]]:
    # Layer by layer, although arrays are stacked: files list tensors that way, and an export that
    # follows them has one layer's tensors in memory.
    declared = weights(config)
    blocks = [weight for weight in declared if weight.num_layers is not None]
    first = declared.index(blocks[0])
    order = [(weight, 0) for weight in declared[:first]]
    order += [(weight, layer) for layer in range(config.num_layers) for weight in blocks]
    order += [(weight, 0) for weight in declared[first + len(blocks) :]]
    return ((weight, part, layer) for weight, layer in order for part in weight.parts)


def check_names(
    found: Collection[str], expected: Collection[str], config: DecoderConfig, source: str
) -> None:
    """Make sure that a checkpoint holds an architecture's tensors, all of them and no others.

    Args:
        found: Names of what the checkpoint holds.
        expected: Names of what it should hold, in the same naming.
        config: Architecture, for the message.
        source: Name of the checkpoint, for the message.

    Raises:
        ModelFormatError: Tensors are missing, or some have no place in the decoder; named.
    """
    have, want = set(found), set(expected)
    missing = [name for name in expected if name not in have]
    unmapped = sorted(name for name in have - want if not NON_WEIGHTS.fullmatch(name))
    # Both at once: a name that is missing often is the one that is unknown, spelt differently.
    problems = [
        f"{len(names)} tensor{'s' if len(names) > 1 else ''} {what}: "
        + ", ".join(names[:8])
        + (", …" if len(names) > 8 else "")
        for names, what in ((missing, "missing"), (unmapped, "without a place in the decoder"))
        if names
    ]
    if problems:
        raise ModelFormatError(
            f"{source}: the tensors don't fit a {config.model_type} of {config.num_layers} layers; "
            + "; ".join(problems)
        )


def require_finite(
    name: str, values: Float[np.ndarray, "*hf"], source: str
) -> Float[np.ndarray, "*hf"]:
    """The values of a tensor, all of which are numbers.

    Args:
        name: Of the tensor.
        values: Of any float dtype.
        source: Name of the checkpoint, for the message.

    Raises:
        ModelFormatError: There is an infinity or a NaN among them: whatever is computed with it
            would be one, too.
    """
    if not np.isfinite(values).all():
        raise ModelFormatError(f"{source}: {name} holds values that aren't finite (NaN, infinity)")
    return values


def save_tensors(tensors: dict[str, Float[np.ndarray, "*hf"]], path: Path) -> None:
    """Write a safetensors file that others may read like any other: the library's own are 0600."""
    # What the process's umask gives a new file.
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(stat.S_IMODE(mode))


def abstract_decoder(
    config: DecoderConfig, precision: Precision, dtype: Any = jnp.float32
) -> Decoder:
    """The decoder with a `jax.ShapeDtypeStruct` in place of each array."""
    return jax.eval_shape(lambda: Decoder(config, jax.random.key(0), precision, dtype))


def build_decoder(
    config: DecoderConfig,
    precision: Precision,
    dtype: Any,
    shardings: Any,
    read: ReadTensor,
) -> Decoder:
    """A decoder whose arrays are read straight into their place.

    Each process reads the rectangles that its own devices hold. One array is on the host at a time,
    in the target dtype, so host memory peaks near the largest stack and not at the model.

    Args:
        config: Architecture.
        precision: Dtypes of the arithmetic.
        dtype: Dtype of the stored weights.
        shardings: Decoder-shaped pytree of shardings, or None for the default device.
        read: Reads a Hugging Face tensor by slices.
    """
    # Random weights are never made: the tree alone says which arrays there are.
    abstract = abstract_decoder(config, precision, dtype)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(abstract)
    by_path = {weight.path: weight for weight in weights(config)}
    places = [None] * len(leaves) if shardings is None else jax.tree.leaves(shardings)
    arrays = [
        _place(by_path[_attribute_path(path)], jnp.dtype(dtype), sharding, read)
        for (path, _), sharding in zip(leaves, places, strict=True)
    ]
    return jax.tree.unflatten(treedef, arrays)


def _place(weight: Weight, dtype: Any, sharding: Any, read: ReadTensor) -> Float[Array, "*axes"]:
    if sharding is None:
        return jax.device_put(weight.read((slice(None),) * len(weight.full_shape), dtype, read))
    # JAX asks once a device; replicas share one copy.
    cache: dict[str, Float[np.ndarray, "*axes"]] = {}

    def rectangle(index: tuple[slice, ...] | None) -> Float[np.ndarray, "*axes"]:
        assert index is not None
        key = repr(index)
        if key not in cache:
            cache[key] = weight.read(index, dtype, read)
        return cache[key]

    return jax.make_array_from_callback(weight.full_shape, sharding, rectangle)


def _attribute_path(path: Any) -> str:
    # The last key is the Param's own, `value`.
    return ".".join(key.name for key in path[:-1])


def export_tensors(
    decoder: Decoder, dtype: Any = None
) -> Iterator[tuple[str, Float[np.ndarray, "*hf"]]]:
    """Hugging Face's tensors of a decoder, one at a time, in the order of `hf_shapes`.

    In a run of several processes every one has to iterate: sharded arrays are gathered.

    Args:
        decoder: Stacked.
        dtype: Dtype of the tensors; default that of each array.

    Raises:
        InputError: The decoder is unstacked.
    """
    if not decoder.is_stacked:
        raise InputError("export the stacked decoder, not what unstacked() returns")
    leaves = {
        _attribute_path(path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(decoder)[0]
    }
    last: tuple[str, int] | None = None
    array = np.empty(0)
    for weight, part, layer in _tensors(decoder.config):
        if last != (weight.path, layer):
            last, array = (weight.path, layer), _fetch(leaves[weight.path], weight, layer)
        tensor = weight.split(array, part)
        yield part.name.format(layer=layer), np.ascontiguousarray(tensor, dtype)


def _fetch(leaf: Float[Array, "*stack"], weight: Weight, layer: int) -> Float[np.ndarray, "*axes"]:
    """One layer's array on the host of every process."""
    sharding = leaf.sharding
    replicated = None
    if isinstance(sharding, NamedSharding):
        replicated = NamedSharding(sharding.mesh, PartitionSpec())
    elif weight.num_layers is None:
        return np.asarray(leaf)
    index = None if weight.num_layers is None else layer
    return np.asarray(_take_layer(replicated)(leaf, index))


@functools.lru_cache
def _take_layer(
    sharding: NamedSharding | None,
) -> Callable[[Float[Array, "*stack"], int | None], Float[Array, "*axes"]]:
    # Indexing under jit with a traced layer compiles once a shape, not once a layer, and keeps the
    # stack on its device: np.asarray of it would leave a copy of it on the host.
    def take(stack: Float[Array, "*stack"], layer: Int[Array, ""] | None) -> Float[Array, "*axes"]:
        if layer is None:
            return stack
        return jax.lax.dynamic_index_in_dim(stack, layer, keepdims=False)

    return jax.jit(take, out_shardings=sharding)
