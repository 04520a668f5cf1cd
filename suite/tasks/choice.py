"""Multiple choice: GPQA-Diamond (Rein et al., 2023) and MMLU-Pro (Wang et al., 2024).

In a chat a letter is asked for as "The answer is (X)", which is how MMLU-Pro's own examples end.
Base models continue "Question:", "Options:" and "Answer:" after five examples of the item's
category, MMLU-Pro's protocol; GPQA-Diamond has no examples.
"""

from __future__ import annotations

import dataclasses
import hashlib
import string
from collections.abc import Sequence

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from suite.data import DataSource
from suite.sources import Hub, Layout, Part, Row, Source
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
    content_ids,
    mean_metric,
    take_examples,
)

# GPQA names the right answer and three others; another text gives another order of them.
ORDER_SEED = "ioa gpqa order 1"
STOP = "Question:"

_GPQA_FIELDS = (
    "Question",
    "Correct Answer",
    *(f"Incorrect Answer {i}" for i in (1, 2, 3)),
    "High-level domain",
)
# Checked in November 2026 against what others made public; the questions themselves are not to be
# published, and nobody who wrote this down has read them. The revision, its 198 rows, their fields
# and gpqa_diamond.csv's sha256 (41d1213cd7a4998605a26c2798500652572007161b3a92817ba46b35befcd305,
# Git blob 7589e3e467d69a1dceb126a60c4108d6d4f1d166, 1,373,492 bytes) are recorded by several
# projects independently of each other, and the same sha256 for the file in the paper's repository
# (dataset.zip at 56686c06f5e19865c153de0fdb11be3890014df7) and for that of OpenAI's simple-evals.
# The licence is the one that the hub's page states. One of these projects reports that three
# questions have four choices of which two are the same but for their writing; here all four are
# asked.
GPQA_TEST = Source(
    name="gpqa_diamond/test",
    folder="gpqa",
    layouts=(Layout((Part("gpqa_diamond"),), 198),),
    remote=Hub(
        "Idavidrein/gpqa",
        "633f5ee89ab8ad4522a9f850766b73f62147ffdd",
        "train",
        ("gpqa_diamond",),
        access="It is open to those who agree to its terms at "
        "https://huggingface.co/datasets/Idavidrein/gpqa: do so, then log in with `hf auth login` "
        "or set HF_TOKEN",
    ),
    total=198,
    fields=_GPQA_FIELDS,
    texts=_GPQA_FIELDS,
)
# The revision that inspect_evals pins, with MIT as the licence of the hub's page and 12,032 rows:
# so several projects record it, and the fields. The 70 of `validation` and a sha256 are on record
# for a later revision only (b189ec765aa7ed75c8acfea42df31fdae71f97be: test file
# 0e24a191921c2f453518a537a8b2117bd137e7714d4ef1565e9ba06c1ecb9ad8; that of
# 475d58ba0cc18a15fd5d4221f41919199e692331 is another). Whether this revision's rows are those of
# one of the two isn't known here.
_MMLU_PRO = Hub("TIGER-Lab/MMLU-Pro", "527feea0afed1de15a8c115abf7be4c912123315", "test")
MMLU_PRO_TEST = Source(
    name="mmlu_pro/test",
    folder="mmlu_pro",
    layouts=(Layout((Part("test"),), 12032),),
    remote=_MMLU_PRO,
    total=12032,
    fields=("question", "options", "answer", "answer_index", "category"),
    texts=("question", "answer", "category"),
)
MMLU_PRO_EXAMPLES = dataclasses.replace(
    MMLU_PRO_TEST,
    name="mmlu_pro/validation",
    layouts=(Layout((Part("validation"),), 70),),
    remote=dataclasses.replace(_MMLU_PRO, split="validation"),
    total=70,
    fields=(*MMLU_PRO_TEST.fields, "cot_content"),
    texts=(*MMLU_PRO_TEST.texts, "cot_content"),
)


class _ChoiceTask(Description):
    """Questions whose answer is a letter."""

    def prompt(self, item: Item, style: Style = "chat", examples: Sequence[Example] = ()) -> Prompt:
        """Question and choices, after the examples of its category."""
        of_category = [
            one for one in examples if one.item.data["category"] == item.data["category"]
        ]
        if style == "chat":
            asked = [(_chat_question(one.item), one.answer) for one in of_category]
            return chat_prompt(_chat_question(item), asked)
        parts = [f"{_base_question(one.item)} {one.answer}\n\n" for one in of_category]
        return Prompt(text="".join(parts) + _base_question(item), stop=(STOP,))

    def metrics(self, graded: Sequence[Graded]) -> dict[str, MetricValues]:
        """`accuracy`: share of right answers; then each category's, as `accuracy, CATEGORY`."""
        found = mean_metric(graded)
        for category in sorted({one.item.data["category"] for one in graded}):
            own = [one for one in graded if one.item.data["category"] == category]
            found |= mean_metric(own, f"accuracy, {category}")
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpqaTask(_ChoiceTask):
    """Four choices in an order of our own, the same in every run."""

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """Items with the right one's letter as reference."""
        test = data.load(GPQA_TEST)
        ids = content_ids([row["Question"] for row in test.rows], self.name)
        items = tuple(map(_gpqa_item, test.rows, ids))
        notes = (f"the choices' order: that of the sha256 of {ORDER_SEED!r}, id and choice",)
        examples = take_examples(self.name, (), shots)
        return TaskData(items, examples, sources=(test.provenance,), notes=notes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MmluProTask(_ChoiceTask):
    """Up to ten choices, in the data's order."""

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """Items with the right one's letter as reference; `shots` examples of each category."""
        test = data.load(MMLU_PRO_TEST)
        items = _mmlu_items(test.rows, MMLU_PRO_TEST.name)
        if not shots:
            return TaskData(items, sources=(test.provenance,))
        few = data.load(MMLU_PRO_EXAMPLES)
        examples: dict[str, list[Example]] = {}
        for item, row in zip(_mmlu_items(few.rows, MMLU_PRO_EXAMPLES.name), few.rows, strict=True):
            # It begins with what the prompt ends with.
            answer = row["cot_content"].removeprefix("A: ")
            examples.setdefault(row["category"], []).append(Example(item, answer))
        chosen = [
            one
            for of_category in examples.values()
            for one in take_examples(self.name, of_category, shots)
        ]
        return TaskData(items, tuple(chosen), sources=(test.provenance, few.provenance))


def _gpqa_item(row: Row, item_id: str) -> Item:
    right = row["Correct Answer"].strip()
    choices = [right, *(row[f"Incorrect Answer {i}"].strip() for i in (1, 2, 3))]
    choices.sort(
        key=lambda one: hashlib.sha256(f"{ORDER_SEED}\n{item_id}\n{one}".encode()).digest()
    )
    data = {"choices": choices, "category": row["High-level domain"]}
    letter = string.ascii_uppercase[choices.index(right)]
    return Item(id=item_id, prompt=row["Question"].strip(), references=(letter,), data=data)


def _mmlu_items(rows: Sequence[Row], source: str) -> tuple[Item, ...]:
    ids = content_ids(
        [row["question"] + "\n".join(map(str, row["options"])) for row in rows], "mmlu_pro"
    )
    items: list[Item] = []
    for new_id, row in zip(ids, rows, strict=True):
        choices = [str(one) for one in row["options"]]
        letter = row["answer"].strip()
        letters = string.ascii_uppercase[: len(choices)]
        if (
            not 2 <= len(choices) <= 10
            or letter not in letters
            or letters.index(letter) != row["answer_index"]
        ):
            raise InputError(
                f"{source}: item {new_id}: fields 'options', 'answer' and 'answer_index': two to "
                f"ten choices and one's letter with its index are needed, not {len(choices)}, "
                f"{letter!r} and {row['answer_index']!r}"
            )
        data = {"choices": choices, "category": row["category"]}
        items.append(
            Item(id=new_id, prompt=row["question"].strip(), references=(letter,), data=data)
        )
    return tuple(items)


def _choices(item: Item, form: str) -> str:
    return "\n".join(
        form.format(letter, choice)
        for letter, choice in zip(string.ascii_uppercase, item.data["choices"], strict=False)
    )


def _chat_question(item: Item) -> str:
    return (
        f"{item.prompt}\n\n{_choices(item, '({}) {}')}\n\nOne of the choices is right. Think "
        'step by step, and end with "The answer is (X)", where X is its letter.'
    )


def _base_question(item: Item) -> str:
    return f"Question:\n{item.prompt}\nOptions:\n{_choices(item, '{}. {}')}\nAnswer:"


GPQA_DIAMOND = GpqaTask(
    name="gpqa_diamond",
    version=1,
    summary="198 questions of biology, chemistry and physics for experts, four choices",
    source="Rein et al. 2023, github.com/idavidrein/gpqa; hub Idavidrein/gpqa (on request)",
    licence="CC BY 4.0",
    grader_kind="choice",
    settings=GenerationSettings(max_tokens=2048),
)
MMLU_PRO = MmluProTask(
    name="mmlu_pro",
    version=1,
    summary="12,032 questions of 14 subjects, up to ten choices",
    source="Wang et al. 2024, github.com/TIGER-AI-Lab/MMLU-Pro; hub TIGER-Lab/MMLU-Pro",
    licence="MIT",
    grader_kind="choice",
    settings=GenerationSettings(max_tokens=2048),
    default_shots={"chat": 0, "base": 5},
)
