"""Open questions, whose answers a model judges: Vicuna's 80, Koala's 180 (Geng et al., 2023) and
MT-Bench (Zheng et al., 2023).

MT-Bench's questions have two turns, which are an item each, and a temperature for each category:
FastChat's. What else FastChat leaves to the model's own generation config, such as top-k, isn't
applied. Koala's authors ask that nobody trains on their questions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from suite.data import DataSource
from suite.sources import Layout, Part, Row, Source, WebFile
from suite.tasks.base import (
    Description,
    GenerationSettings,
    Graded,
    MetricValues,
    TaskData,
    take_examples,
)
from suite.tasks.instructions import VICUNA_REFERENCES, VICUNA_TEST, LikeReferences
from suite.tasks.turns import FOLLOWS

_MT_BENCH = (
    "https://raw.githubusercontent.com/lm-sys/FastChat/0e6d3e4beaab66f4d3f93db72541a4abab8af28d/"
    "fastchat/llm_judge/data/mt_bench/"
)
_QUESTIONS = "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7"
_ANSWERS = "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f"
MT_BENCH_TEST = Source(
    name="mt_bench/test",
    folder="mt_bench",
    layouts=(
        Layout((Part("question", (_QUESTIONS,)),), 80),
        Layout(
            (
                Part(
                    "question_even",
                    ("9e66dca5fcb36087f2b970df4f41343fefe1474e7e3d3a79f1c64e927a538154",),
                ),
                Part("question_odd"),
            ),
            80,
        ),
    ),
    remote=WebFile(_MT_BENCH + "question.jsonl", _QUESTIONS),
    total=80,
    fields=("question_id", "category", "turns"),
    texts=("category",),
)
MT_BENCH_REFERENCES = Source(
    name="mt_bench/references",
    folder="mt_bench",
    layouts=(
        Layout((Part("reference_answer_gpt-4", (_ANSWERS,)),), 30),
        Layout(
            (
                Part(
                    "reference_answer_gpt-4_even",
                    ("87e6a8777a14be4a94159ee2a8d349b10630dc0f75547b5998c46a0a1693f790",),
                ),
                Part("reference_answer_gpt-4_odd"),
            ),
            30,
        ),
    ),
    remote=WebFile(_MT_BENCH + "reference_answer/gpt-4.jsonl", _ANSWERS),
    total=30,
    fields=("question_id", "choices"),
    texts=(),
)
# At this commit the repository's README tells of the 180 questions. Nobody who wrote this down
# could read the file itself: its sha256 isn't known, nor, for certain, that it is in this very
# commit. Of the main branch's file others report 180 lines with ids from koala_0 to koala_179, the
# field `prompt` (which HELM's KoalaScenario reads), and the Apache-2.0 licence beside it, which the
# page of a copy states too (hub HuggingFaceH4/Koala-test-set).
KOALA_TEST = Source(
    name="koala/test",
    folder="koala",
    layouts=(Layout((Part("koala_test_set"),), 180),),
    remote=WebFile(
        "https://raw.githubusercontent.com/arnav-gudibande/koala-test-set/"
        "b7f0c2e476212566123570f9c776f0eabf53670a/koala_test_set.jsonl"
    ),
    total=180,
    fields=("id", "prompt"),
    texts=("id", "prompt"),
)
# `temperature_config` and, for other categories, `gen_model_answer.py` in FastChat's
# fastchat/llm_judge.
MT_BENCH_TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
OTHER_TEMPERATURE = 0.7

_NOTE = "judged by a model: figures of different judges are not comparable"


class _JudgedTask(LikeReferences, Description):
    """Questions whose figures `suite judge` gives."""

    def metrics(self, graded: Sequence[Graded]) -> dict[str, MetricValues]:
        """None: what `suite judge` finds depends on the judge."""
        return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class KoalaTask(_JudgedTask):
    """Questions of users of language models, without references."""

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """The questions in the file's order."""
        found = data.load(KOALA_TEST)
        items = tuple(
            Item(
                id=row["id"],
                prompt=row["prompt"],
                data={"instruction": row["prompt"], "input": ""},
            )
            for row in found.rows
        )
        return TaskData(
            items,
            take_examples(self.name, (), shots),
            sources=(found.provenance,),
            notes=(_NOTE,),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenEndedTask(_JudgedTask):
    """Questions of one turn or several, each turn an item. Some have a reference answer.

    Attributes:
        test: Source of the questions.
        answers: Source of the references.
        prefix: Of the items' ids.
    """

    test: Source
    answers: Source
    prefix: str

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """Turns with their question's category, in the order in which they are asked."""
        questions = data.load(self.test)
        references = data.load(self.answers)
        answers = {row["question_id"]: _answered(self.answers, row) for row in references.rows}
        items = tuple(
            item
            for row in questions.rows
            for item in self._turns(row, answers.get(row["question_id"], ()))
        )
        return TaskData(
            items,
            take_examples(self.name, (), shots),
            sources=(questions.provenance, references.provenance),
            notes=(_NOTE,),
        )

    def _turns(self, row: Row, answers: Sequence[str]) -> list[Item]:
        question = f"{self.prefix}-{row['question_id']}"
        turns: Any = row["turns"]
        if not isinstance(turns, list) or not turns or not all(isinstance(t, str) for t in turns):
            raise InputError(f"item {question}: field 'turns': a list of texts is needed")
        items: list[Item] = []
        for number, prompt in enumerate(turns, start=1):
            data = {"instruction": prompt, "input": "", "category": row.get("category")}
            if len(turns) > 1:
                data["turn"] = number
            if items:
                data[FOLLOWS] = items[-1].id
            items.append(
                Item(
                    id=question if len(turns) == 1 else f"{question}/{number}",
                    prompt=prompt,
                    references=tuple(answers[number - 1 : number]),
                    data=data,
                )
            )
        return items


def _answered(source: Source, row: Row) -> list[str]:
    choices: Any = row["choices"]
    first = choices[0] if isinstance(choices, list) and choices else None
    turns = first.get("turns") if isinstance(first, Mapping) else None
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        raise InputError(
            f"{source.name}: question {row['question_id']}: field 'choices': a list of texts is "
            "needed in choices[0].turns"
        )
    return turns


VICUNA_BENCH = OpenEndedTask(
    name="vicuna_bench",
    version=1,
    summary="80 open questions, judged by a model",
    source="Chiang et al. 2023, github.com/lm-sys/FastChat",
    licence="Apache-2.0 (the references: GPT-4's)",
    grader_kind="judge",
    settings=GenerationSettings(max_tokens=1024),
    test=VICUNA_TEST,
    answers=VICUNA_REFERENCES,
    prefix="vicuna",
)
KOALA = KoalaTask(
    name="koala",
    version=1,
    summary="180 questions of users, without references, judged by a model",
    source="Geng et al. 2023, github.com/arnav-gudibande/koala-test-set",
    licence="Apache-2.0",
    grader_kind="judge",
    settings=GenerationSettings(max_tokens=1024),
)
MT_BENCH = OpenEndedTask(
    name="mt_bench",
    version=2,
    summary="80 open questions of two turns in 8 categories, judged by a model",
    source="Zheng et al. 2023, github.com/lm-sys/FastChat",
    licence="Apache-2.0 (the references: GPT-4's)",
    grader_kind="judge",
    settings=GenerationSettings(
        max_tokens=1024, temperature=OTHER_TEMPERATURE, temperatures=MT_BENCH_TEMPERATURES
    ),
    test=MT_BENCH_TEST,
    answers=MT_BENCH_REFERENCES,
    prefix="mt_bench",
)
