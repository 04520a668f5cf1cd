"""`python -m suite`: run profiles, evaluate models, grade texts, measure speed.

A command's parameters are its options, as many as there are.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from ioa_jax.cli import options, run_app
from ioa_jax.errors import InputError
from suite import commands, text_commands
from suite.text_commands import DataDir, Ks, WeakSandbox, parse_style

app = typer.Typer(
    help="Compare ways to distil a student, on real models and tasks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.callback()(options)


@app.command("list")
def list_() -> None:
    """Profiles, methods and tasks."""
    from suite.methods import method_names
    from suite.methods.registry import load_method
    from suite.profile_files import load_profile, profile_names
    from suite.tasks import task_lines
    from suite.tasks.seeds import load_seed_tasks

    print("profiles")
    for name in profile_names():
        print(f"  {name}: {load_profile(name)[1].description}")
    print("methods")
    for name in method_names():
        print(f"  {name}: {load_method(name).summary}")
    tasks = load_seed_tasks()
    modules = sorted({f"{task.domain}: {task.module}" for task in tasks})
    print("tasks")
    print(f"  seed tasks: {len(tasks)}, with reference answers, in {len(modules)} modules")
    for module in modules:
        print(f"    {module}")
    print("benchmark tasks")
    for line in task_lines():
        print(f"  {line}")


@app.command()
def run(
    profile: Annotated[
        str | None, typer.Option(help="Name or YAML file.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another value for a setting: a.b=c. May be repeated."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the results go.")] = Path("results"),
    run_id: Annotated[
        str | None,
        typer.Option(help="Folder of this run; default: time and settings.", show_default=False),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with the run in this folder.", show_default=False),
    ] = None,
    cells: Annotated[
        str | None,
        typer.Option(
            help="Only the i-th of n shares of the cells, as i/n; `merge` joins them.",
            show_default=False,
        ),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the teacher's calls, for runs that share them; default: in the run's.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes that share the cells and the processors, at most one a processor; each "
            "has models of its own.",
        ),
    ] = 1,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what would be done and needed, and do nothing."),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what is compiled.")] = False,
) -> None:
    """Run a profile: teach the student in each way, measure every cell, compare.

    The results are in OUTPUT/PROFILE/RUN-ID. A run that was stopped goes on with --resume, which
    also tries failed cells again. Exit code 1: a cell failed.
    """
    from suite import run as job
    from suite.cells import Share
    from suite.profile_files import check_options, load_profile
    from suite.table import print_table

    if resume is not None and (profile or set_ or run_id or dry_run or cells or ledger):
        raise InputError("--resume takes the settings from the run's folder: give it alone")
    if resume is None and profile is None:
        raise InputError("name a --profile (see `list`), or a run to --resume")
    if profile is not None:
        name, settings = load_profile(profile, set_ or ())
        check_options(settings, profile)
        share = None if cells is None else Share.parse(cells)
        if dry_run:
            from suite.plan import print_plan

            print_plan(name, settings, share)
            return
        directory = job.start_run(settings, name, output, run_id, share, ledger)
    else:
        assert resume is not None
        directory = resume
    log_to_terminal(verbose)
    try:
        summary = job.run_job(directory, jobs)
    except KeyboardInterrupt:
        print(f"interrupted; go on with --resume {directory}", file=sys.stderr)
        raise typer.Exit(130) from None
    print_table(summary)
    print(f"{directory / 'table.md'}")
    if summary["failed"]:
        raise typer.Exit(1)


@app.command()
def merge(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", show_default=False)],
    output: Annotated[
        Path, typer.Option(help="Folder of the joined run; a new one.", show_default=False)
    ],
) -> None:
    """Join runs of shares of one profile's cells (`run --cells`) into one."""
    from suite.merge import merge_runs
    from suite.table import print_table

    print_table(merge_runs(runs, output))
    print(f"{output / 'table.md'}")


@app.command()
def table(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
) -> None:
    """The table of a run, of its finished cells if it is still going on."""
    from suite.table import print_table, summarize

    print_table(summarize(run))


@app.command()
def perf(
    output: Annotated[Path, typer.Option(help="Where perf.json and perf.md go.")] = Path(
        "results/perf"
    ),
    model: Annotated[str, typer.Option(help="The model, as for `ioa score`.")] = "smollm2",
    part: Annotated[
        list[str] | None,
        typer.Option(help="Only this part; may be repeated. Default: all.", show_default=False),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds of each contestant.")] = 5,
) -> None:
    """Speed and memory beside torch + transformers, in one run.

    Needs torch. `pip install google-tunix==0.1.5` adds google-tunix.
    """
    from suite.perf.measure import PARTS, measure

    measure(model, output, tuple(part or PARTS), rounds)


@app.command()
def contamination(
    file: Annotated[Path, typer.Argument(help="JSONL with training data.", show_default=False)],
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with the benchmarks' data; default: IOA_DATA_DIR."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this task's test items; may be repeated. Default: of every task whose data "
            "can be had.",
            show_default=False,
        ),
    ] = None,
    similarity: Annotated[
        float, typer.Option(help="Jaccard similarity from which on texts are near duplicates.")
    ] = 0.5,
    pin: Annotated[
        list[str] | None,
        typer.Option(help="Rows' sha256 of a data source: mbpp/test=SHA256. May be repeated."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="JSONL for every finding; without it the first are printed."),
    ] = None,
) -> None:
    """What in a training file overlaps with which test items: whole, by 13-gram, or nearly."""
    from ioa_jax.files import check_writable
    from ioa_jax.jsonl import write_rows
    from suite.contamination import build_index, check_file
    from suite.data import DataSource, parse_pins

    if not file.is_file():
        raise InputError(f"{file}: not a file")
    if output is not None:
        check_writable(output)
    built = build_index(DataSource.open(data_dir, parse_pins(pin or ())), task, similarity)
    report = check_file(file, built.index)
    for name, sources in built.sources.items():
        read = "; ".join(source.subset for source in sources)
        print(f"{name}: {built.index.tasks[name]} test items from {read}")
    if built.missing:
        reason = next(iter(built.missing.values()))
        print(f"not checked, for want of their data: {', '.join(built.missing)}; {reason}")
    print(f"{file}: {report.affected} of {report.lines} lines overlap with a test item")
    for name, kind, lines, items in report.summary():
        print(f"  {name}, {kind}: {lines} lines, {items} items")
    if output is not None:
        write_rows(output, report.rows())
        print(f"{output}")
        return
    shown = 20
    for one in report.findings[:shown]:
        overlap = one.overlap
        print(
            f"{file}:{one.line}: {one.place}: {overlap.task} {overlap.item} ({overlap.field}), "
            f"{overlap.kind} {overlap.value:.2f}: {overlap.match}"
        )
    if len(report.findings) > shown:
        print(f"... {len(report.findings) - shown} more; --output FILE has them all")


@app.command("eval")
def eval_(
    model: Annotated[
        str,
        typer.Option(
            help="Hugging Face directory or hub id, gguf:FILE or smollm2.", show_default=False
        ),
    ],
    tasks: Annotated[
        str,
        typer.Option(
            help="Names, with commas between; some have settings: livecodebench@start=2025-02-01.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="Directory; an unfinished one is continued.", show_default=False)
    ],
    data_dir: DataDir = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="First items of each task.", show_default=False)
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Answers to each item.", show_default=False)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="0 is greedy.", show_default=False)
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Longest response; default: the task's, and 32768 more for a model that thinks.",
            show_default=False,
        ),
    ] = None,
    style: Annotated[
        str | None,
        typer.Option(help="chat or base; default: chat if there is a template."),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Examples in the prompt; default: the task's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling.")] = 0,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "bfloat16",
    batch_size: Annotated[int, typer.Option(min=1, help="Rows that decode together.")] = 32,
    k: Ks = None,
    allow_weak_sandbox: WeakSandbox = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what is compiled.")] = False,
) -> None:
    """Score a model on benchmark tasks.

    OUTPUT gets every answer as it ends, every verdict as it is reached, and results.json. Give the
    same command again to go on after a kill.
    """
    from suite.data import DataSource
    from suite.eval import EvalSettings, evaluate
    from suite.figures import parse_k, print_results

    ks = parse_k(k)
    settings = EvalSettings(
        model=model,
        tasks=tuple(name.strip() for name in tasks.split(",") if name.strip()),
        limit=limit,
        samples=samples,
        temperature=temperature,
        max_tokens=max_tokens,
        style=None if style is None else parse_style(style),
        shots=shots,
        seed=seed,
        precision=precision,
        batch_size=batch_size,
        allow_weak_sandbox=allow_weak_sandbox,
    )
    log_to_terminal(verbose)
    try:
        results = evaluate(settings, DataSource.open(data_dir), output, ks)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from None
    print_results(results)
    print(f"{output / 'results.json'}")


@app.command()
def regrade(
    output: Annotated[Path, typer.Argument(help="Of `eval`.", show_default=False)],
    data_dir: DataDir = None,
    k: Ks = None,
    allow_weak_sandbox: WeakSandbox = False,
) -> None:
    """Grade the saved answers of an evaluation again; needs no model."""
    from suite.data import DataSource
    from suite.eval import regrade as grade_again
    from suite.figures import parse_k, print_results

    log_to_terminal(verbose=False)
    results = grade_again(output, DataSource.open(data_dir), allow_weak_sandbox, parse_k(k))
    print_results(results)
    for task, count in results["changed"].items():
        print(f"{task}: {count} verdicts changed")


for command in (
    commands.report,
    commands.compare,
    commands.verify,
    commands.power,
    commands.tune,
    commands.archive,
    text_commands.prompts,
    text_commands.grade,
    text_commands.judge,
    text_commands.show,
):
    app.command()(command)


def log_to_terminal(verbose: bool) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("suite").setLevel(logging.INFO)
    if verbose:
        logging.getLogger("ioa_jax").setLevel(logging.INFO)


def main() -> None:
    """Entry point."""
    run_app(app)
