"""Adapters trained together under `jax.vmap`, beside the same adapters one after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ioa_jax.engine.training import LoRAConfig, TrainConfig
from ioa_jax.identifier.interventions import (
    InterventionProbe,
    InterventionSettings,
    intervene,
)
from ioa_jax.identifier.probes import probe_pair
from ioa_jax.seeds import SeedItem
from ioa_jax.student import Student
from suite.micro.world import MODULES as MODULE_IDS
from suite.micro.world import Split, distinct_problems
from suite.perf.workload import alternate
from suite.tasks.seeds import load_seed_tasks, split_seeds

MODULES = 8
TOGETHER, APART = "together", "one after another"
SETTINGS = InterventionSettings(
    train=TrainConfig(
        learning_rate=1e-3, batch_rows=1, row_length=256, lora=LoRAConfig(rank=8, alpha=16.0)
    ),
    steps=4,
    snapshots=1,
    modules_at_once=MODULES,
)


@dataclasses.dataclass(frozen=True)
class Material:
    """Items by module.

    Attributes:
        seeds: Trained on.
        probes: Measured on.
    """

    seeds: Mapping[str, Sequence[SeedItem]]
    probes: Mapping[str, Sequence[SeedItem]]


def seed_tasks() -> Material:
    """Of the first modules of the seed tasks, with few probes: it is training that is compared."""
    split = split_seeds(load_seed_tasks(), 0.25, 0, max_probes_per_module=1)
    modules = sorted({item.module for item in split.seeds if item.module is not None})[:MODULES]
    return Material(
        *(
            {module: [item for item in items if item.module == module] for module in modules}
            for items in (split.seeds, split.probes)
        )
    )


def world() -> Material:
    """Of the first modules of the embedded world."""
    modules = list(MODULE_IDS)[:MODULES]

    def items(split: Split, count: int) -> dict[str, list[SeedItem]]:
        return {
            module: [one.seed_item() for one in distinct_problems(module, count, split)]
            for module in modules
        }

    return Material(items("train", 12), items("probe", 1))


def compare(
    student: Student,
    material: Material,
    rounds: int,
    log: Callable[[str], None],
    settings: InterventionSettings = SETTINGS,
) -> dict[str, Any]:
    """Time both ways.

    Args:
        student: Whose adapters are trained.
        material: What on.
        rounds: Timed rounds.
        log: Takes a line of progress.
        settings: How; `modules_at_once` is `MODULES` and then 1.

    Returns:
        As `alternate`, by the two ways; and `largest_difference`, of any performance of any state
        between them.
    """
    lessons = {
        module: [student.answer_pair(item.messages, item.reference) for item in items]
        for module, items in material.seeds.items()
    }
    probes = {
        module: [
            InterventionProbe(pair, len(pair.completion))
            for pair in (probe_pair(student, item) for item in items)
        ]
        for module, items in material.probes.items()
    }
    found: dict[str, dict[str, tuple[float, ...]]] = {}

    def contestant(name: str, modules_at_once: int) -> Callable[[], int]:
        own = dataclasses.replace(settings, modules_at_once=modules_at_once)

        def run() -> int:
            result = intervene(
                student.model.decoder, lessons, probes, dict.fromkeys(lessons, 1.0), own
            )
            population = result.population
            found[name] = dict(zip(population.states, population.student, strict=True))
            return result.tokens

        return run

    timed = alternate(
        {TOGETHER: contestant(TOGETHER, MODULES), APART: contestant(APART, 1)}, rounds, log
    )
    together, apart = found[TOGETHER], found[APART]
    difference = max(
        float(np.max(np.abs(np.subtract(together[state], apart[state])))) for state in together
    )
    return {**timed, "largest_difference": difference}
