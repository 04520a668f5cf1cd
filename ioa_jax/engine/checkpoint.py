"""Training checkpoints: one Orbax layout of plain dictionaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from ioa_jax.errors import InputError


class Checkpoints:
    """Numbered checkpoints of a run in one directory.

    Each holds a pytree of arrays (`state`) and a JSON-able dictionary (`data`: step, configuration
    digest, what the data order needs). Writes are atomic; a half-written one is never restored.
    """

    def __init__(self, directory: Path, keep: int = 2) -> None:
        """Open, making the directory where it is missing.

        Args:
            directory: Where the checkpoints are.
            keep: How many of the newest stay.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory.resolve()
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
        self._checkpointer.save_checkpointables_async(
            step,
            {
                "state": {str(i): leaf for i, leaf in enumerate(leaves)},
                "data": {**data, "num_arrays": len(leaves)},
            },
        )

    def restore(self, state: Any) -> tuple[Any, dict[str, Any]]:
        """Newest checkpoint.

        Args:
            state: Pytree of arrays or `ShapeDtypeStruct` with shardings: where the result goes.

        Returns:
            The restored state and data.

        Raises:
            InputError: There is no checkpoint, or it belongs to another tree.
        """
        step = self.latest
        if step is None:
            raise InputError(f"{self.directory}: no checkpoint to resume from")
        leaves, tree = jax.tree.flatten(state)
        abstract = {
            str(i): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
            for i, leaf in enumerate(leaves)
        }
        # Before the arrays: a tree of another size fails in Orbax with a message about keys.
        data = self._checkpointer.load_checkpointables(step, {"data": None})["data"]
        if data["num_arrays"] != len(leaves):
            raise InputError(
                f"{self.directory}: checkpoint {step} has {data['num_arrays']} arrays, this run "
                f"has {len(leaves)}; resume with the configuration that it was started with"
            )
        restored = self._checkpointer.load_checkpointables(step, {"state": abstract})["state"]
        return jax.tree.unflatten(tree, [restored[str(i)] for i in range(len(leaves))]), data
