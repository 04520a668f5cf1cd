"""New prompts out of those at hand, which cost nothing [ours]."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

# Share of words that come from the other prompt.
CROSSED = 0.3

_NUMBER = re.compile(r"\d+")
# Longer ones are names or keys rather than quantities.
_MAX_DIGITS = 15


def prompt_variant(prompt: str, others: Sequence[str], rng: np.random.Generator) -> str:
    """A prompt with other numbers, and with some words of another prompt.

    It is crossed word by word with one of the others that have as many words, and each number
    becomes another one of as many digits. What comes out may make less sense than a real task.

    Args:
        prompt: The text.
        others: Of the same module; the prompt itself may be among them.
        rng: Draws.
    """
    words = prompt.split(" ")
    fitting = [other for other in (one.split(" ") for one in others) if len(other) == len(words)]
    if fitting:
        other = fitting[int(rng.integers(len(fitting)))]
        takes = rng.random(len(words)) < CROSSED
        words = [b if take else a for a, b, take in zip(words, other, takes, strict=True)]
    return _NUMBER.sub(lambda match: _other_number(match[0], rng), " ".join(words))


def prompt_variants(prompts: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Variants of the prompts of a module.

    Args:
        prompts: Of one module.
        count: Variants of each, at most.
        rng: Draws.

    Returns:
        New texts, none twice and none of the prompts.
    """
    variants = [prompt_variant(prompt, prompts, rng) for prompt in prompts for _ in range(count)]
    return list(dict.fromkeys(text for text in variants if text not in set(prompts)))


def _other_number(text: str, rng: np.random.Generator) -> str:
    digits = len(text)
    if digits > _MAX_DIGITS or (digits > 1 and text[0] == "0"):
        return text
    return str(rng.integers(10 ** (digits - 1) if digits > 1 else 0, 10**digits))
