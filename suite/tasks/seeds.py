"""The hand-written seed tasks: loading, checking, and the split into synthesis seeds and probes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ioa_jax.errors import InputError
from ioa_jax.jsonl import read_rows
from ioa_jax.streams import stream

SEED_TASKS = Path(__file__).with_name("seed_tasks.jsonl")

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=False, pattern=r"\S")]


class MathCheck(BaseModel):
    """The answer is a number or an expression."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["math"]
    answer: Text


class CodeCheck(BaseModel):
    """A function passes tests, a Python text that raises if it is wrong."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["code"]
    entry_point: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$")]
    tests: Text


class RougeCheck(BaseModel):
    """The answer is like the reference."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["rouge"]


class SeedTask(BaseModel):
    """A task with a reference answer and a way to check other answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: Text
    domain: Literal["math", "code", "instruction"]
    module: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")]
    prompt: Text
    reference: Text
    check: Annotated[MathCheck | CodeCheck | RougeCheck, Field(discriminator="kind")]

    @property
    def messages(self) -> list[dict[str, str]]:
        """The task as a chat."""
        return [{"role": "user", "content": self.prompt}]


@dataclasses.dataclass(frozen=True)
class SeedSplit:
    """Tasks to teach from and tasks to measure with; no task is in both."""

    seeds: tuple[SeedTask, ...]
    probes: tuple[SeedTask, ...]


def load_seed_tasks(path: Path = SEED_TASKS) -> list[SeedTask]:
    """Every task, in the order of the file.

    Raises:
        InputError: Names file, line and field of the first bad line; or an id or a prompt occurs
            twice, or a module in two domains.
    """
    tasks = list(read_rows(path, SeedTask).values())
    ids: set[str] = set()
    prompts: dict[str, str] = {}
    domains: dict[str, str] = {}
    for task in tasks:
        if task.id in ids:
            raise InputError(f"{path}: field 'id': {task.id!r} occurs twice")
        ids.add(task.id)
        # A task that occurs under two ids could be taught and then measured.
        same = prompts.setdefault(" ".join(task.prompt.split()), task.id)
        if same != task.id:
            raise InputError(f"{path}: field 'prompt': {same!r} and {task.id!r} have the same")
        if domains.setdefault(task.module, task.domain) != task.domain:
            raise InputError(
                f"{path}: {task.id!r}: field 'domain': module {task.module!r} is in "
                f"{domains[task.module]!r} and in {task.domain!r}"
            )
    return tasks


def split_seeds(
    tasks: Sequence[SeedTask],
    probe_fraction: float,
    seed: int,
    max_seeds_per_module: int | None = None,
    max_probes_per_module: int | None = None,
) -> SeedSplit:
    """Split stratified by module: each keeps about `probe_fraction` of its tasks as probes.

    A module's split depends on its own tasks and on `seed`, on nothing else, and not on the order
    of the tasks. The maxima cut after the split, so that a short run uses a part of what the full
    run uses, in the same roles.

    Raises:
        InputError: A module would have no seed or no probe.
    """
    if not 0 < probe_fraction < 1:
        raise InputError(f"probe_fraction={probe_fraction}: between 0 and 1")
    modules: dict[str, list[SeedTask]] = {}
    for task in sorted(tasks, key=lambda task: task.id):
        modules.setdefault(task.module, []).append(task)
    seeds: list[SeedTask] = []
    probes: list[SeedTask] = []
    for module, members in sorted(modules.items()):
        num_probes = round(len(members) * probe_fraction)
        if not 0 < num_probes < len(members):
            raise InputError(
                f"module {module!r} has {len(members)} tasks: with probe_fraction={probe_fraction} "
                f"{num_probes} of them are probes, and both parts need at least one"
            )
        order = stream(seed, "seed split", module).permutation(len(members))
        chosen = [members[i] for i in order]
        probes += chosen[:num_probes][:max_probes_per_module]
        seeds += chosen[num_probes:][:max_seeds_per_module]
    return SeedSplit(tuple(seeds), tuple(probes))


def file_sha256(path: Path = SEED_TASKS) -> str:
    """Identity of a task file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
