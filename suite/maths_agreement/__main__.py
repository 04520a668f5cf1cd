"""`python -m suite.maths_agreement --output FOLDER` writes README.md and agreement.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ioa_jax.cli import run_app
from ioa_jax.files import write_json, write_text
from suite.data import DataSource
from suite.maths_agreement.compare import judge, load_references, make_cases
from suite.maths_agreement.page import Summary
from suite.tasks.maths import MATH_TEST, MATH_TRAIN


def main(
    output: Annotated[Path, typer.Option(help="Folder.", show_default=False)],
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with MATH's data; default: IOA_DATA_DIR, else the hub."),
    ] = None,
    every: Annotated[
        int, typer.Option(help="Of the distinct references, one in so many.", min=1)
    ] = 5,
) -> None:
    """Judge forms of MATH's references by our grader and by others' rules, and list what differs.

    One in five of the references takes several minutes on one core.
    """
    data = DataSource.open(data_dir)
    references = load_references(data)
    cases = make_cases(references, every)
    summary = Summary()
    for one in judge(cases):
        summary.add(one)
    subsets = [data.load(source).provenance.subset for source in (MATH_TEST, MATH_TRAIN)]
    sample = {"references": len(references), "every": every, "used": len(cases), "data": subsets}
    write_json(output / "agreement.json", {**sample, **summary.figures()})
    write_text(output / "README.md", summary.page(len(cases), len(references), every, subsets))
    print(output / "README.md")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    run_app(app)
