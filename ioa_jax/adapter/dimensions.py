"""The five dimensions of the Adapter (method 3): what is asked for, and what came of it."""

from __future__ import annotations

import functools
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ioa_jax.adapter.schema import Example

Template = Literal["labelled", "numbered", "lines"]

# In the order in which they may follow each other.
LABELS = ("Extract", "Relate", "Set up", "Solve", "Verify")

_LETTER = r"[^\W\d_]"
# Not the variable of "3x".
_WORD = re.compile(rf"(?<!\w){_LETTER}+(?:['\u2019]{_LETTER}+)*(?!\w)")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_NUMBER = re.compile(r"(?<![\w.])\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+")
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)|\n")
_VOWELS = re.compile(r"[aeiouy]+")
_SYMBOL = re.compile(
    "|".join(
        (
            # LaTeX, but not a price; operators, code. A slash or a minus sign is one between
            # spaces, and a minus sign between numbers too.
            r"\$(?!\d[\d,.]*(?:\s|$))",
            r"[=<>^*+\\`\u221a\u00d7\u00f7\u00b1\u2264\u2265\u2260\u03c0]",
            r"(?<=\s)[-/\u2212](?=\s)",
            r"\d[-\u2212]\d",
            # Calls; a number times a variable; a variable alone, which "a" and "I" aren't.
            r"\w\(",
            r"\b\d+[a-z]\b",
            r"(?<![\w'\u2019])[b-zB-HJ-Z](?![\w'\u2019.])",
        )
    )
)
_OWN_NUMBER = re.compile(r"\s*(?:(?:step\s*)?\d+\s*[.):](?!\d)|[-*\u2022]\s)", re.IGNORECASE)


class DimensionSettings(BaseModel):
    """Which dimensions are asked of the teacher. With all off, nothing is adapted."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    concretization: bool = Field(default=True, description="An everyday analogy before symbols.")
    decomposition: bool = Field(default=True, description="Small explicit steps.")
    cognitive_load: bool = Field(default=True, description="Small numbers and few operands first.")
    format: bool = Field(default=True, description="Steps by one fixed template.")
    language: bool = Field(default=True, description="Short sentences, plain words.")
    template: Template = Field(
        default="numbered",
        description=(
            "Template of the steps: `labelled` begins each with Extract, Relate, Set up, Solve or "
            "Verify, in this order; `numbered` counts them; `lines` has one a line."
        ),
    )


# Nothing is adapted: the control that shows what the dimensions add.
PLAIN = DimensionSettings(
    concretization=False, decomposition=False, cognitive_load=False, format=False, language=False
)


def measure(example: Example, template: Template) -> dict[str, float]:
    """What came of the five dimensions in one example.

    Args:
        example: What the teacher wrote.
        template: The one that its steps are held against.

    Returns:
        `concrete_first` (1 if something from everyday life comes before the first symbol, else 0),
        `steps` (count), `operands` (numbers in the problem), `problem_words`; where there is any
        step: `step_tokens` (mean words and signs a step), `template_match` (1 or 0); and where
        there is any number or word: `largest_operand` (of the problem, sign apart), `grade` (US
        school grade by Flesch and Kincaid) and `sentence_words` (mean), both of problem and steps
        together.
    """
    steps = example.solution.steps
    numbers = operands(example.problem)
    figures = {
        "concrete_first": float(is_concrete(example.problem)),
        "steps": float(len(steps)),
        "operands": float(len(numbers)),
        "problem_words": float(len(_WORD.findall(example.problem))),
    }
    if steps:
        figures["step_tokens"] = sum(len(_TOKEN.findall(step)) for step in steps) / len(steps)
        figures["template_match"] = float(matches_template(steps, template))
    if numbers:
        figures["largest_operand"] = max(numbers)
    text = "\n".join((example.problem, *steps))
    return figures | reading_ease(text)


def mean_measures(measures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each figure over the examples that have it; shares, where a figure is 0 or 1."""
    names = sorted({name for one in measures for name in one})
    values = {name: [one[name] for one in measures if name in one] for name in names}
    return {name: math.fsum(found) / len(found) for name, found in values.items()}


def is_concrete(problem: str) -> bool:
    """Whether something from everyday life is named before the first symbol.

    Everyday is what `everyday.txt` lists, in the singular or the plural. A plain number is no
    symbol: `3 apples` is concrete.
    """
    symbol = _SYMBOL.search(problem)
    before = problem if symbol is None else problem[: symbol.start()]
    return any(not _singulars(word).isdisjoint(_everyday()) for word in _words(before))


def operands(problem: str) -> list[float]:
    """The numbers in a text in its order, without sign; `1,200` is one, `1/2` are two."""
    found = [float(match[0].replace(",", "")) for match in _NUMBER.finditer(problem)]
    # Some numbers that a teacher writes are beyond what a float holds.
    return [min(number, sys.float_info.max) for number in found]


def matches_template(steps: Sequence[str], template: Template) -> bool:
    """Whether steps are written by a template.

    In each, a step is one line. `labelled`: it begins with one of `LABELS` and a colon, in their
    order, each as often as wanted and `Solve` at least once. `numbered` and `lines`: it has no
    number or bullet of its own.
    """
    if any("\n" in step.strip() for step in steps):
        return False
    if template != "labelled":
        return not any(_OWN_NUMBER.match(step) for step in steps)
    places: list[int] = []
    for step in steps:
        label = step.strip().partition(":")[0]
        if label not in LABELS:
            return False
        places.append(LABELS.index(label))
    return places == sorted(places) and LABELS.index("Solve") in places


def reading_ease(text: str) -> dict[str, float]:
    """How hard a text is to read.

    Returns:
        `grade`, `0.39 words/sentence + 11.8 syllables/word - 15.59` (Kincaid et al. 1975), and
        `sentence_words`, words a sentence. Numbers and signs are no words, and a line ends a
        sentence. Empty for a text without words.
    """
    sentences = [_words(part) for part in _SENTENCE_END.split(text)]
    lengths = [len(words) for words in sentences if words]
    if not lengths:
        return {}
    words = [word for sentence in sentences for word in sentence]
    length = len(words) / len(lengths)
    syllables = sum(map(count_syllables, words)) / len(words)
    return {"grade": 0.39 * length + 11.8 * syllables - 15.59, "sentence_words": length}


def count_syllables(word: str) -> int:
    """Syllables of an English word, by its groups of vowels: an estimate, at least 1."""
    word = word.lower()
    groups = len(_VOWELS.findall(word))
    # An e that isn't heard is a group of its own behind a consonant alone.
    silent = re.search(r"[^aeiouyl]e$|[^aeiouydt]ed$|[^aeiouylsxzcgh]es$", word) is not None
    return max(groups - silent, 1)


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _singulars(word: str) -> set[str]:
    """A word and what it may be the plural or the possessive of."""
    word = re.split(r"['\u2019]", word, maxsplit=1)[0]
    forms = {word, word.removesuffix("s"), word.removesuffix("es")}
    return forms | {word.removesuffix("ies") + "y"}


@functools.cache
def _everyday() -> frozenset[str]:
    lines = Path(__file__).with_name("everyday.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())
