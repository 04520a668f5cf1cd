"""A task's answers: generated, graded, and read back from its folder.

texts.jsonl     what the model wrote, appended as each answer ends
verdicts.jsonl  what the grader found, appended as each is graded
groups.jsonl    which samples of an item give the same answer, where a majority counts
seconds.jsonl   where the time went, by process that worked on it
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Grader, Item, Verdict
from ioa_jax.journal import Journal, read_journal
from ioa_jax.jsonl import write_rows
from suite.figures import Groups, group_answers, has_votes
from suite.grading import GRADING_THREADS, as_json
from suite.schema.models import AnswerRow, GroupRow, VerdictRow
from suite.tasks.base import Graded, Prompt, Style, Task, TaskData
from suite.tasks.turns import conversation, next_prompt

if TYPE_CHECKING:
    from ioa_jax.engine.generation import Completion, Generator
    from ioa_jax.models.load import LanguageModel

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Ready:
    """A task whose data are loaded, with the settings that hold for it."""

    task: Task
    data: TaskData
    style: Style
    shots: int
    samples: int
    temperature: float
    max_tokens: int
    temperatures: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])

    def temperature_of(self, item: Item) -> float:
        """That of the item's category, or else the task's."""
        return self.temperatures.get(str(item.data.get("category")), self.temperature)

    @property
    def items(self) -> dict[str, Item]:
        return {item.id: item for item in self.data.items}

    @property
    def is_judged(self) -> bool:
        """Whether the answers are only written here, for `suite judge`."""
        return self.task.grader_kind == "judge"

    @property
    def has_votes(self) -> bool:
        return self.samples > 1 and has_votes(self.task)


def is_complete(one: Ready, folder: Path) -> bool:
    """Whether a task's folder has every verdict, or every text where a judge is to have it."""
    rows = saved_texts(one, folder) if one.is_judged else saved_verdicts(folder)
    found = set(map(key_of, rows))
    return all(key in found for key in _keys(one))


def _keys(one: Ready) -> list[tuple[str, int]]:
    return [(item.id, sample) for item in one.data.items for sample in range(one.samples)]


def run_task(
    one: Ready,
    model: LanguageModel,
    grader: Grader | None,
    folder: Path,
    batch_size: int,
    seed: int = 0,
) -> None:
    """Generate and grade what the task's folder lacks. Texts are graded while others are generated.

    Args:
        one: The task.
        model: Weights in the dtype that they are measured in.
        grader: Of the task; None leaves the texts to a judge.
        folder: Gets texts.jsonl, verdicts.jsonl and seconds.jsonl.
        batch_size: Rows that decode together.
        seed: Of the sampling.
    """
    from ioa_jax.engine.generation import Generator
    from ioa_jax.models.text import thought_opening

    began = time.perf_counter()
    with (
        Journal(folder / "texts.jsonl", ("id", "sample"), AnswerRow) as texts,
        Journal(folder / "verdicts.jsonl", ("id", "sample"), VerdictRow) as verdicts,
        ThreadPoolExecutor(GRADING_THREADS) as pool,
    ):
        generator = Generator(model, batch_size)
        # A thought that the template begins is the answer's, or one without an end would count.
        opening = thought_opening(model.tokenizer) if one.style == "chat" else ""
        answering = _Answering(one, generator, seed, opening, grader, texts, verdicts, pool)
        answering.grade_what_is_there()
        answers = sum(answering.answer(keys) for keys in _by_turn(one))
        seconds = answering.seconds
        seconds["grading after generation"] = answering.wait()
    seconds["all"] = time.perf_counter() - began
    log.info("%s: %d answers in %.0f s", one.task.name, answers, seconds["all"])
    with (folder / "seconds.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"answers": answers, **seconds}) + "\n")


@dataclasses.dataclass(frozen=True)
class _Answering:
    """A task whose answers are being written.

    Attributes:
        one: The task.
        generator: Of the model.
        seed: Of the sampling.
        opening: Of a thought that every answer begins in; may be empty.
        grader: Of the task; None leaves the texts to a judge.
        texts: texts.jsonl.
        verdicts: verdicts.jsonl.
        pool: Grades.
        pending: What it has to do.
        seconds: Where the time goes.
    """

    one: Ready
    generator: Generator
    seed: int
    opening: str
    grader: Grader | None
    texts: Journal
    verdicts: Journal
    pool: ThreadPoolExecutor
    pending: list[Future[None]] = dataclasses.field(default_factory=list)
    seconds: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"prompts": 0.0, "generation": 0.0, "records": 0.0}
    )
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    @functools.cached_property
    def items(self) -> dict[str, Item]:
        return self.one.items

    def grade_what_is_there(self) -> None:
        """The texts that an earlier process left without a verdict."""
        for key in _keys(self.one) if self.grader is not None else ():
            if key in self.texts and key not in self.verdicts:
                self._grade_later(key, self.texts[key]["text"])

    def answer(self, keys: Sequence[tuple[str, int]]) -> int:
        """Generate the answers that are missing; returns their number."""
        missing = [key for key in keys if key not in self.texts]
        start = time.perf_counter()
        asked = [_prompt(self.one, self.items, key, self.texts) for key in missing]
        self.seconds["prompts"] += time.perf_counter() - start
        ways = [
            (prompt.stop, self.one.temperature_of(self.items[key[0]]))
            for key, prompt in zip(missing, asked, strict=True)
        ]
        for way in dict.fromkeys(ways):
            start = time.perf_counter()
            own = [
                (key, prompt)
                for key, prompt, its in zip(missing, asked, ways, strict=True)
                if its == way
            ]
            prompts = self._tokens(own)
            self.seconds["prompts"] += time.perf_counter() - start
            self._generate(prompts, *way)
        return len(missing)

    def wait(self) -> float:
        """Until all is graded; returns the seconds that this took."""
        start = time.perf_counter()
        for future in self.pending:
            future.result()
        return time.perf_counter() - start

    def _tokens(
        self, asked: Sequence[tuple[tuple[str, int], Prompt]]
    ) -> dict[tuple[str, int], list[int]]:
        """Prompts as tokens by key, but for those that are too long."""
        from ioa_jax.engine.generation import Completion

        model, name = self.generator.model, self.one.task.name
        prompts: dict[tuple[str, int], list[int]] = {}
        for key, prompt in asked:
            tokens = _tokens(model, prompt)
            if len(tokens) < model.decoder.config.max_position:
                prompts[key] = tokens
                continue
            # An answer of no token: the model can't be asked, and other items can.
            log.warning("%s: %s: %d tokens of prompt, no answer", name, key[0], len(tokens))
            self._record(key, Completion("", (), (), "length", len(tokens)))
        return prompts

    def _generate(
        self,
        prompts: Mapping[tuple[str, int], Sequence[int]],
        stop: tuple[str, ...],
        temperature: float,
    ) -> None:
        from ioa_jax.engine.sampling import SamplingParams
        from ioa_jax.progress import progress_bar

        params = SamplingParams(
            max_tokens=self.one.max_tokens,
            temperature=temperature,
            top_p=self.one.task.settings.top_p,
            stop=stop,
            seed=self.seed,
        )
        keys = list(prompts)
        start = time.perf_counter()
        recorded = self.seconds["records"]
        with progress_bar(self.one.task.name, len(keys)) as progress:
            self.generator.generate(
                list(prompts.values()),
                params,
                progress,
                lambda index, completion: self._record(keys[index], completion),
                # What an item draws doesn't depend on what is left to do.
                streams=[zlib.crc32(f"{item}/{sample}".encode()) >> 1 for item, sample in keys],
            )
        recording = self.seconds["records"] - recorded
        self.seconds["generation"] += time.perf_counter() - start - recording

    def _record(self, key: tuple[str, int], completion: Completion) -> None:
        start = time.perf_counter()
        text = self.opening + completion.text
        self.texts.append(
            {
                "id": key[0],
                "sample": key[1],
                "text": text,
                "finish_reason": completion.finish_reason,
                "prompt_tokens": completion.prompt_tokens,
                "tokens": len(completion.tokens),
                "logprob": sum(completion.logprobs),
            }
        )
        if self.grader is not None:
            self._grade_later(key, text)
        self.seconds["records"] += time.perf_counter() - start

    def _grade_later(self, key: tuple[str, int], text: str) -> None:
        self.pending.append(self.pool.submit(self._grade, key, text))

    def _grade(self, key: tuple[str, int], text: str) -> None:
        assert self.grader is not None
        verdict = self.grader.grade(self.items[key[0]], text)
        with self.lock:
            self.verdicts.append(verdict_row(*key, verdict))


def _by_turn(one: Ready) -> list[list[tuple[str, int]]]:
    """Keys whose items are first in their conversation, then those that come second, and so on."""
    items = one.items
    turns: dict[int, list[tuple[str, int]]] = {}
    for key in _keys(one):
        turns.setdefault(len(conversation(items[key[0]], items)), []).append(key)
    return [turns[number] for number in sorted(turns)]


def _prompt(one: Ready, items: Mapping[str, Item], key: tuple[str, int], texts: Journal) -> Prompt:
    turns = conversation(items[key[0]], items)
    answers = [texts[turn.id, key[1]]["text"] for turn in turns[:-1]]
    return next_prompt(one.task, turns, answers, one.style, one.data.examples)


def _tokens(model: LanguageModel, prompt: Prompt) -> list[int]:
    """Token ids; a chat through the model's template, a text with its beginning-of-text token."""
    from ioa_jax.models.text import encode_prompt, render_chat

    if prompt.messages:
        text = render_chat(model.tokenizer, prompt.messages)
        return encode_prompt(model.tokenizer, text, rendered=True)
    return encode_prompt(model.tokenizer, prompt.text)


def key_of(row: dict[str, Any]) -> tuple[str, int]:
    return row["id"], row["sample"]


def verdict_row(item: str, sample: int, verdict: Verdict) -> dict[str, Any]:
    return {"id": item, "sample": sample, "verdict": as_json(dataclasses.asdict(verdict))}


def saved_texts(one: Ready, folder: Path) -> list[dict[str, Any]]:
    """Of texts.jsonl.

    Raises:
        InputError: A line isn't an answer, or is to an item that the task doesn't have.
    """
    path = folder / "texts.jsonl"
    rows = read_journal(path, AnswerRow)
    items = one.items
    for line, row in enumerate(rows, start=1):
        if row["id"] not in items:
            raise InputError(f"{path}:{line}: the task has no item {row['id']!r}")
    return rows


def saved_verdicts(folder: Path) -> list[dict[str, Any]]:
    """Of verdicts.jsonl.

    Raises:
        InputError: A line isn't a verdict.
    """
    return read_journal(folder / "verdicts.jsonl", VerdictRow)


def graded_items(one: Ready, folder: Path) -> list[Graded]:
    """The items of a task's folder that have all of their verdicts, in the task's order."""
    verdicts = {key_of(row): row["verdict"] for row in saved_verdicts(folder)}
    graded: list[Graded] = []
    for item in one.data.items:
        keys = [(item.id, sample) for sample in range(one.samples)]
        if all(key in verdicts for key in keys):
            try:
                found = tuple(Verdict(**verdicts[key]) for key in keys)
            except TypeError:
                path = folder / "verdicts.jsonl"
                raise InputError(f"{path}: {item.id}: not what a grader finds") from None
            graded.append(Graded(item, found))
    return graded


def is_grouped(one: Ready, folder: Path) -> bool:
    return not one.has_votes or read_groups(folder).keys() >= one.items.keys()


def read_groups(folder: Path) -> Groups:
    rows = read_journal(folder / "groups.jsonl", GroupRow)
    return {row["id"]: row["groups"] for row in rows}


def write_groups(one: Ready, grader: Grader, folder: Path) -> None:
    """groups.jsonl, where a majority counts."""
    if not one.has_votes:
        return
    texts = {key_of(row): row["text"] for row in saved_texts(one, folder)}

    def row(own: Graded) -> dict[str, Any]:
        answers = [(texts[own.item.id, i], verdict) for i, verdict in enumerate(own.verdicts)]
        return {"id": own.item.id, "groups": group_answers(grader, own.item, answers)}

    with ThreadPoolExecutor(GRADING_THREADS) as pool:
        write_rows(folder / "groups.jsonl", pool.map(row, graded_items(one, folder)))
