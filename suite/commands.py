"""`python -m suite report`, `compare`, `verify` and `archive`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
) -> None:
    """Grade a run's texts again, compute its tables again, and say what differs.

    Exit code 0: everything agrees. 5: something differs.
    """
    from suite.compare import DIFFERENT
    from suite.data import DataSource
    from suite.verify import print_verification, verify_run

    found = verify_run(run, None if tables_only else DataSource.open(data_dir))
    print_verification(found)
    if found.findings:
        raise typer.Exit(DIFFERENT)


def archive(
    run: Run,
    output: Annotated[
        Path, typer.Option(help="Folder of the copy; a new one.", show_default=False)
    ],
) -> None:
    """Copy a complete run for committing: only what its figures follow from, compressed.

    `report`, `table`, `compare` and `verify` read the copy as they do the run.
    """
    from suite.archive import archive_run

    archive_run(run, output)
    print(f"{output}")
