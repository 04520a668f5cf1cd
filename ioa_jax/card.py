"""The model card of a distilled student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ioa_jax.conclusion import module_rows
from ioa_jax.config import DistillConfig


def model_card(config: DistillConfig, record: Mapping[str, Any], seeds: int) -> str:
    """Text of a README.md that the Hugging Face hub reads.

    Args:
        config: Of the run.
        record: Its record.json.
        seeds: Number of seed items.
    """
    header = {
        "library_name": "transformers",
        "base_model": config.student.spec,
        "tags": ["distillation", "ioa", "jax"],
    }
    learnt = record["outcome"]["share"] > 0 and not record["outcome"]["is_worse"]
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False).strip()}\n---",
        "# A student distilled by IOA" if learnt else "# A student that IOA didn't improve",
        record["conclusion"],
        _facts(config, record, seeds),
        "## What it learnt" if learnt else "## What was measured",
        f"The mean over held-out tasks of each module, by the scorer `{record['scorer']}`; the "
        "baseline is plain fine-tuning on the seeds' references.",
        _markdown(("module", "", "teacher", "before", "after", "SFT baseline"), module_rows(record))
        if record["baseline"]
        else _markdown(
            ("module", "", "teacher", "before", "after"), [row[:5] for row in module_rows(record)]
        ),
        f"{_order(record)} {_gates(record)}",
        "## What it cost",
        _cost(config, record),
        "## What to know before using it",
        "It was taught on text that a model wrote. Examples were verified as the run's record "
        "says, checked for overlap with the benchmark items that the run was given, and measured "
        "on tasks like the seeds alone: nothing is known about safety, bias, or skills outside the "
        "modules above.",
    ]
    return "\n\n".join(parts) + "\n"


def _facts(config: DistillConfig, record: Mapping[str, Any], seeds: int) -> str:
    licences, retained = config.licences, record["retained"]
    layers = config.student.keep_layers
    kept = "" if layers is None else f", of which {layers} layers were kept"
    rows = (
        ("student", f"{config.student.spec}{kept}; {record['student']['parameters']:,} parameters"),
        ("teacher", f"{config.teacher.spec} (`{record['teacher']}`)"),
        (
            "taught",
            f"{record['lessons']:,} examples that the teacher wrote from {seeds:,} seed tasks, and "
            f"{record['references']:,} references of these",
        ),
        (
            "retained",
            f"{', '.join(retained['modules']) or 'no module'}; {retained['examples']:,} examples",
        ),
        (
            "method",
            f"IOA, stage mode `{config.organizer.stage_mode}`; all settings are in record.json",
        ),
        ("licence of the student's weights", licences.student),
        ("terms on the teacher's output", licences.teacher),
        ("licence of the seeds", licences.seeds),
    )
    return _markdown(("", ""), rows)


def _order(record: Mapping[str, Any]) -> str:
    if record["order"] == "dependencies":
        return "The order of the stages follows the dependencies that were found."
    return (
        "No dependency between modules was found: the graph is empty, and the stages begin with "
        "what the student knew best."
    )


def _gates(record: Mapping[str, Any]) -> str:
    gates = record["gates"]
    modules = gates["end"]
    parked = ", ".join(record["parked"]) or "none"
    return (
        f"{sum(gates['stages_end'].values())} of {gates['stages']} stages, and "
        f"{sum(modules.values())} of {len(modules)} modules, passed their mastery gate in the end. "
        f"Given up: {parked}."
    )


def _cost(config: DistillConfig, record: Mapping[str, Any]) -> str:
    spend = record["spend"]
    prices = config.teacher.prices
    head = ["purpose", "teacher calls", "prompt tokens", "generated tokens"]
    rows = [
        [
            purpose,
            f"{used['calls']:,}",
            f"{used['prompt_tokens']:,}",
            f"{used['completion_tokens']:,}",
            *([] if prices is None else [f"{used['cost'] or 0:.4f}"]),
        ]
        for purpose, used in spend["teacher"].items()
    ]
    if prices is not None:
        head.append(f"cost, {prices.currency}")
    return (
        f"{_markdown(head, rows)}\n\nThe student was trained on {spend['student_tokens']:,} tokens"
        f", {spend['student_tokens_of_interventions']:,} more for dependencies."
    )


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
