"""`python -m suite report`, `compare`, `verify`, `power`, `tune` and `archive`.

A command's parameters are its options, as many as there are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from ioa_jax.errors import InputError

Number = TypeVar("Number", int, float)

Run = Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)]


def report(
    run: Run,
    against: Annotated[
        str | None,
        typer.Option(
            help="Method that the others are compared with; default: ioa, else the first.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Tables, figures and the page of a run, of its finished cells if it is still going on."""
    from suite.report import write_report

    for path in write_report(run, against):
        print(path)


def compare(
    reference: Annotated[
        Path, typer.Argument(help="Run that is to be reproduced.", show_default=False)
    ],
    mine: Annotated[Path, typer.Argument(help="Run that may reproduce it.", show_default=False)],
    margin: Annotated[
        float, typer.Option(help="Difference of means, from 0 to 1, that is of no consequence.")
    ] = 0.05,
) -> None:
    """Whether a run is consistent with a reference, cell by cell of the table.

    Exit code 0: consistent. 5: a method isn't finished, or its score on a task is another one: the
    difference isn't shown to lie within the margin, and the 95 % intervals don't overlap or that of
    the paired difference lies outside the margin. 2: the runs can't be compared, such as when their
    settings differ.
    """
    from suite.compare import DIFFERENT, compare_runs, print_comparison

    found = compare_runs(reference, mine, margin)
    print_comparison(found)
    if not found.consistent:
        raise typer.Exit(DIFFERENT)


def verify(
    run: Run,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the tasks' data; default: IOA_DATA_DIR, else the Hugging Face hub.",
            show_default=False,
        ),
    ] = None,
    tables_only: Annotated[
        bool, typer.Option("--tables-only", help="Leave the texts as they were graded.")
    ] = False,
    seeds: Annotated[
        Path | None,
        typer.Option(
            help="Seed file of a run whose seed items are of one; the path in the run isn't read.",
            show_default=False,
        ),
    ] = None,
    allow_weak: Annotated[
        bool,
        typer.Option("--allow-weak", help="Run programs although they can't be isolated here."),
    ] = False,
) -> None:
    """Grade a run's texts again, compute its tables again, and say what differs.

    Exit code 0: everything agrees. 5: something differs.
    """
    from suite.compare import DIFFERENT
    from suite.data import DataSource
    from suite.profile import SandboxSettings
    from suite.verify import print_verification, verify_run

    data = None if tables_only else DataSource.open(data_dir)
    found = verify_run(run, data, seeds, SandboxSettings(allow_weak=allow_weak))
    print_verification(found)
    if found.findings:
        raise typer.Exit(DIFFERENT)


def power(
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Run with uniform_right and oracle on development seeds: write what was measured "
            "instead of simulating.",
            show_default=False,
        ),
    ] = None,
    like: Annotated[
        Path, typer.Option(help="Run whose effects of items and seeds are simulated.")
    ] = Path("results/reference/micro"),
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of power.md and power.json; of --from the file, by default the profile's.",
            show_default=False,
        ),
    ] = None,
    items: Annotated[str, typer.Option(help="Numbers of items, with commas between.")] = "780,1930",
    seeds: Annotated[str, typer.Option(help="Numbers of seeds, with commas between.")] = "1,2,3,5",
    differences: Annotated[
        str, typer.Option(help="True differences in points of 100, with commas between.")
    ] = "1,2.2,3.5,5",
    seed_sd: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation over seeds in points of 100; default: as measured.",
            show_default=False,
        ),
    ] = None,
    simulations: Annotated[int, typer.Option(min=1, help="Of each row.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulations.")] = 0,
) -> None:
    """What a comparison can find: simulate the report's tests, or write a world's measured power.

    The simulation has the tests' type I error and their power by items, seeds and differences. With
    --from, suite/profiles/PROFILE.power.json gets untaught, uniform and oracle. `report` shows it,
    and a simulation's power.json that lies beside it as PROFILE.simulation.json.
    """
    import dataclasses

    from suite import power as job
    from suite.report.tables import power_sentence

    if from_ is not None:
        path, found = job.write_power(from_, output)
        print(power_sentence(found))
        print(path)
        return
    from suite.results import read_run

    effects = job.measure_effects(read_run(like))
    if seed_sd is not None:
        effects = dataclasses.replace(effects, seed_sd=seed_sd / 100)
    rows = job.tabulate(
        effects,
        _numbers("items", items, int),
        _numbers("seeds", seeds, int),
        [value / 100 for value in _numbers("differences", differences, float)],
        job.SimulationPlan(simulations, seed),
    )
    paths = job.write_simulation(
        output or Path("results/statistics"), like.name, effects, rows, simulations
    )
    print(paths[-1].read_text(encoding="utf-8"), end="")
    for path in paths:
        print(path)


def _numbers(option: str, text: str, kind: Callable[[str], Number]) -> list[Number]:
    """Numbers over 0, with commas between.

    Raises:
        InputError: They aren't that.
    """
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) <= 0:
        raise InputError(f"--{option} {text!r}: write numbers over 0 with commas between")
    return found


def tune(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", show_default=False)],
    output: Annotated[Path, typer.Option(help="File, .json or .yaml.", show_default=False)],
) -> None:
    """The best learning rate of each method, of runs on development seeds.

    They have METHOD and METHOD@train.learning_rate=RATE for each other rate of the grid.
    """
    from suite.tune import write_tuned

    found = write_tuned(runs, output)
    for method, points in found.grid.items():
        grid = ", ".join(f"{point.rate:g}: {100 * point.mean:.1f}" for point in points)
        print(f"{method}: {found.best[method]:g} of {grid}")
    if found.at_an_end:
        print(
            f"best at an end of the grid: {', '.join(found.at_an_end)}; a wider one may be better"
        )
    print(output)


def archive(
    run: Run,
    output: Annotated[
        Path, typer.Option(help="Folder of the copy; a new one.", show_default=False)
    ],
    scores_only: Annotated[
        bool,
        typer.Option(
            "--scores-only",
            help="Leave out texts, calls, steps and examples: a small part of the size, by "
            "which `verify` can compute the tables anew, but neither scores nor spend.",
        ),
    ] = False,
) -> None:
    """Copy a complete run for committing: only what its figures follow from, compressed.

    `report`, `table`, `compare` and `verify` read the copy as they do the run.
    """
    from suite.archive import archive_run

    archive_run(run, output, evidence=not scores_only)
    print(f"{output}")
