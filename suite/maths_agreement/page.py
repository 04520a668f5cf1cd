"""The tables of the comparison, in Markdown, and its figures as JSON-able values."""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
from collections.abc import Sequence
from typing import Any

from suite.maths_agreement.compare import OTHERS, Judged
from suite.maths_agreement.forms import FORMS
from suite.maths_agreement.kinds import find_cause

_LONGEST_EXAMPLE = 120  # characters of an answer that is listed


@dataclasses.dataclass
class Counts:
    """Of the answers in one form.

    Attributes:
        answers: How many there are.
        ours: How many of them our grader takes for right.
        others: The same, by judge.
        differ: How many verdicts differ from ours, by judge.
        stopped: How many have no verdict, by judge; ours under `ours`.
    """

    answers: int = 0
    ours: int = 0
    others: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter[str])
    differ: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter[str])
    stopped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter[str])


@dataclasses.dataclass
class Summary:
    """What is kept of all judgements.

    Attributes:
        counts: By form's name.
        causes: Of the differences, by judge and cause: those that a rule tells.
        unexpected: Answers that our grader doesn't judge as the form has it.
        singles: Differences that no rule tells, by judge.
    """

    counts: dict[str, Counts] = dataclasses.field(
        default_factory=lambda: {form.name: Counts() for form in FORMS}
    )
    causes: dict[tuple[str, str], list[Judged]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    unexpected: list[Judged] = dataclasses.field(default_factory=list[Judged])
    singles: list[tuple[str, Judged]] = dataclasses.field(default_factory=list[tuple[str, Judged]])

    def add(self, one: Judged) -> None:
        """Count an answer."""
        counts = self.counts[one.form.name]
        counts.answers += 1
        counts.ours += one.ours.correct
        counts.stopped["ours"] += bool(one.ours.stopped)
        if one.ours.correct != one.form.right:
            self.unexpected.append(one)
        for judge in OTHERS:
            counts.others[judge] += one.others[judge].correct
            counts.stopped[judge] += bool(one.others[judge].stopped)
            if one.others[judge].correct == one.ours.correct:
                continue
            counts.differ[judge] += 1
            cause = find_cause(one, judge)
            if cause:
                self.causes[judge, cause].append(one)
            else:
                self.singles.append((judge, one))

    def figures(self) -> dict[str, Any]:
        """The counts as JSON-able values."""
        return {
            "forms": [
                {
                    "form": form.name,
                    "right": form.right,
                    "answers": counts.answers,
                    "counted": {"ours": counts.ours, **counts.others},
                    "differ": {judge: counts.differ[judge] for judge in OTHERS},
                    "stopped": dict(counts.stopped),
                }
                for form in FORMS
                for counts in (self.counts[form.name],)
            ],
            "causes": [
                {"judge": judge, "cause": cause, "answers": len(found)}
                for (judge, cause), found in self._ordered()
            ],
            "unexplained": len(self.singles),
        }

    def _ordered(self) -> list[tuple[tuple[str, str], list[Judged]]]:
        return sorted(
            self.causes.items(), key=lambda pair: (OTHERS.index(pair[0][0]), -len(pair[1]))
        )

    def page(self, used: int, references: int, every: int, subsets: Sequence[str]) -> str:
        """All tables.

        Args:
            used: References that were taken.
            references: Distinct ones that there are.
            every: One in so many was taken.
            subsets: Of the data, in words.
        """
        packages = ", ".join(
            f"{name} {importlib.metadata.version(name)}"
            for name in ("math-verify", "latex2sympy2_extended", "sympy")
        )
        lines = [
            "# Verdicts on mathematical answers beside others' rules",
            "",
            "Made by `python -m suite.maths_agreement`, with",
            f"{packages}.",
            f"The data are MATH's ({'; '.join(subsets)}).",
            f"Of their {references} distinct references, one in {every} was taken, {used} in all,",
            "and written in the forms below.",
            "",
            "- *ours*: `ioa_jax.graders.maths`;",
            "- *math-verify*: its `parse` and `verify` as they come, the reference between `$`;",
            "- *Minerva*: appendix D of Lewkowycz et al. (2022) with SymPy, as lm-eval 0.4.13's",
            "  `minerva_math` has it, reimplemented (`suite/maths_agreement/minerva.py`);",
            "- *Qwen*: the rules of Qwen2.5-Math's evaluation, reimplemented as briefly as they "
            "can be",
            "  (`suite/maths_agreement/qwen.py`, which says what is left out).",
            "",
            "## Answers counted as right",
            "",
            "The differences from ours are in parentheses.",
            "",
            f"| form | right | answers | ours | {' | '.join(OTHERS)} |",
            "|---|---|---" + "|---" * (len(OTHERS) + 1) + "|",
        ]
        for form in FORMS:
            counts = self.counts[form.name]
            cells = (
                f"{counts.others[judge]}"
                + (f" ({counts.differ[judge]})" if counts.differ[judge] else "")
                for judge in OTHERS
            )
            lines.append(
                f"| {form.name} | {'yes' if form.right else 'no'} | {counts.answers} | "
                f"{counts.ours} | {' | '.join(cells)} |"
            )
        total = sum(counts.answers for counts in self.counts.values())
        differ = (
            f"{sum(counts.differ[judge] for counts in self.counts.values())}" for judge in OTHERS
        )
        lines += [f"| differ from ours | | {total} | | {' | '.join(differ)} |", ""]
        stopped = {
            judge: sum(counts.stopped[judge] for counts in self.counts.values())
            for judge in ("ours", *OTHERS)
        }
        limits = ", ".join(f"{judge} {count}" for judge, count in stopped.items())
        lines += [f"Stopped at a limit, and so wrong: {limits}.", ""]
        return "\n".join([*lines, *self._causes(), *self._singles(), *self._unexpected()])

    def _causes(self) -> list[str]:
        lines = [
            "## Where verdicts differ",
            "",
            "By rule, of the form and of what the other read of the answer",
            "(`suite/maths_agreement/kinds.py`), each with its shortest example.",
            "",
            "| judge | what it does | answers | reference | answer | read as |",
            "|---|---|---|---|---|---|",
        ]
        for (judge, cause), found in self._ordered():
            one = min(found, key=lambda each: (len(each.text), each.text))
            lines.append(f"| {judge} | {cause} | {len(found)} | {_example(one, judge)} |")
        return [*lines, ""]

    def _singles(self) -> list[str]:
        if not self.singles:
            return ["No difference is left that no rule tells.", ""]
        lines = [
            "Differences that no rule tells:",
            "",
            "| judge | form | reference | answer | read as |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {judge} | {one.form.name} | {_example(one, judge)} |" for judge, one in self.singles
        ]
        return [*lines, ""]

    def _unexpected(self) -> list[str]:
        lines = [
            "## Where ours is not as the form has it",
            "",
            "Another item's reference is right where it is the same value: a unit, a percent sign "
            "or a",
            "number's base may be left out or added, and other words after a number aren't "
            "compared.",
            "A ratio is its quotient.",
            "",
        ]
        if not self.unexpected:
            return [*lines, "Nowhere.", ""]
        lines += [
            f"| form | reference | answer | ours | {' | '.join(OTHERS)} |",
            "|---|---|---|---" + "|---" * len(OTHERS) + "|",
        ]
        for one in self.unexpected:
            verdicts = (one.ours, *one.others.values())
            cells = " | ".join("right" if verdict.correct else "wrong" for verdict in verdicts)
            lines.append(
                f"| {one.form.name} | {_code(one.case.reference)} | {_code(one.text)} | {cells} |"
            )
        return [*lines, ""]


def _example(one: Judged, judge: str) -> str:
    read = one.others[judge].read
    return f"{_code(one.case.reference)} | {_code(one.text)} | {_code(read) if read else 'nothing'}"


def _code(text: str) -> str:
    """As code in a cell of a table, cut if it is long."""
    text = " ".join(text.split())
    if len(text) > _LONGEST_EXAMPLE:
        text = f"{text[:_LONGEST_EXAMPLE]} ..."
    return "`" + text.replace("|", r"\|").replace("`", "'") + "`"
