"""How good a model is: the profile's tasks, and the probes with their references' probability.

What a cell's folder gets:

tasks/<task>/    texts.jsonl · verdicts.jsonl · seconds.jsonl, as `suite.answers` writes them
scores.jsonl     a line per task and item, the last file
curve.jsonl      points measured during training, with curve/<tokens>/<task>/ beside
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ioa_jax.adapter.duplicates import BenchmarkIndex
from ioa_jax.engine.chat import answer_pair
from ioa_jax.engine.scoring import Scorer
from ioa_jax.errors import SandboxError
from ioa_jax.graders.base import Grader
from ioa_jax.journal import Journal
from ioa_jax.models.load import LanguageModel
from ioa_jax.seeds import SeedItem
from suite.answers import Ready, graded_items, is_complete, run_task
from suite.data import DataSource
from suite.eval import EvalSettings, description, prepare
from suite.grading import as_json, check_grader, open_grader
from suite.probes import PROBES, ProbeTask, SeedGrader, limits_of
from suite.profile import Profile
from suite.schema import check, write_lines
from suite.schema.models import CurvePoint, PointRow, ScoreLine
from suite.tasks import load_task
from suite.tasks.base import GenerationSettings, TaskData

AnyItem = TypeVar("AnyItem")


@dataclasses.dataclass(frozen=True)
class Measured:
    """A task of the run with its grader, which is open."""

    ready: Ready
    grader: Grader


class Evaluation:
    """Measures every model of a run in the same way.

    Attributes:
        profile: Settings.
        probes: Held-out seed items.
        tasks: Prepared.
        checked: By task, what `suite.grading.check_grader` found.
        metrics: By task, the name of its main figure, once something has been measured.
    """

    def __init__(
        self,
        profile: Profile,
        probes: Sequence[SeedItem],
        tasks: Sequence[Measured],
        checked: dict[str, Any],
    ) -> None:
        """Made by `open_evaluation`."""
        self.profile = profile
        self.probes = tuple(probes)
        self.tasks = tuple(tasks)
        self.checked = checked
        self.metrics: dict[str, str] = {}

    def describe(self) -> list[dict[str, Any]]:
        """What run.json says of the tasks, the probes among them."""
        described: list[dict[str, Any]] = []
        for one in self.tasks:
            told = as_json(description(one.ready))
            described.append(
                {
                    "name": told["task"],
                    "version": told["version"],
                    "metric": self.metrics.get(told["task"]),
                    "higher_is_better": True,
                    "items": told["items"],
                    "provenance": told["data"],
                    **{
                        name: told[name]
                        for name in ("grader", "generation", "style", "shots", "notes")
                    },
                    "checked": self.checked.get(told["task"]),
                }
            )
        if not any(one["name"] == PROBES for one in described):
            described.append(
                {
                    "name": PROBES,
                    "version": 1,
                    "metric": "reference probability",
                    "higher_is_better": True,
                    "items": len(self.probes),
                    "provenance": [],
                    "notes": [
                        "geometric mean of the probabilities of the reference answer's tokens"
                    ],
                }
            )
        return described

    def index(self) -> BenchmarkIndex:
        """Everything that is measured with, to keep it out of what is trained on."""
        items = {one.ready.task.name: one.ready.data.items for one in self.tasks}
        items[PROBES] = tuple(probe.item() for probe in self.probes)
        return BenchmarkIndex(items, **self.profile.overlap.model_dump())

    def run(self, model: LanguageModel, folder: Path) -> dict[str, float]:
        """Measure what a cell's folder doesn't hold yet, then write its scores.jsonl.

        Args:
            model: Weights in the dtype that they are measured in.
            folder: Of the cell.

        Returns:
            Mean score by task.

        Raises:
            SandboxError: The sandbox failed on an item, so that nothing is known about it.
        """
        rows: list[dict[str, Any]] = []
        logprobs = self._logprobs(model)
        for one in self.tasks:
            place = folder / "tasks" / one.ready.task.name
            if not is_complete(one.ready, place):
                run_task(one.ready, model, one.grader, place, self.profile.generation.batch_size)
            rows += self._rows(one.ready, place, logprobs)
        if not any(one.ready.task.name == PROBES for one in self.tasks):
            rows += [
                {
                    "task": PROBES,
                    "id": probe.id,
                    "module": probe.module,
                    "score": math.exp(min(logprobs[probe.id], 0.0)),
                    "correct": None,
                    "logprob": logprobs[probe.id],
                }
                for probe in self.probes
            ]
        write_lines(ScoreLine, folder / "scores.jsonl", rows)
        return _means(rows)

    def measure_point(
        self, model: LanguageModel, folder: Path, student_tokens: int, teacher_tokens: int
    ) -> None:
        """Measure a part of each task during training; a line a task in curve.jsonl."""
        with Journal(folder / "curve.jsonl", ("student_tokens", "task"), PointRow) as curve:
            for one in self.tasks:
                name = one.ready.task.name
                if (student_tokens, name) in curve:
                    continue
                items = evenly(one.ready.data.items, self.profile.curve.items)
                part = dataclasses.replace(
                    one.ready, data=dataclasses.replace(one.ready.data, items=items)
                )
                place = folder / "curve" / str(student_tokens) / name
                if not is_complete(part, place):
                    run_task(part, model, one.grader, place, self.profile.generation.batch_size)
                scores = [row["score"] for row in self._rows(part, place, {})]
                point = {
                    "student_tokens": student_tokens,
                    "teacher_tokens": teacher_tokens,
                    "task": name,
                    "score": math.fsum(scores) / len(scores),
                    "items": len(scores),
                }
                check(CurvePoint, point, str(curve.path))
                curve.append(point)

    def _logprobs(self, model: LanguageModel) -> dict[str, float]:
        """Log-probability a token of each probe's reference, in nats, by the probe's id."""
        pairs = [
            answer_pair(model, probe.messages, probe.reference, ended=False)
            for probe in self.probes
        ]
        scores = Scorer(model).score_tokens(pairs)
        return {
            probe.id: score.logprob / len(score.tokens)
            for probe, score in zip(self.probes, scores, strict=True)
        }

    def _rows(self, ready: Ready, folder: Path, logprobs: dict[str, float]) -> list[dict[str, Any]]:
        name = ready.task.name
        graded = graded_items(ready, folder)
        for one in graded:
            for verdict in one.verdicts:
                if verdict.status == "infra_error":
                    # A figure without this item would be a wrong one.
                    raise SandboxError(
                        f"task {name!r}, item {one.item.id!r}: the sandbox failed: {verdict.detail}"
                    )
        self.metrics[name], values = next(iter(ready.task.metrics(graded).items()))
        by_item: dict[str, list[float]] = {}
        for item, value in zip(values.items, values.values, strict=True):
            by_item.setdefault(item, []).append(value)
        modules = {probe.id: probe.module for probe in self.probes} if name == PROBES else {}
        known = logprobs if name == PROBES else {}
        rows: list[dict[str, Any]] = []
        for one in graded:
            own = by_item[one.item.id]
            score = math.fsum(own) / len(own)
            single = len(own) == 1 and ready.samples == 1 and score in (0.0, 1.0)
            rows.append(
                {
                    "task": name,
                    "id": one.item.id,
                    "module": modules.get(one.item.id, one.item.data.get("module")),
                    "score": score,
                    "correct": one.verdicts[0].correct if single else None,
                    "logprob": known.get(one.item.id),
                }
            )
        return rows


@contextlib.contextmanager
def open_evaluation(
    profile: Profile, probes: Sequence[SeedItem], model: LanguageModel, data: DataSource
) -> Iterator[Evaluation]:
    """Load the tasks, open their graders, and check these by the tasks' own right answers.

    Args:
        profile: Settings.
        probes: Held-out seed items.
        model: Any of the run's: tells whether there is a chat template.
        data: Where the tasks' items come from.

    Raises:
        InputError: A task's data can't be had.
        SandboxError: Programs can't be isolated here, or reference programs don't pass.
    """
    tasks: list[Measured] = []
    checked: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for setting in profile.tasks:
            chosen = EvalSettings(
                model="",
                tasks=(setting.name,),
                samples=setting.samples,
                temperature=setting.temperature,
                max_tokens=setting.max_tokens,
                shots=setting.shots,
            )
            ready = prepare(load_task(setting.name), chosen, model, data)
            items = evenly(ready.data.items, setting.limit)
            ready = dataclasses.replace(ready, data=dataclasses.replace(ready.data, items=items))
            grader, info = stack.enter_context(
                open_grader(
                    ready.task, ready.style, profile.sandbox.allow_weak, limits_of(profile.sandbox)
                )
            )
            checked[setting.name] = check_grader(ready.task, items, grader, info)
            tasks.append(Measured(ready, grader))
        if profile.probes.max_tokens is not None:
            grader = stack.enter_context(SeedGrader(probes, profile.sandbox))
            tasks.append(Measured(_probe_task(probes, profile.probes.max_tokens), grader))
        yield Evaluation(profile, probes, tasks, checked)


def _probe_task(probes: Sequence[SeedItem], max_tokens: int) -> Ready:
    task = ProbeTask(
        name=PROBES,
        version=1,
        summary="held-out seed items",
        source="the profile's seed items",
        licence="as theirs",
        # Of most; each is graded by its own check.
        grader_kind="exact",
        settings=GenerationSettings(max_tokens),
        probes=tuple(probes),
    )
    items = tuple(probe.item() for probe in probes)
    return Ready(task, TaskData(items), "chat", 0, 1, 0.0, max_tokens)


def evenly(items: Sequence[AnyItem], count: int | None) -> tuple[AnyItem, ...]:
    """So many of the items, evenly spread: in many benchmarks the first are the easier ones."""
    if count is None or count >= len(items):
        return tuple(items)
    return tuple(items[i * len(items) // count] for i in range(count))


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["task"], []).append(row["score"])
    return {task: math.fsum(values) / len(values) for task, values in scores.items()}
