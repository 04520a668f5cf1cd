"""Answers judged by a model: rated one by one, or compared with a baseline's or the references.

judge.json         task, judge, prompts and what was judged
ledger/            the judge's calls, each made once: the same command goes on after a kill
judgements.jsonl   what the judge replied, and what was read from it
results.json       figures with 95 % intervals

A pair is put to the judge in both orders. An answer wins where both orders say so; where they
disagree it is a tie (Zheng et al., 2023, section 3.4). Pairs with a reply that can't be read count
nowhere but in `unread`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ioa_jax.errors import InputError
from ioa_jax.files import check_folder, write_json
from ioa_jax.graders.base import Item
from ioa_jax.jsonl import read_rows, write_rows
from ioa_jax.progress import progress_bar
from ioa_jax.teachers.base import ChatRequest, Completion, Sampling, Teacher
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.replay import LedgeredTeacher
from suite.data import DataSource
from suite.judging.replies import (
    HIGHEST,
    LOWEST,
    Mode,
    prompt_sha256,
    read_rating,
    read_verdict,
    render,
    shown,
)
from suite.stats import Estimate, mean_interval
from suite.tasks.base import Task
from suite.tasks.turns import conversation
from suite.texts import Key, read_texts

VERSION = 1  # of the files above
PURPOSE = "judge"

Outcome = Literal["win", "loss", "tie"]
Judged = TypeVar("Judged")

_SCORES: Mapping[Outcome, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}


class HumanLine(BaseModel):
    """A person's verdict on a pair: whether the answer wins against the other one."""

    model_config = ConfigDict(extra="allow", strict=True)
    id: str
    verdict: Outcome
    sample: int = Field(default=0, ge=0)


@dataclasses.dataclass(frozen=True)
class JudgeSettings:
    """What is judged, and how.

    Attributes:
        mode: `single` rates each answer from 1 to 10, `pairwise` compares.
        answers: JSONL with `id` and `text`, or the folder of an evaluation.
        baseline: The same, of whom to compare with; None compares with the items' references.
        human: JSONL with people's verdicts on the pairs, as `HumanLine` says.
        max_tokens: Longest reply.
    """

    mode: Mode
    answers: Path
    baseline: Path | None = None
    human: Path | None = None
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        if self.mode == "single" and (self.baseline or self.human):
            raise InputError("a baseline and people's verdicts are for --mode pairwise")


def judge_texts(
    task: Task,
    settings: JudgeSettings,
    open_judge: Callable[[], Teacher],
    output: Path,
    data: DataSource,
    ledger: Path | None = None,
) -> dict[str, Any]:
    """Have a model judge answers.

    Args:
        task: Whose items they answer.
        settings: What to do.
        open_judge: Opens the judge, which may take minutes: after all else was read and checked.
        output: Directory; made where missing.
        data: Where the items come from.
        ledger: Folder of the judge's calls; None is `ledger` in `output`.

    Returns:
        The contents of results.json.

    Raises:
        InputError: A line of a file can't be used, the baseline lacks an answer, no item has a
            reference to compare with, or nothing can be written to `output` or `ledger`; the judge
            isn't opened then. Or as `open_judge`.
        TeacherError: The judge gives no usable answer, even after retries.
    """
    loaded = task.load(data)
    items = {item.id: item for item in loaded.items}
    answers = _read_answers(settings.answers, task, items)
    others = _others(settings, task, items, answers)
    people = _read_human(settings.human, others)
    keys = sorted(
        (key for key in answers if settings.mode == "single" or key in others),
        key=_in_order(items),
    )
    if not keys:
        raise InputError(f"task {task.name!r}: no answered item has a reference; give a --baseline")
    if settings.mode == "single":
        prompts = [_single_prompt(items, answers, key) for key in keys]
    else:
        has_baseline = settings.baseline is not None
        prompts = [
            _pair_prompt(items, *pair, key, has_baseline)
            for key in keys
            for pair in ((answers, others), (others, answers))
        ]
    requests = [ChatRequest(({"role": "user", "content": prompt},), PURPOSE) for prompt in prompts]
    sampling = Sampling(max_tokens=settings.max_tokens, temperature=0.0)
    calls = ledger or output / "ledger"
    for folder in (output, calls):
        check_folder(folder)
    with (
        open_judge() as teacher,
        LedgeredTeacher(teacher, Ledger(calls), owns_teacher=False) as judge,
        progress_bar(PURPOSE, len(prompts)) as progress,
    ):
        done = itertools.count(1)
        replies = judge.generate(
            requests, sampling, lambda index, reply: progress(next(done), len(prompts))
        )
        used = dataclasses.asdict(judge.used)
        fingerprint = teacher.fingerprint
    if settings.mode == "single":
        rows, figures = _ratings(keys, items, replies)
    else:
        rows, figures = _comparisons(keys, items, replies, people)
    results = {
        "version": VERSION,
        "task": task.name,
        "mode": settings.mode,
        "judge": fingerprint,
        "items": len(items),
        "answers": len(answers),
        "used": used,
        **figures,
    }
    told = {
        "version": VERSION,
        "task": {"name": task.name, "version": task.version},
        "data": [dataclasses.asdict(source) for source in loaded.sources],
        "mode": settings.mode,
        "judge": fingerprint,
        "sampling": dataclasses.asdict(sampling),
        "prompt_sha256": prompt_sha256(settings.mode),
        "against": None if settings.mode == "single" else _name_of(settings.baseline),
        "answers": settings.answers.name,
    }
    write_json(output / "judge.json", told)
    write_rows(output / "judgements.jsonl", rows)
    write_json(output / "results.json", results)
    return results


def print_judged(results: Mapping[str, Any]) -> None:
    """The figures, on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{results['task']}, judged by {results['judge']}", title_justify="left")
    for column in ("figure", "value", "95 % interval", "questions"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, value in results["metrics"].items():
        found = Estimate(**value)
        digits, factor = (2, 1) if results["mode"] == "single" else (1, 100)
        low, high = f"{factor * found.low:.{digits}f}", f"{factor * found.high:.{digits}f}"
        table.add_row(
            name, f"{factor * found.mean:.{digits}f}", f"{low} to {high}", str(found.clusters)
        )
    Console(width=None if Console().is_terminal else 140).print(table)
    if results["mode"] == "pairwise":
        print(
            f"{results['pairs']} pairs: {results['wins']} won, {results['losses']} lost, "
            f"{results['ties']} ties, {results['inconsistent']} of them since the two orders "
            f"disagree; {results['unread']} with a reply that can't be read. Shares in %"
        )
    else:
        print(f"{results['rated']} answers rated, {results['unread']} replies that can't be read")


# -- what is asked -------------------------------------------------------------------------------


def _read_answers(path: Path, task: Task, items: Mapping[str, Item]) -> dict[Key, str]:
    """Texts by item and sample; each later turn has the turns before it.

    Raises:
        InputError: As `read_texts`; or an earlier turn is missing.
    """
    if path.is_dir():
        path = path / "tasks" / task.name / "texts.jsonl"
    texts = {key: row.text for key, row in read_texts(path, task.name, items).items()}
    for item, sample in texts:
        for turn in conversation(items[item], items):
            if (turn.id, sample) not in texts:
                raise InputError(
                    f"{path}: item {item!r}, sample {sample}, is a later turn: the answer to "
                    f"{turn.id!r} is missing"
                )
    return texts


def _others(
    settings: JudgeSettings, task: Task, items: Mapping[str, Item], answers: Mapping[Key, str]
) -> dict[Key, str]:
    """What each answer is compared with: the baseline's same sample, or its only one."""
    if settings.mode == "single":
        return {}
    if settings.baseline is None:
        found: dict[Key, str] = {}
        for item, sample in answers:
            turns = conversation(items[item], items)
            if all(turn.references for turn in turns):
                found[item, sample] = items[item].references[0]
        return found
    texts = _read_answers(settings.baseline, task, items)
    several = {item for item, sample in texts if sample > 0}
    found = {}
    for item, sample in answers:
        key = (item, sample if item in several else 0)
        if key not in texts:
            raise InputError(
                f"{settings.baseline}: has no answer to item {item!r}, sample {sample}, which "
                f"{settings.answers} has"
            )
        found[item, sample] = texts[key]
    return found


def _single_prompt(items: Mapping[str, Item], answers: Mapping[Key, str], key: Key) -> str:
    item, sample = key
    turns = [
        {"question": turn.prompt, "answer": shown(answers[turn.id, sample])}
        for turn in conversation(items[item], items)
    ]
    return render("single", turns, next(iter(items[item].references), None))


def _pair_prompt(
    items: Mapping[str, Item],
    first: Mapping[Key, str],
    second: Mapping[Key, str],
    key: Key,
    with_reference: bool,
) -> str:
    item, sample = key
    turns = [
        {
            "question": turn.prompt,
            "first": shown(first[turn.id, sample]),
            "second": shown(second[turn.id, sample]),
        }
        for turn in conversation(items[item], items)
    ]
    # Where the reference is one of the two, it isn't shown a second time.
    reference = next(iter(items[item].references), None) if with_reference else None
    return render("pairwise", turns, reference)


def _in_order(items: Mapping[str, Item]) -> Callable[[Key], tuple[int, int]]:
    places = {item: i for i, item in enumerate(items)}
    return lambda key: (places[key[0]], key[1])


def _name_of(baseline: Path | None) -> str:
    return "references" if baseline is None else baseline.name


def _read_human(path: Path | None, pairs: Mapping[Key, str]) -> list[tuple[Key, Outcome]]:
    if path is None:
        return []
    found: list[tuple[Key, Outcome]] = []
    for line, row in read_rows(path, HumanLine).items():
        key = (row.id, row.sample)
        if key not in pairs:
            raise InputError(
                f"{path}:{line}: there is no pair of item {row.id!r}, sample {row.sample}"
            )
        found.append((key, row.verdict))
    return found


# -- what the replies say ------------------------------------------------------------------------


def _ratings(
    keys: Sequence[Key], items: Mapping[str, Item], replies: Sequence[Completion]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of judgements.jsonl, and figures."""
    rows: list[dict[str, Any]] = []
    ratings: list[tuple[Key, float]] = []
    for key, reply in zip(keys, replies, strict=True):
        rating = read_rating(reply.text)
        rows.append({"id": key[0], "sample": key[1], "rating": rating, **_reply_row(reply)})
        if rating is not None:
            ratings.append((key, rating))
    metrics = {
        name: _on_scale(_estimate(own, items, lambda r: (r - LOWEST) / (HIGHEST - LOWEST)))
        for name, own in _parts(ratings, items, "rating").items()
    }
    return rows, {
        "rated": len(ratings),
        "unread": len(keys) - len(ratings),
        "metrics": metrics,
    }


def _comparisons(
    keys: Sequence[Key],
    items: Mapping[str, Item],
    replies: Sequence[Completion],
    people: Sequence[tuple[Key, Outcome]],
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of judgements.jsonl, and figures; each key has two replies, its answer shown first and
    second.
    """
    rows: list[dict[str, Any]] = []
    both: list[tuple[Key, tuple[Outcome, Outcome]]] = []
    firsts: list[tuple[Key, bool]] = []
    for key, two in zip(keys, zip(replies[::2], replies[1::2], strict=True), strict=True):
        outcomes: list[Outcome | None] = []
        for own, reply in zip(("first", "second"), two, strict=True):
            verdict = read_verdict(reply.text)
            outcome: Outcome | None = None
            if verdict is not None:
                outcome = "tie" if verdict == "tie" else "win" if verdict == own else "loss"
            if verdict in ("first", "second"):
                firsts.append((key, verdict == "first"))
            outcomes.append(outcome)
            rows.append(
                {"id": key[0], "sample": key[1], "shown": own, "verdict": outcome}
                | _reply_row(reply)
            )
        one, other = outcomes
        if one is not None and other is not None:
            both.append((key, (one, other)))
    settled: dict[Key, Outcome] = {
        key: one if one == other else "tie" for key, (one, other) in both
    }
    metrics: dict[str, Any] = {
        name: dataclasses.asdict(_estimate(own, items, _SCORES.__getitem__))
        for name, own in _parts(list(settled.items()), items, "win rate").items()
    }
    if both:
        agreed = [(key, one == other) for key, (one, other) in both]
        metrics["agreement of the two orders"] = dataclasses.asdict(_estimate(agreed, items, float))
    if firsts:
        metrics["preferred what it saw first"] = dataclasses.asdict(_estimate(firsts, items, float))
    same = [(key, settled[key] == said) for key, said in people if key in settled]
    if same:
        metrics["agreement with people"] = dataclasses.asdict(_estimate(same, items, float))
    verdicts = list(settled.values())
    return rows, {
        "pairs": len(keys),
        "wins": verdicts.count("win"),
        "losses": verdicts.count("loss"),
        "ties": verdicts.count("tie"),
        "inconsistent": sum(one != other for _, (one, other) in both),
        "unread": len(keys) - len(both),
        "unread_replies": sum(row["verdict"] is None for row in rows),
        "metrics": metrics,
    }


def _reply_row(reply: Completion) -> dict[str, Any]:
    return {"reply": reply.text, "finish_reason": reply.finish_reason}


def _parts(
    judged: Sequence[tuple[Key, Judged]], items: Mapping[str, Item], whole: str
) -> dict[str, list[tuple[Key, Judged]]]:
    """All, and the same by turn and by category where the task has several."""
    found: dict[str, list[tuple[Key, Judged]]] = {}
    for key, value in judged:
        found.setdefault(whole, []).append((key, value))
    for field in ("turn", "category"):
        by_value: dict[Any, list[tuple[Key, Judged]]] = {}
        for key, value in judged:
            by_value.setdefault(items[key[0]].data.get(field), []).append((key, value))
        if len(by_value) > 1:
            found |= {f"{whole}, {field} {name}": own for name, own in by_value.items()}
    return found


def _estimate(
    judged: Sequence[tuple[Key, Judged]],
    items: Mapping[str, Item],
    score: Callable[[Judged], float],
) -> Estimate:
    """Samples and turns of one question belong together."""
    questions = [conversation(items[item], items)[0].id for (item, _), _ in judged]
    return mean_interval([score(value) for _, value in judged], questions)


def _on_scale(share: Estimate) -> dict[str, Any]:
    """An estimate in [0, 1] as one of ratings."""
    width = HIGHEST - LOWEST
    return dataclasses.asdict(
        dataclasses.replace(
            share,
            mean=LOWEST + width * share.mean,
            low=LOWEST + width * share.low,
            high=LOWEST + width * share.high,
        )
    )
