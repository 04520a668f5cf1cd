"""The model card of a distilled student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ioa_jax.config import DistillConfig


def model_card(config: DistillConfig, record: Mapping[str, Any], seeds: int) -> str:
    """Text of a README.md that the Hugging Face hub reads.

    Args:
        config: Of the run.
        record: Its record.json.
        seeds: Number of seed items.
    """
    licences = config.licences
    header = {
        "library_name": "transformers",
        "base_model": config.student.spec,
        "tags": ["distillation", "ioa", "jax"],
    }
    spend = record["spend"]
    teacher_tokens = sum(used["completion_tokens"] for used in spend["teacher"].values())
    gates = record["gates"]
    rows = [
        f"| {module} | {values['teacher']:.3f} | {values['before']:.3f} | {values['after']:.3f} |"
        for module, values in record["performance"].items()
    ]
    layers = config.student.keep_layers
    kept = "" if layers is None else f", of which {layers} layers were kept"
    parked = ", ".join(record["parked"]) or "none"
    return f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---

# A student distilled by IOA

| | |
|---|---|
| student | {config.student.spec}{kept}; {record["student"]["parameters"]:,} parameters |
| teacher | {config.teacher.spec} (`{record["teacher"]}`) |
| data | {record["lessons"]} lessons that the teacher wrote from {seeds} seed tasks |
| method | IOA, stage mode `{config.organizer.stage_mode}`; all settings are in record.json |
| spent | {teacher_tokens:,} teacher tokens, {spend["student_tokens"]:,} student tokens |
| licence of the student's weights | {licences.student} |
| terms on the teacher's output | {licences.teacher} |
| licence of the seeds | {licences.seeds} |

## What it learnt

The mean over held-out seed tasks of each module, by the scorer `{record["scorer"]}`.

| module | teacher | before | after |
|---|---|---|---|
{chr(10).join(rows)}

{gates["stages"]} stages; {gates["passed_at_once"]} passed the mastery gate at once, \
{gates["passed_after_remediation"]} after remediation. Given up: {parked}.

## What to know before using it

It was taught on text that a model wrote. Lessons were verified as the run's record says, checked \
for overlap with the benchmark items that the run was given, and measured on seed tasks alone: \
nothing is known about safety, bias, or skills outside the modules above.
"""
