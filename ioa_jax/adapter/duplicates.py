"""Texts that are too much alike: near duplicates, and overlaps with benchmarks' test items.

Thirteen words in a row are the overlap that GPT-3's authors looked for (Brown et al. 2020, appendix
C). Near duplicates are found by MinHash (Broder 1997) and confirmed by the exact Jaccard similarity
of triples, so that the hashing can miss one but can't report a false one.

Words are those of `ioa_jax.words`: of scripts that are written without spaces, single characters,
two of which count as one word where words are counted.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from datasketch import MinHash, MinHashLSH

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from ioa_jax.words import is_character, words, words_and_signs

NGRAM = 13
SHINGLE = 3
SIMILARITY = 0.5
# Higher than for test items: a template with other numbers is another problem.
DUPLICATE_SIMILARITY = 0.8
PERMUTATIONS = 128
SEED = 1
# Shorter ones, such as "Compute sin 60", are in many an innocent text; only a text that is nothing
# else counts as theirs.
SHORTEST_CONTAINED = 6

Kind = Literal["whole", "ngram", "near"]


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


class BenchmarkIndex:
    """Benchmarks' test items, ready to be looked for. Looking something up changes nothing.

    Attributes:
        tasks: Number of indexed items by task.
    """

    def __init__(
        self,
        items: Mapping[str, Sequence[Item]],
        similarity: float = SIMILARITY,
        common: int | None = None,
    ) -> None:
        """Index prompts, references and solutions.

        Args:
            items: By task. A reference or solution with fewer than 13 different words, such as the
                answer `18` or a matrix of zeros, isn't indexed: it gives nothing away.
            similarity: From which Jaccard similarity on texts are near duplicates.
            common: A 13-gram of more items than this is the benchmark's own phrase, such as the
                frame of its prompts, and gives nothing away; None where every 13-gram counts.

        Raises:
            InputError: `similarity` isn't between 0 and 1, or `common` is less than 1.
        """
        check_similarity(similarity)
        if common is not None and common < 1:
            raise InputError(f"common={common}: at least 1")
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
            for gram in set(_grams(entry.words)):
                self._ngrams.setdefault(gram, []).append(index)
        if common is not None:
            self._ngrams = {
                gram: indices
                for gram, indices in self._ngrams.items()
                if len({(self._entries[i].task, self._entries[i].item) for i in indices}) <= common
            }
        self._shingles = [set(_runs(entry.words, SHINGLE)) for entry in self._entries]
        with_shingles = [i for i, shingles in enumerate(self._shingles) if shingles]
        for index, minhash in zip(
            with_shingles, _minhashes([self._shingles[i] for i in with_shingles]), strict=True
        ):
            self._near.insert(index, minhash)
        self._short_lengths = sorted(
            {len(run) for run in self._whole if SHORTEST_CONTAINED <= _count(run) < NGRAM}
        )

    def find(self, text: str) -> list[Overlap]:
        """Every overlap of a text, at most one a field of an item, in the order of the items."""
        own = tuple(words(text))
        found: dict[int, Overlap] = {}
        shared: dict[int, set[tuple[str, ...]]] = {}
        for gram in set(_grams(own)):
            for index in self._ngrams.get(gram, ()):
                shared.setdefault(index, set()).add(gram)
        for index, grams in shared.items():
            entry = self._entries[index]
            all_grams = _grams(entry.words)
            value = sum(gram in grams for gram in all_grams) / len(all_grams)
            first = next(gram for gram in all_grams if gram in grams)
            kind: Kind = "whole" if value == 1 else "ngram"
            found[index] = _overlap(entry, kind, value, first)
        contained = {own} | {
            run
            for length in self._short_lengths
            for run in _runs(own, length)
            if _count(run) >= SHORTEST_CONTAINED
        }
        for run in contained:
            for index in self._whole.get(run, ()):
                found[index] = _overlap(self._entries[index], "whole", 1.0, run)
        for index, value in self._similar(set(_runs(own, SHINGLE))):
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
            value = _jaccard(shingles, other)
            if value >= self._similarity:
                yield index, value


class DuplicateIndex:
    """Texts that grow in number, and whether another one is much like one of them.

    Signs count here, unlike in `BenchmarkIndex`: `3 + 4` and `3 * 4` are different problems.
    """

    def __init__(
        self, texts: Iterable[tuple[str, str]] = (), similarity: float = DUPLICATE_SIMILARITY
    ) -> None:
        """Index texts.

        Args:
            texts: Name and text of each.
            similarity: From which Jaccard similarity of the triples on texts are near duplicates.
                Equal texts, but for case and space, always are.

        Raises:
            InputError: `similarity` isn't between 0 and 1.
        """
        check_similarity(similarity)
        self._similarity = similarity
        self._names: list[str] = []
        self._shingles: list[set[tuple[str, ...]]] = []
        self._first: dict[frozenset[tuple[str, ...]], int] = {}
        self._near = MinHashLSH(threshold=similarity, num_perm=PERMUTATIONS)
        texts = list(texts)
        shingles = [_token_shingles(text) for _, text in texts]
        for (name, _), runs, minhash in zip(texts, shingles, _minhashes(shingles), strict=True):
            self._insert(name, runs, minhash)

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, text: str) -> None:
        """Index another text."""
        self._insert(name, *_hashed(text))

    def find(self, text: str) -> tuple[str, float] | None:
        """Name of the indexed text that is most like this one, and the similarity.

        Among equals the one that was added first; None if there is no near duplicate.
        """
        shingles, minhash = _hashed(text)
        equal = self._first.get(frozenset(shingles))
        if equal is not None:
            return self._names[equal], 1.0
        found: list[tuple[float, int]] = []
        for index in self._near.query(minhash):
            assert isinstance(index, int)
            value = _jaccard(shingles, self._shingles[index])
            if value >= self._similarity:
                found.append((-value, index))
        if not found:
            return None
        value, index = min(found)
        return self._names[index], -value

    def _insert(self, name: str, shingles: set[tuple[str, ...]], minhash: MinHash) -> None:
        index = len(self._names)
        self._names.append(name)
        self._shingles.append(shingles)
        self._first.setdefault(frozenset(shingles), index)
        self._near.insert(index, minhash)


def check_similarity(similarity: float) -> None:
    """Whether a threshold of the Jaccard similarity is one.

    Raises:
        InputError: It isn't between 0 and 1.
    """
    if not 0 < similarity < 1:
        raise InputError(f"similarity={similarity}: between 0 and 1")


def _fields(item: Item) -> Iterator[tuple[str, tuple[str, ...]]]:
    prompt = tuple(words(item.prompt))
    if prompt:
        yield "prompt", prompt
    for field, texts in (
        ("reference", item.references),
        ("solution", (item.data.get("solution", ""),)),
    ):
        for text in texts:
            own = tuple(words(text))
            if _count(set(own)) >= NGRAM:
                yield field, own


def _count(run: Iterable[str]) -> float:
    """How many words, of which two characters of a script without spaces are one."""
    return sum((0.5 if is_character(word) else 1.0 for word in run), 0.0)


def _runs(run: tuple[str, ...], length: int) -> list[tuple[str, ...]]:
    return [run[i : i + length] for i in range(len(run) - length + 1)]


def _grams(run: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Each shortest part that counts as `NGRAM` words."""
    grams: list[tuple[str, ...]] = []
    end, count = 0, 0.0
    for i, word in enumerate(run):
        while count < NGRAM and end < len(run):
            count += _count(run[end : end + 1])
            end += 1
        if count < NGRAM:
            break
        grams.append(run[i:end])
        count -= _count([word])
    return grams


def _token_shingles(text: str) -> set[tuple[str, ...]]:
    """Triples of words and signs; a text with fewer is one shingle as a whole."""
    # Signs too: two problems may differ in nothing else.
    tokens = tuple(words_and_signs(text))
    return set(_runs(tokens, SHINGLE)) or {tokens}


# A problem is looked up several times before it is added.
@functools.lru_cache(maxsize=1024)
def _hashed(text: str) -> tuple[set[tuple[str, ...]], MinHash]:
    shingles = _token_shingles(text)
    (minhash,) = _minhashes([shingles])
    return shingles, minhash


def _jaccard(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other)


def _minhashes(shingles: Sequence[set[tuple[str, ...]]]) -> list[MinHash]:
    texts = [[" ".join(run).encode() for run in sorted(runs)] for runs in shingles]
    return MinHash.bulk(texts, num_perm=PERMUTATIONS, seed=SEED)


def _overlap(entry: _Entry, kind: Kind, value: float, match: tuple[str, ...]) -> Overlap:
    return Overlap(
        entry.task, entry.item, entry.field, kind, round(value, 4), " ".join(match[:NGRAM])
    )
