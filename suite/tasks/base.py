"""What a benchmark task is: data, prompt, generation settings, grader, metrics."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item, Verdict
from ioa_jax.thoughts import marks_thoughts
from suite.data import DataSource, Provenance

Style = Literal["chat", "base"]
GraderKind = Literal[
    "math", "number", "code", "instruction", "rouge", "exact", "choice", "mixed", "judge"
]  # fmt: skip

# What Qwen3's model cards ask for. A limit, not a cost: most thoughts are shorter.
THOUGHT_TOKENS = 32_768


@dataclasses.dataclass(frozen=True)
class GenerationSettings:
    """How answers are generated. Stop strings depend on the prompt, and are with it.

    Attributes:
        max_tokens: Longest answer, in tokens, without what a model thinks before it; see
            `default_max_tokens`.
        temperature: 0 is greedy.
        top_p: Nucleus; 1 is no limit.
        samples: Answers to each item, each with another seed.
        temperatures: By category of the items (`data["category"]`), where they differ in it; other
            items have `temperature`.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    temperatures: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])

    def temperature_of(self, item: Item) -> float:
        """That of the item's category, or else that of all."""
        return self.temperatures.get(str(item.data.get("category")), self.temperature)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What a model is given: a chat for its template, or a text to continue.

    Attributes:
        messages: The chat; empty for a base model.
        text: The text; empty for a chat.
        stop: Strings that end the answer and aren't part of it.
    """

    messages: tuple[Mapping[str, str], ...] = ()
    text: str = ""
    stop: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Example:
    """An item with a model answer, for few-shot prompts."""

    item: Item
    answer: str


@dataclasses.dataclass(frozen=True)
class TaskData:
    """A task's data as they were found.

    Attributes:
        items: What is asked and graded.
        examples: For few-shot prompts, in the order in which they stand there.
        unscored: Test items that can't be graded, since they have no reference. Training data
            must not have these either.
        sources: What was read.
        notes: What sets the items apart from those that others report figures for.
    """

    items: tuple[Item, ...]
    examples: tuple[Example, ...] = ()
    unscored: tuple[Item, ...] = ()
    sources: tuple[Provenance, ...] = ()
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Graded:
    """An item with the verdicts on its answers, one a sample."""

    item: Item
    verdicts: tuple[Verdict, ...]


@dataclasses.dataclass(frozen=True)
class MetricValues:
    """A metric before its mean is taken.

    Attributes:
        values: In [0, 1].
        items: Id of the item that each value belongs to. Of two models' values, those with one id
            are paired; values with one id are not independent of each other.
    """

    values: tuple[float, ...]
    items: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean; there is at least one value."""
        return sum(self.values) / len(self.values)


class Task(Protocol):
    """A benchmark task. Third parties offer theirs as entry points of the group `ioa.tasks`."""

    @property
    def name(self) -> str:
        """As it is given in profiles."""
        ...

    @property
    def version(self) -> int:
        """Of data, prompt, settings and metrics: a change of any may change the figures."""
        ...

    @property
    def summary(self) -> str:
        """What it asks, in a few words."""
        ...

    @property
    def source(self) -> str:
        """Where its data are from: paper and address."""
        ...

    @property
    def licence(self) -> str:
        """Of the data."""
        ...

    @property
    def grader_kind(self) -> GraderKind:
        """What `ioa_jax.graders.registry.make_grader` takes, or `judge`: answers for a judge."""
        ...

    @property
    def settings(self) -> GenerationSettings:
        """The field's, where it has agreed on some."""
        ...

    @property
    def default_shots(self) -> Mapping[Style, int]:
        """Examples in the prompt where nothing else is asked for."""
        ...

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """Items, and `shots` examples.

        Raises:
            InputError: As `DataSource.load`; or the task has fewer examples.
        """
        ...

    def prompt(self, item: Item, style: Style = "chat", examples: Sequence[Example] = ()) -> Prompt:
        """How the item is put to a model, after the examples."""
        ...

    def metrics(self, graded: Sequence[Graded]) -> dict[str, MetricValues]:
        """The task's figures by name, the main one first."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """What each of our tasks says of itself; see `Task`."""

    name: str
    version: int
    summary: str
    source: str
    licence: str
    grader_kind: GraderKind
    settings: GenerationSettings
    default_shots: Mapping[Style, int] = dataclasses.field(
        default_factory=lambda: {"chat": 0, "base": 0}
    )


def default_max_tokens(task: Task, style: Style, template: object) -> int:
    """Longest response where nobody names a limit.

    The task's own; `THOUGHT_TOKENS` more in a chat with a model whose template has the markup of
    thoughts. The model's context bounds both.

    Args:
        task: The task.
        style: Of its prompts.
        template: The tokenizer's chat template, a text or several by name; None if it has none.
    """
    thinks = style == "chat" and template is not None and marks_thoughts(str(template))
    return task.settings.max_tokens + (THOUGHT_TOKENS if thinks else 0)


def describe(task: Task, style: Style, shots: int, data: TaskData) -> dict[str, Any]:
    """What a run has to say of a task beside its figures, ready for JSON."""
    sample = task.prompt(data.items[0], style, data.examples)
    generation = dataclasses.asdict(task.settings)
    if not task.settings.temperatures:
        del generation["temperatures"]
    return {
        "task": task.name,
        "version": task.version,
        "grader": task.grader_kind,
        "generation": generation,
        "style": style,
        "shots": shots,
        "examples": [example.item.id for example in data.examples],
        "stop": list(sample.stop),
        "items": len(data.items),
        "unscored": len(data.unscored),
        "data": [dataclasses.asdict(source) for source in data.sources],
        "notes": list(data.notes),
        "first_prompt": [dict(message) for message in sample.messages] or sample.text,
    }


def chat_prompt(
    question: str, examples: Sequence[tuple[str, str]] = (), stop: tuple[str, ...] = ()
) -> Prompt:
    """Each example as a turn of its own."""
    messages: list[Mapping[str, str]] = []
    for asked, answer in examples:
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": answer})
    messages.append({"role": "user", "content": question})
    return Prompt(messages=tuple(messages), stop=stop)


def mean_metric(graded: Sequence[Graded], name: str = "accuracy") -> dict[str, MetricValues]:
    """Each item's mean score over its samples."""
    return {name: values_of(graded, lambda verdict: verdict.score)}


def values_of(graded: Sequence[Graded], score: _Score) -> MetricValues:
    """Each item's mean over its samples of what `score` reads from a verdict."""
    return MetricValues(
        tuple(sum(map(score, one.verdicts)) / len(one.verdicts) for one in graded),
        tuple(one.item.id for one in graded),
    )


class _Score(Protocol):
    def __call__(self, verdict: Verdict, /) -> float: ...


def content_ids(texts: Sequence[str], prefix: str) -> list[str]:
    """Ids that depend on the texts alone: they are the same in a half and in the whole set."""
    ids: list[str] = []
    seen: dict[str, int] = {}
    for text in texts:
        base = f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        seen[base] = seen.get(base, 0) + 1
        ids.append(base if seen[base] == 1 else f"{base}-{seen[base]}")
    return ids


def take_examples(task: str, examples: Sequence[Example], shots: int) -> tuple[Example, ...]:
    """The first `shots`.

    Raises:
        InputError: There are fewer.
    """
    if not 0 <= shots <= len(examples):
        raise InputError(f"task {task!r}: {shots} shots: it has {len(examples)} examples")
    return tuple(examples[:shots])
