"""A teacher behind a ledger and a budget.

A call is found by its content, so an interrupted run goes on where it stopped, runs share what they
have in common, and a finished run replays without its teacher.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ioa_jax.errors import InputError, IOAError, first_fault
from ioa_jax.journal import Journal
from ioa_jax.rows import CallRow
from ioa_jax.teachers.base import (
    Capabilities,
    ChatRequest,
    Completion,
    OnCompletion,
    OnScores,
    Sampling,
    Teacher,
    TokenScores,
    prompt_token_bound,
)
from ioa_jax.teachers.ledger import SCHEMA_VERSION, Ledger, call_key
from ioa_jax.teachers.spend import Budget, BudgetExceeded, Estimate, Prices, Spend, Usage

Result = TypeVar("Result", Completion, TokenScores)

_COMPLETION = TypeAdapter(Completion)
_SCORES = TypeAdapter(TokenScores)


class ReplayMiss(IOAError):
    """A call that isn't in the ledger was asked for without a teacher."""


@dataclasses.dataclass(frozen=True)
class _Call(Generic[Result]):
    """A call on its way through the ledger.

    Attributes:
        key: `call_key` of `content`.
        content: What it depends on.
        purpose: Of its spend.
        most: What it takes at most.
        places: Where its result goes: equal requests of one list share a call.
    """

    key: str
    content: dict[str, Any]
    purpose: str
    most: Usage
    places: list[int]


class LedgeredTeacher(Teacher):
    """A teacher behind a ledger: recorded calls are replayed, others made and recorded.

    Attributes:
        ledger: The ledger.
        budget: What this run may use.
        prices: What tokens cost; None: cost isn't counted.
    """

    def __init__(
        self,
        teacher: Teacher | None,
        ledger: Ledger,
        budget: Budget | None = None,
        prices: Prices | None = None,
        fingerprint: str | None = None,
        counted: Path | None = None,
        owns_teacher: bool = True,
    ) -> None:
        """Wrap a teacher.

        Args:
            teacher: None replays: a call that isn't recorded raises `ReplayMiss`.
            ledger: Shared at will.
            budget: Of this run; None is no limit.
            prices: Of the teacher.
            fingerprint: Of the model to replay; may be left out where the ledger has one model.
            counted: File of the calls that count as this run's. A run that is started again reads
                from it what it used before, so that it stops where it would have stopped.
            owns_teacher: Close the teacher with the wrapper; off where several share it.

        Raises:
            InputError: A budget of cost without prices, or no telling which model to replay.
        """
        self.ledger = ledger
        self.budget = budget or Budget(max_tokens=None, max_cost=None)
        self.prices = prices
        self._teacher = teacher
        self._owns_teacher = owns_teacher
        if self.budget.max_cost is not None and prices is None:
            raise InputError("budget.max_cost needs the teacher's prices; give prices as well")
        if teacher is not None:
            fingerprint = teacher.fingerprint
        elif fingerprint is None:
            if len(ledger.models) != 1:
                names = ", ".join(ledger.models) or "none"
                raise InputError(
                    f"ledger {ledger.directory} has calls of these models: {names}; without a "
                    "teacher, name the one to replay by its fingerprint"
                )
            fingerprint = ledger.models[0]
        self._fingerprint = fingerprint
        self._spend: dict[str, Spend] = {}
        self._counted: set[str] = set()
        self._journal = None if counted is None else Journal(counted, ("key",), CallRow)
        for record in self._journal or ():
            self._counted.add(record["key"])
            self._add_spend(record["purpose"], Usage(**record["usage"]), replayed=True)

    @property
    def fingerprint(self) -> str:
        """Of the wrapped teacher."""
        return self._fingerprint

    @property
    def capabilities(self) -> Capabilities:
        """Of the wrapped teacher; a replay can try everything."""
        return Capabilities(score=True) if self._teacher is None else self._teacher.capabilities

    @property
    def takes_schema(self) -> bool:
        """As the wrapped teacher; a replay finds out by its ledger."""
        return self._teacher is None or self._teacher.takes_schema

    @property
    def spend(self) -> dict[str, Spend]:
        """What this run used so far, by purpose."""
        return dict(self._spend)

    @property
    def used(self) -> Usage:
        """What this run used so far, in all."""
        return sum((spend.used for spend in self._spend.values()), Usage())

    @contextlib.contextmanager
    def limited(self, max_tokens: int | None) -> Generator[None]:
        """Within it, the budget is at most so many generated tokens of the whole run.

        Args:
            max_tokens: As `Budget.max_tokens` counts them; a smaller one that holds already goes
                on to hold. None changes nothing.
        """
        whole = self.budget
        limits = [one for one in (whole.max_tokens, max_tokens) if one is not None]
        self.budget = Budget(max_tokens=min(limits, default=None), max_cost=whole.max_cost)
        try:
            yield
        finally:
            self.budget = whole

    def generate(
        self,
        requests: Sequence[ChatRequest],
        sampling: Sampling,
        on_completion: OnCompletion | None = None,
    ) -> list[Completion]:
        """As `Teacher.generate`; each answer is recorded before `on_completion` is called.

        Calls start in input order as long as the most that all running ones can take fits into the
        budget: it is used up as far as can be without ever being exceeded.

        Raises:
            BudgetExceeded: The next call could exceed the budget; those before it are recorded and
                `on_completion` was called with them.
            ReplayMiss: Without a teacher, a request isn't recorded.
        """

        def make(calls: Sequence[_Call[Completion]], record: OnCompletion) -> None:
            assert self._teacher is not None
            chosen = [requests[call.places[0]] for call in calls]
            self._teacher.generate(chosen, sampling, record)

        # Only prices make prompts count, and rendering every prompt twice is slow.
        calls = self._generate_calls(requests, sampling, count_prompts=self.prices is not None)
        return self._run(calls, len(requests), make, _read_completion, on_completion)

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        on_scores: OnScores | None = None,
        purpose: str = "score",
    ) -> list[TokenScores]:
        """As `Teacher.score`, with the ledger and the budget of `generate`."""

        def make(calls: Sequence[_Call[TokenScores]], record: OnScores) -> None:
            assert self._teacher is not None
            self._teacher.score([pairs[call.places[0]] for call in calls], record)

        calls: dict[str, _Call[TokenScores]] = {}
        for place, (prompt, completion) in enumerate(pairs):
            content = {"kind": "score", "model": self._fingerprint}
            content |= {"prompt": prompt, "completion": completion}
            # Without a teacher nothing is called, and nothing has to be bounded.
            bound = self._teacher.score_bound(prompt, completion) if self._teacher else (0, 0)
            most = self._usage(*bound)
            _add_call(calls, content, purpose, most, place)
        return self._run(calls, len(pairs), make, _read_scores, on_scores)

    def estimate(self, requests: Sequence[ChatRequest], sampling: Sampling) -> Estimate:
        """What `generate` would take; nothing is called.

        Completions to come are counted at `max_tokens`, and prompts at an upper bound where no
        tokenizer is at hand.
        """
        replayed, called = Usage(), Usage()
        for key, call in self._generate_calls(requests, sampling, count_prompts=True).items():
            record = self.ledger.find(key)
            if record is None:
                called += call.most
            else:
                replayed += self._usage_of(_read_completion(record))
        return Estimate(replayed, called)

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        """As the wrapped teacher; an upper bound without one."""
        if self._teacher is None:
            return prompt_token_bound(request)
        return self._teacher.count_prompt_tokens(request)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """As the wrapped teacher; recorded, so that scores of chats replay without it.

        Raises:
            ReplayMiss: Without a teacher, the chat isn't recorded.
        """
        content = {"kind": "render", "model": self._fingerprint}
        content |= {"messages": [dict(message) for message in messages]}
        key = call_key(content)
        record = self.ledger.find(key)
        if record is None:
            if self._teacher is None:
                raise ReplayMiss(
                    f"rendering a chat isn't in the ledger {self.ledger.directory} for "
                    f"the model {self._fingerprint}; run it with the teacher"
                )
            text = self._teacher.render(messages)
            record = self.ledger.append({"key": key, **content, "result": {"text": text}})
        return record["result"]["text"]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """As the wrapped teacher; not recorded.

        Raises:
            ReplayMiss: There is no teacher.
        """
        if self._teacher is None:
            raise ReplayMiss("hidden states aren't in ledgers; run it with the teacher")
        return self._teacher.embed(texts)

    def close(self) -> None:
        """Force the ledger to the disk, and close the wrapped teacher if it is owned."""
        self.ledger.sync()
        if self._journal is not None:
            self._journal.close()
        if self._teacher is not None and self._owns_teacher:
            self._teacher.close()

    def _generate_calls(
        self, requests: Sequence[ChatRequest], sampling: Sampling, count_prompts: bool
    ) -> dict[str, _Call[Completion]]:
        count = self.count_prompt_tokens if count_prompts else prompt_token_bound
        calls: dict[str, _Call[Completion]] = {}
        # The record's JSON has lists for tuples; the key must not depend on which it is.
        how = {**dataclasses.asdict(sampling), "stop": list(sampling.stop)}
        for place, request in enumerate(requests):
            content = {
                "kind": "generate",
                "model": self._fingerprint,
                "messages": [dict(message) for message in request.messages],
                "sampling": how,
                "seed": request.seed,
            }
            schema = request.answer_schema
            if schema is not None and self._holds(content, schema):
                content["answer_schema"] = dict(schema)
            most = self._usage(count(request), sampling.max_tokens)
            _add_call(calls, content, request.purpose, most, place)
        return calls

    def _holds(self, content: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
        """Whether an answer depends on its schema; without a teacher, whether one is recorded."""
        if self._teacher is not None:
            return self._teacher.takes_schema
        return self.ledger.find(call_key({**content, "answer_schema": dict(schema)})) is not None

    def _run(
        self,
        calls: dict[str, _Call[Result]],
        count: int,
        make: Callable[[Sequence[_Call[Result]], Callable[[int, Result], None]], None],
        read: Callable[[Mapping[str, Any]], Result],
        on_result: Callable[[int, Result], None] | None,
    ) -> list[Result]:
        results: list[Result | None] = [None] * count

        def finish(call: _Call[Result], record: Mapping[str, Any], replayed: bool) -> None:
            result = read(record)
            self._count(call, result, replayed)
            for place in call.places:
                results[place] = result
                if on_result is not None:
                    on_result(place, result)

        pending = list(calls.values())
        while pending:
            admitted = self._admit(pending, read)
            pending = pending[len(admitted) :]
            missing: list[_Call[Result]] = []
            for call in admitted:
                record = self.ledger.find(call.key)
                if record is None:
                    missing.append(call)
                else:
                    finish(call, record, True)
            if not missing:
                continue
            if self._teacher is None:
                first = missing[0]
                raise ReplayMiss(
                    f"request {first.places[0]} for {first.purpose!r} isn't in the ledger "
                    f"{self.ledger.directory} for the model {self._fingerprint}; run it with the "
                    "teacher"
                )

            def record_result(index: int, result: Result, wave: Sequence[Any] = missing) -> None:
                call = wave[index]
                finish(call, self.ledger.append(_record(call, result)), False)

            make(missing, record_result)
        assert all(result is not None for result in results)
        return [result for result in results if result is not None]

    def _admit(
        self, pending: Sequence[_Call[Result]], read: Callable[[Mapping[str, Any]], Result]
    ) -> list[_Call[Result]]:
        """As many of the next calls as the budget holds at the most that each can take.

        A replayed call has to fit like any other, so that a run ends at the same call whatever the
        ledger has. With what they really took counted in, calls that didn't fit get another look:
        the first that fails then is the first that doesn't fit behind all before it.
        """
        if self.budget.max_tokens is None and self.budget.max_cost is None:
            return list(pending)
        reserved = self.used
        admitted: list[_Call[Result]] = []
        for call in pending:
            if call.key not in self._counted:
                excess = self._excess(reserved + call.most)
                if excess:
                    if not admitted:
                        raise BudgetExceeded(
                            f"budget: the next call for {call.purpose!r} could bring {excess}; "
                            "what was answered before is in the ledger "
                            f"{self.ledger.directory}; to go on, raise the budget and run again"
                        )
                    break
                record = self.ledger.find(call.key)
                reserved += call.most if record is None else self._usage_of(read(record))
            admitted.append(call)
        return admitted

    def _excess(self, usage: Usage) -> str:
        """How a usage exceeds the budget, in words; empty if it doesn't."""
        tokens, cost = self.budget.max_tokens, self.budget.max_cost
        if tokens is not None and usage.completion_tokens > tokens:
            return f"the generated tokens to {usage.completion_tokens} of {tokens}"
        if cost is not None and usage.cost is not None and usage.cost > cost:
            currency = self.prices.currency if self.prices else ""
            return f"the cost to {usage.cost:.4f} of {cost} {currency}"
        return ""

    def _count(self, call: _Call[Any], result: Completion | TokenScores, replayed: bool) -> None:
        if call.key in self._counted:
            return
        self._counted.add(call.key)
        usage = self._usage_of(result)
        if self._journal is not None:
            fields = {"purpose": call.purpose, "usage": dataclasses.asdict(usage)}
            self._journal.append({"key": call.key, **fields})
        self._add_spend(call.purpose, usage, replayed)

    def _add_spend(self, purpose: str, usage: Usage, replayed: bool) -> None:
        spend = self._spend.get(purpose, Spend())
        if replayed:
            spend = dataclasses.replace(spend, replayed=spend.replayed + usage)
        else:
            spend = dataclasses.replace(spend, called=spend.called + usage)
        self._spend[purpose] = spend

    def _usage_of(self, result: Completion | TokenScores) -> Usage:
        return self._usage(result.prompt_tokens, result.completion_tokens)

    def _usage(self, prompt_tokens: int, completion_tokens: int) -> Usage:
        cost = self.prices.cost(prompt_tokens, completion_tokens) if self.prices else None
        return Usage(1, prompt_tokens, completion_tokens, cost)


def _add_call(
    calls: dict[str, _Call[Any]], content: dict[str, Any], purpose: str, most: Usage, place: int
) -> None:
    key = call_key(content)
    if key in calls:
        calls[key].places.append(place)
    else:
        calls[key] = _Call(key, content, purpose, most, [place])


def _record(call: _Call[Any], result: Completion | TokenScores) -> dict[str, Any]:
    return {
        "key": call.key,
        "schema": SCHEMA_VERSION,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "purpose": call.purpose,
        **call.content,
        "result": dataclasses.asdict(result),
    }


def _read_completion(record: Mapping[str, Any]) -> Completion:
    return _read(record, _COMPLETION)


def _read_scores(record: Mapping[str, Any]) -> TokenScores:
    return _read(record, _SCORES)


# Any: beartype can't check pydantic's generic class.
def _read(record: Mapping[str, Any], kind: Any) -> Any:
    try:
        return kind.validate_python(record["result"])
    except KeyError:
        fault = "field 'result' is missing"
    except ValidationError as error:
        fault = first_fault(error, "result")
    raise InputError(
        f"ledger: the record with the key {record['key']} doesn't hold an answer: {fault}; remove "
        "its line, and its call is made again"
    )
