"""Finds and compares answers: what a worker process of `ioa_jax.graders.maths` runs."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

from ioa_jax.graders.equality import equal, is_list
from ioa_jax.graders.worker import serve

# An answer stands near the end. Math-Verify's patterns take time with a text's length squared.
SEARCHED = 10_000
LONGEST = 2000  # characters of an answer; of MATH's, none has a tenth
SHORT = 200  # characters of a response that may be nothing but the answer

_TARGETS = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_STATED = re.compile(r"\banswers?\b[^.:=\n$]{0,40}?(?:\bis\b|\bare\b|:|=)[\s:*]*", re.IGNORECASE)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_JOINT = re.compile(r"[\s,;]*(?:and|or)?\s*")
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")


def compare(
    golds: Sequence[str], boxes: Sequence[str], text: str, by_text: bool = True
) -> dict[str, Any]:
    r"""Whether a text's answer equals one of the references.

    Args:
        golds: Answers in LaTeX, without delimiters.
        boxes: What may be the answer, as boxes have it; the first that is right counts, and the
            first at all if none is. Those after the first are lists of a text's boxes, and count
            only where the reference is a list.
        text: Where to look for the answer if there is no box.
        by_text: Whether equal texts are enough, even if they can't be parsed.

    Returns:
        `correct`; `extracted`, the answer or None; `detail`, what kept an answer from being
        compared, if none was right. One that is longer than `LONGEST` isn't compared.
    """
    detail = ""
    answers = list(boxes) or _stated(text)
    # A text that is short enough may be nothing but the answer, such as a word.
    short = [text.strip()] if not answers and 0 < len(text.strip()) <= SHORT else []
    for rank, answer in enumerate([*answers, *short]):
        if len(answer) > LONGEST:
            detail = f"{len(answer)} characters, more than {LONGEST}"
            continue
        for gold in golds:
            try:
                if boxes and rank and not is_list(gold):
                    continue
                if equal(gold, answer, by_text):
                    return {"correct": True, "extracted": answer}
            except Exception as problem:
                # Whatever a library makes of a model's text, the text is at fault.
                detail = f"{type(problem).__name__} while comparing"
    extracted = answers[0] if answers else None
    return {"correct": False, "extracted": extracted, "detail": detail}


def _stated(text: str) -> list[str]:
    """What may be the answer of a text without a box; the likeliest first."""
    tags = _TAG.findall(text[-SEARCHED:])
    if tags:
        return [_formula(tags[-1])]
    text = text[-SEARCHED:]
    found: list[str] = []
    stated = [match.end() for match in _STATED.finditer(text)]
    if stated:
        answer = _formula(text[stated[-1] :])
        if answer:
            found.append(answer)
            # Without words, it is what the text says; nothing else in it is asked.
            if not re.search(r"(?<![\\A-Za-z{])[A-Za-z]{3,}", answer):
                return found
    extracted = parse(
        text,
        _TARGETS,
        parsing_timeout=None,  # pyright: ignore[reportArgumentType]
    )
    found += [one for one in extracted if isinstance(one, str)][-1:]
    return [one for one in found if one.strip()]


def _formula(text: str) -> str:
    """The formulas in a sentence, joined where it joins them; or else the sentence."""
    text = text.lstrip()
    first = _FORMULA.search(text)
    end = _SENTENCE_END.search(text)
    if first is None or (end is not None and first.start() > end.start()):
        return text[: end.start() if end else len(text)].strip(" *")
    found = [_content(first)]
    last = first
    for match in _FORMULA.finditer(text, first.end()):
        if not _JOINT.fullmatch(text, last.end(), match.start()):
            break
        found.append(_content(match))
        last = match
    return ", ".join(found)


def _content(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    return compare(request["golds"], request["boxes"], request["text"], request["by_text"])


if __name__ == "__main__":
    serve(_answer, f"math-verify {importlib.metadata.version('math-verify')}")
