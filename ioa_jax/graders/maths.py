r"""Mathematical answers, compared in processes that can be killed.

The answer is what the text's last `\boxed{...}` (or `\fbox{...}`) holds. Boxes joined by commas or
"and" are one answer, a list, and so are all of the text's boxes where the reference is a list; but
where the last one alone is the gold's text, that is enough: MATH's golds are made from the last box
of a solution even where it has several. Without a box, it is what an `<answer>` tag holds, what is
said after "answer is" or "answer:", or else what Math-Verify finds, in the last 10,000 characters.

What is the same is for `ioa_jax.graders.equality` to say. Percent signs are left out on both sides,
as in MATH's own normalisation: `10\%` is 10, not 0.1.

Known limits: forms are not told apart, so that an answer which the problem wants simplified passes
unsimplified; of an equation `x = 2` the right side is enough, and the subscript of a number's base
may be left out, or added. An answer of more than 2,000 characters isn't compared, and is wrong.
"""

from __future__ import annotations

import re

from ioa_jax.errors import InputError
from ioa_jax.graders.base import GoldGrader, Item, Verdict
from ioa_jax.graders.latex import Box, boxes, last_boxed
from ioa_jax.graders.worker import WorkerPool

__all__ = ["MathGrader", "last_boxed"]

_PERCENT = re.compile(r"\\?%")
# Between boxes that are one answer.
_JOINT = re.compile(r"(?:[\s,;$.~]|\\[()\[\],;: ]|\\q?quad|and|or|&)*")
_LONGEST_JOINT = 20
MOST_BOXES = 20  # that are taken for one answer
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

    def _judge(self, item: Item, answer: str) -> Verdict:
        found = boxes(answer)
        last = found[-1].content if found else None
        if last is not None and any(_plain(last) == _plain(gold) for gold in item.references):
            return Verdict(True, 1.0, last, "boxed", "string")
        return self._compare(item, answer, _joined(answer, found))

    def grade_gold(self, item: Item) -> Verdict:
        """Judge the first reference, in a box, without the shortcut of equal strings.

        Raises:
            InputError: As `check_item`.
            MissingDependencyError: As `grade`.
        """
        self.check_item(item)
        return self._compare(item, "", [item.references[0]], by_text=False)

    def close(self) -> None:
        """End the workers, after the comparisons that are under way."""
        self._pool.close()

    def _compare(self, item: Item, text: str, boxed: list[str], by_text: bool = True) -> Verdict:
        request = {"golds": item.references, "boxes": boxed, "text": text, "by_text": by_text}
        found = self._pool.ask(request)
        reply, detail = found.value, found.detail
        if reply is None:
            extracted = boxed[0] if boxed else None
            rule = "boxed" if boxed else "none"
            return Verdict(False, 0.0, extracted, rule, found.source, detail)
        extracted = reply.get("extracted")
        if "error" in reply:
            detail = f"{reply['error']} while comparing"
        elif reply.get("detail"):
            detail = reply["detail"]
        elif extracted is None:
            detail = "no answer found"
        rule = "boxed" if boxed else "none" if extracted is None else "unboxed"
        correct = bool(reply.get("correct"))
        return Verdict(correct, float(correct), extracted, rule, found.source, detail)


def _joined(text: str, found: list[Box]) -> list[str]:
    """What the boxes may say: those that are joined to the last, or each, or all of the text's."""
    if not found:
        return []
    group = [found[-1]]
    for box in reversed(found[-MOST_BOXES:-1]):
        between = text[box.end + 1 : group[0].start]
        if len(between) > _LONGEST_JOINT or not _JOINT.fullmatch(between):
            break
        group.insert(0, box)
    distinct = list(dict.fromkeys(box.content for box in found[-MOST_BOXES:]))
    group_contents = list(dict.fromkeys(box.content for box in group))
    if len(group_contents) > 1:
        return [", ".join(group_contents)]
    return [found[-1].content, *([", ".join(distinct)] if len(distinct) > 1 else [])]


def _plain(latex: str) -> str:
    for old, new in _STYLE:
        latex = latex.replace(old, new)
    return "".join(_PERCENT.sub("", latex).split())
