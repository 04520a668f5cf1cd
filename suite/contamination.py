"""What of the benchmarks' test items occurs in a text: whole items, 13-grams, near duplicates.

Thirteen words in a row are the overlap that GPT-3's authors looked for (Brown et al. 2020, appendix
C). Near duplicates are found by MinHash (Broder 1997) and confirmed by the exact Jaccard similarity
of their word triples, so that the hashing can miss one but can't report a false one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from datasketch import MinHash, MinHashLSH

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from ioa_jax.jsonl import read_objects
from suite.data import DataSource, Provenance
from suite.tasks import load_task, task_names

NGRAM = 13
SHINGLE = 3
SIMILARITY = 0.5
PERMUTATIONS = 128
SEED = 1
# Shorter ones, such as "Compute sin 60", are in many an innocent text; only a text that is nothing
# else counts as theirs.
SHORTEST_CONTAINED = 6

Kind = Literal["whole", "ngram", "near"]

_WORD = re.compile(r"[^\W_]+")


@dataclasses.dataclass(frozen=True)
class Overlap:
    """One field of a test item that a text has something of.

    Attributes:
        task: Name of the item's task.
        item: The item's id.
        field: `prompt`, `reference` or `solution`.
        kind: `whole` (the text is the field or, from `SHORTEST_CONTAINED` words on, contains it;
            case, punctuation and spaces apart), `ngram` (13 words in a row in both) or `near`
            (neither, but much alike).
        value: Share of the field's 13-grams that the text has, or for `near` the Jaccard
            similarity of the word triples. 1 for `whole`.
        match: The words that both have, or for `near` the beginning of the field.
    """

    task: str
    item: str
    field: str
    kind: Kind
    value: float
    match: str


@dataclasses.dataclass(frozen=True)
class _Entry:
    task: str
    item: str
    field: str
    words: tuple[str, ...]


class ContaminationIndex:
    """Test items, ready to be looked for. Built once; looking something up changes nothing.

    Attributes:
        tasks: Number of indexed items by task.
    """

    def __init__(self, items: Mapping[str, Sequence[Item]], similarity: float = SIMILARITY) -> None:
        """Index prompts, references and solutions.

        Args:
            items: By task. A reference or solution with fewer than 13 different words, such as the
                answer `18` or a matrix of zeros, isn't indexed: it gives nothing away.
            similarity: From which Jaccard similarity on texts are near duplicates.

        Raises:
            InputError: `similarity` isn't between 0 and 1.
        """
        if not 0 < similarity < 1:
            raise InputError(f"similarity={similarity}: between 0 and 1")
        self.tasks = {task: len(of_task) for task, of_task in items.items()}
        self._similarity = similarity
        self._entries: list[_Entry] = [
            _Entry(task, item.id, field, words)
            for task, of_task in items.items()
            for item in of_task
            for field, words in _fields(item)
        ]
        # Entries by their first words, their 13-grams and their hash bands.
        self._whole: dict[tuple[str, ...], list[int]] = {}
        self._ngrams: dict[tuple[str, ...], list[int]] = {}
        self._near = MinHashLSH(threshold=similarity, num_perm=PERMUTATIONS)
        for index, entry in enumerate(self._entries):
            self._whole.setdefault(entry.words, []).append(index)
            for gram in set(_runs(entry.words, NGRAM)):
                self._ngrams.setdefault(gram, []).append(index)
        self._shingles = [set(_runs(entry.words, SHINGLE)) for entry in self._entries]
        with_shingles = [i for i, shingles in enumerate(self._shingles) if shingles]
        for index, minhash in zip(
            with_shingles, _minhashes([self._shingles[i] for i in with_shingles]), strict=True
        ):
            self._near.insert(index, minhash)
        self._short_lengths = sorted(
            {len(words) for words in self._whole if SHORTEST_CONTAINED <= len(words) < NGRAM}
        )

    def find(self, text: str) -> list[Overlap]:
        """Every overlap of a text, at most one a field of an item, in the order of the items."""
        words = tuple(_words(text))
        found: dict[int, Overlap] = {}
        shared: dict[int, set[tuple[str, ...]]] = {}
        for gram in set(_runs(words, NGRAM)):
            for index in self._ngrams.get(gram, ()):
                shared.setdefault(index, set()).add(gram)
        for index, grams in shared.items():
            entry = self._entries[index]
            all_grams = _runs(entry.words, NGRAM)
            value = sum(gram in grams for gram in all_grams) / len(all_grams)
            first = next(gram for gram in all_grams if gram in grams)
            kind: Kind = "whole" if value == 1 else "ngram"
            found[index] = _overlap(entry, kind, value, first)
        contained = {words} | {
            run for length in self._short_lengths for run in _runs(words, length)
        }
        for run in contained:
            for index in self._whole.get(run, ()):
                found[index] = _overlap(self._entries[index], "whole", 1.0, run)
        for index, value in self._similar(set(_runs(words, SHINGLE))):
            if index not in found:
                entry = self._entries[index]
                found[index] = _overlap(entry, "near", value, entry.words)
        return [found[index] for index in sorted(found)]

    def _similar(self, shingles: set[tuple[str, ...]]) -> Iterator[tuple[int, float]]:
        if not shingles:
            return
        (minhash,) = _minhashes([shingles])
        for index in self._near.query(minhash):
            assert isinstance(index, int)
            other = self._shingles[index]
            value = len(shingles & other) / len(shingles | other)
            if value >= self._similarity:
                yield index, value


@dataclasses.dataclass(frozen=True)
class BuiltIndex:
    """An index and what isn't in it.

    Attributes:
        index: The index.
        sources: What was read, by task.
        missing: By name of a task whose data couldn't be had, why.
    """

    index: ContaminationIndex
    sources: Mapping[str, tuple[Provenance, ...]]
    missing: Mapping[str, str]


def build_index(
    data: DataSource, tasks: Sequence[str] | None = None, similarity: float = SIMILARITY
) -> BuiltIndex:
    """Index the test items of tasks.

    Args:
        data: Where the items come from.
        tasks: Their names. None takes every task whose data can be had, and names the others.
        similarity: As for `ContaminationIndex`.

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
    return BuiltIndex(ContaminationIndex(items, similarity), sources, missing)


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


def check_file(path: Path, index: ContaminationIndex) -> FileReport:
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


def _fields(item: Item) -> Iterator[tuple[str, tuple[str, ...]]]:
    prompt = tuple(_words(item.prompt))
    if prompt:
        yield "prompt", prompt
    for field, texts in (
        ("reference", item.references),
        ("solution", (item.data.get("solution", ""),)),
    ):
        for text in texts:
            words = tuple(_words(text))
            if len(set(words)) >= NGRAM:
                yield field, words


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _runs(words: tuple[str, ...], length: int) -> list[tuple[str, ...]]:
    return [words[i : i + length] for i in range(len(words) - length + 1)]


def _minhashes(shingles: Sequence[set[tuple[str, ...]]]) -> list[MinHash]:
    texts = [[" ".join(run).encode() for run in sorted(runs)] for runs in shingles]
    return MinHash.bulk(texts, num_perm=PERMUTATIONS, seed=SEED)


def _overlap(entry: _Entry, kind: Kind, value: float, match: tuple[str, ...]) -> Overlap:
    return Overlap(
        entry.task, entry.item, entry.field, kind, round(value, 4), " ".join(match[:NGRAM])
    )
