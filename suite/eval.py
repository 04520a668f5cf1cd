"""Evaluation of one model on benchmark tasks, its records, and grading them again.

eval.json                  model, settings, environments, sandbox, each task's description
tasks/<task>/texts.jsonl   what the model wrote, appended as each answer ends
tasks/<task>/verdicts.jsonl  what the grader found, appended as each is graded
tasks/<task>/groups.jsonl  which samples of an item give the same answer, where a majority counts
tasks/<task>/seconds.jsonl   where the time went, by process that worked on it
results.json               scores with 95 % intervals

The journals (*.jsonl) of a finished evaluation may be compressed with gzip; they are read as they
are, and `regrade` replaces the verdicts by an uncompressed file.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ioa_jax.errors import InputError
from ioa_jax.files import read_object, write_json
from ioa_jax.journal import read_journal
from ioa_jax.jsonl import write_rows
from suite.answers import (
    Ready,
    graded_items,
    is_complete,
    is_grouped,
    key_of,
    read_groups,
    run_task,
    saved_texts,
    saved_verdicts,
    verdict_row,
    write_groups,
)
from suite.data import DataSource
from suite.figures import choose_k, task_figures
from suite.grading import GRADING_THREADS, as_json, check_grader, open_grader
from suite.models import find_spec
from suite.schema import check
from suite.schema.models import EvalFile
from suite.tasks import load_task
from suite.tasks.base import Style, Task, default_max_tokens, describe

if TYPE_CHECKING:
    from ioa_jax.models.load import LanguageModel

log = logging.getLogger(__name__)

VERSION = 1  # of the files above


@dataclasses.dataclass(frozen=True)
class EvalSettings:
    """What an evaluation does; None leaves a task its own value.

    Attributes:
        model: Spec, as for `load_model`, or `micro:NAME`.
        tasks: Names.
        limit: First items of each task; None is all.
        samples: Answers to an item.
        temperature: 0 is greedy; of every item, whatever its category.
        max_tokens: Longest response, thoughts included.
        style: `chat` or `base`; None is chat if the model has a chat template.
        shots: Examples in the prompt.
        seed: Of the sampling.
        precision: Operands of matrix products.
        batch_size: Rows that decode together.
        allow_weak_sandbox: Run programs although they can't be isolated here.
    """

    model: str
    tasks: tuple[str, ...]
    limit: int | None = None
    samples: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    style: Style | None = None
    shots: int | None = None
    seed: int = 0
    precision: str = "bfloat16"
    batch_size: int = 32
    allow_weak_sandbox: bool = False

    def __post_init__(self) -> None:
        for name in ("limit", "samples", "max_tokens", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value}: at least 1")
        if not self.tasks:
            raise InputError("no task is named; `python -m suite list` has them")
        if len(set(self.tasks)) < len(self.tasks):
            raise InputError("a task is named twice")
        if (self.samples or 1) > 1 and self.temperature == 0:
            raise InputError("several samples at temperature 0 are all the same; raise it")


def evaluate(
    settings: EvalSettings, data: DataSource, output: Path, ks: Sequence[int] | None = None
) -> dict[str, Any]:
    """Do what `output` doesn't hold yet.

    Each answer is on disk when it ends and each verdict when it is reached: a killed evaluation,
    started again with the same settings, does neither twice.

    Args:
        settings: What to do.
        data: Where the tasks' items come from.
        output: Directory; made where missing.
        ks: Of pass@k and maj@k; None leaves them to `suite.figures.choose_k`.

    Returns:
        The contents of results.json.

    Raises:
        InputError: Settings, data or model are unusable, or `output` is of another evaluation.
        SandboxError: Programs can't be isolated here, or reference solutions don't pass.
    """
    import jax.numpy as jnp

    from ioa_jax.models.load import load_model
    from ioa_jax.models.text import template_date
    from ioa_jax.record import environment

    tasks = [load_task(name) for name in settings.tasks]
    log.info("loading %s", settings.model)
    spec = find_spec(settings.model)
    model = load_model(spec, settings.precision, dtype=jnp.dtype(settings.precision))
    ready = [prepare(task, settings, model, data) for task in tasks]
    for one in ready:
        choose_k(one.task, one.samples, ks)
    record: dict[str, Any] = {
        "version": VERSION,
        "settings": dataclasses.asdict(settings) | {"tasks": list(settings.tasks)},
        "model": {
            "spec": settings.model,
            "fingerprint": model.fingerprint,
            "parameters": model.decoder.config.parameter_count(),
        },
        "tasks": {one.task.name: description(one) for one in ready},
    }
    date = template_date(model.tokenizer)
    if date is not None:
        record["model"]["template_date"] = date
    record = _open_output(output, record, environment())
    for one in ready:
        _finish_task(one, model, settings, output, record)
        _write_results(output, record, ready, ks)
    return _write_results(output, record, ready, ks)


def _finish_task(
    one: Ready, model: LanguageModel, settings: EvalSettings, output: Path, record: dict[str, Any]
) -> None:
    """Answers, verdicts and groups that a task's folder lacks; what grades them is noted."""
    folder = output / "tasks" / one.task.name
    if one.is_judged and not is_complete(one, folder):
        run_task(one, model, None, folder, settings.batch_size, settings.seed)
    elif not (is_complete(one, folder) and is_grouped(one, folder)):
        with open_grader(one.task, one.style, settings.allow_weak_sandbox) as (grader, info):
            checked = check_grader(one.task, one.data.items, grader, info)
            record["graders"][one.task.name] = checked
            write_json(output / "eval.json", record)
            if not is_complete(one, folder):
                run_task(one, model, grader, folder, settings.batch_size, settings.seed)
            write_groups(one, grader, folder)


def regrade(
    output: Path,
    data: DataSource,
    allow_weak_sandbox: bool = False,
    ks: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Grade the saved texts of an evaluation again; no model is needed.

    Args:
        output: Of `evaluate`.
        data: As there.
        allow_weak_sandbox: As there.
        ks: As there.

    Returns:
        The contents of results.json, and under `changed` the number of verdicts that are others
        than before, by task.

    Raises:
        InputError: `output` isn't an evaluation of this version, or the data have changed.
        SandboxError: As `evaluate`.
    """
    record, ready = _reopen(output, data)
    changed: dict[str, int] = {}
    for one in ready:
        choose_k(one.task, one.samples, ks)
    for one in (one for one in ready if not one.is_judged):
        folder = output / "tasks" / one.task.name
        texts = saved_texts(one, folder)
        before = {key_of(row): row["verdict"] for row in saved_verdicts(folder)}
        items = one.items
        with (
            open_grader(one.task, one.style, allow_weak_sandbox) as (grader, info),
            ThreadPoolExecutor(GRADING_THREADS) as pool,
        ):
            record["graders"][one.task.name] = check_grader(one.task, one.data.items, grader, info)
            found = pool.map(
                grader.grade, [items[row["id"]] for row in texts], (row["text"] for row in texts)
            )
            rows = [
                verdict_row(row["id"], row["sample"], verdict)
                for row, verdict in zip(texts, found, strict=True)
            ]
            write_rows(folder / "verdicts.jsonl", rows)
            write_groups(one, grader, folder)
        after = {key_of(row): row["verdict"] for row in rows}
        changed[one.task.name] = sum(before.get(key) != value for key, value in after.items())
    write_json(output / "eval.json", record)
    return _write_results(output, record, ready, ks) | {"changed": changed}


def read_samples(output: Path, task: str, data: DataSource) -> Iterator[dict[str, Any]]:
    """Every graded answer of a task: `item`, `text` row and `verdict`, None where a judge has it.

    Raises:
        InputError: `output` has no such task, or as `regrade`.
    """
    _, ready = _reopen(output, data)
    one = next((one for one in ready if one.task.name == task), None)
    if one is None:
        raise InputError(
            f"{output}: has no task {task!r}; it has {', '.join(o.task.name for o in ready)}"
        )
    folder = output / "tasks" / task
    verdicts = {key_of(row): row for row in saved_verdicts(folder)}
    items = one.items
    order = {item: i for i, item in enumerate(items)}
    texts = saved_texts(one, folder)
    for row in sorted(texts, key=lambda row: (order[row["id"]], row["sample"])):
        if one.is_judged or key_of(row) in verdicts:
            verdict = None if one.is_judged else verdicts[key_of(row)]["verdict"]
            yield {"item": items[row["id"]], "text": row, "verdict": verdict}


# -- preparing -----------------------------------------------------------------------------------


def prepare(task: Task, settings: EvalSettings, model: LanguageModel, data: DataSource) -> Ready:
    """Load a task's data and settle what `settings` leave to the task.

    Raises:
        InputError: As `Task.load`; or the model or the number of samples doesn't suit the settings.
    """
    style: Style = settings.style or ("chat" if model.tokenizer.chat_template else "base")
    if style == "chat" and not model.tokenizer.chat_template:
        raise InputError(f"{model.spec} has no chat template; use --style base")
    shots = task.default_shots[style] if settings.shots is None else settings.shots
    loaded = task.load(data, shots)
    if settings.limit is not None:
        loaded = dataclasses.replace(loaded, items=loaded.items[: settings.limit])
    own = task.settings
    one = Ready(
        task,
        loaded,
        style,
        shots,
        own.samples if settings.samples is None else settings.samples,
        own.temperature if settings.temperature is None else settings.temperature,
        default_max_tokens(task, style, model.tokenizer.chat_template)
        if settings.max_tokens is None
        else settings.max_tokens,
        own.temperatures if settings.temperature is None else {},
    )
    if one.samples > 1 and any(one.temperature_of(item) == 0 for item in one.data.items):
        raise InputError(f"task {task.name!r}: {one.samples} samples need a --temperature over 0")
    return one


def description(one: Ready) -> dict[str, Any]:
    """JSON-able; an evaluation goes on only with the same."""
    described = describe(one.task, one.style, one.shots, one.data)
    for source in described["data"]:
        # Where the folder lies changes nothing, and is nobody's business.
        if source["origin"].startswith("folder "):
            source["origin"] = f"folder {Path(source['origin'].removeprefix('folder ')).name}"
    described["generation"] |= {
        "samples": one.samples,
        "temperature": one.temperature,
        "max_tokens": one.max_tokens,
    }
    described["generation"].pop("temperatures", None)
    if one.temperatures:
        described["generation"]["temperatures"] = dict(one.temperatures)
    return described


def _open_output(
    output: Path, record: dict[str, Any], environment: dict[str, Any]
) -> dict[str, Any]:
    """The record on disk, or this one, with the environment noted."""
    path = output / "eval.json"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    if path.is_file():
        before = _read_record(path)
        for part in ("version", "model", "tasks", "settings"):
            if before.get(part) != as_json(record[part]):
                raise InputError(
                    f"{path}: was begun with another {part}; name another --output, or give the "
                    "options that it was begun with"
                )
        record = before
    else:
        record |= {"created": now, "environments": [], "graders": {}}
    if not record["environments"] or record["environments"][-1] != environment:
        record["environments"].append(environment)
    write_json(path, record)
    return record


def _read_record(path: Path) -> dict[str, Any]:
    record = read_object(path)
    if record.get("version") != VERSION:
        raise InputError(f"{path}: made by another version of the suite")
    check(EvalFile, record, str(path))
    return record


def _reopen(output: Path, data: DataSource) -> tuple[dict[str, Any], list[Ready]]:
    """Record and tasks of an evaluation, without its model."""
    path = output / "eval.json"
    record = _read_record(path)
    ready: list[Ready] = []
    for name, told in record["tasks"].items():
        task = load_task(name)
        loaded = task.load(data, told["shots"])
        loaded = dataclasses.replace(loaded, items=loaded.items[: told["items"]])
        generation = told["generation"]
        one = Ready(
            task,
            loaded,
            told["style"],
            told["shots"],
            generation["samples"],
            generation["temperature"],
            generation["max_tokens"],
            generation.get("temperatures", {}),
        )
        if as_json(description(one)) != told:
            raise InputError(f"{path}: task {name!r}: its data or its prompts have changed")
        ready.append(one)
    return record, ready


# -- results -------------------------------------------------------------------------------------


def _write_results(
    output: Path, record: dict[str, Any], ready: Sequence[Ready], ks: Sequence[int] | None
) -> dict[str, Any]:
    results = {
        "version": VERSION,
        "model": record["model"],
        "settings": record["settings"],
        "environment": record["environments"][-1],
        "tasks": {
            one.task.name: _task_results(one, output / "tasks" / one.task.name, record, ks)
            for one in ready
        },
    }
    write_json(output / "results.json", results)
    return results


def _task_results(
    one: Ready, folder: Path, record: dict[str, Any], ks: Sequence[int] | None
) -> dict[str, Any]:
    """Scores of the items that have all of their verdicts."""
    texts = saved_texts(one, folder)
    # Until all are there, the majority's are left out.
    groups = read_groups(folder) if is_grouped(one, folder) else {}
    return {
        "description": record["tasks"][one.task.name],
        "grader": record["graders"].get(one.task.name),
        "items": len(one.data.items),
        **task_figures(one.task, graded_items(one, folder), ks, groups),
        "finish_reasons": {
            reason: sum(row["finish_reason"] == reason for row in texts)
            for reason in ("stop", "length")
        },
        "generated_tokens": sum(row["tokens"] for row in texts),
        "seconds": read_journal(folder / "seconds.jsonl"),
    }
