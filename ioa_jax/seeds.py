"""Seed items: the real tasks that a user starts from, one JSON object a line."""

from __future__ import annotations

import dataclasses
import importlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from ioa_jax.jsonl import find_rows
from ioa_jax.values import Value

MIN_SEEDS = 20

Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
Messages = tuple[Mapping[str, str], ...]


def slug(name: str) -> str:
    """A name in lower-case ASCII letters, digits and hyphens; empty if nothing is left of it."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def module_id(category: str, module: str) -> str:
    """`category/module` in slugs, so that spellings of one name are one id.

    Raises:
        InputError: A name has no letter or digit that an id could hold.
    """
    for name in (category, module):
        if not slug(name):
            raise InputError(f"name {name!r}: no letter or digit that an id could hold")
    return f"{slug(category)}/{slug(module)}"


class _Check(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AnswerCheck(_Check):
    """Maths equivalence, equality of numbers, or equality of texts.

    Attributes:
        kind: `math`, `number` or `exact`.
        answer: The right answer; None is the reference itself, for `math` what is in its last box
            if it has one.
    """

    kind: Literal["math", "number", "exact"]
    answer: Text | None = None


class CodeCheck(_Check):
    """Tests pass in the sandbox.

    Attributes:
        kind: `code`.
        entry_point: The function that is asked for.
        tests: Python statements that raise where the function is wrong.
    """

    kind: Literal["code"]
    entry_point: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$")]
    tests: Text


class InstructionCheck(_Check):
    """Instructions are followed, each named and given its arguments as IFEval does.

    Attributes:
        kind: `instruction`.
        instruction_id_list: Such as `length_constraints:number_words`.
        kwargs: Arguments of each instruction.
    """

    kind: Literal["instruction"]
    instruction_id_list: Annotated[tuple[Text, ...], Field(min_length=1)]
    kwargs: tuple[dict[str, Any], ...]


class RougeCheck(_Check):
    """Likeness to the reference.

    Attributes:
        kind: `rouge`.
    """

    kind: Literal["rouge"]


class SeedRow(BaseModel):
    """A line of a seed file. Other fields are kept for the `metadata` decomposer."""

    model_config = ConfigDict(extra="allow")
    id: Text | None = None
    prompt: Text
    reference: Text
    check: Annotated[
        AnswerCheck | CodeCheck | InstructionCheck | RougeCheck, Field(discriminator="kind")
    ]
    domain: Text | None = None
    module: Text | None = None
    difficulty: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _module_has_two_levels(self) -> SeedRow:
        if self.module is not None:
            parts = self.module.split("/")
            if len(parts) != 2:
                raise ValueError(f"module {self.module!r}: write it as category/module")
            try:
                module_id(*parts)
            except InputError as error:
                raise ValueError(str(error)) from None
        return self


_DOMAINS = {
    "math": "math",
    "number": "math",
    "code": "code",
    "instruction": "instruction",
    "rouge": "instruction",
    "exact": "instruction",
}


@dataclasses.dataclass(frozen=True)
class SeedItem(Value):
    """A real task: what is asked, a right answer, and how answers are checked.

    Attributes:
        id: Unique in its file.
        prompt: What is asked.
        reference: A right answer, worked where the student should learn to work.
        check: `kind` (of the grader) and what else that grader needs.
        domain: What it is about, in any words: `math`, `code` or `instruction` where the file
            doesn't say it. How answers look and are checked follows from `check` alone.
        module: `category/module` where the file says it, else None: the Identifier finds it.
        difficulty: Where the file says it, on any one scale.
        fields: The line's other fields.
    """

    id: str
    prompt: str
    reference: str
    check: dict[str, Any]
    domain: str
    module: str | None = None
    difficulty: float | None = None
    fields: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])

    @property
    def kind(self) -> str:
        """Of the grader, for `ioa_jax.graders.registry.make_grader`."""
        return str(self.check["kind"])

    @property
    def messages(self) -> Messages:
        """The task as a chat of one turn."""
        return ({"role": "user", "content": self.prompt},)

    def item(self) -> Item:
        """What the grader of `kind` takes."""
        if self.kind == "code":
            entry_point, tests = self.check["entry_point"], self.check["tests"]
            data = {"kind": "mbpp", "entry_point": entry_point, "test_list": [tests]}
            return Item(self.id, self.prompt, (self._program(entry_point),), data)
        if self.kind == "instruction":
            data = {name: list(self.check[name]) for name in ("instruction_id_list", "kwargs")}
            return Item(self.id, self.prompt, (self.reference,), data)
        return Item(self.id, self.prompt, (self._answer(),))

    def _program(self, entry_point: str) -> str:
        """The reference without what is said around it."""
        code = importlib.import_module("ioa_jax.graders.code")
        return code.find_program(self.reference, entry_point).code

    def _answer(self) -> str:
        answer = self.check.get("answer")
        if answer is not None:
            return str(answer)
        if self.kind == "math":
            # The grader's library is loaded by those who need it.
            maths = importlib.import_module("ioa_jax.graders.maths")
            return maths.last_boxed(self.reference) or self.reference
        return self.reference


def read_seeds(path: Path) -> tuple[SeedItem, ...]:
    """Every seed of a file, in its order.

    A line has `prompt`, `reference` and `check`, and may have `id` (else `line-N`), `domain` (else
    it follows from the check), `module`, `difficulty` and any other fields.

    Raises:
        InputError: Names file, line and field of the first bad line; or an id or a prompt occurs
            twice.
    """
    seeds, faults = find_seeds(path)
    if faults:
        raise InputError(faults[0])
    return seeds


def find_seeds(path: Path) -> tuple[tuple[SeedItem, ...], tuple[str, ...]]:
    """The seeds of a file that can be used, and what is wrong with its other lines.

    Returns:
        Seeds, and file, line, field and fault of each bad line, both in the file's order. An id or
        a prompt that occurs twice is a fault of the later line.

    Raises:
        InputError: The file can't be read, or has no line.
    """
    rows, bad = find_rows(path, SeedRow)
    found: list[SeedItem] = []
    ids: dict[str, int] = {}
    prompts: dict[str, int] = {}
    for line, row in rows.items():
        seed = seed_from_row(row, line)
        # A task that occurs twice could be taught and then measured.
        for name, seen, key in (
            ("id", ids, seed.id),
            ("prompt", prompts, " ".join(seed.prompt.split())),
        ):
            first = seen.setdefault(key, line)
            if first != line:
                bad.setdefault(line, f"{path}:{line}: field {name!r}: the same as in line {first}")
        if line not in bad:
            found.append(seed)
    return tuple(found), tuple(bad[line] for line in sorted(bad))


def seed_from_row(row: SeedRow, line: int) -> SeedItem:
    """A checked line as a value; `line` is its number, from 1."""
    check = row.check.model_dump(mode="json", exclude_none=True)
    return SeedItem(
        id=row.id or f"line-{line}",
        prompt=row.prompt,
        reference=row.reference,
        check=check,
        domain=row.domain or _DOMAINS[row.check.kind],
        module=row.module,
        difficulty=row.difficulty,
        fields=dict(row.model_extra or {}),
    )


def check_seeds(seeds: Sequence[SeedItem], source: str, min_seeds: int = MIN_SEEDS) -> None:
    """Whether there are enough seeds to find modules and to hold out probes.

    Args:
        seeds: All.
        source: The file's name, for the error.
        min_seeds: Needed.

    Raises:
        InputError: There are fewer.
    """
    if len(seeds) < min_seeds:
        raise InputError(
            f"{source}: {len(seeds)} seeds; at least {min_seeds} are needed to find modules and to "
            "hold out probes"
        )
