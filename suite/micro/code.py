"""The modules of micro-code: a signature and a docstring, and hidden tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from suite.micro.draft import Draft, Module, between, pick

_NUMBERS = ("n", "k", "x", "m")
_LISTS = ("xs", "ys", "nums", "rows")
_TEXTS = ("s", "t", "word", "text")
_LEADS = ("A shop counts things.", "A teacher has a list.", "A game needs this.")
_WORDS = ("big", "high", "yes", "far", "hot", "old")
_OTHER_WORDS = ("small", "low", "no", "near", "cold", "new")
_SHOWN_TESTS = 2

# Largest constant by difficulty 1 to 5.
_CONSTANT = (9, 12, 20, 30, 50)


def _draft(
    key: tuple[str | int, ...],
    signature: tuple[str, str],
    docstring: str,
    body: str | Sequence[str],
    steps: tuple[str, ...],
    inputs: Sequence[Any],
) -> Draft:
    """The draft of a function of one argument; expected results come from running it."""
    name, argument = signature
    lines = [body] if isinstance(body, str) else body
    head = f"def {name}({argument}):"
    program = "\n".join([head, *(f"    {line}" for line in lines)])
    space: dict[str, Any] = {}
    exec(program, space)
    tests = [f"assert {name}({value!r}) == {space[name](value)!r}" for value in inputs]
    prompt = f'{head}\n    """{docstring}"""'
    check = {"kind": "code", "entry_point": name, "tests": "\n".join(tests)}
    return Draft(
        (name, argument, *key),
        (prompt,),
        tuple(f"{lead}\n{prompt}" for lead in _LEADS),
        steps,
        program,
        check,
        "\n".join(tests[:_SHOWN_TESTS]),
    )


def _add(rng: np.random.Generator, difficulty: int) -> Draft:
    n, c = pick(rng, _NUMBERS), between(rng, 2, _CONSTANT[difficulty - 1])
    signature = (pick(rng, ("add", "move", "shift", "next_of", "grow", "step")), n)
    inputs = [between(rng, 1, 5), between(rng, 6, 9), 0, 30]
    if rng.integers(2):
        steps = (f"Take {n}.", f"Add {c}.")
        return _draft(
            ("+", c), signature, f"Return {n} plus {c}.", f"return {n} + {c}", steps, inputs
        )
    steps = (f"Take {n}.", f"Subtract {c}.")
    # Results of the first tests stay positive: the smaller teacher need not know negative numbers.
    inputs = [c + value for value in inputs]
    return _draft(("-", c), signature, f"Return {n} minus {c}.", f"return {n} - {c}", steps, inputs)


def _multiply(rng: np.random.Generator, difficulty: int) -> Draft:
    n, c = pick(rng, _NUMBERS), between(rng, 2, _CONSTANT[difficulty - 1])
    return _draft(
        ("*", c),
        (pick(rng, ("scale", "times", "many", "stretch", "cost", "copies")), n),
        f"Return {n} times {c}.",
        f"return {n} * {c}",
        (f"Take {n}.", f"Multiply by {c}."),
        [1, 2, 10, 7],
    )


def _linear(rng: np.random.Generator, difficulty: int) -> Draft:
    n, a = pick(rng, _NUMBERS), between(rng, 2, 4 + difficulty)
    b = between(rng, 1, _CONSTANT[difficulty - 1])
    return _draft(
        (a, b),
        (pick(rng, ("line", "price", "fee", "bill", "level", "score")), n),
        f"Return {n} times {a} plus {b}.",
        f"return {n} * {a} + {b}",
        (f"Multiply {n} by {a}.", f"Add {b}."),
        [1, 2, 0, 10],
    )


def _divisible(rng: np.random.Generator, difficulty: int) -> Draft:
    n, c = pick(rng, _NUMBERS), between(rng, 2, (5, 9, 12, 20, 30)[difficulty - 1])
    return _draft(
        (c,),
        (pick(rng, ("fits", "even_share", "splits", "whole", "clean", "exact")), n),
        f"Return whether {n} is divisible by {c}.",
        f"return {n} % {c} == 0",
        (f"Divide {n} by {c}.", "Compare the remainder with 0."),
        [c, c + 1, 3 * c, 2 * c - 1],
    )


def _compare(rng: np.random.Generator, difficulty: int) -> Draft:
    n, c = pick(rng, _NUMBERS), between(rng, 2, _CONSTANT[difficulty - 1])
    word, sign, edge = pick(rng, (("greater", ">", 1), ("less", "<", -1)))
    return _draft(
        (sign, c),
        (pick(rng, ("test", "check_size", "passes", "limit", "is_far", "over")), n),
        f"Return whether {n} is {word} than {c}.",
        f"return {n} {sign} {c}",
        (f"Compare {n} with {c}.",),
        [c + edge, c, c - edge, c + 20 * edge],
    )


def _choose(rng: np.random.Generator, difficulty: int) -> Draft:
    n, c = pick(rng, _NUMBERS), between(rng, 2, _CONSTANT[difficulty - 1])
    word, sign, edge = pick(rng, (("greater", ">", 1), ("less", "<", -1)))
    first, second = pick(rng, _WORDS), pick(rng, _OTHER_WORDS)
    return _draft(
        (sign, c, first, second),
        (pick(rng, ("label", "name_of", "kind", "word_for", "rate", "sort_of")), n),
        f"Return '{first}' if {n} is {word} than {c}, else '{second}'.",
        (f"if {n} {sign} {c}:", f"    return '{first}'", f"return '{second}'"),
        (f"Compare {n} with {c}.", f"Return '{first}' or '{second}'."),
        [c + edge, c, c + 20 * edge, c - edge],
    )


def _affix(rng: np.random.Generator, difficulty: int) -> Draft:
    s = pick(rng, _TEXTS)
    letters = "".join(pick(rng, "abcdefgh") for _ in range((difficulty + 1) // 2))
    at_end = bool(rng.integers(2))
    where, code = ("end", f"{s} + '{letters}'") if at_end else ("start", f"'{letters}' + {s}")
    return _draft(
        (letters, where),
        (pick(rng, ("mark", "tag", "extend", "join", "stamp", "dress")), s),
        f"Return {s} with '{letters}' at the {where}.",
        f"return {code}",
        (f"Put '{letters}' at the {where} of {s}.",),
        ["no", "cat", "", "a b"],
    )


def _repeat(rng: np.random.Generator, difficulty: int) -> Draft:
    s, c = pick(rng, _TEXTS), between(rng, 2, (5, 9, 12, 20, 30)[difficulty - 1])
    return _draft(
        (c,),
        (pick(rng, ("echo", "again", "chant", "loop", "pattern", "tile")), s),
        f"Return {s} repeated {c} times.",
        f"return {s} * {c}",
        (f"Repeat {s} {c} times.",),
        ["a", "", "ab", "cat"] if c < 6 else ["", "a", "ab", "cat"],
    )


def _take(rng: np.random.Generator, difficulty: int) -> Draft:
    xs, c = pick(rng, _LISTS), between(rng, 1, (4, 6, 9, 15, 25)[difficulty - 1])
    at_end = bool(rng.integers(2))
    where, code = ("last", f"{xs}[-{c}:]") if at_end else ("first", f"{xs}[:{c}]")
    # Shorter and longer lists than asked for.
    inputs = [[5], [1, 2, 3, 4, 5, 6], [], list(range(30))]
    return _draft(
        (where, c),
        (pick(rng, ("part", "take", "slice_of", "some", "cut", "piece")), xs),
        f"Return the {where} {c} items of {xs}.",
        f"return {code}",
        (f"Slice {xs}: the {where} {c} items.",),
        inputs,
    )


def _map(rng: np.random.Generator, difficulty: int) -> Draft:
    xs, c = pick(rng, _LISTS), between(rng, 2, _CONSTANT[difficulty - 1])
    sign, word = pick(rng, (("+", "plus"), ("*", "times")))
    return _draft(
        (sign, c),
        (pick(rng, ("change", "all_of", "update", "apply", "raise_all", "convert")), xs),
        f"Return each item of {xs} {word} {c}.",
        f"return [x {sign} {c} for x in {xs}]",
        (f"Go through {xs}.", f"Make each item x {sign} {c}."),
        [[1, 2], [], [10, 5], [7, 3, 9]],
    )


def _filter(rng: np.random.Generator, difficulty: int) -> Draft:
    xs, c = pick(rng, _LISTS), between(rng, 2, _CONSTANT[difficulty - 1])
    word, sign, edge = pick(rng, (("greater", ">", 1), ("less", "<", -1)))
    return _draft(
        (sign, c),
        (pick(rng, ("keep", "only", "select", "filter_by", "choose", "sift")), xs),
        f"Return the items of {xs} {word} than {c}.",
        f"return [x for x in {xs} if x {sign} {c}]",
        (f"Go through {xs}.", f"Keep x if x {sign} {c}."),
        [[c, c + edge], [], [c + 20 * edge, c, c - edge], [1, 60, c + edge]],
    )


def _filtered_sum(rng: np.random.Generator, difficulty: int) -> Draft:
    xs, c = pick(rng, _LISTS), between(rng, 2, _CONSTANT[difficulty - 1])
    word, sign, edge = pick(rng, (("greater", ">", 1), ("less", "<", -1)))
    return _draft(
        (sign, c),
        (pick(rng, ("total", "sum_of", "amount", "count_up", "result", "gather")), xs),
        f"Return the sum of items of {xs} {word} than {c}.",
        f"return sum(x for x in {xs} if x {sign} {c})",
        (f"Keep x if x {sign} {c}.", "Sum up what is left."),
        [[c, c + edge], [], [c + 20 * edge, c, c - edge], [1, 60, c + edge]],
    )


CODE_MODULES = (
    Module("numbers/add-constant", "code", (), _add),
    Module("numbers/multiply", "code", (), _multiply),
    Module("numbers/linear", "code", ("numbers/add-constant", "numbers/multiply"), _linear),
    Module("numbers/divisible", "code", (), _divisible),
    Module("branches/compare", "code", (), _compare),
    Module("branches/choose", "code", ("branches/compare",), _choose),
    Module("strings/affix", "code", (), _affix),
    Module("strings/repeat", "code", (), _repeat),
    Module("lists/take", "code", (), _take),
    Module("lists/map", "code", ("numbers/add-constant", "numbers/multiply"), _map),
    Module("lists/filter", "code", ("branches/compare",), _filter),
    Module("lists/filtered-sum", "code", ("lists/filter",), _filtered_sum),
)
