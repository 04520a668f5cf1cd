"""ROUGE-L as MiniLLM reports it: F1 with the Porter stemmer, maximum over the references.

Gu et al., 2024 (arXiv 2306.08543); DistiLLM and ABKD do the same. They give it times 100.

Of ASCII texts the score is that of `rouge-score`. Its tokenizer throws all other letters away, so
that texts in other scripts have score 0 when they are equal; here they are words, too
(`ioa_jax.words`). The longest common subsequence is found with whole numbers as sets of places
(Hyyrö 2004), in memory that grows with the texts' length and not with its square.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Sequence

from nltk.stem.porter import PorterStemmer
from rouge_score.scoring import fmeasure

from ioa_jax.errors import InputError
from ioa_jax.graders.base import GoldGrader, Item, Verdict
from ioa_jax.words import words

# Of rouge-score: shorter words aren't stemmed. Longer ones than these are no words, and the stemmer
# fails on some.
_SHORTEST_STEMMED, _LONGEST_STEMMED = 4, 50

_stemmer = PorterStemmer()


class RougeGrader(GoldGrader):
    """Grades texts by their likeness to `Item.references`.

    A verdict's `score` is ROUGE-L in [0, 1], and what counts. `correct` says whether it reaches the
    threshold, for callers that need a yes or no; no paper defines one.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        """`threshold`: lowest score of a correct answer.

        Raises:
            InputError: It isn't in [0, 1].
        """
        if not 0 <= threshold <= 1:
            raise InputError(f"rouge grader: threshold={threshold}: 0 to 1 is needed")
        self._threshold = threshold
        self._source = f"rouge-score {importlib.metadata.version('rouge-score')}"

    def check_item(self, item: Item) -> None:
        """At least one reference, none of them blank.

        Raises:
            InputError: Otherwise.
        """
        if not item.references or not all(one.strip() for one in item.references):
            raise InputError(f"item {item.id!r}: field 'references': a text is needed")

    def _judge(self, item: Item, answer: str) -> Verdict:
        score = max(rouge_l(reference, answer) for reference in item.references)
        return Verdict(score >= self._threshold, score, answer, "whole", self._source)

    def grade_gold(self, item: Item) -> Verdict:
        """Judge the first reference: its score is 1 unless it has no letter or digit.

        Raises:
            InputError: As `check_item`.
        """
        self.check_item(item)
        return self.grade(item, item.references[0])


def rouge_l(reference: str, text: str) -> float:
    """F1 of the longest common subsequence of the texts' stems."""
    expected, found = _stems(reference), _stems(text)
    if not expected or not found:
        return 0.0
    common = longest_common(expected, found)
    return float(fmeasure(common / len(found), common / len(expected)))


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    places: dict[str, int] = {}
    for i, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << i
    everywhere = (1 << len(one)) - 1
    # A 0 for each place in `one` at which the longest subsequence so far grows.
    grown = everywhere
    for word in other:
        if word in places:
            matches = grown & places[word]
            grown = (grown + matches | grown - matches) & everywhere
    return len(one) - grown.bit_count()


def _stems(text: str) -> list[str]:
    return [_stem(word) for word in words(text)]


@functools.lru_cache(1 << 16)
def _stem(word: str) -> str:
    if not _SHORTEST_STEMMED <= len(word) <= _LONGEST_STEMMED:
        return word
    return str(_stemmer.stem(word))
