"""What a method gets and what it gives back, and what methods have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.training import StepMetrics, TrainConfig, train
from ioa_jax.models.load import LanguageModel
from suite.chat import answer_pair
from suite.profile import TrainSettings
from suite.tasks.seeds import SeedTask
from suite.teacher import Teacher, TeacherAnswer


@dataclasses.dataclass(frozen=True)
class Spend:
    """What a method cost, in the units of method section 0's budget.

    Attributes:
        teacher_requests: Answers that it asked the teacher for.
        teacher_tokens: Tokens of these answers. Another method that asks for the same ones pays
            for them too, though they are generated once.
        student_tokens: Tokens that the student was trained on, prompts included, each as often as
            it was seen.
        unfinished_answers: Answers that ended at the token limit.
        cut_examples: Examples that lost their end to the row length.
    """

    teacher_requests: int = 0
    teacher_tokens: int = 0
    student_tokens: int = 0
    unfinished_answers: int = 0
    cut_examples: int = 0


@dataclasses.dataclass(frozen=True)
class MethodResult:
    """A student, trained or not, and what it cost."""

    model: LanguageModel
    spend: Spend


@dataclasses.dataclass(frozen=True)
class MethodContext:
    """Everything that a method may use.

    Attributes:
        student: Float32 weights; methods leave it as it is.
        teacher: Answers tasks.
        seeds: Tasks to teach from.
        stages: Modules by stage, in the curriculum's order.
        train: Hyperparameters, the same for all methods.
        seed: Of everything random in the method.
        directory: For checkpoints; a method that is started again goes on from them.
        on_step: Called with (part, metrics) after each optimiser step. Steps that a resumed method
            repeats are reported again.
    """

    student: LanguageModel
    teacher: Teacher
    seeds: tuple[SeedTask, ...]
    stages: tuple[tuple[str, ...], ...]
    train: TrainSettings
    seed: int
    directory: Path
    on_step: Callable[[str, StepMetrics], None]

    def train_config(self) -> TrainConfig:
        """The engine's view of `train` and `seed`."""
        return TrainConfig(**self.train.model_dump(), seed=self.seed)


class Method(Protocol):
    """A way to make a better student. Third parties implement this."""

    def run(self, context: MethodContext) -> MethodResult:
        """Train, or go on training, to the end."""
        ...


def examples_from_answers(
    model: LanguageModel, tasks: Sequence[SeedTask], answers: Sequence[TeacherAnswer]
) -> list[TokenPair]:
    """Chat prompt to the teacher's answer with the student's end of turn.

    An answer that ended at the token limit is taught without an end: the student mustn't learn to
    stop in mid-sentence.
    """
    return [
        answer_pair(model, task.messages, answer.text, ended=answer.finish_reason == "stop")
        for task, answer in zip(tasks, answers, strict=True)
        # Nothing is to be learnt from an answer that is neither text nor an end.
        if answer.text or answer.finish_reason == "stop"
    ]


def train_in_parts(
    context: MethodContext, parts: Sequence[tuple[str, Sequence[SeedTask]]]
) -> MethodResult:
    """Fine-tune on one set of tasks after the other, each with a schedule of its own.

    Every example is seen `epochs` times, however the tasks are spread over the parts, so that the
    number of student tokens is the same.
    """
    model = context.student
    config = context.train_config()
    answers = context.teacher.answer([task for _, tasks in parts for task in tasks])
    by_id = {answer.task_id: answer for answer in answers}
    tokens = cut = 0
    for name, tasks in parts:
        examples = examples_from_answers(model, tasks, [by_id[task.id] for task in tasks])
        result = train(
            model.decoder,
            examples,
            config,
            directory=context.directory / name,
            on_step=lambda metrics, name=name: context.on_step(name, metrics),
        )
        model = dataclasses.replace(model, decoder=result.decoder)
        tokens += result.tokens
        cut += result.truncated
    return MethodResult(
        model,
        Spend(
            teacher_requests=len(answers),
            teacher_tokens=sum(answer.tokens for answer in answers),
            student_tokens=tokens,
            unfinished_answers=sum(answer.finish_reason == "length" for answer in answers),
            cut_examples=cut,
        ),
    )
