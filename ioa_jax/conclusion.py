"""What came of a run, in a sentence or two: the last line, the page's first and the card's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN_CHARACTERS = 300


def conclusion(record: Mapping[str, Any]) -> str:
    """What came out, or why nothing was taught.

    Args:
        record: record.json, but for the conclusion.
    """
    match record["outcome"]["verdict"]:
        case "nothing_to_teach":
            return f"Nothing was taught: {_nothing_lacking(record)}"
        case "no_examples":
            return f"Nothing was taught: {_no_examples(record)}"
        case _:
            return f"{_change(record)}{_against_baseline(record)}"


def _nothing_lacking(record: Mapping[str, Any]) -> str:
    performance = record["performance"].values()
    student, teacher = (
        sum(module[who] for module in performance) / len(performance)
        for who in ("before", "teacher")
    )
    tau_gap = record["config"]["diagnose"]["tau_gap"]
    text = (
        f"no module is deficient. The mean over {len(performance)} modules is {student:.3f} for "
        f"the student and {teacher:.3f} for the teacher, and no gap is above tau_gap ({tau_gap:g})."
    )
    if record["set_aside"]:
        text += f" The teacher can't teach {', '.join(record['set_aside'])}."
    return text


def _no_examples(record: Mapping[str, Any]) -> str:
    most = record["most_rejected"]
    if most is None:
        return (
            "the teacher's budget ended before its first example. Raise budget.teacher_tokens, or "
            "spend less on probes (diagnose.gate_probe_share)."
        )
    return (
        f"no example of the teacher could be used. {most['count']} of "
        f"{sum(record['rejects'].values())} were rejected as {most['reason']}, such as this one of "
        f"{most['module']} ({most['detail']}):\n{most['example']}"
    )


def _change(record: Mapping[str, Any]) -> str:
    outcome = record["outcome"]
    interval = f"95 % interval of the change {outcome['low']:+.3f} to {outcome['high']:+.3f}"
    before, trained = f"{outcome['before']:.3f}", f"{outcome['trained']:.3f}"
    modules = f"over {len(record['performance'])} modules"
    kept = "it is given back as it was"
    if outcome["is_worse"]:
        if outcome["share"] > 0:
            kept = "what was trained is given back all the same (organizer.keep: last)"
        return (
            f"Training made the student worse: the mean {modules} fell from {before} to {trained} "
            f"({interval}); {kept}."
        )
    if outcome["share"] == 0:
        return (
            f"Training didn't make the student better: the mean {modules} is {trained}, and was "
            f"{before} ({interval}); {kept}."
        )
    return f"The student's mean {modules} was {before} and is {outcome['after']:.3f} ({interval})."


def _against_baseline(record: Mapping[str, Any]) -> str:
    if record["baseline"] is None:
        return ""
    mean, after = record["baseline"]["mean"], record["outcome"]["after"]
    if after < mean:
        return (
            f" That is below plain fine-tuning on the same seeds, which has {mean:.3f}: this run "
            "was not worth its teacher."
        )
    return f" Plain fine-tuning on the same seeds has {mean:.3f}."


def module_rows(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The last table of a run: (module, what became of it, teacher, before, after, baseline).

    The last row has the means; the baseline is empty where there is none.
    """
    performance, baseline = record["performance"], record["baseline"]
    excluded = {one["module"] for one in record["excluded"]}
    states = {module: "retained" for module in record["retained"]["modules"]}
    states |= {module: "taught" for module in record["taught"]}
    states |= {module: "excluded" for module in excluded if module not in record["taught"]}
    rows: list[tuple[str, ...]] = []
    figures: list[list[float]] = []
    for module, values in performance.items():
        own = [values[name] for name in ("teacher", "before", "after")]
        own += [] if baseline is None else [baseline["performance"][module]]
        figures.append(own)
        rows.append((module, states.get(module, ""), *_written(own)))
    means = [math.fsum(column) / len(column) for column in zip(*figures, strict=True)]
    return [*rows, ("mean", "", *_written(means))]


def _written(figures: Sequence[float]) -> tuple[str, ...]:
    """Of three or four figures; the fourth is empty where it is missing."""
    return tuple(f"{figure:.3f}" for figure in figures) + ("",) * (4 - len(figures))
