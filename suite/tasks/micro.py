"""The embedded world's tasks: exact checks, no network, made from the world's split `test`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from suite.data import DataSource, Provenance, rows_sha256
from suite.micro.draft import Domain
from suite.micro.world import (
    VERSION,
    benchmark_problems,
    distinct_problems,
    micro_seeds,
    modules_of,
)
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
    mean_metric,
    take_examples,
)

__all__ = ["MICRO_CODE", "MICRO_INSTRUCT", "MICRO_MATH", "micro_seeds"]

# Of the items; the problems and their ids are the world's. Version 1 had the first 20 of each
# module, which are among these under the same ids.
TASK_VERSION = 2
# Problems of each module.
PER_MODULE = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class MicroTask(Description):
    """A domain of the world. Each prefix of the items has as many of every module as can be.

    Attributes:
        domain: Which.
    """

    domain: Domain

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """Items whose `data` names their module; examples are of the split `train`."""
        items = tuple(problem.item() for problem in benchmark_problems(self.domain, PER_MODULE))
        name = f"{self.name}/test"
        rows = [{"prompt": item.prompt, "worked": item.data["worked"]} for item in items]
        digest = rows_sha256(rows, ("prompt", "worked"))
        if data.pins.get(name, digest) != digest:
            raise InputError(
                f"{name}: sha256 of the rows is {digest}, and {data.pins[name]} is pinned: this is "
                "another version of the world. Correct the pin"
            )
        source = Provenance(
            name=name,
            origin=f"the world's generator, version {VERSION}",
            files={},
            rows_sha256=digest,
            items=len(items),
            total=len(items),
            subset=f"{PER_MODULE} problems of each module, or as many as there are",
            checked=True,
        )
        firsts = [
            distinct_problems(module.id, shots, "train") for module in modules_of(self.domain)
        ]
        examples = [
            Example(problem.item(), problem.reference)
            for place in range(shots)
            for problems in firsts
            for problem in problems[place : place + 1]
        ]
        return TaskData(items, take_examples(self.name, examples, shots), sources=(source,))

    def prompt(self, item: Item, style: Style = "chat", examples: Sequence[Example] = ()) -> Prompt:
        """The problem as it stands."""
        pairs = [(example.item.prompt, example.answer) for example in examples]
        if style == "chat":
            return chat_prompt(item.prompt, pairs)
        shown = "".join(f"Task: {asked}\nAnswer: {answer}\n\n" for asked, answer in pairs)
        return Prompt(text=f"{shown}Task: {item.prompt}\nAnswer:", stop=("\n\nTask:",))

    def metrics(self, graded: Sequence[Graded]) -> dict[str, MetricValues]:
        """`accuracy`; of a rewriting that is judged by likeness, ROUGE-L."""
        return mean_metric(graded)


_SETTINGS = GenerationSettings(max_tokens=96)
_SOURCE = "this project, `suite/micro`"
_LICENCE = "Apache-2.0"

MICRO_MATH = MicroTask(
    name="micro-math",
    version=TASK_VERSION,
    summary="the embedded world's small problems from arithmetic to geometry",
    source=_SOURCE,
    licence=_LICENCE,
    grader_kind="math",
    settings=_SETTINGS,
    domain="math",
)
MICRO_CODE = MicroTask(
    name="micro-code",
    version=TASK_VERSION,
    summary="the embedded world's Python functions of one to three lines",
    source=_SOURCE,
    licence=_LICENCE,
    grader_kind="code",
    settings=_SETTINGS,
    domain="code",
)
MICRO_INSTRUCT = MicroTask(
    name="micro-instruct",
    version=TASK_VERSION,
    summary="the embedded world's verifiable instructions and rewritings",
    source=_SOURCE,
    licence=_LICENCE,
    grader_kind="mixed",
    settings=_SETTINGS,
    domain="instruction",
)
