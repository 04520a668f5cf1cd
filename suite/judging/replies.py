"""What a judge is asked, and what its replies say.

The prompts are ours, in `prompts/`. They ask for what MT-Bench's judges are asked for (Zheng et
al., 2023, arXiv 2306.05685): a rating from 1 to 10, or which of two answers is better, with a
reference answer where there is one.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ioa_jax.graders.base import MAX_ANSWER
from ioa_jax.thoughts import cut_thoughts

Mode = Literal["single", "pairwise"]
Verdict = Literal["first", "second", "tie"]

LOWEST, HIGHEST = 1, 10

_FOLDER = Path(__file__).with_name("prompts")
_VERDICTS: Mapping[str, Verdict] = {"a": "first", "b": "second", "tie": "tie"}
# Marks of emphasis may stand around either part. Within a line and possessive, so that the time is
# linear in the text.
_RATING = re.compile(
    r"^[ \t*#`]*+rating[*`]*+[ \t]*+:[ \t*`\[]*+([0-9]+(?:\.[0-9]+)?)"
    r"(?:[ \t]*+/[ \t]*+10)?[ \t\r*`\].]*+$",
    re.IGNORECASE | re.MULTILINE,
)
_VERDICT = re.compile(
    r"^[ \t*#`]*+verdict[*`]*+[ \t]*+:[ \t*`\[]*+(a|b|tie)[ \t\r*`\].]*+$",
    re.IGNORECASE | re.MULTILINE,
)


def render(mode: Mode, turns: Sequence[Mapping[str, str]], reference: str | None) -> str:
    """The prompt for one judgement.

    Args:
        mode: Which.
        turns: Of the conversation, each with `question` and `answer`, or with `first` and `second`
            for the two answers to compare.
        reference: An answer to the last question, if there is one.
    """
    template = _environment().get_template(f"{mode}.j2")
    return template.render(turns=turns, reference=reference)


def prompt_sha256(mode: Mode) -> str:
    """Of the prompt's template, for records."""
    return hashlib.sha256((_FOLDER / f"{mode}.j2").read_bytes()).hexdigest()


def shown(text: str) -> str:
    """An answer as the judge sees it: without thoughts; empty if the thought has no end."""
    return (cut_thoughts(text).answer or "")[:MAX_ANSWER].strip()


def read_rating(reply: str) -> float | None:
    """The rating in a reply's last line of that form; None if there is none from 1 to 10."""
    found = _RATING.findall(_answer(reply))
    rating = float(found[-1]) if found else 0.0
    return rating if LOWEST <= rating <= HIGHEST else None


def read_verdict(reply: str) -> Verdict | None:
    """The verdict in a reply's last line of that form; None if there is none."""
    found = _VERDICT.findall(_answer(reply))
    return _VERDICTS[found[-1].lower()] if found else None


def _answer(reply: str) -> str:
    return (cut_thoughts(reply).answer or "")[-MAX_ANSWER:]


@functools.cache
def _environment() -> Environment:
    # The prompts are plain text, so nothing is escaped.
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "autoescape": False}
    return Environment(loader=FileSystemLoader(_FOLDER), undefined=StrictUndefined, **options)
