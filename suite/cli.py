"""`python -m suite`: run profiles and print their tables."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from ioa_jax.cli import run_app
from ioa_jax.errors import InputError

app = typer.Typer(
    help="Compare ways to distil a student, on real models and tasks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command("list")
def list_() -> None:
    """Profiles, methods and tasks."""
    from suite.methods import METHODS
    from suite.profile import load_profile, profile_names
    from suite.tasks import task_lines
    from suite.tasks.humaneval import load_problems
    from suite.tasks.seeds import load_seed_tasks

    print("profiles")
    for name in profile_names():
        print(f"  {name}: {load_profile(name)[1].description}")
    print("methods")
    for name, summary in METHODS.items():
        print(f"  {name}: {summary}")
    tasks = load_seed_tasks()
    modules = sorted({f"{task.domain}: {task.module}" for task in tasks})
    print("tasks")
    print(f"  seed tasks: {len(tasks)}, with reference answers, in {len(modules)} modules")
    for module in modules:
        print(f"    {module}")
    print(f"  HumanEval: {len(load_problems())} problems")
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what is compiled.")] = False,
) -> None:
    """Run a profile: measure teacher and student, teach it in each way, compare.

    The results are in OUTPUT/PROFILE/RUN-ID. A run that was stopped goes on with --resume.
    """
    from suite import run as job
    from suite.profile import load_profile
    from suite.table import print_table

    if resume is not None and (profile or set_ or run_id or dry_run):
        raise InputError("--resume takes the settings from the run's folder: give it alone")
    if resume is None and profile is None:
        raise InputError("name a --profile (see `list`), or a run to --resume")
    if profile is not None:
        name, settings = load_profile(profile, set_ or ())
        if dry_run:
            _print_plan(name, job.make_plan(settings))
            return
        directory = job.start_run(settings, name, output, run_id)
    else:
        assert resume is not None
        directory = resume
    _log(verbose)
    try:
        summary = job.run_job(directory)
    except KeyboardInterrupt:
        print(f"interrupted; go on with --resume {directory}", file=sys.stderr)
        raise typer.Exit(130) from None
    print_table(summary)
    print(f"{directory / 'table.md'}")


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
    from ioa_jax.jsonl import write_rows
    from suite.contamination import build_index, check_file
    from suite.data import DataSource, parse_pins

    if not file.is_file():
        raise InputError(f"{file}: not a file")
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


def _print_plan(name: str, plan: object) -> None:
    import dataclasses

    from suite.run import Plan

    assert isinstance(plan, Plan)
    print(f"profile {name}")
    for field in dataclasses.fields(plan):
        value = getattr(plan, field.name)
        label = field.name.replace("_", " ")
        if field.name.endswith("tokens"):
            print(f"  {label}: at most {value:,}")
        else:
            print(f"  {label}: {', '.join(value) if isinstance(value, tuple) else value}")


def _log(verbose: bool) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("suite").setLevel(logging.INFO)
    if verbose:
        logging.getLogger("ioa_jax").setLevel(logging.INFO)


def main() -> None:
    """Entry point."""
    run_app(app)
