"""How stages train: the two stage modes under a budget of student tokens (method 4).

A run that is started again makes the same calls: finished stages return at once, and the one that
was running goes on at its newest checkpoint.
"""

from __future__ import annotations

import abc
import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.training import StepMetrics, TrainConfig, Trainer, endless_batches
from ioa_jax.errors import InputError
from ioa_jax.files import finished, read_value, write_text
from ioa_jax.rows import Count
from ioa_jax.student import Student
from ioa_jax.values import Value

OnStep = Callable[[str, StepMetrics], None]

_DELETED = ".deleted"


@dataclasses.dataclass(frozen=True)
class TrainedStage(Value):
    """What training on a stage, or on everything, took.

    Attributes:
        name: Unique in the run.
        steps: Optimiser steps.
        tokens: Student tokens, prompts included.
    """

    name: str
    steps: Count
    tokens: Count


class StageTrainer(abc.ABC):
    """Trains the student stage by stage. Close it, or use it as a context manager.

    Attributes:
        config: Hyperparameters.
        budget_tokens: Student tokens of all stages together.
        trained: The finished stages.
    """

    def __init__(
        self,
        student: Student,
        config: TrainConfig,
        budget_tokens: int,
        directory: Path,
        on_step: OnStep | None = None,
    ) -> None:
        """Begin, or go on.

        Args:
            student: As it is before the first stage.
            config: Hyperparameters; `seed` orders the data.
            budget_tokens: Student tokens of all stages together.
            directory: For checkpoints and the files of the stages.
            on_step: Called with (stage, metrics) after each optimiser step.
        """
        self.config = config
        self.budget_tokens = budget_tokens
        self.trained: list[TrainedStage] = []
        self._student = student
        self._directory = directory
        self._on_step = on_step

    @property
    def tokens(self) -> int:
        """Student tokens of the finished stages."""
        return sum(stage.tokens for stage in self.trained)

    @property
    def left(self) -> int:
        """Tokens of the budget that no finished stage has used."""
        return self.budget_tokens - self.tokens

    @property
    @abc.abstractmethod
    def student(self) -> Student:
        """As trained so far. Its weights are given away by the next stage."""

    @abc.abstractmethod
    def train(
        self,
        name: str,
        examples: Sequence[TokenPair],
        retained: Sequence[TokenPair] = (),
        *,
        until_tokens: int | None = None,
    ) -> TrainedStage:
        """Train on a stage.

        Args:
            name: Unique in the run; names a file.
            examples: At least one; each fits a row.
            retained: Kept as the student was, in rows of their own.
            until_tokens: Of all stages together, at its end; None is the whole budget.

        Raises:
            InputError: As `Trainer.step`.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Wait for the checkpoint that is being written."""

    def __enter__(self) -> StageTrainer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _report(self, name: str) -> Callable[[StepMetrics], None] | None:
        on_step = self._on_step
        return None if on_step is None else lambda metrics: on_step(name, metrics)

    def _record(self, name: str) -> Path:
        return self._directory / "stages" / f"{name}.json"


class PooledTrainer(StageTrainer):
    """`pooled` [ours]: one schedule and one optimiser span the whole budget."""

    def __init__(
        self,
        student: Student,
        config: TrainConfig,
        budget_tokens: int,
        directory: Path,
        on_step: OnStep | None = None,
    ) -> None:
        """As `StageTrainer`."""
        super().__init__(student, config, budget_tokens, directory, on_step)
        self._trainer = Trainer(
            student.model.decoder, config, budget_tokens, directory=directory / "checkpoints"
        )

    @property
    def student(self) -> Student:
        """See `StageTrainer`."""
        return self._student.with_decoder(self._trainer.decoder)

    def train(
        self,
        name: str,
        examples: Sequence[TokenPair],
        retained: Sequence[TokenPair] = (),
        *,
        until_tokens: int | None = None,
    ) -> TrainedStage:
        """See `StageTrainer`."""
        before = sum(stage.steps for stage in self.trained)
        batches = endless_batches(examples, self.config, name, retained=retained)
        record = self._record(name)
        if record.is_file():
            known = read_value(record, TrainedStage)
            # The newest checkpoint may be older than the record.
            self._trainer.run(
                batches,
                first_step=before,
                until_steps=before + known.steps,
                on_step=self._report(name),
            )
        else:
            goal = self.budget_tokens if until_tokens is None else until_tokens
            self._trainer.run(
                batches, first_step=before, until_tokens=goal, on_step=self._report(name)
            )
            self._trainer.save()
            known = TrainedStage(
                name, self._trainer.steps - before, self._trainer.tokens - self.tokens
            )
            write_text(record, known.to_json() + "\n")
        self.trained.append(known)
        return known

    def close(self) -> None:
        """See `StageTrainer`."""
        self._trainer.close()


class SequentialTrainer(StageTrainer):
    """`sequential`, the paper read literally: each stage alone, in epochs, on its own schedule."""

    def __init__(
        self,
        student: Student,
        config: TrainConfig,
        budget_tokens: int,
        directory: Path,
        on_step: OnStep | None = None,
    ) -> None:
        """As `StageTrainer`; `config.epochs` are the passes over a stage."""
        super().__init__(student, config, budget_tokens, directory, on_step)
        # Of the stage before: its weights are on disk until the next stage's are.
        self._checkpoints: Path | None = None
        # A finished stage whose weights are gone, so that `_student` isn't as trained so far.
        self._lost: str | None = None
        for left in (directory / "checkpoints").glob(f"*{_DELETED}"):
            shutil.rmtree(left)

    @property
    def student(self) -> Student:
        """See `StageTrainer`.

        Raises:
            InputError: The last stage's checkpoints are gone.
        """
        if self._lost is not None:
            raise self._without_weights(self._lost)
        return self._student

    def train(
        self,
        name: str,
        examples: Sequence[TokenPair],
        retained: Sequence[TokenPair] = (),
        *,
        until_tokens: int | None = None,
    ) -> TrainedStage:
        """See `StageTrainer`. The paper retains nothing, and neither does this."""
        record = self._record(name)
        checkpoints = self._directory / "checkpoints" / name
        size = sum(min(len(pair), self.config.row_length) for pair in examples)
        goal = self.budget_tokens if until_tokens is None else until_tokens
        budget = min(self.config.epochs * size, goal - self.tokens)
        if budget < 1:
            known = finished(record, TrainedStage, lambda: TrainedStage(name, 0, 0))
        # Weights that a later stage has taken over are gone, and aren't needed.
        elif record.is_file() and not checkpoints.is_dir():
            known = read_value(record, TrainedStage)
            self._lost = name
        else:
            known = self._train(name, examples, budget, checkpoints)
            write_text(record, known.to_json() + "\n")
            if self._checkpoints is not None:
                # At once: of a part that a kill leaves, nothing could be restored.
                old = self._checkpoints.with_name(self._checkpoints.name + _DELETED)
                shutil.rmtree(self._checkpoints.rename(old), ignore_errors=True)
            self._checkpoints = checkpoints
        self.trained.append(known)
        return known

    def close(self) -> None:
        """See `StageTrainer`: every stage waits for its own."""

    def _train(
        self, name: str, examples: Sequence[TokenPair], budget: int, checkpoints: Path
    ) -> TrainedStage:
        decoder = self._student.model.decoder
        with Trainer(decoder, self.config, budget, directory=checkpoints) as trainer:
            if self._lost is not None and trainer.steps == 0:
                raise self._without_weights(self._lost)
            trainer.run(endless_batches(examples, self.config, name), on_step=self._report(name))
            trainer.save()
        self._student, self._lost = self._student.with_decoder(trainer.decoder), None
        return TrainedStage(name, trainer.steps, trainer.tokens)

    def _without_weights(self, stage: str) -> InputError:
        return InputError(
            f"{self._directory / 'checkpoints'}: the weights of stage {stage!r} are gone, and the "
            "next can't go on from others; take them from a copy, or begin the run anew"
        )
