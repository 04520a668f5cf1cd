r"""Mathematical answers, compared by Math-Verify in processes that can be killed.

The answer is what the text's last `\boxed{...}` holds; without a box, what Math-Verify finds after
"final answer is", after "answer", or else last as LaTeX or as a number. Boxes joined by commas or
"and" are one answer, a set; but where the last one alone is the gold's text, that is enough: MATH's
golds are made from the last box of a solution even where it has several. Percent signs are left out
on both sides, as in MATH's own normalisation: `10\%` is 10, not 0.1.

Known limits of Math-Verify 0.9: forms are not told apart, so that an answer which the problem wants
simplified passes unsimplified; of an equation `x = 2` the right side is enough, and so is a number
without the subscript of its base; an inequality isn't equal to its interval.
"""

from __future__ import annotations

import re

from ioa_jax.errors import InputError
from ioa_jax.graders.base import GoldGrader, Item, Verdict
from ioa_jax.graders.worker import WorkerPool

_BOX = re.compile(r"\\boxed\s*\{")
_BRACE = re.compile(r"(?<!\\)[{}]")
_PERCENT = re.compile(r"\\?%")
# Size, which says nothing of the value.
_STYLE = ((r"\dfrac", r"\frac"), (r"\tfrac", r"\frac"), (r"\left", ""), (r"\right", ""))


class MathGrader(GoldGrader):
    r"""Grades answers against LaTeX golds: `Item.references`, without delimiters or box.

    A verdict's `rule` is `boxed`, `unboxed` or `none`. Its `source` is `string` where box and gold
    are the same text but for spacing and size, `math-verify VERSION` where that library compared
    them, and `timeout` where it was killed at the limit; such an answer counts as wrong.
    """

    def __init__(
        self,
        workers: int = 2,
        cpu_seconds: float = 10.0,
        wall_seconds: float = 60.0,
        memory_bytes: int = 2 << 30,
    ) -> None:
        """No process is started yet.

        Args:
            workers: Processes, each for one comparison at a time.
            cpu_seconds: Processor time for one comparison: the limit that is meant to bind, since
                it doesn't depend on what else the machine does.
            wall_seconds: Wall time for one comparison.
            memory_bytes: Address space of a worker.

        Raises:
            InputError: One of them isn't positive.
        """
        self._pool = WorkerPool(
            "ioa_jax.graders.maths_worker", workers, cpu_seconds, wall_seconds, memory_bytes
        )

    def check_item(self, item: Item) -> None:
        """At least one reference, none of them blank.

        Raises:
            InputError: Otherwise.
        """
        if not item.references or not all(gold.strip() for gold in item.references):
            raise InputError(f"item {item.id!r}: field 'references': an answer in LaTeX is needed")

    def grade(self, item: Item, text: str) -> Verdict:
        """Judge a solution.

        Raises:
            InputError: As `check_item`.
            MissingDependencyError: The worker can't import Math-Verify.
        """
        self.check_item(item)
        box = last_boxed(text)
        if box is not None and any(_plain(box) == _plain(gold) for gold in item.references):
            return Verdict(True, 1.0, box, "boxed", "string")
        return self._compare(item, text, box)

    def grade_gold(self, item: Item) -> Verdict:
        """Judge the first reference, in a box, without the shortcut of equal strings.

        Raises:
            InputError: As `check_item`.
            MissingDependencyError: As `grade`.
        """
        self.check_item(item)
        gold = item.references[0]
        return self._compare(item, rf"\boxed{{{gold}}}", gold)

    def close(self) -> None:
        """End the workers, after the comparisons that are under way."""
        self._pool.close()

    def _compare(self, item: Item, text: str, box: str | None) -> Verdict:
        request = {
            "golds": [_PERCENT.sub("", gold) for gold in item.references],
            "text": _PERCENT.sub("", text),
            "boxed": box is not None,
        }
        found = self._pool.ask(request)
        reply, detail = found.value, found.detail
        if reply is None:
            rule = "none" if box is None else "boxed"
            return Verdict(False, 0.0, box, rule, found.source, detail)
        if "error" in reply:
            reply |= {"correct": False, "extracted": None}
        extracted = reply["extracted"] if box is None else box
        if "error" in reply:
            detail = f"{reply['error']} while comparing"
        elif extracted is None:
            detail = "no answer found"
        elif not reply["parsed"]:
            detail = "not an expression, compared as text"
        rule = "boxed" if box is not None else "none" if extracted is None else "unboxed"
        correct = bool(reply["correct"])
        return Verdict(correct, float(correct), extracted, rule, found.source, detail)


def last_boxed(text: str) -> str | None:
    r"""What the last complete `\boxed{...}` that isn't empty holds, None if there is none."""
    for start in reversed([match.end() for match in _BOX.finditer(text)]):
        depth = 1
        for brace in _BRACE.finditer(text, start):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                content = text[start : brace.start()].strip()
                if content:
                    return content
                break
    return None


def _plain(latex: str) -> str:
    for old, new in _STYLE:
        latex = latex.replace(old, new)
    return "".join(_PERCENT.sub("", latex).split())
