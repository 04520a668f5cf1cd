"""What of the benchmarks' test items occurs in a file of training data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ioa_jax.adapter.duplicates import SIMILARITY, BenchmarkIndex, Kind, Overlap
from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from ioa_jax.jsonl import read_objects
from suite.data import DataSource, Provenance
from suite.tasks import load_task, task_names


@dataclasses.dataclass(frozen=True)
class BuiltIndex:
    """An index and what isn't in it.

    Attributes:
        index: The index.
        sources: What was read, by task.
        missing: By name of a task whose data couldn't be had, why.
    """

    index: BenchmarkIndex
    sources: Mapping[str, tuple[Provenance, ...]]
    missing: Mapping[str, str]


def build_index(
    data: DataSource, tasks: Sequence[str] | None = None, similarity: float = SIMILARITY
) -> BuiltIndex:
    """Index the test items of tasks.

    Args:
        data: Where the items come from.
        tasks: Their names. None takes every task whose data can be had, and names the others.
        similarity: As for `BenchmarkIndex`.

    Raises:
        InputError: A task of `tasks` is unknown, or its data can't be had; or none can; or a pin
            is of a source that no task read.
    """
    items: dict[str, list[Item]] = {}
    sources: dict[str, tuple[Provenance, ...]] = {}
    missing: dict[str, str] = {}
    for name in task_names() if tasks is None else tasks:
        task = load_task(name)
        try:
            found = task.load(data)
        except InputError as error:
            if tasks is not None:
                raise
            missing[name] = str(error)
            # It takes long to find out that there is no network; once is enough.
            if isinstance(error.__cause__, ConnectionError):
                data = dataclasses.replace(data, network=False)
            continue
        items[name] = [*found.items, *found.unscored]
        sources[name] = found.sources
    if not items:
        raise InputError("no task's test items can be had: " + "; ".join(missing.values()))
    known = {source.name for of_task in sources.values() for source in of_task}
    for name in data.pins:
        if name not in known:
            raise InputError(f"pin {name!r}: no task read it; read were {', '.join(sorted(known))}")
    return BuiltIndex(BenchmarkIndex(items, similarity), sources, missing)


@dataclasses.dataclass(frozen=True)
class Finding:
    """An overlap in a file.

    Attributes:
        line: From 1.
        place: The field of the line, such as `completion` or `messages.0.content`.
        overlap: What of which item.
    """

    line: int
    place: str
    overlap: Overlap


@dataclasses.dataclass(frozen=True)
class FileReport:
    """What of the test items is in a file.

    Attributes:
        lines: How many it has.
        findings: In the order of the file.
    """

    lines: int
    findings: tuple[Finding, ...]

    @property
    def affected(self) -> int:
        """How many lines have an overlap."""
        return len({finding.line for finding in self.findings})

    def rows(self) -> list[dict[str, Any]]:
        """The findings, ready for JSON."""
        return [
            {"line": one.line, "place": one.place, **dataclasses.asdict(one.overlap)}
            for one in self.findings
        ]

    def summary(self) -> list[tuple[str, Kind, int, int]]:
        """By task and kind: (task, kind, lines affected, items affected)."""
        lines: dict[tuple[str, Kind], set[int]] = {}
        items: dict[tuple[str, Kind], set[str]] = {}
        for finding in self.findings:
            key = (finding.overlap.task, finding.overlap.kind)
            lines.setdefault(key, set()).add(finding.line)
            items.setdefault(key, set()).add(finding.overlap.item)
        return [(*key, len(lines[key]), len(items[key])) for key in sorted(lines)]


def check_file(path: Path, index: BenchmarkIndex) -> FileReport:
    """Look for the items in every text of a JSONL file, in whatever field it is.

    Raises:
        InputError: The file can't be read, a line isn't a JSON object, or no line has a text.
    """
    findings: list[Finding] = []
    lines = texts = 0
    for number, row in read_objects(path):
        lines += 1
        for place, text in _texts(row):
            texts += 1
            findings += [Finding(number, place, overlap) for overlap in index.find(text)]
    if not texts:
        raise InputError(f"{path}: no line has a text in it")
    return FileReport(lines, tuple(findings))


def _texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
        return
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    for key, part in parts:
        yield from _texts(part, f"{place}.{key}" if place else str(key))
