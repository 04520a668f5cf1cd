"""Training checkpoints: one Orbax layout of plain dictionaries."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from ioa_jax.errors import InputError

log = logging.getLogger(__name__)


class _Damaged(Exception):
    """A checkpoint isn't what was saved; the message says how that shows."""


class Checkpoints:
    """Numbered checkpoints of a run in one directory.

    Each holds a pytree of arrays (`state`) and a JSON-able dictionary (`data`: step, what the data
    order needs) with the run's identity and SHA-256 of both. Writes are atomic; what was changed
    on the disk since, or was half-written, is never restored.
    """

    def __init__(self, directory: Path, run: str, keep: int = 2) -> None:
        """Open, making the directory where it is missing.

        Args:
            directory: Where the checkpoints are.
            run: Identity of the run, which a checkpoint has to agree with.
            keep: How many of the newest stay.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory.resolve()
        self._run = run
        # Orbax annotates these arguments with protocols that its own classes do not meet.
        training: Any = ocp.training
        self._checkpointer = training.Checkpointer(
            self.directory,
            # Every call saves: by default one that comes while another is being written is dropped.
            save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    def close(self) -> None:
        """Wait for the write in progress and let go of the directory."""
        self._checkpointer.close()

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        newest = self._checkpointer.latest
        return None if newest is None else newest.step

    def save(self, step: int, state: Any, data: dict[str, Any]) -> None:
        """Write a checkpoint in the background; the previous one is finished first.

        Args:
            step: Its number; larger than every earlier one.
            state: Pytree of arrays. May be donated right after the call.
            data: JSON-able.
        """
        # Leaves by number: the file needn't know of which classes the tree is made.
        leaves = jax.tree.leaves(state)
        described = {
            **data,
            "digest": self._run,
            "num_arrays": len(leaves),
            "state_sha256": _sha256_of_arrays(leaves),
        }
        self._checkpointer.save_checkpointables_async(
            step,
            {
                "state": {str(i): leaf for i, leaf in enumerate(leaves)},
                "data": {**described, "data_sha256": _sha256_of_data(described)},
            },
        )

    def restore(self, state: Any) -> tuple[Any, dict[str, Any]]:
        """Newest whole checkpoint. Damaged ones that are newer are named in the log, and removed.

        Args:
            state: Pytree of arrays or `ShapeDtypeStruct` with shardings: where the result goes.

        Returns:
            The restored state and data.

        Raises:
            InputError: There is no whole checkpoint, or the newest belongs to another run or tree.
        """
        steps = sorted((found.step for found in self._checkpointer.checkpoints), reverse=True)
        if not steps:
            raise InputError(f"{self.directory}: no checkpoint to resume from")
        damaged: dict[int, str] = {}
        for step in steps:
            try:
                restored = self._load(step, state)
            except _Damaged as error:
                damaged[step] = str(error)
                continue
            self._remove(damaged, step)
            return restored
        faults = "; ".join(f"{step}: {fault}" for step, fault in damaged.items())
        raise InputError(
            f"{self.directory}: no checkpoint is whole ({faults}): take them from a copy, or "
            "delete this directory, to train from the start"
        )

    def _load(self, step: int, state: Any) -> tuple[Any, dict[str, Any]]:
        leaves, tree = jax.tree.flatten(state)
        # Before the arrays: a tree of another size fails in Orbax with a message about keys.
        data = self._read(step, {"data": None})["data"]
        data = {name: _plain(value) for name, value in data.items()}
        if data.pop("data_sha256", None) != _sha256_of_data(data):
            raise _Damaged("its data don't have the SHA-256 that they were saved with")
        if data["digest"] != self._run:
            raise InputError(
                f"{self.directory}: the checkpoints are of a run with other data or settings or "
                "another budget; name another directory or delete them"
            )
        if data["num_arrays"] != len(leaves):
            raise InputError(
                f"{self.directory}: checkpoint {step} has {data['num_arrays']} arrays, this run "
                f"has {len(leaves)}; resume with the configuration that it was started with"
            )
        abstract = {
            str(i): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
            for i, leaf in enumerate(leaves)
        }
        found = self._read(step, {"state": abstract})["state"]
        restored = [found[str(i)] for i in range(len(leaves))]
        if _sha256_of_arrays(restored) != data["state_sha256"]:
            raise _Damaged("its arrays don't have the SHA-256 that they were saved with")
        return jax.tree.unflatten(tree, restored), data

    def _read(self, step: int, parts: dict[str, Any]) -> Any:
        try:
            return self._checkpointer.load_checkpointables(step, parts)
        # Whatever Orbax, TensorStore or a parser of JSON says of bytes that nobody wrote.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise _Damaged(f"{type(error).__name__}: {reason:.200}") from None

    def _remove(self, damaged: Mapping[int, str], whole: int) -> None:
        """Make room for the steps that come once more."""
        for step, fault in damaged.items():
            path = self.directory / str(step)
            log.warning(
                "%s: the checkpoint is damaged (%s); it is removed, and training goes on from that "
                "of step %d",
                path,
                fault,
                whole,
            )
            shutil.rmtree(path)
        if damaged:
            self._checkpointer.reload()


def _plain(value: Any) -> Any:
    """Orbax gives numbers back as arrays."""
    return value.item() if isinstance(value, np.generic | np.ndarray | jax.Array) else value


def _sha256_of_data(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _sha256_of_arrays(leaves: Iterable[Any]) -> str:
    """Of dtypes, shapes and values, in their order."""
    found = hashlib.sha256()
    for leaf in leaves:
        values = np.asarray(leaf)
        found.update(f"{values.dtype}{values.shape}".encode())
        # Without a copy; bytes are of every dtype, where hashlib doesn't know bfloat16.
        found.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return found.hexdigest()
