"""ROUGE-L as MiniLLM, DistiLLM and ABKD report it: F1 with the Porter stemmer, times 100."""

from __future__ import annotations

from rouge_score.rouge_scorer import RougeScorer

_scorer = RougeScorer(["rougeL"], use_stemmer=True)


def rouge_l(reference: str, answer: str) -> float:
    """F1 in [0, 100]."""
    return 100 * _scorer.score(reference, answer)["rougeL"].fmeasure
