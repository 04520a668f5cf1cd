"""What every grader takes and gives back."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypeVar

from ioa_jax.thoughts import cut_thoughts

# Characters of an answer without its thoughts. Nobody writes as much in earnest: it is what a model
# repeats until its limit of tokens. As a bound it makes every grader's work on an answer finite.
MAX_ANSWER = 200_000

# Not Self: beartype, which checks annotations while the tests run, refuses it in a method.
AnyGrader = TypeVar("AnyGrader", bound="Grader")


@dataclasses.dataclass(frozen=True)
class Item:
    """Something that a model was asked, with what is needed to judge its answer.

    Attributes:
        id: Unique within its task.
        prompt: What the model was asked, before any template or few-shot example.
        references: Right answers, in the form that the grader names. May be empty where the
            grader judges by `data` alone.
        data: What else the grader needs, by the names that it documents.
    """

    id: str
    prompt: str
    references: tuple[str, ...] = ()
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a grader found, and how, so that a run can be graded again and compared.

    Attributes:
        correct: Whether the answer passes.
        score: In [0, 1]; 1.0 or 0.0 for graders that know only right and wrong.
        extracted: The part of the text that was judged; None if nothing could be extracted.
        rule: Name of the rule that extracted it.
        source: Library and version, or sandbox backend, that judged it.
        detail: Why, in a few words; empty where there is nothing to say.
        status: Of code only: the sandbox's status.
        parts: Further figures of this item by name, such as IFEval's strict and loose checks.
    """

    correct: bool
    score: float
    extracted: str | None
    rule: str
    source: str
    detail: str = ""
    status: str | None = None
    parts: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])


class Grader(abc.ABC):
    """Judges texts. Safe to call from several threads at once.

    A grader may own worker processes; use it as a context manager, or close it.
    """

    @abc.abstractmethod
    def check_item(self, item: Item) -> None:
        """Whether the item has what this grader needs.

        Raises:
            InputError: It hasn't; names the item's id and the field.
        """

    @abc.abstractmethod
    def grade(self, item: Item, text: str) -> Verdict:
        """Judge one text. Whatever the text is, this doesn't raise on its account.

        Raises:
            InputError: As `check_item`.
            SandboxError: The sandbox itself can't work here.
        """

    # Not abstract: most graders have nothing to end.
    def close(self) -> None:  # noqa: B027
        """End worker processes, if there are any."""

    def __enter__(self: AnyGrader) -> AnyGrader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AnswerGrader(Grader):
    """Judges what a text answers, without what it thinks (`ioa_jax.thoughts`).

    A text whose thought never ended is wrong, by the rule `unfinished_thought`; so is, by the rule
    `too_long`, an answer of more than `MAX_ANSWER` characters, which isn't looked at.
    """

    def grade(self, item: Item, text: str) -> Verdict:
        """Judge the answer in a text. Whatever the text is, this doesn't raise on its account.

        Raises:
            InputError: As `check_item`.
            SandboxError: The sandbox itself can't work here.
            MissingDependencyError: A worker can't import what it needs.
        """
        self.check_item(item)
        answer = cut_thoughts(text).answer
        if answer is None:
            return self._refuse(item, "unfinished_thought", "the thought has no end")
        if len(answer) > MAX_ANSWER:
            detail = f"{len(answer)} characters, more than {MAX_ANSWER}"
            return self._refuse(item, "too_long", detail)
        return self._judge(item, answer)

    @abc.abstractmethod
    def _judge(self, item: Item, answer: str) -> Verdict:
        """As `grade`, of an item that was checked and an answer of bounded length."""

    def _refuse(self, item: Item, rule: str, detail: str) -> Verdict:
        # An empty answer's parts are those of a wrong one.
        empty = self._judge(item, "")
        return dataclasses.replace(
            empty, correct=False, score=0.0, extracted=None, rule=rule, detail=detail
        )


class GoldGrader(AnswerGrader):
    """A grader that knows what the right answer to an item would look like."""

    @abc.abstractmethod
    def grade_gold(self, item: Item) -> Verdict:
        """Judge the item's own right answer.

        Raises:
            InputError: As `check_item`.
        """
