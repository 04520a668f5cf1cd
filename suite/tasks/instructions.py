"""IFEval (Zhou et al., 2023), and the sets that MiniLLM (Gu et al., 2024) scores by ROUGE-L.

Of the latter three: five samples at temperature 1 with at most 256 new tokens each, averaged. Base
models get instruction, input and response under Alpaca's headings, without its opening sentences.
MiniLLM leaves those of Dolly's prompts out that have over 256 tokens; here characters decide, so
that every model gets the same items. The two other sets have few such prompts: MiniLLM cuts them,
and they are whole here.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from suite.data import DataSource
from suite.sources import Hub, Layout, Part, Row, Source, WebFile
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

SAMPLED = GenerationSettings(max_tokens=256, temperature=1.0, top_p=1.0, samples=5)
DOLLY_TEST_ITEMS = 500
DOLLY_DEV_ITEMS = 1000
# With MiniLLM's prompt around them, as many of Dolly's questions have up to 256 tokens of SmolLM2.
DOLLY_MAX_CHARACTERS = 900
# Another text gives another split.
DOLLY_SPLIT_SEED = "ioa dolly split 1"

IFEVAL_TEST = Source(
    name="ifeval/test",
    folder="ifeval",
    layouts=(
        Layout(
            (
                Part(
                    "input_data",
                    ("67ffeee0fcb87c317c5b08a2de85557b4a7e96ada6178aa645b4954fe4b53d49",),
                ),
            ),
            541,
        ),
        Layout(
            (
                Part(
                    "input_data_even",
                    ("a4f3916f6e3548a6dbf6112ca996594fb3e2149c9580e37ed1a0192ad2797745",),
                ),
                Part("input_data_odd"),
            ),
            541,
        ),
    ),
    remote=Hub("google/IFEval", "966cd89545d6b6acfd7638bc708b98261ca58e84", "train"),
    total=541,
    fields=("key", "prompt", "instruction_id_list", "kwargs"),
    texts=("prompt",),
)
DOLLY_ALL = Source(
    name="dolly/all",
    folder="dolly",
    layouts=(
        Layout(
            (
                Part(
                    "databricks-dolly-15k",
                    ("705e899fd4d440b6a59ac0f3aef77fc00c56a57bfd175ef17eef78ce5df09faf",),
                ),
            ),
            15011,
        ),
    ),
    remote=Hub(
        "databricks/databricks-dolly-15k", "bdd27f4d94b9c1f951818a7da7fd7aeea5dbff1a", "train"
    ),
    total=15011,
    fields=("instruction", "context", "response"),
    texts=("instruction", "response"),
)
_SELF_INSTRUCT = (
    "https://raw.githubusercontent.com/yizhongw/self-instruct/"
    "0b26ccaa415992100fa32df62d41b994cf928e23/"
)
# The hub's yizhongw/self_instruct has only a script, which fetches this very file.
SELF_INSTRUCT_TEST = Source(
    name="self_instruct/test",
    folder="self_instruct",
    layouts=(
        Layout((Part("user_oriented_instructions"),), 252),
        Layout(
            (
                Part(
                    "seed_tasks",
                    ("7779004fa198fdf27cf70a159363879d8a26c53329e11b436af17b3941875f48",),
                ),
            ),
            175,
            "the seed tasks, not the 252 user-oriented instructions that others report",
        ),
    ),
    remote=WebFile(_SELF_INSTRUCT + "human_eval/user_oriented_instructions.jsonl"),
    total=252,
    fields=("id", "instruction", "instances"),
    texts=("id", "instruction"),
)
_VICUNA = (
    "https://raw.githubusercontent.com/lm-sys/FastChat/0e6d3e4beaab66f4d3f93db72541a4abab8af28d/"
    "fastchat/llm_judge/data/vicuna_bench/"
)
_VICUNA_QUESTIONS = "c248c5c98ba45bb0c2aadae2f270e643bd32679c6c306a3b2a503ac4254cdaa5"
_VICUNA_ANSWERS = "f7542dc25a5a869b32197486f5699a14eb5682ab3c7264518402399ec09ab470"
VICUNA_TEST = Source(
    name="vicuna/test",
    folder="vicuna_bench",
    layouts=(Layout((Part("question", (_VICUNA_QUESTIONS,)),), 80),),
    remote=WebFile(_VICUNA + "question.jsonl", _VICUNA_QUESTIONS),
    total=80,
    fields=("question_id", "turns"),
    texts=(),
)
VICUNA_REFERENCES = Source(
    name="vicuna/references",
    folder="vicuna_bench",
    layouts=(Layout((Part("reference_answer_gpt-4", (_VICUNA_ANSWERS,)),), 10),),
    remote=WebFile(_VICUNA + "reference_answer/gpt-4.jsonl", _VICUNA_ANSWERS),
    total=10,
    fields=("question_id", "choices"),
    texts=(),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class IfevalTask(Description):
    """Instructions whose observance a program can check."""

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """Items with the instructions' ids and arguments."""
        test = data.load(IFEVAL_TEST)
        items = tuple(map(_ifeval_item, test.rows))
        return TaskData(items, take_examples(self.name, (), shots), sources=(test.provenance,))

    def prompt(self, item: Item, style: Style = "chat", examples: Sequence[Example] = ()) -> Prompt:
        """The prompt and nothing else: the instructions in it are what is measured."""
        if style == "base":
            return Prompt(text=item.prompt + "\n\n")
        return chat_prompt(item.prompt)

    def metrics(self, graded: Sequence[Graded]) -> dict[str, MetricValues]:
        """The paper's four: prompts and single instructions, each strict and loose.

        An instruction's value is its mean over the samples, a prompt's the share of samples that
        follow all of its instructions.
        """
        found: dict[str, MetricValues] = {}
        for reading in ("strict", "loose"):
            prompts: list[float] = []
            instructions: list[float] = []
            owners: list[str] = []
            for one in graded:
                checks = [[bool(c) for c in v.parts[reading]] for v in one.verdicts]
                prompts.append(sum(map(all, checks)) / len(checks))
                for of_instruction in zip(*checks, strict=True):
                    instructions.append(sum(of_instruction) / len(checks))
                    owners.append(one.item.id)
            ids = tuple(one.item.id for one in graded)
            found[f"prompt_{reading}"] = MetricValues(tuple(prompts), ids)
            found[f"instruction_{reading}"] = MetricValues(tuple(instructions), tuple(owners))
        return found


class LikeReferences:
    """Prompt and figures of tasks whose answers should be like a reference."""

    def prompt(self, item: Item, style: Style = "chat", examples: Sequence[Example] = ()) -> Prompt:
        """Instruction and input; for base models under headings."""
        if style == "chat":
            return chat_prompt(item.prompt)
        text = f"### Instruction:\n{item.data['instruction']}\n\n"
        if item.data["input"]:
            text += f"### Input:\n{item.data['input']}\n\n"
        return Prompt(text=text + "### Response:\n")

    def metrics(self, graded: Sequence[Graded]) -> dict[str, MetricValues]:
        """`rouge_l`: F1, mean over the samples. MiniLLM gives it times 100."""
        return mean_metric(graded, "rouge_l")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DollyTask(LikeReferences, Description):
    """Questions and answers by people, in a split of our own: see `dolly_splits`."""

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """The 500 test items of our split."""
        found = data.load(DOLLY_ALL)
        return TaskData(
            dolly_splits(found.rows).test,
            take_examples(self.name, (), shots),
            sources=(found.provenance,),
            notes=(
                f"{DOLLY_TEST_ITEMS} test items by the hash of their text: not the 500 of MiniLLM, "
                "which can't be told from the 15,011 rows",
                f"questions of over {DOLLY_MAX_CHARACTERS} characters, context included, are left "
                "out; MiniLLM leaves out prompts of over 256 tokens",
            ),
        )


@dataclasses.dataclass(frozen=True)
class DollySplits:
    """Dolly in three parts that share no question."""

    test: tuple[Item, ...]
    dev: tuple[Item, ...]
    train: tuple[Item, ...]


def dolly_splits(rows: Sequence[Row]) -> DollySplits:
    """Our split of databricks-dolly-15k: 500 test, 1,000 development, the rest for training.

    Rows with the same instruction and context are one item with several references. Instructions
    that have over `DOLLY_MAX_CHARACTERS` together with their context are in no part. Items are
    ordered by the sha256 of `DOLLY_SPLIT_SEED`, instruction and context, so that the split doesn't
    depend on the order of the rows.

    Raises:
        InputError: There are too few items to leave any for training.
    """
    answers: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        question = (row["instruction"].strip(), (row["context"] or "").strip())
        if sum(map(len, question)) > DOLLY_MAX_CHARACTERS:
            continue
        responses = answers.setdefault(question, [])
        if row["response"].strip() not in responses:
            responses.append(row["response"].strip())

    def rank(question: tuple[str, str]) -> bytes:
        return hashlib.sha256("\0".join((DOLLY_SPLIT_SEED, *question)).encode()).digest()

    questions = sorted(answers, key=rank)
    held_out = DOLLY_TEST_ITEMS + DOLLY_DEV_ITEMS
    if len(questions) <= held_out:
        raise InputError(
            f"dolly: {len(questions)} different items of up to {DOLLY_MAX_CHARACTERS} characters, "
            f"more than {held_out} needed"
        )
    ids = content_ids(["\0".join(question) for question in questions], "dolly")
    items = tuple(
        _like_reference_item(new_id, *question, sorted(answers[question]))
        for new_id, question in zip(ids, questions, strict=True)
    )
    return DollySplits(items[:DOLLY_TEST_ITEMS], items[DOLLY_TEST_ITEMS:held_out], items[held_out:])


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfInstructTask(LikeReferences, Description):
    """Tasks as users of applications may set them."""

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """One item for each input of an instruction."""
        found = data.load(SELF_INSTRUCT_TEST)
        items = tuple(item for row in found.rows for item in _self_instruct_items(row))
        return TaskData(items, take_examples(self.name, (), shots), sources=(found.provenance,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class VicunaTask(LikeReferences, Description):
    """Open questions. Ten of the 80 have a reference answer (by GPT-4) and are scored."""

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """The questions with a reference, and apart from them those without."""
        questions = data.load(VICUNA_TEST)
        references = data.load(VICUNA_REFERENCES)
        answers = {row["question_id"]: _first_turn(row) for row in references.rows}
        items: list[Item] = []
        unscored: list[Item] = []
        for row in questions.rows:
            item_id = f"vicuna-{row['question_id']}"
            turns: Any = row["turns"]
            if not isinstance(turns, list) or not turns or not isinstance(turns[0], str):
                raise InputError(f"item {item_id}: field 'turns': a list of texts is needed")
            answer = answers.get(row["question_id"])
            item = _like_reference_item(item_id, turns[0], "", [] if answer is None else [answer])
            (unscored if answer is None else items).append(item)
        if not items:
            raise InputError("vicuna: no reference belongs to a question: see 'question_id'")
        return TaskData(
            tuple(items),
            take_examples(self.name, (), shots),
            tuple(unscored),
            (questions.provenance, references.provenance),
            (f"{len(items)} of {len(questions.rows)} questions have a reference answer",),
        )


def _ifeval_item(row: Row) -> Item:
    item_id = f"ifeval-{row['key']}"
    ids: Any = row["instruction_id_list"]
    arguments: Any = row["kwargs"]
    if not isinstance(ids, list) or not ids:
        raise InputError(f"item {item_id}: field 'instruction_id_list': a list is needed")
    if not isinstance(arguments, list) or len(arguments) != len(ids):
        raise InputError(f"item {item_id}: field 'kwargs': one object an instruction is needed")
    # The hub's rows name every argument there is, as null where it isn't set.
    kwargs = [{k: v for k, v in (one or {}).items() if v is not None} for one in arguments]
    return Item(
        id=item_id,
        prompt=row["prompt"],
        data={"instruction_id_list": [str(name) for name in ids], "kwargs": kwargs},
    )


def _like_reference_item(
    item_id: str, instruction: str, input_text: str, references: Sequence[str]
) -> Item:
    return Item(
        id=item_id,
        prompt=f"{instruction}\n\n{input_text}" if input_text else instruction,
        references=tuple(references),
        data={"instruction": instruction, "input": input_text},
    )


def _self_instruct_items(row: Row) -> list[Item]:
    instances: Any = row["instances"]
    # The hub turns a list of objects into an object of lists.
    if isinstance(instances, Mapping):
        instances = [
            {"input": given, "output": output}
            for given, output in zip(
                instances.get("input", ()), instances.get("output", ()), strict=True
            )
        ]
    if not isinstance(instances, list) or not instances:
        raise InputError(f"item {row['id']}: field 'instances': a list is needed")
    items: list[Item] = []
    for number, instance in enumerate(instances):
        output = instance.get("output") if isinstance(instance, Mapping) else None
        if not isinstance(output, str) or not output.strip():
            raise InputError(f"item {row['id']}: field 'instances': a text 'output' is needed")
        item_id = row["id"] if number == 0 else f"{row['id']}/{number}"
        given = (instance.get("input") or "").strip()
        items.append(
            _like_reference_item(item_id, row["instruction"].strip(), given, [output.strip()])
        )
    return items


def _first_turn(row: Row) -> str:
    try:
        answer = row["choices"][0]["turns"][0]
    except (LookupError, TypeError):
        answer = None
    if not isinstance(answer, str):
        raise InputError(
            f"vicuna reference {row['question_id']}: field 'choices': a text is needed in "
            "choices[0].turns[0]"
        )
    return answer


IFEVAL = IfevalTask(
    name="ifeval",
    version=1,
    summary="prompts with instructions that a program can check",
    source="Zhou et al. 2023, github.com/google-research/google-research; hub google/IFEval",
    licence="Apache-2.0",
    grader_kind="instruction",
    settings=GenerationSettings(max_tokens=1280),
)
DOLLY = DollyTask(
    name="dolly",
    version=2,
    summary="500 questions of databricks-dolly-15k, in a split of our own",
    source="Databricks 2023; hub databricks/databricks-dolly-15k",
    licence="CC BY-SA 3.0",
    grader_kind="rouge",
    settings=SAMPLED,
)
SELF_INSTRUCT = SelfInstructTask(
    name="self_instruct",
    version=1,
    summary="the 252 user-oriented instructions, or the 175 seed tasks",
    source="Wang et al. 2023, github.com/yizhongw/self-instruct",
    licence="Apache-2.0",
    grader_kind="rouge",
    settings=SAMPLED,
)
VICUNA = VicunaTask(
    name="vicuna",
    version=1,
    summary="80 open questions, the 10 with a reference answer are scored",
    source="Chiang et al. 2023, github.com/lm-sys/FastChat",
    licence="Apache-2.0 (the references: GPT-4's)",
    grader_kind="rouge",
    settings=SAMPLED,
)
