"""ROUGE-L as MiniLLM reports it: F1 with the Porter stemmer, maximum over the references.

Gu et al., 2024 (arXiv 2306.08543); DistiLLM and ABKD do the same. They give it times 100.
"""

from __future__ import annotations

import importlib.metadata

from rouge_score.rouge_scorer import RougeScorer

from ioa_jax.errors import InputError
from ioa_jax.graders.base import GoldGrader, Item, Verdict


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
        self._scorer = RougeScorer(["rougeL"], use_stemmer=True)
        self._source = f"rouge-score {importlib.metadata.version('rouge-score')}"

    def check_item(self, item: Item) -> None:
        """At least one reference, none of them blank.

        Raises:
            InputError: Otherwise.
        """
        if not item.references or not all(one.strip() for one in item.references):
            raise InputError(f"item {item.id!r}: field 'references': a text is needed")

    def grade(self, item: Item, text: str) -> Verdict:
        """Judge a text.

        Raises:
            InputError: As `check_item`.
        """
        self.check_item(item)
        score = max(
            self._scorer.score(reference, text)["rougeL"].fmeasure for reference in item.references
        )
        return Verdict(score >= self._threshold, float(score), text, "whole", self._source)

    def grade_gold(self, item: Item) -> Verdict:
        """Judge the first reference: its score is 1 unless it has no Latin letter or digit.

        Raises:
            InputError: As `check_item`.
        """
        self.check_item(item)
        return self.grade(item, item.references[0])
