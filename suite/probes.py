"""Seed items: where a run's come from, its held-out probes, and grading by their own checks."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Grader, Item, Verdict
from ioa_jax.graders.by_kind import Graders
from ioa_jax.sandbox import Limits
from ioa_jax.seeds import SeedItem, check_seeds, read_seeds
from suite.data import DataSource
from suite.tasks.base import (
    Description,
    Example,
    Graded,
    MetricValues,
    Prompt,
    Style,
    TaskData,
    chat_prompt,
    mean_metric,
)
from suite.tasks.seeds import SEED_TASKS, SeedSplit, split_seeds

if TYPE_CHECKING:
    from suite.profile import SandboxSettings, SeedSettings

PROBES = "probes"
# What `seed_items.source` names beside files.
OWN_SOURCES = ("micro", "training", "seed_tasks")


def load_seed_items(settings: SeedSettings, data: DataSource) -> SeedSplit:
    """A run's seed items, split into what methods start from and what measures.

    Args:
        settings: The profile's.
        data: Where training splits of benchmarks come from.

    Raises:
        InputError: The file can't be read or is too small, or as `split_seeds`.
    """
    return split_seeds(
        _read(settings, data),
        settings.probe_fraction,
        settings.split_seed,
        settings.max_seeds_per_module,
        settings.max_probes_per_module,
    )


def _read(settings: SeedSettings, data: DataSource) -> Sequence[SeedItem]:
    if settings.source in ("micro", "training"):
        if settings.count is None:
            raise InputError(
                f"setting 'seed_items.count': how many items of {settings.source} are needed"
            )
        if settings.source == "micro":
            from suite.micro.world import micro_seeds

            return micro_seeds(settings.count, settings.split_seed)
        from suite.training_seeds import training_seeds

        return training_seeds(settings.count, settings.split_seed, data)
    if settings.count is not None:
        raise InputError("setting 'seed_items.count': a file has the items that it has")
    path = SEED_TASKS if settings.source == "seed_tasks" else Path(settings.source).expanduser()
    items = read_seeds(path)
    check_seeds(items, str(path))
    return items


class SeedGrader(Grader):
    """Grades answers to seed items, each by the item's own check. Close it."""

    def __init__(self, seeds: Sequence[SeedItem], settings: SandboxSettings) -> None:
        """Open the graders that the items need.

        Raises:
            SandboxError: There is code among them, and programs can't be isolated here.
        """
        code = {"limits": limits_of(settings), "allow_weak": settings.allow_weak}
        self._graders = Graders({"code": code})
        self._kinds = {seed.id: seed.kind for seed in seeds}
        # Now, so that what can't be had here is known before anything is asked or trained.
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._graders)
            for kind in sorted(set(self._kinds.values())):
                self._graders.of(kind)
            stack.pop_all()

    def check_item(self, item: Item) -> None:
        """As the grader of the item's kind."""
        self._graders.of(self._kinds[item.id]).check_item(item)

    def grade(self, item: Item, text: str) -> Verdict:
        """As the grader of the item's kind."""
        return self._graders.of(self._kinds[item.id]).grade(item, text)

    def close(self) -> None:
        """Close the graders."""
        self._graders.close()


def limits_of(settings: SandboxSettings) -> Limits:
    """The sandbox's view of the settings."""
    return Limits(
        wall_seconds=settings.wall_seconds,
        cpu_seconds=settings.cpu_seconds,
        memory_bytes=settings.memory_bytes,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeTask(Description):
    """The probes as a task, graded by `SeedGrader`."""

    probes: tuple[SeedItem, ...]

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """The probes; nothing is read."""
        return TaskData(tuple(probe.item() for probe in self.probes))

    def prompt(self, item: Item, style: Style = "chat", examples: Sequence[Example] = ()) -> Prompt:
        """The item alone."""
        return chat_prompt(item.prompt)

    def metrics(self, graded: Sequence[Graded]) -> dict[str, MetricValues]:
        """What each item's grader gave."""
        return mean_metric(graded, "score")
