"""Compares answers with Math-Verify: what a worker process of `ioa_jax.graders.maths` runs."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from ioa_jax.graders.worker import serve

TARGETS = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())


def compare(golds: list[str], text: str, boxed: bool) -> dict[str, Any]:
    r"""Whether the text's answer equals one of the golds.

    Math-Verify's own limits are off: they are alarms, which a library may swallow. The kernel ends
    the process instead.

    Args:
        golds: Answers in LaTeX, without delimiters.
        text: Where to look for the answer.
        boxed: Whether the text has a box. What is in it is then the answer, even if it can't be
            parsed; without one, Math-Verify goes on to the next place that may hold an answer.

    Returns:
        `correct`; `extracted`, the answer as text or None; `parsed`, whether it was compared as an
        expression rather than as text.
    """
    answer = parse(
        text,
        TARGETS,
        extraction_mode="first_match" if boxed else "any_match",
        parsing_timeout=None,  # pyright: ignore[reportArgumentType]
    )
    texts = [one for one in answer if isinstance(one, str)]
    correct = False
    for gold in golds:
        expected = parse(
            rf"\boxed{{{gold}}}",
            TARGETS,
            parsing_timeout=None,  # pyright: ignore[reportArgumentType]
        )
        # Not symmetric: the gold comes first.
        correct = correct or verify(expected, answer, timeout_seconds=None)
    return {
        "correct": correct,
        "extracted": texts[-1] if texts else None,
        "parsed": len(texts) < len(answer),
    }


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    return compare(request["golds"], request["text"], request["boxed"])


if __name__ == "__main__":
    serve(_answer, f"math-verify {importlib.metadata.version('math-verify')}")
