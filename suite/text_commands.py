"""Commands of `python -m suite` about texts: prompts out, answers graded, judged and read.

A command's parameters are its options, as many as there are.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ioa_jax.errors import InputError
from ioa_jax.terminal import shown

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the tasks' data; default: IOA_DATA_DIR, else the Hugging Face hub.",
        show_default=False,
    ),
]
WeakSandbox = Annotated[
    bool,
    typer.Option(
        "--allow-weak-sandbox", help="Run model-written programs although they can't be isolated."
    ),
]
Ks = Annotated[
    str | None,
    typer.Option(
        "--k",
        help="The k of pass@k and maj@k, such as 1,5,10; default: 1, 10, 100 and the number of "
        "samples. They are of answers that are right or wrong; maj@k of those that can be equal, "
        "which programs and instructions' can't.",
        show_default=False,
    ),
]
TaskName = Annotated[
    str,
    typer.Option(
        help="Name of the task, with settings behind it where it has some: "
        "livecodebench@release=v5_v6@start=2024-10-01.",
        show_default=False,
    ),
]


def parse_style(style: str) -> Literal["chat", "base"]:
    if style == "chat" or style == "base":
        return style
    raise InputError(f"--style {style!r}: chat or base")


def prompts(
    task: TaskName,
    output: Annotated[Path, typer.Option(help="JSONL file.", show_default=False)],
    shots: Annotated[
        int | None, typer.Option(min=0, help="Examples in the prompts; default: the task's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="First items of the task.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Write a task's prompts for any other engine, whose texts `grade` takes.

    A line has "id", "messages" for a chat model, and "prompt" for a base model to continue until
    one of "stop"; and "temperature", where it depends on the category. A later turn of a
    conversation has "follows", the id of the turn before it: put that turn and its answer in
    front.
    """
    from suite.data import DataSource
    from suite.tasks import load_task
    from suite.texts import write_prompts

    count = write_prompts(load_task(task), output, DataSource.open(data_dir), shots, limit)
    print(f"{count} prompts; {output}")


def grade(
    task: TaskName,
    input: Annotated[
        Path,
        typer.Option(
            "--input",
            help='JSONL: "id" and "text"; "sample" too, or a line a sample, where an item has '
            "several.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option(help="JSONL file.", show_default=False)],
    style: Annotated[str, typer.Option(help="base for continuations of a text.")] = "chat",
    k: Ks = None,
    results: Annotated[
        Path | None, typer.Option(help="JSON file for the figures.", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    allow_weak_sandbox: WeakSandbox = False,
) -> None:
    """Grade texts from any other engine: a verdict a line, and the figures that `eval` gives.

    A line that can't be used is an error, and then nothing is graded.
    """
    from ioa_jax.files import check_writable, write_json
    from suite.data import DataSource
    from suite.figures import parse_k, print_results
    from suite.tasks import load_task
    from suite.texts import grade_texts

    if results is not None:
        check_writable(results)
    found = grade_texts(
        load_task(task),
        input,
        output,
        DataSource.open(data_dir),
        parse_style(style),
        allow_weak_sandbox,
        parse_k(k),
    )
    print_results(found)
    if results is not None:
        write_json(results, found)
    print(f"{found['correct']} of {found['texts']} correct; {output}")


def judge(
    task: TaskName,
    answers: Annotated[
        Path,
        typer.Option(help="Folder of `eval`, or JSONL as `grade` takes it.", show_default=False),
    ],
    judge: Annotated[
        str,
        typer.Option(
            help="Who judges, as a teacher: openai:MODEL@BASE-URL, or a model that runs here.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="Directory; the same command goes on.", show_default=False)
    ],
    mode: Annotated[
        str, typer.Option(help="single (a rating from 1 to 10) or pairwise (which is better).")
    ] = "single",
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="Answers to compare with, as --answers; default: the task's references.",
            show_default=False,
        ),
    ] = None,
    human: Annotated[
        Path | None,
        typer.Option(
            help='JSONL with people\'s verdicts on the pairs: "id" and "verdict", win, tie or loss '
            "of the answer.",
            show_default=False,
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply.")] = 1024,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A setting of the judge, such as concurrency=4. May be repeated."
        ),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(help="Folder of the judge's calls; default: in OUTPUT.", show_default=False),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Have a model judge answers: rate each, or compare each with another, in both orders."""
    from ioa_jax.settings import override_setting
    from ioa_jax.teachers.spec import open_teacher
    from suite.data import DataSource
    from suite.judging.judge import JudgeSettings, judge_texts, print_judged
    from suite.tasks import load_task

    if mode != "single" and mode != "pairwise":
        raise InputError(f"--mode {mode!r}: single or pairwise")
    settings = JudgeSettings(mode, answers, baseline, human, max_tokens)
    judge_settings: dict[str, Any] = {}
    for text in set_ or ():
        override_setting(judge_settings, text)
    source = DataSource.open(data_dir)
    open_judge = functools.partial(open_teacher, judge, **judge_settings)
    results = judge_texts(load_task(task), settings, open_judge, output, source, ledger)
    print_judged(results)
    print(f"{output / 'results.json'}")


def show(
    output: Annotated[Path, typer.Argument(help="Of `eval`.", show_default=False)],
    task: TaskName,
    failed: Annotated[bool, typer.Option("--failed", help="Only wrong answers.")] = False,
    item: Annotated[
        str | None, typer.Option("--id", help="Only this item.", show_default=False)
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=0, help="Only this sample, from 0.", show_default=False)
    ] = None,
    skip: Annotated[int, typer.Option(min=0, help="Leave out so many first.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 10,
    data_dir: DataDir = None,
) -> None:
    """Read a model's answers with their verdicts, item by item and sample by sample."""
    from suite.data import DataSource
    from suite.eval import read_samples

    chosen = [
        one
        for one in read_samples(output, task, DataSource.open(data_dir))
        if not (failed and (one["verdict"] is None or one["verdict"]["correct"]))
        and (item is None or one["item"].id == item)
        and (sample is None or one["text"]["sample"] == sample)
    ]
    before = None
    for one in chosen[skip : skip + limit]:
        asked, text, verdict = one["item"], one["text"], one["verdict"]
        print(shown(f"===== {asked.id}, sample {text['sample']}"))
        if asked.id != before:
            print(shown(asked.prompt))
        before = asked.id
        print(shown(f"----- answer, {text['tokens']} tokens, {text['finish_reason']}"))
        print(shown(text["text"]))
        if verdict is not None:
            print(f"----- {'correct' if verdict['correct'] else 'wrong'}")
            for name in ("extracted", "rule", "source", "status", "detail", "parts"):
                if verdict[name]:
                    print(shown(f"{name}: {verdict[name]}"))
        if asked.references:
            print(shown(f"references: {' | '.join(asked.references)}"))
        print()
    left = len(chosen) - skip - limit
    if left > 0:
        print(f"{left} more; --skip {skip + limit} goes on")
