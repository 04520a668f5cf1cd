"""HumanEval+ and MBPP+ (Liu et al., 2023): the same problems with many more tests.

The data have inputs, and programs that give the right answers to them; `ioa_jax.graders.evalplus`
has the rules by which answers are compared. `pass@k` is of programs that pass all tests, `base
pass@k` of those that pass the first ones, which are the original benchmark's inputs.

Base models continue HumanEval+'s prompt as HumanEval's, and MBPP+'s, a docstring with a test in it,
up to EvalPlus' stop strings. MBPP's own examples are no use there: MBPP+ asks for two of the three.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from ioa_jax.graders.evalplus import evalplus_test
from suite.data import DataSource
from suite.sources import Layout, Part, Row, Source, WebFile
from suite.tasks.base import (
    Description,
    Example,
    GenerationSettings,
    Graded,
    MetricValues,
    Prompt,
    Style,
    TaskData,
    chat_prompt,
    take_examples,
)
from suite.tasks.code import HumanEvalTask, pass_metrics

# evalplus 0.3.1, `evalplus/provider/utility.py`.
STOPS = ('\n"""', "\nassert", "\nprint(", "\nif __name__", "\ndef main(")
# Of a program with the tests' inputs, up to a thousand: EvalPlus has a minute for them.
LIMITS = {"wall_seconds": 90.0, "cpu_seconds": 20}
# Where a reference needs more: four times its own time, as EvalPlus has it, or its answer's room.
MORE_LIMITS = {
    "Mbpp/255": {"wall_seconds": 180.0, "cpu_seconds": 60, "memory_bytes": 4 << 30},
    "Mbpp/599": {"wall_seconds": 300.0, "cpu_seconds": 64},
}

_FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "base_input", "plus_input")
_RELEASES = "https://github.com/evalplus/"

# The files' sha256 are those of the release, compressed and not, and of a half of its items.
HUMANEVAL_PLUS_TEST = Source(
    name="humaneval_plus/test",
    folder="human_eval_plus",
    layouts=(
        Layout(
            (
                Part(
                    "HumanEvalPlus",
                    (
                        "272720b90ac375502c8ed23cd791c2a93dfb22a911641a494da74a426c09f101",
                        "42526ec0e7d5f3ee0b06d6ced98f8c8bae3d76519151bfb3d36f79010645bd7f",
                    ),
                ),
            ),
            164,
        ),
        Layout(
            (
                Part(
                    "HumanEvalPlus_even",
                    (
                        "3d11a612caad4396e3ae56a3cbcac485a22aedea1ec8a87ed6ec9e7236e29665",
                        "43b8843f1715130371135b4fc4a847116a8c9b3078633a84d0ec09477a2cb92c",
                    ),
                ),
                Part("HumanEvalPlus_odd"),
            ),
            164,
        ),
    ),
    remote=WebFile(
        _RELEASES + "humanevalplus_release/releases/download/v0.1.10/HumanEvalPlus.jsonl.gz",
        "272720b90ac375502c8ed23cd791c2a93dfb22a911641a494da74a426c09f101",
    ),
    total=164,
    fields=(*_FIELDS, "atol"),
    texts=_FIELDS[:4],
)
MBPP_PLUS_TEST = Source(
    name="mbpp_plus/test",
    folder="mbpp_plus",
    layouts=(
        Layout(
            (
                Part(
                    "MbppPlus",
                    (
                        "af43697e8791c4c149bdfd6b489d8b5412507551ac20e28a439f650b8225db63",
                        "b54e762755248ca411b523c917fa9f93c07b5ff2966bf60b3917b853926a3dad",
                    ),
                ),
            ),
            378,
        ),
        Layout(
            (
                Part(
                    "MbppPlus_even",
                    (
                        "aa3914534b058e5e4599dfb45ef4ec728b9d5661adbf8982eb2e4f59d868f007",
                        "1a7e2cf0b84b273fdcfda8918ba9d437b88a75f29762d4b717ee2e7cbbe39d20",
                    ),
                ),
                Part("MbppPlus_odd"),
            ),
            378,
        ),
    ),
    remote=WebFile(
        _RELEASES + "mbppplus_release/releases/download/v0.2.0/MbppPlus.jsonl.gz",
        "af43697e8791c4c149bdfd6b489d8b5412507551ac20e28a439f650b8225db63",
    ),
    total=378,
    fields=(*_FIELDS, "atol"),
    texts=_FIELDS[:4],
)


class _PlusMetrics:
    """Figures of all tests and of the first ones."""

    def metrics(self, graded: Sequence[Graded]) -> dict[str, MetricValues]:
        """`pass@k` and `base pass@k`."""
        base = pass_metrics(graded, lambda verdict: bool(verdict.parts["base"]))
        return {
            **pass_metrics(graded, lambda verdict: verdict.correct),
            **{f"base {name}": values for name, values in base.items()},
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class HumanEvalPlusTask(_PlusMetrics, HumanEvalTask):
    """HumanEval's functions; its prompts, but for the order of one's imports."""

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """All 164; the reference is the body that completes the prompt."""
        test = data.load(HUMANEVAL_PLUS_TEST)
        items = tuple(map(_humaneval_item, test.rows))
        return TaskData(items, take_examples(self.name, (), shots), sources=(test.provenance,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MbppPlusTask(_PlusMetrics, Description):
    """Functions to write from a sentence and one assert."""

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """All 378; the reference is a program that passes."""
        test = data.load(MBPP_PLUS_TEST)
        items = tuple(map(_mbpp_item, test.rows))
        return TaskData(items, take_examples(self.name, (), shots), sources=(test.provenance,))

    def prompt(self, item: Item, style: Style = "chat", examples: Sequence[Example] = ()) -> Prompt:
        """The docstring as it is for base models; its text in a chat, and the assert as code."""
        if style == "base":
            return Prompt(text=item.prompt, stop=STOPS)
        lines = item.prompt.strip().removeprefix('"""').removesuffix('"""').strip().split("\n")
        tests = [line for line in lines if line.startswith("assert ")]
        sentence = "\n".join(line for line in lines if line not in tests)
        return chat_prompt(
            f"{sentence}\n\nThe function has to pass this test, among others:\n\n```python\n"
            + "\n".join(tests)
            + "\n```\n\nReply with the whole function in one Python code block."
        )


def _humaneval_item(row: Row) -> Item:
    base, plus = _tests(row, lambda values: values)
    data = {"kind": "humaneval", "prompt": row["prompt"], "test": base, "plus_test": plus}
    return _item(row, data)


def _mbpp_item(row: Row) -> Item:
    base, plus = _tests(row, _shape_of(row["task_id"]))
    tests = [base, f"check({row['entry_point']})"]
    data = {"kind": "mbpp", "test_list": tests, "plus_test": plus, "stops": list(STOPS)}
    return _item(row, data)


def _item(row: Row, data: dict[str, Any]) -> Item:
    limits = LIMITS | MORE_LIMITS.get(row["task_id"], {})
    return Item(
        id=row["task_id"],
        prompt=row["prompt"],
        references=(row["canonical_solution"],),
        data={**data, "entry_point": row["entry_point"], "limits": limits},
    )


_Shape = Callable[[list[Any]], Sequence[Any]]


def _tests(row: Row, shape: _Shape) -> tuple[str, str]:
    """Those of the original benchmark's inputs, and the further ones."""
    found: list[str] = []
    for field in ("base_input", "plus_input"):
        inputs = row[field]
        if not isinstance(inputs, list) or not all(isinstance(one, list) for one in inputs):
            raise InputError(
                f"item {row['task_id']}: field {field!r}: a list of lists of arguments is needed"
            )
        try:
            shaped = [shape(one) for one in inputs]
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise InputError(
                f"item {row['task_id']}: field {field!r}: not what this problem's inputs are in "
                f"the release: {error}"
            ) from None
        reference = row["prompt"] + row["canonical_solution"]
        found.append(evalplus_test(reference, row["entry_point"], shaped, float(row["atol"])))
    return found[0], found[1]


def _tuples(values: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [tuple(one) for one in values]


def _deep_tuple(value: Any) -> Any:
    return tuple(map(_deep_tuple, value)) if isinstance(value, list) else value


# JSON has no tuples, sets and complex numbers. What a problem's inputs are instead, by its number,
# is a part of EvalPlus: `mbpp_deserialize_inputs` in `evalplus/data/mbpp.py` of 0.3.1.
_SHAPES: tuple[tuple[tuple[int, ...], _Shape], ...] = (
    (
        (
            *(2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616),
            *(630, 726, 740, 744, 809),
        ),
        _tuples,
    ),
    (
        (63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780),
        lambda given: [_tuples(one) for one in given],
    ),
    ((75, 413, 444, 753), lambda given: [_tuples(given[0]), given[1]]),
    ((106, 750), lambda given: [given[0], tuple(given[1])]),
    (
        (115,),
        lambda given: [[set(one) if isinstance(one, list) and one else {} for one in given[0]]],
    ),
    ((124,), lambda given: [float(given[0]), complex(given[1])]),
    (
        (250, 307, 405, 446, 617, 720, 763, 808),
        lambda given: [tuple(given[0]), *given[1:]],
    ),
    ((252,), lambda given: [complex(given[0])]),
    ((259, 401, 445), lambda given: _tuples([_tuples(one) for one in given])),
    (
        (278,),
        lambda given: [tuple(tuple(one) if isinstance(one, list) else one for one in given[0])],
    ),
    ((580, 615, 791), _deep_tuple),
    (
        (722,),
        lambda given: [{key: tuple(value) for key, value in given[0].items()}, *given[1:]],
    ),
)


def _shape_of(task_id: str) -> _Shape:
    number = int(task_id.rpartition("/")[2])
    return next((shape for numbers, shape in _SHAPES if number in numbers), lambda given: given)


HUMANEVAL_PLUS = HumanEvalPlusTask(
    name="humaneval_plus",
    version=1,
    summary="HumanEval with 80 times its tests",
    source="Liu et al. 2023, github.com/evalplus/humanevalplus_release v0.1.10",
    licence="Apache-2.0 (the problems: MIT)",
    grader_kind="code",
    settings=GenerationSettings(max_tokens=1024),
)
MBPP_PLUS = MbppPlusTask(
    name="mbpp_plus",
    version=1,
    summary="378 of MBPP's problems with 35 times its tests",
    source="Liu et al. 2023, github.com/evalplus/mbppplus_release v0.2.0",
    licence="Apache-2.0 (the problems: CC BY 4.0)",
    grader_kind="code",
    settings=GenerationSettings(max_tokens=1024),
)
