"""How a stage trains (method 4): the two stage modes under a budget of student tokens.

Each part of the curriculum (a stage, a bridge, a round of remedial data) is taught by one call, and
leaves a file. A run that is started again makes the same calls: finished parts return at once, and
the one that was running goes on at its newest checkpoint.
"""

from __future__ import annotations

import abc
import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.trainer import Trainer
from ioa_jax.engine.training import StepMetrics, TrainConfig
from ioa_jax.errors import InputError
from ioa_jax.files import read_value, write_text
from ioa_jax.organizer.schedule import (
    PoolSettings,
    StageData,
    pooled_step,
    sequential_step,
    sequential_steps,
)
from ioa_jax.student import Student
from ioa_jax.values import Value

OnStep = Callable[[str, StepMetrics], None]

# More steps than any stage has: how many the running one will take is known when it ends.
_OPEN_END = 2**31


@dataclasses.dataclass(frozen=True)
class Material:
    """What a part brings.

    Attributes:
        pairs: Tokenised lessons.
        modules: Module id of each of them.
    """

    pairs: tuple[TokenPair, ...] = ()
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.pairs) != len(self.modules):
            raise InputError(f"{len(self.pairs)} lessons and {len(self.modules)} modules of them")


@dataclasses.dataclass(frozen=True)
class TrainedPart(Value):
    """What training on a part took.

    Attributes:
        part: Name.
        steps: Optimiser steps.
        tokens: Student tokens, prompts included.
    """

    part: str
    steps: int
    tokens: int


class Teaching(abc.ABC):
    """Trains the student part by part. Close it, or use it as a context manager."""

    def __init__(
        self,
        student: Student,
        config: TrainConfig,
        batch_size: int,
        budget_tokens: int,
        directory: Path,
        on_step: OnStep | None = None,
    ) -> None:
        """Begin, or go on.

        Args:
            student: As it is before the first part.
            config: Hyperparameters; `seed` orders the data.
            batch_size: Examples of an optimiser step.
            budget_tokens: Student tokens of all parts together.
            directory: For checkpoints and the files of the parts.
            on_step: Called with (part, metrics) after each optimiser step.
        """
        self._student = student
        self._config = config
        self._batch_size = batch_size
        self._budget_tokens = budget_tokens
        self._directory = directory
        self._on_step = on_step
        self.parts: list[TrainedPart] = []

    @property
    def tokens(self) -> int:
        """Student tokens of the finished parts."""
        return sum(part.tokens for part in self.parts)

    @property
    def left(self) -> int:
        """Tokens of the budget that no finished part has used."""
        return self._budget_tokens - self.tokens

    @property
    @abc.abstractmethod
    def has_pool(self) -> bool:
        """There is material to replay without a part that brings some."""

    @property
    @abc.abstractmethod
    def student(self) -> Student:
        """As taught so far. Its weights are given away by the next part."""

    @abc.abstractmethod
    def teach(
        self, part: str, material: Material, tokens: int, raised: Sequence[str] = ()
    ) -> TrainedPart:
        """Train on a part.

        Args:
            part: Name, unique in the run; names a file.
            material: The part's own lessons.
            tokens: Student tokens that it may use, as far as the budget has them.
            raised: Modules whose replay is raised, where the mode replays.

        Raises:
            InputError: As `Trainer.step`.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Wait for the checkpoint that is being written."""

    def __enter__(self) -> Teaching:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _record(self, part: str) -> Path:
        return self._directory / "parts" / f"{part}.json"


class PooledTeaching(Teaching):
    """`pooled` [ours]: the pool grows, and one schedule and one optimiser span the whole budget."""

    def __init__(
        self,
        student: Student,
        config: TrainConfig,
        pool: PoolSettings,
        budget_tokens: int,
        directory: Path,
        mastered: Material | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        """As `Teaching`.

        Args:
            student: See there.
            config: See there.
            pool: Batch size, shares and seed.
            budget_tokens: See there.
            directory: See there.
            mastered: Examples of modules that the student has mastered already: replayed from the
                first part on.
            on_step: See there.
        """
        super().__init__(student, config, pool.batch_size, budget_tokens, directory, on_step)
        self._pool = pool
        self._trainer = Trainer(
            student.model.decoder, config, budget_tokens, directory=directory / "checkpoints"
        )
        self._pairs: list[TokenPair] = []
        self._stages: list[StageData] = []
        mastered = mastered or Material()
        self._mastered = self._add(mastered, 0, ()) if mastered.pairs else None

    @property
    def student(self) -> Student:
        """See `Teaching`."""
        return self._student.with_decoder(self._trainer.decoder)

    @property
    def has_pool(self) -> bool:
        """See `Teaching`."""
        return bool(self._pairs)

    def teach(
        self, part: str, material: Material, tokens: int, raised: Sequence[str] = ()
    ) -> TrainedPart:
        """See `Teaching`. Half of each batch is the part's own, while it has any."""
        before = sum(stage.steps for stage in self._stages)
        stage = self._add(material, _OPEN_END, raised)
        goal = min(self.tokens + tokens, self._budget_tokens)
        stages = [*self._stages, stage]

        def run(is_done: Callable[[], bool]) -> None:
            while not is_done():
                places = pooled_step(stages, self._trainer.steps, self._pool, self._mastered)
                metrics = self._trainer.step([self._pairs[i] for i in places])
                if metrics is None:
                    break
                if self._on_step is not None:
                    self._on_step(part, metrics)

        record = self._record(part)
        if record.is_file():
            known = read_value(record, TrainedPart)
            # The newest checkpoint may be older than the record.
            run(lambda: self._trainer.steps >= before + known.steps)
        else:
            if self.has_pool:
                run(lambda: self._trainer.tokens >= goal)
            self._trainer.save()
            known = TrainedPart(
                part, self._trainer.steps - before, self._trainer.tokens - self.tokens
            )
            write_text(record, known.to_json() + "\n")
        self._stages.append(dataclasses.replace(stage, steps=known.steps))
        self.parts.append(known)
        return known

    def close(self) -> None:
        """See `Teaching`."""
        self._trainer.close()

    def _add(self, material: Material, steps: int, raised: Sequence[str]) -> StageData:
        first = len(self._pairs)
        self._pairs += material.pairs
        places = tuple(range(first, len(self._pairs)))
        return StageData(places, material.modules, steps, tuple(raised))


class SequentialTeaching(Teaching):
    """`sequential`, the paper read literally: each part alone, in epochs, with its own schedule."""

    def __init__(
        self,
        student: Student,
        config: TrainConfig,
        batch_size: int,
        budget_tokens: int,
        directory: Path,
        on_step: OnStep | None = None,
    ) -> None:
        """As `Teaching`; `config.epochs` are the passes over a part."""
        super().__init__(student, config, batch_size, budget_tokens, directory, on_step)
        # Of the part before: its weights are on disk until the next part's are.
        self._checkpoints: Path | None = None

    @property
    def student(self) -> Student:
        """See `Teaching`."""
        return self._student

    @property
    def has_pool(self) -> bool:
        """See `Teaching`: nothing is replayed."""
        return False

    def teach(
        self, part: str, material: Material, tokens: int, raised: Sequence[str] = ()
    ) -> TrainedPart:
        """See `Teaching`. Nothing is replayed, so that `raised` doesn't matter."""
        record = self._record(part)
        known = None
        if record.is_file():
            known = read_value(record, TrainedPart)
        checkpoints = self._directory / "checkpoints" / part
        size = sum(min(len(pair), self._config.row_length) for pair in material.pairs)
        budget = min(self._config.epochs * size, tokens, self.left)
        if known is None and budget < 1:
            known = TrainedPart(part, 0, 0)
            write_text(record, known.to_json() + "\n")
        # Weights that a later part has taken over are gone, and aren't needed.
        elif known is None or (checkpoints.is_dir() and known.steps):
            known = self._train(part, material, budget, checkpoints)
            write_text(record, known.to_json() + "\n")
            if self._checkpoints is not None:
                shutil.rmtree(self._checkpoints, ignore_errors=True)
            self._checkpoints = checkpoints
        self.parts.append(known)
        return known

    def close(self) -> None:
        """See `Teaching`: every part waits for its own."""

    def _train(self, part: str, material: Material, budget: int, checkpoints: Path) -> TrainedPart:
        stage = StageData(tuple(range(len(material.pairs))), material.modules)
        epochs, size, seed = self._config.epochs, self._batch_size, self._config.seed
        (steps,) = sequential_steps([stage], size, epochs)
        decoder = self._student.model.decoder
        with Trainer(decoder, self._config, budget, directory=checkpoints) as trainer:
            for step in range(trainer.steps, steps):
                places = sequential_step([stage], step, size, epochs, seed)
                metrics = trainer.step([material.pairs[i] for i in places])
                if metrics is None:
                    break
                if self._on_step is not None:
                    self._on_step(part, metrics)
            trainer.save()
        self._student = self._student.with_decoder(trainer.decoder)
        return TrainedPart(part, trainer.steps, trainer.tokens)
