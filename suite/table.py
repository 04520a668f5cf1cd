"""The table of a run, from the records of its cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ioa_jax.errors import InputError
from suite.journal import read_journal, read_json, write_json, write_text

VERSION = 2  # of a run's files
TEACHER = "teacher"

NOTES = (
    "Probe log-prob: mean over the probes of the reference answer's log-probability a token, in "
    "nats; nearer to 0 is better.",
    "Probe ROUGE-L: F1 with stemmer, times 100, greedy answers. HumanEval: greedy, pass@1 in "
    "percent.",
    "Teacher tokens: of the answers that a method trains on; two methods that use the same answers "
    "both count them. Student tokens: trained on, prompts included.",
    "Seconds: training steps and finished parts of the measuring, compilation included, loading "
    "not. They are no part of what two runs are compared by.",
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One model of a run: a method with a seed, or the teacher.

    Attributes:
        method: Name; `teacher` for the reference line.
        seed: Training seed; None for the teacher.
    """

    method: str
    seed: int | None = None

    @property
    def name(self) -> str:
        """Folder under cells/."""
        return self.method if self.seed is None else f"{self.method}-seed{self.seed}"


def cells_of(methods: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Every cell of a run in the table's order, the teacher first.

    The undistilled student is the same for every seed, so it has the first alone.
    """
    return [
        Cell(TEACHER),
        *(
            Cell(method, seed)
            for method in methods
            for seed in (seeds[:1] if method == "undistilled" else seeds)
        ),
    ]


def summarize(directory: Path) -> dict[str, Any]:
    """What the cells of a run come to.

    Returns:
        `rows` (one a method, means over its seeds), `cells` (one a finished cell) and `unfinished`
        (names of cells that the table lacks), which two runs of the same settings agree in; and
        `seconds` by cell.

    Raises:
        InputError: `directory` isn't a run, or is of another version.
    """
    run = read_json(directory / "run.json")
    if run.get("version") != VERSION:
        raise InputError(
            f"{directory}: made by another version of the suite; take the revision that its "
            "run.json names"
        )
    settings = run["settings"]
    cells: list[dict[str, Any]] = []
    seconds: dict[str, float] = {}
    unfinished: list[str] = []
    for cell in cells_of(settings["methods"], settings["seeds"]):
        folder = directory / "cells" / cell.name
        if not (folder / "spend.json").is_file():
            unfinished.append(cell.name)
            continue
        cells.append({"method": cell.method, "seed": cell.seed, **_measure(folder)})
        seconds[cell.name] = sum(
            record["seconds"]
            for name in ("train.jsonl", "seconds.jsonl")
            for record in read_journal(folder / name)
        )
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    return {
        "profile": run["profile"],
        "run_id": run["run_id"],
        "rows": [_row([cell for cell in cells if cell["method"] == name]) for name in methods],
        "cells": cells,
        "unfinished": unfinished,
        "seconds": seconds,
    }


def _measure(folder: Path) -> dict[str, Any]:
    probes = read_journal(folder / "probes.jsonl")
    problems = read_journal(folder / "humaneval.jsonl")
    spend = read_json(folder / "spend.json")
    if not probes or not problems:
        raise InputError(f"{folder}: spend.json is there, but not every record")
    correct = sum(problem["verdict"]["correct"] for problem in problems)
    return {
        # Sums in the order of the ids: a resumed run wrote its records in another one.
        "probe_logprob": _mean(probes, "logprob_per_token", "id"),
        "probe_rouge_l": _mean(probes, "rouge_l", "id"),
        "probes": len(probes),
        "humaneval_pass_at_1": 100 * correct / len(problems),
        "humaneval_passed": correct,
        "humaneval_problems": len(problems),
        "teacher_tokens": spend["teacher_tokens"],
        "student_tokens": spend["student_tokens"],
    }


def _mean(records: Sequence[dict[str, Any]], field: str, key: str) -> float:
    return sum(r[field] for r in sorted(records, key=lambda r: r[key])) / len(records)


def _row(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds of a method."""
    row: dict[str, Any] = {
        "method": cells[0]["method"],
        "seeds": [cell["seed"] for cell in cells if cell["seed"] is not None],
    }
    for field in cells[0]:
        if field not in ("method", "seed"):
            mean = sum(cell[field] for cell in cells) / len(cells)
            row[field] = int(mean) if mean == int(mean) and "probe_" not in field else mean
    return row


HEADER = (
    "method",
    "probe log-prob / token",
    "probe ROUGE-L",
    "HumanEval pass@1",
    "teacher tokens",
    "student tokens",
    "seconds",
)


def lines(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table's lines as text, in the order of `HEADER`."""
    result: list[tuple[str, ...]] = []
    for row in summary["rows"]:
        own = [
            seconds
            for name, seconds in summary["seconds"].items()
            if name.split("-seed")[0] == row["method"]
        ]
        is_teacher = row["method"] == TEACHER
        passed, problems = row["humaneval_passed"], row["humaneval_problems"]
        result.append(
            (
                "teacher (reference)" if is_teacher else row["method"],
                f"{row['probe_logprob']:.3f}",
                f"{row['probe_rouge_l']:.2f}",
                f"{row['humaneval_pass_at_1']:.1f} ({passed:g}/{problems})",
                "-" if is_teacher else f"{row['teacher_tokens']:,}",
                "-" if is_teacher else f"{row['student_tokens']:,}",
                f"{sum(own) / len(own):.0f}",
            )
        )
    return result


def markdown(summary: dict[str, Any]) -> str:
    """The table as Markdown, with what its columns mean."""
    rows = [HEADER, ("---", *["---:"] * (len(HEADER) - 1)), *lines(summary)]
    seeds = max((len(row["seeds"]) for row in summary["rows"]), default=0)
    probes = summary["rows"][0]["probes"] if summary["rows"] else 0
    text = [
        f"# {summary['profile']}, run {summary['run_id']}",
        "",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        f"{probes} probes; training seeds a method: {seeds}, and the figures are their means.",
        *(f"Not finished: {name}." for name in summary["unfinished"]),
        *NOTES,
    ]
    return "\n".join(text) + "\n"


def write_table(directory: Path) -> dict[str, Any]:
    """Write table.json and table.md of a run; returns the summary."""
    summary = summarize(directory)
    write_json(directory / "table.json", summary)
    write_text(directory / "table.md", markdown(summary))
    return summary


def print_table(summary: dict[str, Any]) -> None:
    """The table on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{summary['profile']}, run {summary['run_id']}")
    for i, name in enumerate(HEADER):
        table.add_column(name, justify="right" if i else "left")
    for line in lines(summary):
        table.add_row(*line)
    console = Console()
    if not console.is_terminal:
        # rich would assume 80 columns and break the cells.
        console.width = 120
    console.print(table)
    for name in summary["unfinished"]:
        console.print(f"Not finished: {name}")
