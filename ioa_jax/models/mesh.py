"""Device mesh and sharding rules.

Three axes: `data` (replicas of the weights), `fsdp` (weights and batch both split) and `tensor`
(heads and MLP width split). A weight's place follows from its path alone, by `RULES`.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ioa_jax.errors import InputError

log = logging.getLogger(__name__)

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")  # heads of a row are split over `tensor`, rows are not

# Path of an array in the decoder, adapter or optimiser state -> mesh axis of each of its axes.
# Stacked arrays lead with the layer axis, which is never split (the layer scan runs over it).
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"\.embedding\b", ("tensor", "fsdp")),
    (r"\.head\b", ("tensor", "fsdp")),
    (r"\.qkv_bias\b", (None, "tensor", None, None)),
    (r"\.qkv\b", (None, "tensor", None, None, "fsdp")),
    (r"\.out\b", (None, "fsdp", "tensor", None, None)),
    (r"\.gate_up\b", (None, None, "tensor", "fsdp")),
    (r"\.down\b", (None, "fsdp", "tensor")),
    (r"_norm\b", ()),
    (r"\.layers\[", ()),  # adapters: small, replicated
)


def make_mesh(
    data: int = 1, fsdp: int = 1, tensor: int = 1, devices: list[Any] | None = None
) -> Mesh:
    """A mesh of `data * fsdp * tensor` devices.

    Raises:
        InputError: The product isn't the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if data * fsdp * tensor != len(devices):
        raise InputError(
            f"mesh data={data} x fsdp={fsdp} x tensor={tensor} needs {data * fsdp * tensor} "
            f"devices; there are {len(devices)}"
        )
    # jax.make_mesh makes Explicit axes by default; the compiler's propagation is wanted here.
    return jax.make_mesh(
        (data, fsdp, tensor), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
    )


def partition_spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Where the array at `path` lives; an axis that its mesh axis doesn't divide stays whole.

    Args:
        path: As `jax.tree_util.keystr` prints it.
        shape: The array's shape.
        mesh: The mesh.

    Raises:
        InputError: No rule matches a path of more than one dimension.
    """
    for pattern, axes in RULES:
        if not re.search(pattern, path):
            continue
        if not axes:
            return PartitionSpec()
        # Of another rank: most likely a new kind of state, which no rule was written for.
        if len(axes) != len(shape):
            break
        kept: list[str | None] = []
        for size, axis in zip(shape, axes, strict=True):
            if axis is not None and size % mesh.shape[axis]:
                log.info(
                    "%s: axis of size %d isn't divisible by %s=%d; kept whole",
                    path,
                    size,
                    axis,
                    mesh.shape[axis],
                )
                axis = None
            kept.append(axis)
        return PartitionSpec(*kept)
    if len(shape) <= 1:  # step counters, scales
        return PartitionSpec()
    raise InputError(f"no sharding rule for {path} of shape {shape}; add one to RULES")


def decoder_shardings(tree: Any, mesh: Mesh) -> Any:
    """NamedSharding of every array of a decoder, its adapters or optimiser state.

    Leaves may be arrays or `jax.ShapeDtypeStruct`; the result is the same pytree.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(
            mesh, partition_spec(jax.tree_util.keystr(path), leaf.shape, mesh)
        ),
        tree,
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over the data axes, everything else whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))
