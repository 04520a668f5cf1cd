"""Seed items from the training splits of MATH, GSM8K, MBPP and Dolly: the paper's kind of seeds.

Prompts are put as the benchmark tasks put theirs, so that what is learnt is what is measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from ioa_jax.seeds import SeedItem
from ioa_jax.streams import stream
from suite.data import DataSource
from suite.sources import Hub, Layout
from suite.tasks.base import Task, content_ids
from suite.tasks.code import MBPP, MBPP_TEST
from suite.tasks.gsm8k import GSM8K
from suite.tasks.gsm8k import TRAIN as GSM8K_TRAIN
from suite.tasks.instructions import DOLLY, DOLLY_ALL, dolly_splits
from suite.tasks.maths import MATH, MATH_TRAIN

MBPP_TRAIN_IDS = range(601, 975)
MBPP_TRAIN = dataclasses.replace(
    MBPP_TEST,
    name="mbpp/train",
    layouts=tuple(Layout(one.parts, len(MBPP_TRAIN_IDS)) for one in MBPP_TEST.layouts),
    remote=dataclasses.replace(MBPP_TEST.remote, split="train")
    if isinstance(MBPP_TEST.remote, Hub)
    else MBPP_TEST.remote,
    total=len(MBPP_TRAIN_IDS),
    keep=lambda row: row["task_id"] in MBPP_TRAIN_IDS,
)
FIGURE = "[asy]"


def training_seeds(count: int, seed: int, data: DataSource) -> tuple[SeedItem, ...]:
    """As many items of each of the four splits, drawn at random.

    Args:
        count: In all; what four doesn't divide is left out.
        seed: Of the draw.
        data: Where the splits come from.

    Raises:
        InputError: A split can't be had or has too few items.
    """
    chosen: list[SeedItem] = []
    for name, items in (
        ("math", _math(data)),
        ("gsm8k", _gsm8k(data)),
        ("mbpp", _mbpp(data)),
        ("dolly", _dolly(data)),
    ):
        found = sorted(items, key=lambda item: item.id)
        if len(found) < count // 4:
            raise InputError(
                f"seed_items.count={count}: {name} has {len(found)} training items, "
                f"{count // 4} are needed"
            )
        order = stream(seed, "training seeds", name).permutation(len(found))
        chosen += [found[i] for i in order[: count // 4]]
    return tuple(chosen)


def _asked(task: Task, item: Item) -> str:
    return task.prompt(item).messages[-1]["content"]


def _math(data: DataSource) -> Iterator[SeedItem]:
    for item in dataclasses.replace(MATH, test=MATH_TRAIN).load(data).items:
        solution = item.data["solution"]
        # What a figure shows, a text model doesn't see.
        if FIGURE not in item.prompt + solution:
            check = {"kind": "math", "answer": item.references[0]}
            yield SeedItem(item.id, _asked(MATH, item), solution, check, "math")


def _gsm8k(data: DataSource) -> Iterator[SeedItem]:
    rows = data.load(GSM8K_TRAIN).rows
    ids = content_ids([row["question"] for row in rows], "gsm8k-train")
    for new_id, row in zip(ids, rows, strict=True):
        answer = row["answer"].rpartition("####")[2].strip().replace(",", "")
        prompt = _asked(GSM8K, Item(new_id, row["question"]))
        yield SeedItem(new_id, prompt, row["answer"], {"kind": "number", "answer": answer}, "math")


def _mbpp(data: DataSource) -> Iterator[SeedItem]:
    for item in dataclasses.replace(MBPP, test=MBPP_TRAIN).load(data).items:
        tests = [item.data["test_setup_code"], *item.data["test_imports"], *item.data["test_list"]]
        program = item.references[0].replace("\r\n", "\n").strip()
        yield SeedItem(
            item.id,
            _asked(MBPP, item),
            f"```python\n{program}\n```",
            {
                "kind": "code",
                "entry_point": item.data["entry_point"],
                "tests": "\n".join(test for test in tests if test),
            },
            "code",
        )


def _dolly(data: DataSource) -> Iterator[SeedItem]:
    for item in dolly_splits(data.load(DOLLY_ALL).rows).train:
        yield SeedItem(
            item.id, _asked(DOLLY, item), item.references[0], {"kind": "rouge"}, "instruction"
        )
