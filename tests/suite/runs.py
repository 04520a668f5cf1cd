"""Writes run folders with known effects, without a model."""

import json
import shutil
from pathlib import Path

import numpy as np

from ioa_jax.files import read_json, write_json
from suite.cells import settings_digest

# What a method adds to the chance of a right answer of the undistilled student.
EFFECTS = {"undistilled": 0.0, "sft": 0.15, "sft_matched": 0.2, "ioa": 0.35, "ioa_no_gate": 0.3}
MODULES = (
    "arithmetic/addition",
    "arithmetic/multiplication",
    "arithmetic/division",
    "algebra/linear-equation",
)
SEED_SPREAD = 0.02
INTERVENTIONS = 1000  # tokens that a diagnosis trained on


def write_run(
    directory: Path,
    items: int = 120,
    seeds=(0, 1, 2),
    effects=EFFECTS,
    profile: str = "test",
    tasks=("micro-math", "micro-instruct"),
    distill: bool = True,
    curves: bool = True,
    sweeps=(),
    shift: float = 0.0,
    draw: int = 0,
    environments=None,
) -> Path:
    """A complete run: micro-math is right or wrong, all other tasks have scores in between.

    Args:
        directory: The run's folder.
        items: Of each task.
        seeds: Of each method.
        effects: By method, in probability.
        profile: Name.
        tasks: Names.
        distill: Whether `ioa` and its controls have their folder.
        curves: Whether scores were measured during training.
        sweeps: (method, setting, value, default, effect) of methods with one setting changed.
        shift: Added to every student's probability.
        draw: Seed of the luck.
        environments: What run.json says of them; None is one.
    """
    methods = {**effects}
    notes = {}
    for of, setting, value, default, effect in sweeps:
        name = f"{of}@{setting}={value}"
        methods[name] = effect
        notes[name] = {"sweep": {"of": of, "setting": setting, "value": value, "default": default}}
    settings = {
        "description": "a test",
        "methods": list(methods),
        "seeds": list(seeds),
        "train": {"learning_rate": 1e-3},
    }
    write_json(
        directory / "run.json",
        {
            "version": 3,
            "profile": profile,
            "run_id": directory.name,
            "created": "2026-01-02T03:04:05+00:00",
            "status": "complete",
            "settings": settings,
            "settings_sha256": settings_digest(settings),
            "environments": environments or [environment()],
            "models": {"teacher": {"spec": "t", "parameters": 10}, "student": {"spec": "s"}},
            "tasks": [
                {
                    "name": task,
                    "version": 1,
                    "metric": "accuracy" if task == "micro-math" else "rouge_l",
                    "higher_is_better": True,
                    "items": items,
                }
                for task in tasks
            ],
            "sandbox": None,
        },
    )
    write_cell(directory, "teacher", None, 0.5, items, tasks, draw=draw)
    for number, (method, effect) in enumerate(methods.items()):
        for seed in (None,) if method == "undistilled" else seeds:
            cell = write_cell(
                directory,
                method,
                seed,
                effect + shift,
                items,
                tasks,
                number=number,
                draw=draw,
                notes=notes.get(method),
                distill=distill,
            )
            if curves and method != "undistilled":
                write_curve(cell, effect, tasks, items)
            if distill and method.startswith("ioa"):
                write_distill(cell / "distill", seed or 0)
    return directory


def change_settings(directory, change) -> Path:
    """Have `change` change a run's settings, as if it had been made with these."""
    record = read_json(directory / "run.json")
    change(record["settings"])
    record["settings_sha256"] = settings_digest(record["settings"])
    write_json(directory / "run.json", record)
    return directory


def environment(**changes) -> dict:
    """As ioa_jax.record gives it."""
    return {
        "python": "3.11.9",
        "packages": {"jax": "0.10.2", "numpy": "2.4.0"},
        "cpu": {"model": "A CPU", "cores": 2},
        "devices": {"platform": "cpu", "kind": "cpu", "count": 1},
        "variables": {},
        "git": {"revision": "0123456789abcdef", "dirty": False},
        "lock_sha256": "a" * 64,
        **changes,
    }


def write_cell(
    directory, method, seed, effect, items, tasks, number=99, draw=0, notes=None, distill=False
) -> Path:
    """A cell whose items have difficulties of their own, the same for every method."""
    name = method if seed is None else f"{method}-seed{seed}"
    folder = directory / "cells" / name
    lines = []
    for t, task in enumerate(tasks):
        difficulty = np.random.default_rng([1, t]).uniform(-0.2, 0.2, items)
        luck = np.random.default_rng([2, draw, number, seed or 0, t])
        chance = np.clip(0.4 + effect + difficulty + luck.normal(0, SEED_SPREAD), 0, 1)
        # The same items are hard for all: an item's own threshold is most of its luck.
        threshold = np.random.default_rng([3, t]).uniform(0, 1, items)
        threshold = np.where(luck.uniform(size=items) < 0.2, luck.uniform(size=items), threshold)
        for i in range(items):
            right = bool(threshold[i] < chance[i])
            binary = task == "micro-math"
            score = float(right) if binary else round(float(chance[i]) * (0.8 + 0.2 * right), 6)
            lines.append(
                {
                    "task": task,
                    "id": f"{task}-{i:03}",
                    "module": MODULES[i % len(MODULES)],
                    "score": score,
                    "correct": right if binary else None,
                    "logprob": round(float(np.log(0.05 + 0.9 * chance[i])), 6),
                }
            )
    write_lines(folder / "scores.jsonl", lines)
    write_json(
        folder / "cell.json",
        {
            "method": method,
            "seed": seed,
            "status": "complete",
            "error": None,
            "spend": write_spend(folder, method, distill),
            "notes": notes or {},
        },
    )
    return folder


def write_spend(folder, method, distill) -> dict:
    """A cell's calls and steps: 5,000 tokens generated, 60,000 trained on, if it was trained."""
    if method == "teacher":
        return {"seconds": {"evaluation": 9.0}}
    # Of each purpose the calls, and the tokens of a call; of each part the steps, of 1,000 tokens.
    purposes, parts, further = {"answer": (100, 40, 50)}, {"all": 60}, 0
    seconds = {"training": 80.25, "method": 92.75, "evaluation": 9.0}
    if method == "undistilled":
        purposes, parts = {}, {}
        seconds = {"training": 0.0, "method": 0.0, "evaluation": 9.0}
    elif method.startswith("ioa"):
        purposes = {
            "decompose": (4, 200, 100),
            "synthesis": (76, 110, 50),
            "verification": (20, 100, 40),
        }
        parts = {"stage-01": 20, "stage-02": 25, "stage-02-remedial-1": 10, "consolidation": 4}
        # Only the method's own folder says what the interventions took.
        further = INTERVENTIONS if distill else 0
        parts["consolidation"] += 0 if distill else 1
        seconds = {"synthesis": 12.5, **seconds}
    calls = [
        {
            "key": f"{purpose}-{i}",
            "purpose": purpose,
            "usage": {
                "calls": 1,
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "cost": None,
            },
        }
        for purpose, (number, prompt, completion) in purposes.items()
        for i in range(number)
    ]
    write_lines(folder / "teacher.jsonl", calls)
    write_lines(
        folder / "train.jsonl",
        [
            {"part": part, "step": step, "tokens": 1000}
            for part, number in parts.items()
            for step in range(1, number + 1)
        ],
    )
    by_part = {part: 1000 * number for part, number in parts.items()}
    return {
        "teacher_tokens": sum(call["usage"]["completion_tokens"] for call in calls),
        "teacher_requests": len(calls),
        "by_purpose": {
            purpose: {
                "calls": number,
                "prompt_tokens": number * prompt,
                "completion_tokens": number * completion,
            }
            for purpose, (number, prompt, completion) in purposes.items()
        },
        "student_tokens": sum(by_part.values()) + further,
        "student_tokens_by_part": by_part | ({"further": further} if further else {}),
        "steps": sum(parts.values()),
        "seconds": seconds,
    }


def write_curve(cell, effect, tasks, items) -> None:
    write_lines(
        cell / "curve.jsonl",
        [
            {
                "student_tokens": 15000 * k,
                "teacher_tokens": 1250 * k,
                "task": task,
                "score": round(0.4 + effect * k / 4, 4),
                "items": 40,
            }
            for k in range(1, 5)
            for task in tasks
        ],
    )
    for k in range(1, 5):
        for task in tasks:
            rows = [{"id": f"{task}-{i:03}", "sample": 0, "text": "?"} for i in range(0, items, 3)]
            write_lines(cell / "curve" / str(15000 * k) / task / "texts.jsonl", rows)


def write_lines(path, lines) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def diagnosis(seed, before, edges, targets) -> dict:
    """Of modules of which the teacher can 0.95."""
    gaps = {module: (0.95 - value) / 0.95 for module, value in before.items()}
    return {
        "seed": seed,
        "tau_gap": 0.3,
        "decomposition": {
            "requested": "metadata",
            "decomposer": "given",
            "fallback_reason": None,
            "assignment": "given",
            "taxonomy": {"modules": []},
            **{name: {} for name in ("modules", "roles", "margins")},
            **{name: [] for name in ("merged", "unassigned", "shown")},
            "proposals": 0,
            "valid_proposals": 0,
        },
        "measurement": {
            "scorer": "accuracy",
            "teacher": {},
            "student": {},
            "unit": None,
            "logprob": [],
            "rank_correlation": {},
        },
        "gaps": [
            {
                "module": module,
                "scorer": "accuracy",
                "num_probes": 20,
                "teacher": 0.95,
                "student": before[module],
                "relative": gap,
                "interval": {"low": gap - 0.1, "high": gap + 0.1, "undefined": 0.0},
            }
            for module, gap in gaps.items()
        ],
        "set_aside": [],
        "deficient": sorted(module for module, gap in gaps.items() if gap > 0.3),
        "dependencies": {
            "estimator": "interventions",
            "population": None,
            "dependencies": [],
            "graph": {
                "modules": sorted(before),
                "edges": [
                    {
                        "prerequisite": a,
                        "dependent": b,
                        "value": 0.5,
                        "estimator": "population",
                        "num_high": 3,
                        "num_low": 3,
                    }
                    for a, b in sorted(edges)
                ],
                "dropped": [],
            },
            "student_tokens": INTERVENTIONS,
        },
        "targets": {"modules": targets, "limit": 2, "severities": []},
    }


def write_distill(folder: Path, seed: int) -> None:
    """Two stages: the first passes its gate at once, the second after a remedial round."""
    add, multiply, linear, quadratic = MODULES
    edges = [(add, multiply), (multiply, linear), *([(linear, quadratic)] if seed == 0 else [])]
    targets = [multiply, linear] if seed < 2 else [linear]
    before = {add: 0.9, multiply: 0.5, linear: 0.2, quadratic: 0.7}
    after = {add: 0.85, multiply: 0.92, linear: 0.88, quadratic: 0.7}
    write_json(folder / "diagnosis.json", diagnosis(seed, before, edges, targets))
    stages = [
        {"number": 1, "modules": [multiply], "performance": 0.5, "bridge": None},
        {"number": 2, "modules": [linear], "performance": 0.2, "bridge": None},
    ]
    zone = {"settings": {}, "transitions": [], "splits": [], "bridges": []}
    write_json(
        folder / "curriculum.json",
        [{"round": 1, "stages": stages[i:], "placements": [], "zone": zone} for i in range(3)],
    )
    write_lines(
        folder / "gates.jsonl",
        [
            gate(1, 0, multiply, 0.95, True),
            gate(2, 0, linear, 0.6, False),
            gate(2, 1, linear, 0.93, True),
        ],
    )
    write_json(
        folder / "retention.json",
        {
            "modules": sorted(MODULES),
            "stages": [0, 1, 2],
            "ratios": [
                [round(values[module] / 0.95, 4) for module in sorted(MODULES)]
                for values in (before, {**before, multiply: 0.95, add: 0.93}, after)
            ],
        },
    )
    for part, student, teacher in (
        ("stage-01", 0, 400),
        ("stage-02", 20000, 2000),
        ("stage-02-remedial-1", 45000, 4000),
    ):
        write_json(
            folder / "parts" / part / "limits.json",
            {"student_from": student, "student_to": 1, "teacher_from": teacher, "teacher_to": None},
        )
    write_json(
        folder / "record.json",
        {
            "scorer": "accuracy",
            "spend": {
                "student_tokens_by_part": {
                    "stage-01": 20000,
                    "stage-02": 25000,
                    "stage-02-remedial-1": 10000,
                    "consolidation": 4000,
                }
            },
            "performance": {
                module: {"teacher": 0.95, "before": before[module], "after": after[module]}
                for module in MODULES
            },
            "parked": [],
            "rejects": {"schema": 3, "check_failed": 5},
            "lessons": 80,
        },
    )


def teach_from_pool(folder: Path) -> None:
    """Change a cell's folder to what a first pass through all stages leaves."""
    distill = folder / "distill"
    _, multiply, linear, _ = MODULES
    shutil.rmtree(distill / "parts")
    for part, student, teacher in (("examples", 0, 400), ("late", 20000, 4000)):
        write_json(
            distill / "parts" / part / "limits.json",
            {"student_from": student, "student_to": 1, "teacher_from": teacher, "teacher_to": None},
        )
    write_lines(
        distill / "gates.jsonl",
        [
            gate(stage, number, module, ratio, ratio > 0.9)
            for number, ratios in enumerate(((0.8, 0.6), (0.85, 0.7), (0.95, 0.8)))
            for stage, module, ratio in ((1, multiply, ratios[0]), (2, linear, ratios[1]))
        ],
    )
    record = read_json(distill / "record.json")
    record["config"] = {"organizer": {"stage_mode": "pooled", "first_pass_share": 0.3}}
    by_part = {"stage-01": 10000, "stage-02": 10000, "consolidation": 39000}
    record["spend"]["student_tokens_by_part"] = by_part
    write_json(distill / "record.json", record)


def teach_nothing(folder: Path) -> None:
    """Change a cell's folder to what a run leaves whose teacher gave no usable example."""
    teach_from_pool(folder)
    distill = folder / "distill"
    shutil.rmtree(distill / "parts")
    write_lines(distill / "gates.jsonl", [])
    matrix = read_json(distill / "retention.json")
    matrix |= {"stages": [0], "ratios": matrix["ratios"][:1]}
    write_json(distill / "retention.json", matrix)
    record = read_json(distill / "record.json")
    record["spend"]["student_tokens_by_part"] = {}
    record |= {"lessons": 0, "rejects": {"check_failed": 8}}
    write_json(distill / "record.json", record)


def gate(stage, remedial_round, module, ratio, passed) -> dict:
    return {
        "stage": stage,
        "remedial_round": remedial_round,
        "modules": [{"module": module, "ratio": ratio, "mastered": passed}],
        "minimum": ratio,
        "passed": passed,
        "weak": [] if passed else [module],
        "parked": [],
        "action": "advance" if passed else "remediate",
    }


def change_lines(path: Path, change) -> None:
    """Apply `change` to each line of a JSONL file; None drops it."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, [line for line in map(change, lines) if line is not None])
