"""The modules of micro-math: short problems, solved in steps of one operation each."""

from __future__ import annotations

import numpy as np

from suite.micro.draft import NAMES, THINGS, Draft, Module, between, pick

# Largest operand by difficulty 1 to 5.
_TERM = (9, 15, 25, 45, 60)
_FACTOR = (4, 5, 6, 8, 9)


def _draft(
    key: tuple[str | int, ...],
    wordings: tuple[str, ...],
    concrete: tuple[str, ...],
    steps: list[str],
    answer: int,
    verification: str,
) -> Draft:
    check = {"kind": "math", "answer": str(answer)}
    return Draft(key, wordings, concrete, tuple(steps), str(answer), check, verification)


def _sum_steps(a: int, b: int) -> list[str]:
    """Tens and ones apart where both numbers have them."""
    if a < 10 or b < 10:
        return [f"{a} + {b} = {a + b}"]
    tens, ones = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
    return [
        f"{a // 10 * 10} + {b // 10 * 10} = {tens}",
        f"{a % 10} + {b % 10} = {ones}",
        f"{tens} + {ones} = {a + b}",
    ]


def _difference_steps(a: int, b: int) -> list[str]:
    """Tens first where there are any."""
    tens, ones = b // 10 * 10, b % 10
    if not tens or not ones:
        return [f"{a} - {b} = {a - b}"]
    return [f"{a} - {tens} = {a - tens}", f"{a - tens} - {ones} = {a - b}"]


def _product_steps(a: int, b: int) -> list[str]:
    """`b` has one digit; the tens and the ones of `a` apart."""
    tens, ones = a // 10 * 10, a % 10
    if not tens or not ones:
        return [f"{a} * {b} = {a * b}"]
    return [
        f"{tens} * {b} = {tens * b}",
        f"{ones} * {b} = {ones * b}",
        f"{tens * b} + {ones * b} = {a * b}",
    ]


def _addition(rng: np.random.Generator, difficulty: int) -> Draft:
    top = _TERM[difficulty - 1]
    a, b = between(rng, max(2, top // 4), top), between(rng, 2, min(top, 39))
    name, thing = pick(rng, NAMES), pick(rng, THINGS)
    return _draft(
        (a, b),
        (f"What is {a} + {b}?", f"Add {a} and {b}."),
        (f"{name} has {a} {thing} and gets {b} more. How many now?",),
        _sum_steps(a, b),
        a + b,
        f"{a + b} - {b} = {a}",
    )


def _subtraction(rng: np.random.Generator, difficulty: int) -> Draft:
    top = _TERM[difficulty - 1]
    b, rest = between(rng, 1, min(top, 39)), between(rng, 1, top)
    a = b + rest
    name, thing = pick(rng, NAMES), pick(rng, THINGS)
    return _draft(
        (a, b),
        (f"What is {a} - {b}?", f"Take {b} away from {a}."),
        (f"{name} has {a} {thing} and gives {b} away. How many are left?",),
        _difference_steps(a, b),
        rest,
        f"{rest} + {b} = {a}",
    )


def _multiplication(rng: np.random.Generator, difficulty: int) -> Draft:
    b = between(rng, 2, _FACTOR[difficulty - 1])
    a = between(rng, 2, 12) if difficulty < 3 else between(rng, 11, min(40, 150 // b))
    name, thing = pick(rng, NAMES), pick(rng, THINGS)
    return _draft(
        (a, b),
        (f"What is {a} * {b}?", f"Multiply {a} by {b}."),
        (f"{name} has {b} bags with {a} {thing} each. How many in all?",),
        _product_steps(a, b),
        a * b,
        f"{a * b} / {b} = {a}",
    )


def _division(rng: np.random.Generator, difficulty: int) -> Draft:
    b, quotient = between(rng, 2, _FACTOR[difficulty - 1]), between(rng, 2, 7 + difficulty)
    a = b * quotient
    name, thing = pick(rng, NAMES), pick(rng, THINGS)
    return _draft(
        (a, b),
        (f"What is {a} / {b}?", f"Divide {a} by {b}."),
        (f"{name} puts {a} {thing} into {b} bags, the same in each. How many in a bag?",),
        # Counted down to 0: a fact that is of the split alone can't be known by heart.
        [
            ", ".join(f"({n}) {a - n * b}" for n in range(1, quotient + 1)),
            f"{a} / {b} = {quotient}",
        ],
        quotient,
        f"{quotient} * {b} = {a}",
    )


def _order_of_operations(rng: np.random.Generator, difficulty: int) -> Draft:
    a, b = between(rng, 2, 9), between(rng, 2, _FACTOR[difficulty - 1])
    c = between(rng, 1, _TERM[difficulty - 1] // 2 + 1)
    first = bool(rng.integers(2))
    expression = f"{a} * {b} + {c}" if first else f"{c} + {a} * {b}"
    last = f"{a * b} + {c}" if first else f"{c} + {a * b}"
    name, thing = pick(rng, NAMES), pick(rng, THINGS)
    return _draft(
        (a, b, c, int(first)),
        (f"What is {expression}?", f"Work out {expression}."),
        (f"{name} has {thing} in rows. What is {expression}?",),
        [f"{a} * {b} = {a * b}", f"{last} = {a * b + c}"],
        a * b + c,
        f"{a * b + c} - {c} = {a * b}",
    )


def _fraction_of(rng: np.random.Generator, difficulty: int) -> Draft:
    below = between(rng, 2, (3, 4, 5, 6, 6)[difficulty - 1])
    above = between(rng, 1, below - 1)
    part = between(rng, 2, 5 + difficulty)
    whole = below * part
    name, thing = pick(rng, NAMES), pick(rng, THINGS)
    return _draft(
        (above, below, whole),
        (f"What is {above}/{below} of {whole}?", f"Find {above}/{below} of {whole}."),
        (f"{name} has {whole} {thing} and sells {above}/{below} of them. How many are sold?",),
        [f"{whole} / {below} = {part}", f"{above} * {part} = {above * part}"],
        above * part,
        f"{part} * {below} = {whole}",
    )


def _one_step_equation(rng: np.random.Generator, difficulty: int) -> Draft:
    top = _TERM[difficulty - 1]
    a, x = between(rng, 1, min(top, 39)), between(rng, 1, top)
    if rng.integers(2):
        equation, steps = f"x + {a} = {x + a}", [f"x = {x + a} - {a}", *_difference_steps(x + a, a)]
        verification = f"{x} + {a} = {x + a}"
    else:
        x += a
        equation, steps = f"x - {a} = {x - a}", [f"x = {x - a} + {a}", *_sum_steps(x - a, a)]
        verification = f"{x} - {a} = {x - a}"
    return _draft(
        (equation,),
        (f"Solve {equation}.", f"Find x if {equation}."),
        (f"A box holds x {pick(rng, THINGS)}. Find x if {equation}.",),
        steps,
        x,
        verification,
    )


def _linear_equation(rng: np.random.Generator, difficulty: int) -> Draft:
    a, x = between(rng, 2, _FACTOR[difficulty - 1]), between(rng, 2, 5 + difficulty)
    b = between(rng, 1, 5 + 3 * difficulty)
    total = a * x + b
    equation = f"{a}x + {b} = {total}"
    return _draft(
        (a, b, total),
        (f"Solve {equation}.", f"Find x if {equation}."),
        (f"Each bag holds x {pick(rng, THINGS)}. Find x if {equation}.",),
        [f"{total} - {b} = {a * x}", f"{a}x = {a * x}", f"{a * x} / {a} = {x}"],
        x,
        f"{a} * {x} + {b} = {total}",
    )


def _remainder(rng: np.random.Generator, difficulty: int) -> Draft:
    b = between(rng, 3, max(4, _FACTOR[difficulty - 1]))
    quotient, rest = between(rng, 1, 4 + difficulty), between(rng, 0, b - 1)
    a = b * quotient + rest
    name, thing = pick(rng, NAMES), pick(rng, THINGS)
    return _draft(
        (a, b),
        (f"What is the remainder of {a} / {b}?", f"Find {a} mod {b}."),
        (f"{name} packs {a} {thing} in boxes of {b}. How many are left over?",),
        # Counted down as far as it goes, as in a division.
        [", ".join(f"{a - n * b}" for n in range(1, quotient + 1)), f"{rest} < {b}"],
        rest,
        f"{b * quotient} + {rest} = {a}",
    )


def _common_divisor(rng: np.random.Generator, difficulty: int) -> Draft:
    """By subtracting the smaller number until both are the same."""
    pairs = ((1, 2), (1, 3), (2, 3), (1, 4), (3, 4), (2, 5), (3, 5), (1, 1))
    first, second = pick(rng, pairs[: 3 + difficulty])
    divisor = between(rng, 2, 7 + difficulty)
    a, b = sorted((divisor * first, divisor * second))
    steps: list[str] = []
    left = (a, b)
    while left[0] != left[1]:
        steps.append(f"{left[1]} - {left[0]} = {left[1] - left[0]}")
        left = (min(left[0], left[1] - left[0]), max(left[0], left[1] - left[0]))
    name = pick(rng, NAMES)
    return _draft(
        (a, b),
        (f"What is the gcd of {a} and {b}?", f"Find gcd({a}, {b})."),
        (f"{name} cuts ropes of {a} and {b} feet into equal parts. How long can a part be?",),
        [*steps, f"both {divisor}"],
        divisor,
        f"{divisor} * {a // divisor} = {a}",
    )


def _pairs(rng: np.random.Generator, difficulty: int) -> Draft:
    a, b = between(rng, 2, 12), between(rng, 2, _FACTOR[difficulty - 1])
    name = pick(rng, NAMES)
    first, second = pick(rng, (("hats", "coats"), ("cups", "plates"), ("pens", "cards")))
    return _draft(
        (a, b),
        (f"In how many ways can one of {a} {first} and one of {b} {second} be chosen?",),
        (f"{name} has {a} {first} and {b} {second}. How many pairs of one each are there?",),
        _product_steps(a, b),
        a * b,
        f"{a * b} / {b} = {a}",
    )


def _numbers_between(rng: np.random.Generator, difficulty: int) -> Draft:
    top = _TERM[difficulty - 1]
    a, gap = between(rng, 1, min(top, 39)), between(rng, 2, top)
    b = a + gap
    name = pick(rng, NAMES)
    return _draft(
        (a, b),
        (f"How many whole numbers are from {a} to {b}?", f"Count the numbers from {a} to {b}."),
        (f"{name} reads pages {a} to {b} of a book. How many pages?",),
        [*_difference_steps(b, a), f"{gap} + 1 = {gap + 1}"],
        gap + 1,
        f"{a} + {gap} = {b}",
    )


def _next_term(rng: np.random.Generator, difficulty: int) -> Draft:
    start, gap = between(rng, 1, _TERM[difficulty - 1] // 2 + 1), between(rng, 2, 3 + difficulty)
    terms = [start + gap * i for i in range(4)]
    shown = ", ".join(map(str, terms))
    name, thing = pick(rng, NAMES), pick(rng, THINGS)
    return _draft(
        (start, gap),
        (f"What comes next: {shown}?", f"Continue: {shown}."),
        (f"{name} has {shown} {thing} on four days. What comes next?",),
        [f"{terms[1]} - {terms[0]} = {gap}", f"{terms[3]} + {gap} = {terms[3] + gap}"],
        terms[3] + gap,
        f"{terms[3] + gap} - {gap} = {terms[3]}",
    )


def _list_sum(rng: np.random.Generator, difficulty: int) -> Draft:
    terms = [between(rng, 1, 9) for _ in range(2 + (difficulty + 1) // 2)]
    steps, total = [], terms[0]
    for term in terms[1:]:
        steps.append(f"{total} + {term} = {total + term}")
        total += term
    shown = ", ".join(map(str, terms))
    name, thing = pick(rng, NAMES), pick(rng, THINGS)
    return _draft(
        tuple(terms),
        (f"Find the sum of {shown}.", f"Sum up {shown}."),
        (f"{name} finds {shown} {thing}. How many in all?",),
        steps,
        total,
        f"{total} - {terms[-1]} = {total - terms[-1]}",
    )


def _perimeter(rng: np.random.Generator, difficulty: int) -> Draft:
    a, b = between(rng, 2, 4 + 3 * difficulty), between(rng, 2, 4 + 3 * difficulty)
    return _draft(
        (a, b),
        (f"Find the perimeter of a rectangle with sides {a} and {b}.",),
        (f"A garden is {a} feet by {b} feet. How long is its fence?",),
        [*_sum_steps(a, b), f"2 * {a + b} = {2 * (a + b)}"],
        2 * (a + b),
        f"{2 * (a + b)} / 2 = {a + b}",
    )


def _area(rng: np.random.Generator, difficulty: int) -> Draft:
    b = between(rng, 2, _FACTOR[difficulty - 1])
    a = between(rng, 2, 12) if difficulty < 4 else between(rng, 11, min(25, 150 // b))
    return _draft(
        (a, b),
        (f"Find the area of a rectangle with sides {a} and {b}.",),
        (f"A garden is {a} feet by {b} feet. How large is it?",),
        _product_steps(a, b),
        a * b,
        f"{a * b} / {b} = {a}",
    )


_ADD, _SUB, _MUL, _DIV = (
    f"arithmetic/{name}" for name in ("addition", "subtraction", "multiplication", "division")
)

MATH_MODULES = (
    Module(_ADD, "math", (), _addition),
    Module(_SUB, "math", (), _subtraction),
    Module(_MUL, "math", (_ADD,), _multiplication),
    Module(_DIV, "math", (_MUL,), _division),
    Module("pre-algebra/order-of-operations", "math", (_ADD, _MUL), _order_of_operations),
    Module("pre-algebra/fraction-of", "math", (_MUL, _DIV), _fraction_of),
    Module("algebra/one-step-equation", "math", (_ADD, _SUB), _one_step_equation),
    Module("algebra/linear-equation", "math", (_SUB, _DIV), _linear_equation),
    Module("number-theory/remainder", "math", (_MUL, _SUB), _remainder),
    Module("number-theory/common-divisor", "math", (_SUB,), _common_divisor),
    Module("counting/pairs", "math", (_MUL,), _pairs),
    Module("counting/numbers-between", "math", (_SUB,), _numbers_between),
    Module("sequences/next-term", "math", (_ADD, _SUB), _next_term),
    Module("sequences/list-sum", "math", (_ADD,), _list_sum),
    Module("geometry/perimeter", "math", (_ADD, _MUL), _perimeter),
    Module("geometry/area", "math", (_MUL,), _area),
)
