"""Tasks as plain text with labels, for what a teacher writes that isn't JSON.

    Problem: Tom has 3 boxes of 4 eggs. How many eggs are there?
    Solution: 3 x 4 = 12
    The answer is 12.

A programming task has a third part, `Tests:`. Labels may be counted (`Problem 2:`), and a solution
is whatever its author writes there: `split_solution` finds its steps and its answer.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from ioa_jax.graders.maths import last_boxed
from ioa_jax.graders.numbers import extract_flexible
from ioa_jax.teachers.structured import Unfit

# A label begins its line, with what Markdown may put around it.
_LABEL = re.compile(
    r"[ \t#>*_-]*(?P<name>problem|solution|tests?)"
    r"[ \t]*+(?:\d++[ \t]*+)?(?:\*\*|__)?:(?:\*\*|__)?(?P<rest>.*)",
    re.IGNORECASE,
)
_FENCE = "```"
_FENCED = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
_DEFINES = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]", re.MULTILINE)
_STATEMENT = re.compile(
    r"(?:####|(?<!\*)\**+answer\**+:\**+|(?:so |thus |hence )?(?:the )?(?:final )?answer is:?)"
    r"\s*(?P<answer>.+)",
    re.IGNORECASE,
)
_BOX_ALONE = re.compile(r"[\s$.\\(\[\])]*\\boxed\s*\{.*\}[\s$.\\(\[\])]*")


@dataclasses.dataclass(frozen=True)
class PlainTask:
    """What a task's text says.

    Attributes:
        problem: What is asked.
        solution: As it is written, worked or not; empty where it isn't to be shown.
        tests: Of a programming task, else empty.
    """

    problem: str
    solution: str = ""
    tests: str = ""


def write_task(task: PlainTask) -> str:
    """The text that `read_task` reads."""
    parts = [f"Problem: {task.problem}"]
    if task.solution:
        # A program keeps its indentation only from the beginning of a line.
        parts.append(f"Solution:{_space(task.solution)}{task.solution}")
    if task.tests:
        parts.append(f"Tests:\n{task.tests}")
    return "\n".join(parts)


def read_task(text: str, with_tests: bool, cut: bool = False) -> PlainTask:
    """The first task of a text. Nothing is added to it.

    Args:
        text: With or without the label of its problem; what precedes a label is left out.
        with_tests: It is a programming task, and `Tests:` is a label.
        cut: The text ends before its writer was done; what may lack its end isn't taken.

    Raises:
        Unfit: A part is missing; of the kind `length` where the text was cut, else `unparsed`.
    """
    # The last line of a cut text is left out: it may lack its end.
    parts = _parts(text.rpartition("\n")[0] if cut else text, with_tests)
    tests = _source(parts.get("tests", ""))
    # Tests that were cut off are fewer, not wrong: their whole lines are taken.
    ended = not cut or bool(tests)
    found = {"problem": parts.get("problem", "").strip()}
    found["solution"] = parts.get("solution", "").strip("\n").rstrip() if ended else ""
    if with_tests:
        found["tests"] = tests
    missing = [name for name, part in found.items() if not part.strip()]
    if missing:
        raise Unfit("length" if cut else "unparsed", f"no {' and no '.join(missing)}")
    return PlainTask(found["problem"], found["solution"], tests)


def split_solution(text: str, kind: str, reference: str = "") -> tuple[tuple[str, ...], str]:
    """The steps of a solution, a line each, and its answer alone.

    Args:
        text: As it is written.
        kind: Of the check: a program is what is in its fence, or all; `exact`, `rouge` and
            `instruction` judge the text as a whole, which then has no steps; an answer in `math`
            or `number` is in the last box, in a last line that states it, or the last line.
        reference: How an answer has to be marked: in a box or by a statement where this one is.

    Raises:
        Unfit: `unparsed`: there is no answer that can be read.
    """
    text = text.strip("\n").rstrip()
    if kind == "code":
        return _split_program(text)
    text = text.strip()
    if not text:
        raise Unfit("unparsed", "no answer")
    if kind not in ("math", "number"):
        return (), text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    box = last_boxed(text)
    if kind == "math" and box is None and last_boxed(reference) is not None:
        raise Unfit("unparsed", "no answer in a box")
    stated = None if box is not None else _statement(lines)
    if box is not None:
        steps = [line for line in lines if not _BOX_ALONE.fullmatch(line)]
        answer = box.strip()
    elif stated is not None:
        place, answer = stated
        # A sentence that goes on to state the answer is a step too.
        alone = _STATEMENT.match(lines[place]) is not None
        steps = [line for number, line in enumerate(lines) if number != place or not alone]
    elif kind == "math" and reference and _statement(reference.strip().splitlines()) is not None:
        raise Unfit("unparsed", "no line states the answer")
    else:
        steps, answer = lines[:-1], lines[-1]
    if kind == "number":
        number = extract_flexible(answer)
        if number is None:
            raise Unfit("unparsed", "no number in the answer")
        answer = number
    if not answer:
        raise Unfit("unparsed", "no answer")
    return tuple(steps), answer


def _split_program(text: str) -> tuple[tuple[str, ...], str]:
    blocks = [match for match in _FENCED.finditer(text + "\n") if match[1].strip()]
    if not blocks:
        program, before = _source(text), ""
        if text.count(_FENCE) == 1:
            before = text.partition(_FENCE)[0]
            program = text.partition(_FENCE)[2].partition("\n")[2].rstrip()
    else:
        defining = [match for match in blocks if _DEFINES.search(match[1])]
        block = (defining or blocks)[-1]
        program, before = block[1].strip("\n").rstrip(), text[: block.start()]
    if not program.strip():
        raise Unfit("unparsed", "no program")
    return tuple(line.strip() for line in before.splitlines() if line.strip()), program


def _statement(lines: list[str]) -> tuple[int, str] | None:
    """Number of the last line that states the answer, and the answer."""
    for place in range(len(lines) - 1, -1, -1):
        found = list(_STATEMENT.finditer(lines[place]))
        if found:
            answer = found[-1]["answer"].strip().strip("*").removesuffix(".").strip()
            return (place, answer) if answer else None
    return None


def _space(solution: str) -> str:
    return "\n" if solution.startswith((_FENCE, "def ", "import ", "from ", "class ")) else " "


def _parts(text: str, with_tests: bool) -> dict[str, str]:
    """Text of each part, from the first problem up to a second one."""
    parts: dict[str, list[str]] = {}
    name = "problem"
    for line, label, rest in _lines(text, with_tests):
        if label == "problem":
            if "solution" in parts:
                break
            # What preceded it was no problem.
            parts, name = {"problem": [rest]}, label
        elif label is not None and label not in parts:
            name = label
            parts[name] = [rest]
        else:
            parts.setdefault(name, []).append(line)
    return {name: "\n".join(lines) for name, lines in parts.items()}


def _lines(text: str, with_tests: bool) -> Iterator[tuple[str, str | None, str]]:
    """Each line, the label that it begins with (None without one) and what follows the label."""
    fenced = False
    for line in text.split("\n"):
        label = None if fenced else _LABEL.fullmatch(line)
        name = None if label is None else label["name"].lower()
        name = "tests" if name == "test" else name
        if line.lstrip().startswith(_FENCE):
            fenced = not fenced
        if label is not None and (name != "tests" or with_tests):
            yield line, name, label["rest"].lstrip()
        else:
            yield line, None, line


def _source(part: str) -> str:
    fenced = _FENCED.search(part + "\n")
    if fenced is not None:
        return fenced[1].strip("\n").rstrip()
    lines = [line for line in part.split("\n") if not line.lstrip().startswith(_FENCE)]
    return "\n".join(lines).strip("\n").rstrip()
