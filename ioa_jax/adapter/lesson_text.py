"""Lessons as text with labels, for a teacher that writes poor JSON.

Mathematics is a problem, its steps and the answer alone:

    Problem: Tom has 3 boxes of 4 eggs. How many eggs are there?
    Step 1: 3 x 4 = 12
    Answer: 12

A programming task has `Problem:`, `Program:` and `Tests:`, the last two in fences; an instruction
`Problem:` and `Answer:`, which goes on to the end.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from ioa_jax.teachers.structured import Unfit

# A label begins its line, with what Markdown may put around it.
_LABEL = re.compile(
    r"[ \t#>*_-]*(?P<name>problem|step|(?:final )?answer|program|code|tests?)"
    r"[ \t]*\d*[ \t]*(?:\*\*|__)?:(?:\*\*|__)?(?P<rest>.*)",
    re.IGNORECASE,
)
_SAME = {"final answer": "answer", "code": "program", "test": "tests"}
# Other labels are text: an instruction's answer may well have steps or a program.
_NAMES = {"code": ("problem", "step", "program", "tests"), "instruction": ("problem", "answer")}
_OTHER_NAMES = ("problem", "step", "answer")
_FENCE = "```"
_FENCED = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class LessonText:
    """What a lesson's text says.

    Attributes:
        problem: What is asked.
        steps: How it is solved; may be empty for programs and instructions.
        answer: The answer alone; of a programming task the program.
        tests: Of a programming task, else empty.
    """

    problem: str
    steps: tuple[str, ...]
    answer: str
    tests: str = ""


def write_lesson(lesson: LessonText, domain: str) -> str:
    """The text that `read_lesson` reads.

    Args:
        lesson: What it says.
        domain: `math`, `code`, `instruction` or any other name, which is written as `math`.
    """
    steps = [f"Step {number}: {step}" for number, step in enumerate(lesson.steps, start=1)]
    if domain == "code":
        last = [
            f"{label}:\n{_FENCE}python\n{source}\n{_FENCE}"
            for label, source in (("Program", lesson.answer), ("Tests", lesson.tests))
        ]
    else:
        last = [f"Answer: {lesson.answer}"]
    return "\n".join([f"Problem: {lesson.problem}", *steps, *last])


def split_lessons(text: str, domain: str) -> list[str]:
    """The lessons of a text, each from its `Problem:` on; what comes before is left out."""
    lessons: list[list[str]] = []
    for line, name, _ in _lines(text, domain):
        if name == "problem":
            lessons.append([])
        if lessons:
            lessons[-1].append(line)
    return ["\n".join(lines) for lines in lessons]


def read_lesson(text: str, domain: str, cut: bool = False) -> LessonText:
    """What a lesson's text says. Nothing is added to it.

    Args:
        text: From `Problem:` on, as of `split_lessons`.
        domain: As for `write_lesson`.
        cut: The text ends before its writer was done; what may lack its end isn't taken.

    Raises:
        Unfit: A part is missing; of the kind `length` where the text was cut, else `unparsed`.
    """
    parts: dict[str, str] = {"problem": ""}
    steps: list[str] = []
    # The last line of a cut text is left out: it may lack its end.
    for name, part in _parts(text.rpartition("\n")[0] if cut else text, domain):
        if name != "step":
            parts[name] = part
        elif part:
            steps.append(part)
    if domain == "code":
        # Tests that were cut off are fewer, not wrong: their whole lines are taken.
        found = {name: _source(parts.get(name, "")) for name in ("program", "tests")}
    elif domain == "instruction":
        found = {"answer": "" if cut else parts.get("answer", "")}
    else:
        # What a small teacher goes on with after the answer is no part of it.
        answer = parts.get("answer", "").partition("\n")[0].strip()
        found = {"step": "".join(steps), "answer": answer}
    found["problem"] = parts["problem"]
    missing = [name for name, part in found.items() if not part]
    if missing:
        raise Unfit("length" if cut else "unparsed", f"no {' and no '.join(missing)}")
    answer = found["program" if domain == "code" else "answer"]
    return LessonText(found["problem"], tuple(steps), answer, found.get("tests", ""))


def _lines(text: str, domain: str) -> Iterator[tuple[str, str | None, str]]:
    """Each line, the label that it begins with (None without one) and what follows the label."""
    names = _NAMES.get(domain, _OTHER_NAMES)
    fenced = False
    for line in text.split("\n"):
        label = None if fenced else _LABEL.fullmatch(line)
        name = None if label is None else label["name"].lower()
        name = _SAME.get(name, name) if name is not None else None
        if line.lstrip().startswith(_FENCE):
            fenced = not fenced
        if label is not None and name in names:
            yield line, name, label["rest"]
        else:
            yield line, None, line


def _parts(text: str, domain: str) -> list[tuple[str, str]]:
    """Label and text of each part. A label but `step` that occurs again is text."""
    parts: list[tuple[str, list[str]]] = []
    for line, name, rest in _lines(text, domain):
        if name is not None and (name == "step" or name not in [had for had, _ in parts]):
            parts.append((name, [rest]))
        elif parts:
            parts[-1][1].append(line)
    return [(name, "\n".join(lines).strip()) for name, lines in parts]


def _source(part: str) -> str:
    """What is in a part's first fence. A fence that is missing or left open ends with the part."""
    fenced = _FENCED.search(part)
    if fenced is not None:
        return fenced[1].strip("\n").rstrip()
    lines = [line for line in part.split("\n") if not line.lstrip().startswith(_FENCE)]
    return "\n".join(lines).strip("\n").rstrip()
