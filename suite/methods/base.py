"""What a method gets and gives back, and what methods have in common.

Every method has the same two budgets. What it asks the teacher goes through `ask`, which keeps what
was answered when the teacher's tokens are used up; what it trains goes through `fine_tune`, which
goes over the examples as often as the student's tokens allow, be they few or many.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from rouge_score.rouge_scorer import RougeScorer

from ioa_jax.adapter.duplicates import BenchmarkIndex
from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.engine.training import (
    Batch,
    LoRAConfig,
    StepMetrics,
    TrainConfig,
    Trainer,
    endless_batches,
)
from ioa_jax.errors import InputError
from ioa_jax.identifier.probes import ProbeGraders
from ioa_jax.seeds import SeedItem
from ioa_jax.streams import stream
from ioa_jax.student import Student
from ioa_jax.teachers.base import ChatRequest, Completion, Sampling
from ioa_jax.teachers.replay import LedgeredTeacher
from ioa_jax.teachers.spend import BudgetExceeded
from ioa_jax.thoughts import cut_thoughts
from suite.methods.prompting import Pack, read_tasks, render, split_rationale
from suite.profile import Budgets, SandboxSettings, TrainSettings

log = logging.getLogger(__name__)

Messages = Sequence[Mapping[str, str]]

RESAMPLING_TEMPERATURE = 0.7  # of further answers where the first is greedy

# Called with the part's name, the step's figures, and what gives the student as it is now.
OnStep = Callable[[str, StepMetrics, Callable[[], Student]], None]


@dataclasses.dataclass
class Meter:
    """What a method has asked of the teacher since it was started, the same after a restart.

    Attributes:
        calls: Requests that were answered.
        tokens: Generated for them.
    """

    calls: int = 0
    tokens: int = 0


@dataclasses.dataclass(frozen=True)
class Retention:
    """What a method keeps as the student was [ours].

    Attributes:
        pairs: Problems with the student's own answers; in `replay` with their references.
        share: Of the training rows.
        kind: How: by λ · KL(before ‖ now), or by cross-entropy as on all else.
        weight: λ.
        teacher_tokens: What the problems cost the teacher.
    """

    pairs: tuple[TokenPair, ...] = ()
    share: float = 0.0
    kind: Literal["divergence", "replay"] = "divergence"
    weight: float = 0.0
    teacher_tokens: int = 0


@dataclasses.dataclass(frozen=True)
class MethodContext:
    """Everything that a method may use.

    Attributes:
        student: As it is before; methods leave it so.
        teacher: Behind the run's ledger, with this cell's own budget.
        seeds: Tasks to start from.
        budgets: Teacher tokens generated and student tokens trained on, at most.
        train: Hyperparameters, the same for all methods.
        sampling: How the teacher writes.
        answer_temperature: Of its answers to tasks; None is `sampling`'s.
        pack: Of prompts, as the teacher needs them.
        sandbox: Limits of programs that are tested.
        graders: Of seeds' checks, for all cells of a process.
        seed: Of everything random in the method.
        directory: For checkpoints and files; a method that is started again goes on from them.
        on_step: To be called after each optimiser step. Steps that a resumed method repeats are
            reported again.
        cell_of: The finished cell of another method and the same seed: its folder; None where the
            run doesn't have that method. It raises InputError where that cell failed.
        options: The profile's settings of the method of the paper, for `ioa` and its controls.
        benchmarks: Test items of the run's tasks, which no training data may have.
        shared: Folder of what several cells compute from the same, such as a student's
            dependencies.
        retention: What `fine_tune` retains; nothing but in controls.
        meter: Counts what `ask` asks.
    """

    student: Student
    teacher: LedgeredTeacher
    seeds: tuple[SeedItem, ...]
    budgets: Budgets
    train: TrainSettings
    sampling: Sampling
    pack: Pack
    sandbox: SandboxSettings
    graders: ProbeGraders
    seed: int
    directory: Path
    on_step: OnStep
    cell_of: Callable[[str], Path | None]
    options: Mapping[str, Any]
    benchmarks: Callable[[], BenchmarkIndex]
    shared: Path
    retention: Retention = Retention()
    meter: Meter = dataclasses.field(default_factory=Meter)
    answer_temperature: float | None = None

    @property
    def answer_sampling(self) -> Sampling:
        """How the teacher answers tasks."""
        if self.answer_temperature is None:
            return self.sampling
        return dataclasses.replace(self.sampling, temperature=self.answer_temperature)

    def train_config(self) -> TrainConfig:
        """The engine's view of `train`, `retention` and `seed`."""
        settings = self.train.model_dump(exclude={"lora"})
        lora = None if self.train.lora is None else LoRAConfig(**self.train.lora.model_dump())
        return TrainConfig(
            **settings,
            lora=lora,
            seed=self.seed,
            retained_share=self.retention.share,
            retention=self.retention.kind,
            retention_weight=self.retention.weight,
        )


@dataclasses.dataclass(frozen=True)
class MethodResult:
    """What a method gives back.

    Attributes:
        student: Trained or not.
        notes: Figures of the method's own, JSON-able.
        further_student_tokens: Trained on without a call of `on_step`, such as in a diagnosis.
        teacher_of: Method whose cell's data were used: what the teacher generated for these counts.
    """

    student: Student
    notes: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    further_student_tokens: int = 0
    teacher_of: str | None = None


class Method(Protocol):
    """A way to make a better student. Third parties offer theirs as entry points."""

    @property
    def summary(self) -> str:
        """What it does, in a few words."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Methods whose cells, where the run has them, are to be done before."""
        ...

    def run(self, context: MethodContext) -> MethodResult:
        """Train, or go on training, to the end of a budget."""
        ...


# -- the teacher ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Answered:
    """A task with the teacher's answer.

    Attributes:
        messages: The task.
        text: The answer.
        ended: Whether the teacher ended it by itself, not at the token limit.
    """

    messages: Messages
    text: str
    ended: bool


def make_request(
    context: MethodContext, messages: Messages, purpose: str, sampling: Sampling, sample: int = 0
) -> ChatRequest:
    """A request whose answer depends on the cell's seed and on `sample`.

    A greedy answer depends on neither: it has one seed, so that all cells share it.
    """
    seed = 0
    if sampling.temperature > 0:
        seed = int(stream(context.seed, "teacher", sample).integers(2**31))
    return ChatRequest(tuple(messages), purpose, seed)


def ask(
    context: MethodContext, requests: Sequence[ChatRequest], sampling: Sampling
) -> tuple[list[Completion | None], bool]:
    """Answers in the order of the requests, and whether the budget had room for all of them.

    None stands for the answer to a request that it had no room for.
    """
    answers: list[Completion | None] = [None] * len(requests)

    def keep(index: int, completion: Completion) -> None:
        answers[index] = completion
        context.meter.calls += 1
        context.meter.tokens += completion.completion_tokens

    try:
        context.teacher.generate(requests, sampling, keep)
    except BudgetExceeded as error:
        # What was answered before is what the budget buys, and the method goes on with that.
        log.info("%s", error)
        return answers, False
    return answers, True


def ask_texts(
    context: MethodContext,
    chats: Sequence[Messages],
    purpose: str,
    sampling: Sampling,
    first_sample: int = 0,
) -> tuple[list[str | None], bool]:
    """As `ask`, the answers' stripped texts; each chat has a sample number from `first_sample` on.

    None also for what was cut at the token limit or refused: half a task is no task.
    """
    requests = [
        make_request(context, messages, purpose, sampling, first_sample + number)
        for number, messages in enumerate(chats)
    ]
    answers, complete = ask(context, requests, sampling)
    whole = [
        None if answer is None or answer.finish_reason != "stop" else answer.answer
        for answer in answers
    ]
    texts = [None if text is None else text.strip() for text in whole]
    return texts, complete


def ask_for_tasks(
    context: MethodContext,
    chats: Sequence[Messages],
    purpose: str,
    sampling: Sampling,
    first_sample: int = 0,
) -> tuple[list[str], bool]:
    """As `ask`, all new tasks in the answers; of one that was cut, all but the last."""
    requests = [
        make_request(context, messages, purpose, sampling, first_sample + number)
        for number, messages in enumerate(chats)
    ]
    answers, complete = ask(context, requests, sampling)
    found: list[str] = []
    for answer in answers:
        if answer is not None and answer.finish_reason != "filtered":
            tasks = read_tasks(context.pack, answer.answer or "")
            found += tasks if answer.finish_reason == "stop" else tasks[:-1]
    return found, complete


def answer_tasks(
    context: MethodContext, chats: Sequence[Messages], sample: int = 0
) -> tuple[list[Answered | None], bool]:
    """As `ask`, the teacher's answers to tasks; None also where it refused or wrote nothing.

    A task or an answer that has anything of a benchmark's test items is left out, as the Adapter
    of IOA leaves it out; the task before it is paid for.
    """
    sampling = context.answer_sampling
    if sample > 0 and sampling.temperature == 0:
        # Greedy, a second answer would be the first one again.
        sampling = dataclasses.replace(sampling, temperature=RESAMPLING_TEMPERATURE)
    index = context.benchmarks()
    clean = [number for number, chat in enumerate(chats) if not index.find(chat[-1]["content"])]
    requests = [make_request(context, chats[n], "answer", sampling, sample) for n in clean]
    answers, complete = ask(context, requests, sampling)
    answered: list[Answered | None] = [None] * len(chats)
    for number, answer in zip(clean, answers, strict=True):
        if answer is None or answer.finish_reason == "filtered":
            continue
        text = answer.answer
        if text and not index.find(text):
            answered[number] = Answered(chats[number], text, answer.finish_reason == "stop")
    return answered, complete


def ask_rationales(context: MethodContext) -> list[tuple[str, str, str]]:
    """(prompt, rationale, final answer) of every seed that the teacher explained to the end."""
    chats = [render(context.pack, "rationale", prompt=seed.prompt) for seed in context.seeds]
    texts, _ = ask_texts(context, chats, "rationale", context.answer_sampling)
    found: list[tuple[str, str, str]] = []
    for seed, text in zip(context.seeds, texts, strict=True):
        rationale, answer = split_rationale(seed, text or "")
        if answer:
            found.append((seed.prompt, rationale, answer))
    return found


def as_chat(prompt: str) -> Messages:
    """A task's text as a chat of one turn."""
    return ({"role": "user", "content": prompt},)


# A method that invents tasks asks for so many at a time, and gives up after so many such waves in a
# row that brought nothing new.
MAX_WAVE = 192
MAX_DRY_WAVES = 5


def wave_size(context: MethodContext) -> int:
    """Requests for new tasks at a time: few enough that the budget also pays for their answers.

    By what calls took so far, so that the last waves are small and hardly a task goes unanswered.
    """
    meter = context.meter
    left = context.budgets.teacher_tokens - meter.tokens
    a_call = meter.tokens / meter.calls if meter.calls else context.sampling.max_tokens
    return int(min(max(left / (3 * a_call), 1), MAX_WAVE))


def grow_pool(
    context: MethodContext, propose: Callable[[int], tuple[list[str], bool]]
) -> tuple[list[TokenPair], dict[str, Any]]:
    """Invent tasks and have them answered, in waves, until a budget ends or nothing new comes.

    Args:
        context: The method's.
        propose: From a wave's number to new tasks, and whether the budget had room for all that
            was asked.

    Returns:
        Examples to train on, and figures for the notes.
    """
    pairs: list[TokenPair] = []
    waves = tasks = dry = 0
    more = True
    while more and dry < MAX_DRY_WAVES and token_count(pairs) < context.budgets.student_tokens:
        new, more = propose(waves)
        # What is left may be too little for another proposal, and enough for an answer.
        answered, answers_more = answer_tasks(context, [as_chat(task) for task in new])
        pairs += example_pairs(context, answered)
        more = more and answers_more
        waves, tasks = waves + 1, tasks + len(new)
        dry = 0 if new else dry + 1
    return pairs, {
        "examples": len(pairs),
        "tasks": tasks,
        "waves": waves,
        "ran_dry": dry == MAX_DRY_WAVES,
    }


class Novelty:
    """Keeps out texts that are too like one that it has seen.

    ROUGE-L F1 without a stemmer, as Self-Instruct measures it. The micro pack's problems have few
    words, most of them in common, so that there only equal texts are too like.
    """

    def __init__(self, pack: Pack, seen: Sequence[str], threshold: float = 0.7) -> None:
        """`threshold`: highest likeness of a new text."""
        self._threshold = threshold if pack == "paper" else None
        self._seen = {_squeezed(text) for text in seen}
        self._scorer = RougeScorer(["rougeL"], use_stemmer=False)

    def add(self, text: str) -> bool:
        """Whether the text is new; it is seen from now on."""
        key = _squeezed(text)
        if key in self._seen:
            return False
        if self._threshold is not None:
            for other in self._seen:
                if self._scorer.score(other, key)["rougeL"].fmeasure > self._threshold:
                    return False
        self._seen.add(key)
        return True


def _squeezed(text: str) -> str:
    return " ".join(text.split())


# -- the student ---------------------------------------------------------------------------------


def example_pairs(context: MethodContext, answered: Sequence[Answered | None]) -> list[TokenPair]:
    """What the student is trained on, of answers that there are.

    An answer that was cut is taught without an end: the student mustn't learn to stop in
    mid-sentence. A task whose prompt leaves no room for an answer in a row is left out.
    """
    pairs = [
        context.student.answer_pair(one.messages, one.text, ended=one.ended)
        for one in answered
        if one is not None
    ]
    return [pair for pair in pairs if fits(context, pair)]


def fits(context: MethodContext, pair: TokenPair) -> bool:
    """Whether a row holds the prompt and at least some of the completion."""
    return bool(pair.completion) and len(pair.prompt) < context.train.row_length


def token_count(pairs: Sequence[TokenPair]) -> int:
    """Student tokens of one pass."""
    return sum(len(pair) for pair in pairs)


def fine_tune(
    context: MethodContext,
    pairs: Sequence[TokenPair],
    part: str = "all",
    *,
    tokens: int | None = None,
    start: Student | None = None,
    supply: Iterator[Batch] | None = None,
) -> Student:
    """Train until a budget of student tokens is used up, with one schedule over it.

    Args:
        context: The method's; what it retains goes into every step.
        pairs: Examples, from one on; they are repeated as often as the budget allows.
        part: Of the method; names its checkpoints and its lines in train.jsonl.
        tokens: Of this part; None is the whole budget.
        start: What it begins from; None is the student as it was given.
        supply: Batches without end, the same whenever it starts; None is those of the pairs.

    Raises:
        InputError: No examples, or as `Trainer.step`.
    """
    student = start or context.student
    config = context.train_config()
    if supply is None:
        if not pairs:
            raise InputError(
                f"{part}: nothing to train on: the teacher's budget bought no usable example; "
                "raise budgets.teacher_tokens or lower sampling.max_tokens"
            )
        supply = endless_batches(pairs, config, part, retained=context.retention.pairs)
    budget = context.budgets.student_tokens if tokens is None else tokens
    with Trainer(
        student.model.decoder, config, budget, directory=context.directory / "checkpoints" / part
    ) as trainer:

        def now() -> Student:
            return student.with_decoder(trainer.decoder)

        trainer.run(supply, on_step=lambda metrics: context.on_step(part, metrics, now))
        trainer.save()
        return now()


def answers_of(context: MethodContext, student: Student, chats: Sequence[Messages]) -> list[str]:
    """The student's greedy answers, without thoughts."""
    if not chats:
        return []
    params = SamplingParams(max_tokens=context.sampling.max_tokens)
    return [cut_thoughts(one.text).answer or "" for one in student.generate(chats, params)]


def check_answers(
    context: MethodContext, seeds: Sequence[SeedItem], texts: Sequence[str]
) -> list[bool]:
    """Whether each answer passes its seed's own check."""
    answers = list(zip(seeds, texts, strict=True))
    return [verdict.correct for verdict in context.graders.grade(answers)]
