"""The modules of micro-instruct: instructions that a program can check, and small rewritings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from suite.micro.draft import Draft, Module, Redraw, between, pick

_NOUNS = (
    "ant", "ball", "bird", "boat", "box", "boy", "cake", "cat", "chair", "cow", "dog", "door",
    "fish", "flag", "fox", "girl", "goat", "hat", "hen", "horse", "house", "king", "lamp", "map",
    "moon", "mouse", "pig", "ring", "ship", "star", "stone", "train", "tree", "wolf",
)  # fmt: skip
_ADJECTIVES = (
    "big", "black", "blue", "cold", "fast", "good", "green", "hot", "kind", "new", "old", "poor",
    "red", "sad", "small", "soft", "tall", "warm", "white", "young",
)  # fmt: skip
_VERBS = (
    "finds", "hears", "helps", "holds", "likes", "looks for", "loves", "moves", "needs", "sees",
    "takes", "wants",
)  # fmt: skip
WORDS = (*_NOUNS, *_ADJECTIVES, *_VERBS)
_CLOSINGS = ("The end.", "Good night.", "That is all.", "Thank you.", "See you soon.")
_FRUIT = ("apple", "banana", "cherry", "grape", "lemon", "melon", "orange", "peach", "pear", "plum")
_ANIMALS = ("ant", "cat", "cow", "dog", "fox", "goat", "hen", "horse", "pig", "wolf")
_COLOURS = ("black", "blue", "brown", "gold", "green", "grey", "pink", "red", "white", "yellow")
_GROUPS = (("fruits", _FRUIT), ("animals", _ANIMALS), ("colours", _COLOURS))


def _draft(
    key: tuple[str | int, ...],
    wordings: tuple[str, ...],
    step: str,
    answer: str,
    check: dict[str, Any],
) -> Draft:
    concrete = tuple(f"Eva writes a card. {wording}" for wording in wordings)
    return Draft(key, wordings, concrete, (step,), answer, check, "")


def _following(*instructions: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """A check by IFEval's instructions."""
    return {
        "kind": "instruction",
        "instruction_id_list": tuple(name for name, _ in instructions),
        "kwargs": tuple(arguments for _, arguments in instructions),
    }


def _exact(answer: str) -> dict[str, Any]:
    return {"kind": "exact", "answer": answer}


def _phrase(rng: np.random.Generator, adjectives: int) -> list[str]:
    """Words such as: the big red cat."""
    return ["the", *_some(rng, _ADJECTIVES, adjectives), pick(rng, _NOUNS)]


def _some(rng: np.random.Generator, words: Sequence[str], count: int) -> list[str]:
    """Different ones."""
    return [words[int(place)] for place in rng.permutation(len(words))[:count]]


def _sentence(rng: np.random.Generator, subject: str, object_: str) -> str:
    return f"the {subject} {pick(rng, _VERBS)} the {object_}"


def _word_count(rng: np.random.Generator, difficulty: int) -> Draft:
    noun = pick(rng, _NOUNS)
    count = between(rng, 2, 3) if difficulty == 1 else between(rng, difficulty + 1, difficulty + 3)
    adjectives = [pick(rng, _ADJECTIVES) for _ in range(count - 2)]
    length = "length_constraints:number_words"
    return _draft(
        (noun, count),
        (
            f"Write exactly {count} words about the {noun}.",
            f"Describe the {noun} in {count} words.",
        ),
        f"Write {count} words.",
        " ".join(["the", *adjectives, noun]),
        _following(
            (length, {"relation": "at least", "num_words": count}),
            (length, {"relation": "less than", "num_words": count + 1}),
        ),
    )


def _include(rng: np.random.Generator, difficulty: int, given: tuple[str, ...] = ()) -> Draft:
    """A sentence with `given` words, nouns first, and further ones."""
    nouns = [word for word in given if word in _NOUNS] or [pick(rng, _NOUNS)]
    adjectives = [word for word in given if word in _ADJECTIVES]
    adjectives += [pick(rng, _ADJECTIVES) for _ in range(difficulty // 2 - len(adjectives))]
    while len(nouns) < 2:
        nouns.append(pick(rng, _NOUNS))
    if tuple([*nouns, *adjectives]) == given:
        adjectives.append(pick(rng, _ADJECTIVES))
    asked = [*nouns, *adjectives]
    shown = ", ".join(asked)
    subject = " ".join([*adjectives[:1], nouns[0]])
    object_ = " ".join([*adjectives[1:], nouns[1]])
    return _draft(
        tuple(asked),
        (f"Write a sentence with the words {shown}.", f"Use the words {shown} in a sentence."),
        f"Use {shown}.",
        _sentence(rng, subject, object_),
        _following(("keywords:existence", {"keywords": asked})),
    )


def _further_words(rng: np.random.Generator, difficulty: int, given: Draft) -> Draft:
    """The given words and at least another one: its answers pass the given problem's check too."""
    (arguments,) = given.check["kwargs"]
    return _include(rng, difficulty, tuple(arguments["keywords"]))


def _leave_out(rng: np.random.Generator, difficulty: int) -> Draft:
    words = _phrase(rng, 1 + (difficulty + 1) // 2)
    text = " ".join(words)
    answer = " ".join([words[0], *words[2:]])
    return _draft(
        (text,),
        (f"Repeat without the second word: {text}", f"Leave out the second word: {text}"),
        "Leave out the second word.",
        answer,
        _exact(answer),
    )


def _bullets(rng: np.random.Generator, difficulty: int) -> Draft:
    group, items = pick(rng, _GROUPS)
    count = between(rng, 2, 2 + difficulty)
    chosen = _some(rng, items, count)
    return _draft(
        (group, count, chosen[0]),
        (
            f"List {count} {group} as bullets with *, {chosen[0]} first.",
            f"Write {count} bullets with * for {group}. Begin with {chosen[0]}.",
        ),
        f"Write {count} bullets.",
        "\n".join(f"* {item}" for item in chosen),
        _following(("detectable_format:number_bullet_lists", {"num_bullets": count})),
    )


def _title(rng: np.random.Generator, difficulty: int) -> Draft:
    words = _phrase(rng, (difficulty + 1) // 2)[1:]
    shown = " ".join(words)
    return _draft(
        (shown,),
        (
            f"Write a title in <<>> about the {shown}.",
            f"Give a title about the {shown}, in double angle brackets.",
        ),
        "Put the title in <<>>.",
        f"<<the {shown}>>",
        _following(("detectable_format:title", {})),
    )


def _ending(rng: np.random.Generator, difficulty: int) -> Draft:
    closing = pick(rng, _CLOSINGS)
    shown = " ".join(_phrase(rng, difficulty // 2)[1:])
    return _draft(
        (closing, shown),
        (
            f"Write about the {shown} and end with: {closing}",
            f"Write a sentence about the {shown}. The last words are: {closing}",
        ),
        f"End with: {closing}",
        f"{_sentence(rng, shown, pick(rng, _NOUNS))}. {closing}",
        _following(("startend:end_checker", {"end_phrase": closing})),
    )


def _quotation(rng: np.random.Generator, difficulty: int) -> Draft:
    text = " ".join(_phrase(rng, (difficulty + 1) // 2))
    return _draft(
        (text,),
        (f"Put in double quotes: {text}", f"Wrap in quotation marks: {text}"),
        "Put quotes around it.",
        f'"{text}"',
        _exact(f'"{text}"'),
    )


def _capitals(rng: np.random.Generator, difficulty: int) -> Draft:
    words = _phrase(rng, (difficulty + 1) // 2)
    text = " ".join(words)
    return _draft(
        (text,),
        (f"Write in capital letters: {text}", f"In upper case: {text}"),
        "Change each word.",
        text.upper(),
        _exact(text.upper()),
    )


def _reverse(rng: np.random.Generator, difficulty: int) -> Draft:
    count = 1 + (difficulty + 1) // 2
    words = _some(rng, _NOUNS, count)
    text = " ".join(words)
    answer = " ".join(reversed(words))
    return _draft(
        (text,),
        (f"Reverse the order of the words: {text}", f"Say backwards: {text}"),
        "Begin with the last word.",
        answer,
        _exact(answer),
    )


def _quoted_capitals(rng: np.random.Generator, difficulty: int) -> Draft:
    """Both at once."""
    words = _phrase(rng, (difficulty + 1) // 2)
    text = " ".join(words)
    answer = f'"{text.upper()}"'
    return _draft(
        (text,),
        (f"Write in capital letters and double quotes: {text}",),
        "Change each word, then put quotes around it.",
        answer,
        _exact(answer),
    )


def _shorten(rng: np.random.Generator, difficulty: int) -> Draft:
    subject, object_ = _phrase(rng, 1 + difficulty // 3), _phrase(rng, (difficulty + 1) // 2)
    verb = pick(rng, _VERBS)
    text = " ".join([*subject, verb, *object_])
    return _draft(
        (text,),
        (f"Shorten, without adjectives: {text}", f"Make it short: {text}"),
        "Leave out the adjectives.",
        f"the {subject[-1]} {verb} the {object_[-1]}",
        {"kind": "rouge"},
    )


def _same_check(draw: Callable[[np.random.Generator, int], Draft]) -> Redraw:
    """Another problem whose answers pass the given one's check too."""

    def redraw(rng: np.random.Generator, difficulty: int, given: Draft) -> Draft:
        while True:
            draft = draw(rng, 1 + int(rng.integers(5)))
            if draft.check == given.check:
                return draft

    return redraw


INSTRUCTION_MODULES = (
    Module("length/word-count", "instruction", (), _word_count, _same_check(_word_count)),
    Module("keywords/include", "instruction", (), _include, _further_words),
    Module("keywords/leave-out", "instruction", (), _leave_out),
    Module("format/bullets", "instruction", (), _bullets, _same_check(_bullets)),
    Module("format/title", "instruction", (), _title, _same_check(_title)),
    Module("format/quotation", "instruction", (), _quotation),
    Module("ending/closing-words", "instruction", (), _ending, _same_check(_ending)),
    Module("rewriting/capitals", "instruction", (), _capitals),
    Module("rewriting/reverse-words", "instruction", (), _reverse),
    Module(
        "rewriting/quoted-capitals",
        "instruction",
        ("rewriting/capitals", "format/quotation"),
        _quoted_capitals,
    ),
    Module("rewriting/shorten", "instruction", ("keywords/leave-out",), _shorten),
)
