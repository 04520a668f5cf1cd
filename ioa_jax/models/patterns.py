"""Regular expressions of tokenizers, which run without a limit of time in a library.

Backtracking takes time that grows exponentially with a text where what is repeated can be read in
several ways, such as `(a+)+` or `(a|a)*`; and with a power of its length where repetitions stand
side by side. No tokenizer of the models that are read needs the first, or more than two of the
second.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from ioa_jax.errors import ModelFormatError

MAX_PATTERN = 5_000  # characters
MAX_REPEATED = 3  # without an end, in one branch of a pattern
_LONG = 10  # a repetition of up to as many is none
_TOKEN = re.compile(
    r"\\[pP]\{[^}]*\}|\\x\{[^}]*\}|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\."
    r"|\(\?(?:[imsx-]+:|<?[=!]|[:>])|[()|]|(?:[*+?]|\{\d*,?\d*\})[+?]?|.",
    re.DOTALL,
)

_QUANTIFIER = re.compile(r"(?:[*+?]|\{\d*,?\d*\})[+?]?")
_CHARACTER = re.compile(r"[^\\.^$()|*+?{}\[\]]|\\[^A-Za-z0-9]|\\[nrt]")


def check_patterns(tokenizer: Any, source: str) -> None:
    """See that no pattern of a tokenizer can take forever.

    Args:
        tokenizer: The content of tokenizer.json.
        source: The file's name, for errors.

    Raises:
        ModelFormatError: Names the pattern.
    """
    inner = [tokenizer]
    while inner:
        one = inner.pop()
        if isinstance(one, list):
            inner += one
        elif isinstance(one, dict):
            pattern = one.get("Regex")
            if isinstance(pattern, str):
                fault = find_fault(pattern)
                if fault:
                    raise ModelFormatError(f"{source}: pattern {pattern[:80]!r}: {fault}")
            # Vocabularies are large and hold no patterns.
            inner += [value for key, value in one.items() if key not in ("vocab", "merges")]


def find_fault(pattern: str) -> str:
    """Why a pattern may take forever; empty if it can't."""
    if len(pattern) > MAX_PATTERN:
        return f"{len(pattern)} characters; at most {MAX_PATTERN}"
    stack: list[_Group] = []
    group = _Group()
    closed: _Group | None = None  # that ended just now
    for token in _tokens(pattern):
        last, closed = closed, None
        if token.startswith("\\") and token[1:2] in "gk123456789":
            return "a reference to another part of the match"
        if token == "|":
            group.branch()
        elif token == ")":
            if not stack:
                return "a bracket that is never opened"
            closed, group = group, stack.pop()
            group.repeated += max(closed.most, closed.repeated)
            group.varies |= closed.varies
        elif _QUANTIFIER.fullmatch(token):
            endless = _is_endless(token)
            if endless and ((last is not None and last.is_ambiguous()) or token.endswith("}+")):
                return "what is repeated can be read in several ways"
            group.repeated += endless
            group.varies = True
        else:
            group.begin(token)
            if token.startswith("("):
                stack.append(group)
                group = _Group()
        if max(group.most, group.repeated) > MAX_REPEATED:
            return f"more than {MAX_REPEATED} endless repetitions side by side"
    return ""


@dataclasses.dataclass
class _Group:
    """A group, or the whole pattern, as far as it was read.

    Attributes:
        repeated: Endless repetitions in this branch.
        most: In one of the branches before it.
        varies: Something in it may be there more or less often.
        firsts: What each branch begins with; the last is None until that is known.
    """

    repeated: int = 0
    most: int = 0
    varies: bool = False
    firsts: list[str | None] = dataclasses.field(default_factory=lambda: [None])

    def begin(self, token: str) -> None:
        if self.firsts[-1] is None:
            self.firsts[-1] = token

    def branch(self) -> None:
        self.most = max(self.most, self.repeated)
        self.repeated = 0
        self.firsts.append(None)

    def is_ambiguous(self) -> bool:
        """Whether a text may be several of it in several ways."""
        if self.varies:
            return True
        if len(self.firsts) == 1:
            return False
        # Of branches that begin with one character each, that tells which it is.
        plain = [one for one in self.firsts if one is not None and _CHARACTER.fullmatch(one)]
        return len({one.lower() for one in plain}) < len(self.firsts)


def _tokens(pattern: str) -> list[str]:
    """A class of characters is one token."""
    tokens: list[str] = []
    at = 0
    while at < len(pattern):
        if pattern[at] == "[":
            at = _class_end(pattern, at)
            tokens.append("[]")
            continue
        match = _TOKEN.match(pattern, at)
        assert match is not None
        tokens.append(match[0])
        at = match.end()
    return tokens


def _class_end(pattern: str, at: int) -> int:
    """Behind a class, in which there may be others."""
    depth, at = 1, at + 1
    # A bracket at the beginning stands for itself.
    at += pattern.startswith("^", at)
    at += pattern.startswith("]", at)
    while at < len(pattern) and depth:
        if pattern[at] == "\\":
            at += 1
        elif pattern[at] == "[":
            depth += 1
        elif pattern[at] == "]":
            depth -= 1
        at += 1
    return at


def _is_endless(token: str) -> bool:
    if token[0] in "*+" or token.endswith("}+"):
        return True
    if token[0] == "?":
        return False
    least, comma, most = token.rstrip("+?")[1:-1].partition(",")
    return (bool(comma) and not most) or int((most or least)[:9] or 0) > _LONG
