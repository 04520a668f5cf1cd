"""Evaluation of one model on benchmark tasks, its records, and grading them again.

eval.json                  model, settings, environments, sandbox, each task's description
tasks/<task>/texts.jsonl   what the model wrote, appended as each answer ends
tasks/<task>/verdicts.jsonl  what the grader found, appended as each is graded
tasks/<task>/seconds.jsonl   where the time went, by process that worked on it
results.json               scores with 95 % intervals

The journals (*.jsonl) of a finished evaluation may be compressed with gzip; they are read as they
are, and `regrade` replaces the verdicts by an uncompressed file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ioa_jax.errors import InputError, SandboxError
from ioa_jax.files import read_json, write_json
from ioa_jax.graders.base import GoldGrader, Grader, Item, Verdict
from ioa_jax.graders.registry import check_golds, make_grader
from ioa_jax.journal import Journal, read_journal
from ioa_jax.jsonl import read_objects, write_rows
from suite.data import DataSource
from suite.models import find_spec
from suite.stats import Estimate, mean_interval
from suite.tasks import load_task
from suite.tasks.base import Graded, Style, Task, TaskData, describe

if TYPE_CHECKING:
    from ioa_jax.engine.generation import Completion, Generator
    from ioa_jax.models.load import LanguageModel
    from ioa_jax.sandbox import Limits, SandboxInfo

log = logging.getLogger(__name__)

VERSION = 1  # of the files above
GRADING_THREADS = 2


@dataclasses.dataclass(frozen=True)
class EvalSettings:
    """What an evaluation does; None leaves a task its own value.

    Attributes:
        model: Spec, as for `load_model`, or `micro:NAME`.
        tasks: Names.
        limit: First items of each task; None is all.
        samples: Answers to an item.
        temperature: 0 is greedy.
        max_tokens: Longest answer.
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


@dataclasses.dataclass(frozen=True)
class Ready:
    """A task whose data are loaded, with the settings that hold for it."""

    task: Task
    data: TaskData
    style: Style
    shots: int
    samples: int
    temperature: float
    max_tokens: int

    @property
    def items(self) -> dict[str, Item]:
        return {item.id: item for item in self.data.items}


def evaluate(settings: EvalSettings, data: DataSource, output: Path) -> dict[str, Any]:
    """Do what `output` doesn't hold yet.

    Each answer is on disk when it ends and each verdict when it is reached: a killed evaluation,
    started again with the same settings, does neither twice.

    Args:
        settings: What to do.
        data: Where the tasks' items come from.
        output: Directory; made where missing.

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
        folder = output / "tasks" / one.task.name
        if not is_complete(one, folder):
            with open_grader(one.task, one.style, settings.allow_weak_sandbox) as (grader, info):
                record["graders"][one.task.name] = check_grader(
                    one.task, one.data.items, grader, info
                )
                write_json(output / "eval.json", record)
                run_task(one, model, grader, settings, folder)
        _write_results(output, record, ready)
    return _write_results(output, record, ready)


def regrade(output: Path, data: DataSource, allow_weak_sandbox: bool = False) -> dict[str, Any]:
    """Grade the saved texts of an evaluation again; no model is needed.

    Args:
        output: Of `evaluate`.
        data: As there.
        allow_weak_sandbox: As there.

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
        folder = output / "tasks" / one.task.name
        texts = read_journal(folder / "texts.jsonl")
        before = {_key(row): row["verdict"] for row in read_journal(folder / "verdicts.jsonl")}
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
                _verdict_row(row["id"], row["sample"], verdict)
                for row, verdict in zip(texts, found, strict=True)
            ]
        write_rows(folder / "verdicts.jsonl", rows)
        after = {_key(row): row["verdict"] for row in rows}
        changed[one.task.name] = sum(before.get(key) != value for key, value in after.items())
    write_json(output / "eval.json", record)
    return _write_results(output, record, ready) | {"changed": changed}


def grade_file(
    task: Task,
    texts: Path,
    output: Path,
    data: DataSource,
    style: Style = "chat",
    allow_weak_sandbox: bool = False,
) -> tuple[int, int]:
    """Grade texts that any engine wrote.

    Args:
        task: Whose items they answer.
        texts: JSONL with `id` of the item and `text` a line; an item may come several times.
        output: JSONL with the line's fields but the text, and the verdict's: `correct`, `score`,
            `extracted`, `rule`, `source`, `detail`, `status` and `parts`.
        data: Where the items come from.
        style: `base` for continuations of a base model's prompt.
        allow_weak_sandbox: Run programs although they can't be isolated here.

    Returns:
        Number of correct texts, and of texts.

    Raises:
        InputError: Names the line that has no item or no text.
        SandboxError: Programs can't be isolated here.
    """
    items = {item.id: item for item in task.load(data).items}
    rows: list[dict[str, Any]] = []
    for line, row in read_objects(texts):
        if not isinstance(row.get("text"), str):
            raise InputError(f"{texts}:{line}: field 'text' has to be text")
        if row.get("id") not in items:
            raise InputError(
                f"{texts}:{line}: field 'id': task {task.name!r} has no item {row.get('id')!r}; "
                f"its ids look like {next(iter(items))!r}"
            )
        rows.append(row)
    if not rows:
        raise InputError(f"{texts}: no lines")
    with (
        open_grader(task, style, allow_weak_sandbox) as (grader, _),
        ThreadPoolExecutor(GRADING_THREADS) as pool,
    ):
        verdicts = list(pool.map(lambda row: grader.grade(items[row["id"]], row["text"]), rows))
    write_rows(
        output,
        [
            {key: value for key, value in row.items() if key != "text"}
            | dataclasses.asdict(verdict)
            for row, verdict in zip(rows, verdicts, strict=True)
        ],
    )
    return sum(verdict.correct for verdict in verdicts), len(verdicts)


def read_samples(output: Path, task: str, data: DataSource) -> Iterator[dict[str, Any]]:
    """Every graded answer of a task: `item`, `text` row and `verdict` row.

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
    verdicts = {_key(row): row for row in read_journal(folder / "verdicts.jsonl")}
    items = one.items
    order = {item: i for i, item in enumerate(items)}
    texts = read_journal(folder / "texts.jsonl")
    for row in sorted(texts, key=lambda row: (order[row["id"]], row["sample"])):
        if _key(row) in verdicts:
            yield {"item": items[row["id"]], "text": row, "verdict": verdicts[_key(row)]["verdict"]}


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
        own.max_tokens if settings.max_tokens is None else settings.max_tokens,
    )
    if one.samples > 1 and one.temperature == 0:
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
    return described


def _open_output(
    output: Path, record: dict[str, Any], environment: dict[str, Any]
) -> dict[str, Any]:
    """The record on disk, or this one, with the environment noted."""
    path = output / "eval.json"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    if path.is_file():
        before = read_json(path)
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


def _reopen(output: Path, data: DataSource) -> tuple[dict[str, Any], list[Ready]]:
    """Record and tasks of an evaluation, without its model."""
    path = output / "eval.json"
    record = read_json(path)
    if record.get("version") != VERSION:
        raise InputError(f"{path}: made by another version of the suite")
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
        )
        if as_json(description(one)) != told:
            raise InputError(f"{path}: task {name!r}: its data or its prompts have changed")
        ready.append(one)
    return record, ready


def as_json(value: Any) -> Any:
    """What reading the written value gives: lists for tuples."""
    return json.loads(json.dumps(value))


@contextlib.contextmanager
def open_grader(
    task: Task, style: Style, allow_weak_sandbox: bool, limits: Limits | None = None
) -> Iterator[tuple[Grader, SandboxInfo | None]]:
    """A task's grader, and the sandbox's description where it runs programs.

    Args:
        task: Its task.
        style: Of the prompts that the graded texts answer.
        allow_weak_sandbox: Run programs although they can't be isolated here.
        limits: Of one program.

    Raises:
        SandboxError: Programs can't be isolated here.
    """
    if task.grader_kind == "code":
        from ioa_jax.sandbox import Sandbox

        with (
            Sandbox(limits, allow_weak=allow_weak_sandbox) as sandbox,
            make_grader("code", style=style, sandbox=sandbox) as grader,
        ):
            yield grader, sandbox.info
    else:
        with make_grader(task.grader_kind) as grader:
            yield grader, None


def check_grader(
    task: Task, items: Sequence[Item], grader: Grader, sandbox: SandboxInfo | None
) -> dict[str, Any]:
    """Grade the items' own right answers: what fails here would fail a model too.

    Returns:
        For the record: `kind`, `sandbox`, `golds` (how many were graded) and `gold_failures` (ids).

    Raises:
        SandboxError: A reference program doesn't pass, so that no verdict here could be trusted.
    """
    found: dict[str, Any] = {
        "kind": task.grader_kind,
        "sandbox": None if sandbox is None else as_json(dataclasses.asdict(sandbox)),
        "golds": 0,
        "gold_failures": [],
    }
    if not isinstance(grader, GoldGrader):
        return found
    failures = check_golds(grader, items)
    for item, verdict in failures:
        log.warning("%s: %s: its own right answer fails: %s", task.name, item, verdict.detail)
    if sandbox is not None and failures:
        raise SandboxError(
            f"{task.name}: {len(failures)} reference programs don't pass in this sandbox, first "
            f"{failures[0][0]}: {failures[0][1].status}, {failures[0][1].detail}. Raise the limits "
            "or free the machine"
        )
    return found | {"golds": len(items), "gold_failures": [item for item, _ in failures]}


# -- running -------------------------------------------------------------------------------------


def is_complete(one: Ready, folder: Path) -> bool:
    """Whether a task's folder has every verdict."""
    graded = {_key(row) for row in read_journal(folder / "verdicts.jsonl")}
    return all(key in graded for key in _keys(one))


def _keys(one: Ready) -> list[tuple[str, int]]:
    return [(item.id, sample) for item in one.data.items for sample in range(one.samples)]


def run_task(
    one: Ready, model: LanguageModel, grader: Grader, settings: EvalSettings, folder: Path
) -> None:
    """Generate and grade what the task's folder lacks. Texts are graded while others are generated.

    Args:
        one: The task.
        model: Weights in the dtype that they are measured in.
        grader: Of the task.
        settings: Of these, `seed` and `batch_size` hold here; the rest is settled in `one`.
        folder: Gets texts.jsonl, verdicts.jsonl and seconds.jsonl.
    """
    from ioa_jax.engine.generation import Completion, Generator

    began = time.perf_counter()
    items = one.items
    name, context = one.task.name, model.decoder.config.max_position
    seconds = {"prompts": 0.0, "generation": 0.0, "records": 0.0}
    with (
        Journal(folder / "texts.jsonl", ("id", "sample")) as texts,
        Journal(folder / "verdicts.jsonl", ("id", "sample")) as verdicts,
        ThreadPoolExecutor(GRADING_THREADS) as pool,
    ):
        lock = threading.Lock()
        pending: list[Future[None]] = []

        def grade(key: tuple[str, int], text: str) -> None:
            verdict = grader.grade(items[key[0]], text)
            with lock:
                verdicts.append(_verdict_row(*key, verdict))

        for key in _keys(one):
            if key in texts and key not in verdicts:
                pending.append(pool.submit(grade, key, texts[key]["text"]))

        def record(key: tuple[str, int], completion: Completion) -> None:
            start = time.perf_counter()
            texts.append(
                {
                    "id": key[0],
                    "sample": key[1],
                    "text": completion.text,
                    "finish_reason": completion.finish_reason,
                    "prompt_tokens": completion.prompt_tokens,
                    "tokens": len(completion.tokens),
                    "logprob": sum(completion.logprobs),
                }
            )
            pending.append(pool.submit(grade, key, completion.text))
            seconds["records"] += time.perf_counter() - start

        missing = [key for key in _keys(one) if key not in texts]
        generator = Generator(model, settings.batch_size)
        for stop, keys in _by_stop(one, missing).items():
            start = time.perf_counter()
            prompts = [_prompt_tokens(one, model, items[item]) for item, _ in keys]
            seconds["prompts"] += time.perf_counter() - start
            fitting: list[int] = []
            for i, (key, prompt) in enumerate(zip(keys, prompts, strict=True)):
                if len(prompt) < context:
                    fitting.append(i)
                    continue
                # An answer of no token: the model can't be asked, and other items can.
                log.warning("%s: %s: %d tokens of prompt, no answer", name, key[0], len(prompt))
                record(key, Completion("", (), (), "length", len(prompt)))
            keys, prompts = [keys[i] for i in fitting], [prompts[i] for i in fitting]
            _generate(one, generator, keys, prompts, stop, settings.seed, record, seconds)
        start = time.perf_counter()
        for future in pending:
            future.result()
        seconds["grading after generation"] = time.perf_counter() - start
    seconds["all"] = time.perf_counter() - began
    log.info("%s: %d answers in %.0f s", one.task.name, len(missing), seconds["all"])
    with (folder / "seconds.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"answers": len(missing), **seconds}) + "\n")


def _generate(
    one: Ready,
    generator: Generator,
    keys: Sequence[tuple[str, int]],
    prompts: Sequence[Sequence[int]],
    stop: tuple[str, ...],
    seed: int,
    record: Any,
    seconds: dict[str, float],
) -> None:
    from ioa_jax.engine.sampling import SamplingParams
    from ioa_jax.progress import progress_bar

    params = SamplingParams(
        max_tokens=one.max_tokens,
        temperature=one.temperature,
        top_p=one.task.settings.top_p,
        stop=stop,
        seed=seed,
    )
    start = time.perf_counter()
    recorded = seconds["records"]
    with progress_bar(one.task.name, len(keys)) as progress:
        generator.generate(
            prompts,
            params,
            progress,
            lambda index, completion: record(keys[index], completion),
            # What an item draws doesn't depend on what is left to do.
            streams=[zlib.crc32(f"{item}/{sample}".encode()) >> 1 for item, sample in keys],
        )
    seconds["generation"] += time.perf_counter() - start - (seconds["records"] - recorded)


def _by_stop(
    one: Ready, keys: Iterable[tuple[str, int]]
) -> dict[tuple[str, ...], list[tuple[str, int]]]:
    items = one.items
    groups: dict[tuple[str, ...], list[tuple[str, int]]] = {}
    for key in keys:
        prompt = one.task.prompt(items[key[0]], one.style, one.data.examples)
        groups.setdefault(prompt.stop, []).append(key)
    return groups


def _prompt_tokens(one: Ready, model: LanguageModel, item: Item) -> list[int]:
    """Token ids; a chat through the model's template, a text with its beginning-of-text token."""
    from ioa_jax.models.text import encode_prompt, render_chat

    prompt = one.task.prompt(item, one.style, one.data.examples)
    if prompt.messages:
        text = render_chat(model.tokenizer, prompt.messages)
        return encode_prompt(model.tokenizer, text, rendered=True)
    return encode_prompt(model.tokenizer, prompt.text)


# -- results -------------------------------------------------------------------------------------


def _key(row: dict[str, Any]) -> tuple[str, int]:
    return row["id"], row["sample"]


def _verdict_row(item: str, sample: int, verdict: Verdict) -> dict[str, Any]:
    return {"id": item, "sample": sample, "verdict": as_json(dataclasses.asdict(verdict))}


def _write_results(output: Path, record: dict[str, Any], ready: Sequence[Ready]) -> dict[str, Any]:
    results = {
        "version": VERSION,
        "model": record["model"],
        "settings": record["settings"],
        "environment": record["environments"][-1],
        "tasks": {
            one.task.name: _task_results(one, output / "tasks" / one.task.name, record)
            for one in ready
        },
    }
    write_json(output / "results.json", results)
    return results


def graded_items(one: Ready, folder: Path) -> list[Graded]:
    """The items of a task's folder that have all of their verdicts, in the task's order."""
    verdicts = {_key(row): row["verdict"] for row in read_journal(folder / "verdicts.jsonl")}
    graded: list[Graded] = []
    for item in one.data.items:
        keys = [(item.id, sample) for sample in range(one.samples)]
        if all(key in verdicts for key in keys):
            graded.append(Graded(item, tuple(Verdict(**verdicts[key]) for key in keys)))
    return graded


def _task_results(one: Ready, folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Scores of the items that have all of their verdicts."""
    texts = {_key(row): row for row in read_journal(folder / "texts.jsonl")}
    verdicts = {_key(row): row["verdict"] for row in read_journal(folder / "verdicts.jsonl")}
    graded = graded_items(one, folder)
    statuses: dict[str, int] = {}
    for verdict in verdicts.values():
        if verdict["status"] is not None:
            statuses[verdict["status"]] = statuses.get(verdict["status"], 0) + 1
    found: dict[str, Any] = {
        "description": record["tasks"][one.task.name],
        "grader": record["graders"].get(one.task.name),
        "items": len(one.data.items),
        "graded": len(graded),
        "metrics": {},
        "statuses": statuses,
        "infra_errors": statuses.get("infra_error", 0),
        "finish_reasons": {
            reason: sum(row["finish_reason"] == reason for row in texts.values())
            for reason in ("stop", "length")
        },
        "generated_tokens": sum(row["tokens"] for row in texts.values()),
        "seconds": read_journal(folder / "seconds.jsonl"),
    }
    if graded:
        found["metrics"] = {
            name: dataclasses.asdict(mean_interval(values.values, values.items))
            for name, values in one.task.metrics(graded).items()
        }
    return found


def print_results(results: dict[str, Any]) -> None:
    """The table, on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=results["model"]["spec"], title_justify="left")
    for column in ("task", "metric", "%", "95 % interval", "items", "remarks"):
        table.add_column(column, justify="right" if column in ("%", "items") else "left")
    for name, task in results["tasks"].items():
        remarks = [source["subset"] for source in task["description"]["data"][:1]]
        if task["graded"] < task["items"]:
            remarks.append(f"{task['items'] - task['graded']} not graded yet")
        if task["infra_errors"]:
            remarks.append(f"{task['infra_errors']} infra errors, counted as wrong")
        for i, (metric, value) in enumerate(task["metrics"].items()):
            interval = Estimate(**value)
            table.add_row(
                name if i == 0 else "",
                metric,
                f"{100 * interval.mean:.1f}",
                f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
                str(interval.clusters),
                "; ".join(remarks) if i == 0 else "",
            )
    Console(width=None if Console().is_terminal else 140).print(table)
