"""Texts of other engines: prompts for them, and their answers graded."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ioa_jax.errors import InputError
from ioa_jax.files import check_writable
from ioa_jax.graders.base import Grader, Item, Verdict
from ioa_jax.jsonl import read_rows, write_rows
from suite.data import DataSource
from suite.figures import Groups, choose_k, group_answers, has_votes, task_figures
from suite.grading import GRADING_THREADS, open_grader
from suite.tasks.base import Graded, Style, Task, TaskData
from suite.tasks.turns import FOLLOWS


class TextLine(BaseModel):
    """A text: `id` of the item, and `sample` where it has several; other fields are kept."""

    model_config = ConfigDict(extra="allow", strict=True)
    id: str
    text: str
    sample: int | None = Field(default=None, ge=0)


# An item's id and the number of the sample.
Key = tuple[str, int]


def read_texts(path: Path, task: str, items: Mapping[str, Item]) -> dict[Key, TextLine]:
    """The texts of a file, each checked.

    Args:
        path: JSONL, as `TextLine` says. Where an item's lines have no `sample`, they are numbered
            from 0 in the file's order.
        task: Its name, for messages.
        items: Of the task, by id.

    Raises:
        InputError: Names file and line of the first line that is no JSON object or lacks a field,
            has half of a surrogate pair or an unknown id, or stands for a sample that an earlier
            line has.
    """
    texts: dict[Key, TextLine] = {}
    lines: dict[Key, int] = {}
    numbered: dict[str, bool] = {}
    counts: Counter[str] = Counter()
    for line, row in read_rows(path, TextLine).items():
        if row.id not in items:
            raise InputError(
                f"{path}:{line}: field 'id': task {task!r} has no item {row.id!r}; its ids look "
                f"like {next(iter(items))!r}"
            )
        by_itself = row.sample is None
        if numbered.setdefault(row.id, by_itself) != by_itself:
            raise InputError(
                f"{path}:{line}: field 'sample': some lines of item {row.id!r} have it and others "
                "don't"
            )
        sample = counts[row.id] if row.sample is None else row.sample
        counts[row.id] += 1
        key = (row.id, sample)
        if key in texts:
            raise InputError(
                f"{path}:{line}: item {row.id!r}, sample {sample}, is on line {lines[key]} already"
            )
        texts[key], lines[key] = row, line
    return texts


def write_prompts(
    task: Task, output: Path, data: DataSource, shots: int | None = None, limit: int | None = None
) -> int:
    """Write a task's prompts for another engine.

    A line has `id`, `messages` for a chat model, `prompt` for a base model to continue and `stop`,
    the strings that end its answer; and `temperature`, where the task has one for each category. An
    item that is a later turn of a conversation names the one before it in `follows`: its messages,
    or its prompt, come after those of that item and the answer to them.

    Args:
        task: Whose.
        output: JSONL file.
        data: Where the items come from.
        shots: Examples in both prompts; None is the task's own number for each.
        limit: First items; None is all.

    Returns:
        Number of lines.

    Raises:
        InputError: As `Task.load`; or the file can't be written.
    """
    check_writable(output)
    by_style = {
        style: task.load(data, task.default_shots[style] if shots is None else shots)
        for style in ("chat", "base")
    }
    rows: list[dict[str, Any]] = []
    for item in by_style["chat"].items[:limit]:
        chat = task.prompt(item, "chat", by_style["chat"].examples)
        base = task.prompt(item, "base", by_style["base"].examples)
        row: dict[str, Any] = {
            "id": item.id,
            "prompt": base.text,
            "messages": [dict(message) for message in chat.messages],
            "stop": list(base.stop),
        }
        if task.settings.temperatures:
            row["temperature"] = task.settings.temperature_of(item)
        if FOLLOWS in item.data:
            row[FOLLOWS] = item.data[FOLLOWS]
        rows.append(row)
    write_rows(output, rows)
    return len(rows)


def grade_texts(
    task: Task,
    texts: Path,
    output: Path,
    data: DataSource,
    style: Style = "chat",
    allow_weak_sandbox: bool = False,
    ks: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Grade texts that any engine wrote. Nothing is graded unless every line is sound.

    Args:
        task: Whose items they answer.
        texts: As `read_texts` takes them; an item may have several.
        output: JSONL with the line's fields but the text, `sample` where an item has several, and
            the verdict's: `correct`, `score`, `extracted`, `rule`, `source`, `detail`, `status` and
            `parts`.
        data: Where the items come from.
        style: `base` for continuations of a base model's prompt.
        allow_weak_sandbox: Run programs although they can't be isolated here.
        ks: Of pass@k and maj@k; None leaves them to `suite.figures.choose_k`.

    Returns:
        As the results.json of an evaluation, with this one task, and `texts`, their number, and
        `correct`, how many of them are.

    Raises:
        InputError: As `read_texts`; or the output can't be written, or a k is too large, or the
            task needs a judge.
        SandboxError: Programs can't be isolated here.
    """
    check_writable(output)
    loaded = task.load(data)
    items = {item.id: item for item in loaded.items}
    rows = read_texts(texts, task.name, items)
    by_item: dict[str, list[Key]] = {}
    for key in rows:
        by_item.setdefault(key[0], []).append(key)
    choose_k(task, min(map(len, by_item.values())), ks)
    several = max(map(len, by_item.values())) > 1

    with open_grader(task, style, allow_weak_sandbox) as (grader, _):
        verdicts, groups = _graded(grader, items, rows, by_item, several and has_votes(task))
    write_rows(
        output,
        [
            {"id": key[0], **({"sample": key[1]} if several else {})}
            | (row.model_extra or {})
            | dataclasses.asdict(verdicts[key])
            for key, row in rows.items()
        ],
    )
    graded = [
        Graded(items[item], tuple(verdicts[key] for key in sorted(by_item[item])))
        for item in items
        if item in by_item
    ]
    found = _results(task, loaded, graded, ks, groups)
    return {"model": {"spec": texts.name}, **found}


def _graded(
    grader: Grader,
    items: Mapping[str, Item],
    rows: Mapping[Key, TextLine],
    by_item: Mapping[str, Sequence[Key]],
    grouped: bool,
) -> tuple[dict[Key, Verdict], dict[str, list[int | None]]]:
    """Verdicts of all texts; and, if a majority counts, which of an item's are the same answer."""
    with ThreadPoolExecutor(GRADING_THREADS) as pool:
        found = pool.map(lambda key: grader.grade(items[key[0]], rows[key].text), rows)
        verdicts: dict[Key, Verdict] = dict(zip(rows, found, strict=True))

        def group(item: str) -> list[int | None]:
            answers = [(rows[key].text, verdicts[key]) for key in sorted(by_item[item])]
            return group_answers(grader, items[item], answers)

        voted = list(by_item) if grouped else []
        return verdicts, dict(zip(voted, pool.map(group, voted), strict=True))


def _results(
    task: Task,
    loaded: TaskData,
    graded: Sequence[Graded],
    ks: Sequence[int] | None,
    groups: Groups,
) -> dict[str, Any]:
    verdicts = [verdict for one in graded for verdict in one.verdicts]
    return {
        "texts": len(verdicts),
        "correct": sum(verdict.correct for verdict in verdicts),
        "tasks": {
            task.name: {
                "description": {
                    "grader": task.grader_kind,
                    "data": [dataclasses.asdict(source) for source in loaded.sources],
                },
                "items": len(loaded.items),
                **task_figures(task, graded, ks, groups),
            }
        },
    }
