"""Why others judge an answer differently: by rule, of what they read of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from suite.maths_agreement.compare import Judged


@dataclasses.dataclass(frozen=True)
class Kind:
    """Differences that have one cause.

    Attributes:
        judge: Whose.
        cause: In Markdown.
        applies: Of an answer and what the judge read of it.
    """

    judge: str
    cause: str
    applies: Callable[[Judged, str], bool]


def _stays(*signs: str) -> Callable[[Judged, str], bool]:
    """A right answer in which a sign is left that says nothing of the value."""
    return lambda one, read: one.form.right and any(sign in read for sign in signs)


def _near(one: Judged, _: str) -> bool:
    return one.form.name.startswith("relative error")


def _increased(one: Judged, _: str) -> bool:
    return one.form.name == "first number + 1"


def _other_item(one: Judged, _: str) -> bool:
    return one.form.name in ("neighbour's reference", "similar reference", "first of two boxes")


def _form(*names: str) -> Callable[[Judged, str], bool]:
    return lambda one, _: one.form.name in names


_TEXT_FONTS = _form(r"`\text{}`", r"`\textbf{}`")
_ENDS = _form("full stop in the box", "comma in the box")

# The first that applies.
KINDS = (
    Kind("math-verify", "rounds to six decimals, however small the value", _near),
    Kind(
        "math-verify",
        "rounds to six decimals: both are 0",
        lambda one, read: _increased(one, read) and r"\frac" in one.case.reference,
    ),
    Kind(
        "math-verify",
        "cannot read the last box and takes one before it",
        _form("first of two boxes"),
    ),
    Kind(
        "math-verify",
        r"adds digits that a space sets apart: `3\,125` is 128",
        _form("thousands, thin space", "thousands, plain space"),
    ),
    Kind(
        "math-verify",
        "reads no value, or only a part, before a full stop or comma at the end of a box",
        _ENDS,
    ),
    Kind(
        "math-verify",
        r"reads no value of a formula in `\mathbf`",
        lambda one, read: one.form.name == r"`\mathbf{}`" and not read,
    ),
    Kind("math-verify", "takes what a font holds for the name of a variable", _TEXT_FONTS),
    Kind(
        "math-verify",
        r"takes what `\mathbf` holds for the name of a variable, or reads only a part",
        _form(r"`\mathbf{}`"),
    ),
    Kind(
        "math-verify",
        "takes a unit before a space for a factor",
        lambda one, read: one.form.name == "thin spaces" and "*" in read,
    ),
    Kind(
        "math-verify",
        "reads a number with separated thousands as a set, where spaces are around",
        lambda one, read: one.form.name.endswith(" spaces") and read.startswith("{"),
    ),
    Kind(
        "math-verify",
        "reads no value, where thin spaces are around",
        lambda one, read: one.form.name == "thin spaces" and not read,
    ),
    Kind(
        "math-verify",
        "leaves units out, known or not",
        lambda one, read: _other_item(one, read) and r"\circ" in one.text,
    ),
    Kind(
        "math-verify",
        "cannot read letters in text with a comma that has spaces around",
        lambda one, _: one.form.name.endswith(" spaces") and r"\text" in one.case.reference,
    ),
    Kind(
        "math-verify",
        "reads no matrix where `\\phantom` is in it, and takes a number of it",
        lambda one, _: r"\phantom" in one.case.reference,
    ),
    Kind("Minerva", "its closing sentence is missing", _form("no box")),
    Kind(
        "Minerva",
        "keeps the full stop at the reference's end, with which SymPy reads `31.` as 3",
        lambda one, _: one.case.reference.endswith("."),
    ),
    Kind("Minerva", "its pattern does not cross a line's end", lambda one, _: "\n" in one.text),
    Kind(
        "Minerva",
        "compares what is right of the last `=`",
        lambda one, _: not one.form.right and "=" in one.case.reference,
    ),
    Kind("Minerva", "has no tolerance for decimals", _form("10 digits of an endless value")),
    Kind("Minerva", r"leaves `\mathbf`, which SymPy takes for a variable", _stays(r"\mathbf")),
    Kind(
        "Minerva",
        r"leaves `\displaystyle`, which SymPy takes for a variable",
        _stays(r"\displaystyle"),
    ),
    Kind("Minerva", r"leaves `\,`, and SymPy cannot read the rest", _stays(r"\,")),
    Kind("Minerva", r"leaves `\dfrac`, and SymPy cannot read the rest", _stays(r"\dfrac")),
    Kind("Minerva", "leaves the sign at the end, with which SymPy cannot read the rest", _ENDS),
    Kind(
        "Minerva",
        "SymPy reads what is before a comma, or a sign that it does not know, and no more",
        _other_item,
    ),
    Kind("Qwen", "takes 0.01 % of the value for no difference", _near),
    Kind("Qwen", "takes 0.01 % of the value for no difference, exact or not", _increased),
    Kind(
        "Qwen",
        "takes a number for its percentage: 55 is 5500 and 0.55",
        lambda one, read: _other_item(one, read) and _is_hundredfold(one.case.reference, read),
    ),
    Kind(
        "Qwen",
        "leaves units out, known or not",
        lambda one, read: _other_item(one, read) and r"\circ" in one.text,
    ),
    Kind(
        "Qwen",
        r"takes `\text{}` at the end for a unit, with the brace after it",
        lambda one, _: one.form.name == r"`\mathbf{}`" and r"\text" in one.case.reference,
    ),
    Kind("Qwen", r"leaves `\textbf`, which SymPy takes for a variable", _stays(r"\textbf")),
    Kind(
        "Qwen",
        r"leaves `\displaystyle`, which SymPy takes for a variable",
        _stays(r"\displaystyle"),
    ),
    Kind("Qwen", r"leaves `\,`, and SymPy cannot read the rest", _stays(r"\,")),
    Kind(
        "Qwen",
        "takes off a unit in words only at the end, and here it does not stand there",
        lambda one, _: one.form.right and r"\text" in one.case.reference,
    ),
    Kind("Qwen", r"takes off `\mbox` with what it holds", _stays(r"\mbox")),
    Kind("Qwen", "leaves a comma at the end, with which SymPy cannot read the rest", _ENDS),
    Kind(
        "Qwen",
        "SymPy reads what is before a comma, or a sign that it does not know, and no more",
        _other_item,
    ),
)


def find_cause(one: Judged, judge: str) -> str:
    """The cause of a difference, empty if no rule tells it."""
    judgement = one.others[judge]
    if judgement.stopped:
        return f"stopped at a limit: {judgement.stopped}"
    fitting = (
        kind.cause for kind in KINDS if kind.judge == judge and kind.applies(one, judgement.read)
    )
    return next(fitting, "")


def _is_hundredfold(reference: str, read: str) -> bool:
    try:
        one, other = float(reference.replace(",", "")), float(read.replace(",", ""))
    except ValueError:
        return False
    return other in (100 * one, one / 100)
