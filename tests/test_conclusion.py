"""What a run says of itself: the last line, the card, the table and what it would have cost."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from ioa_jax.card import model_card
from ioa_jax.commands.distill import Estimate, estimate
from ioa_jax.conclusion import conclusion, module_rows
from ioa_jax.config import DistillConfig
from tests.distill_world import SEEDS, write_seeds

RECORD: dict[str, Any] = {
    "scorer": "accuracy",
    "config": {"diagnose": {"tau_gap": 0.28}},
    "student": {"parameters": 1234},
    "teacher": "cook-1",
    "outcome": {
        "verdict": "taught",
        "before": 0.25,
        "after": 0.75,
        "trained": 0.75,
        "low": 0.25,
        "high": 0.625,
        "share": 1.0,
        "is_worse": False,
    },
    "order": "performance",
    "set_aside": [],
    "spend": {
        "teacher": {
            "synthesis": {
                "calls": 12,
                "prompt_tokens": 1000,
                "completion_tokens": 345,
                "cost": 0.5,
            }
        },
        "student_tokens": 12000,
        "student_tokens_of_interventions": 0,
    },
    "gates": {"stages": 1, "stages_end": {"1": True}, "end": {"a/x": True}},
    "parked": [],
    "excluded": [],
    "rejects": {},
    "most_rejected": None,
    "taught": ["a/x"],
    "lessons": 40,
    "references": 8,
    "retained": {"modules": ["a/y"], "examples": 12, "written": 8},
    "performance": {
        "a/x": {"teacher": 1.0, "before": 0.0, "after": 0.75, "probes": 4},
        "a/y": {"teacher": 1.0, "before": 0.5, "after": 0.75, "probes": 4},
    },
    "baseline": {"mean": 0.5, "performance": {"a/x": 0.375, "a/y": 0.625}},
}


def record(outcome: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    changed = {**copy.deepcopy(RECORD), **changes}
    changed["outcome"] |= outcome or {}
    changed["conclusion"] = conclusion(changed)
    return changed


WORSE = {"after": 0.25, "trained": 0.125, "low": -0.25, "high": -0.0625, "is_worse": True}
REJECTED = {
    "reason": "check_failed",
    "count": 7,
    "module": "a/x",
    "detail": "solved independently 16",
    "example": "How many cups fill box 15?",
}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (record(), ["0.250", "0.750", "+0.250 to +0.625", "seeds has 0.500."]),
        (record(baseline=None), ["was 0.250 and is 0.750"]),
        (record(baseline={**RECORD["baseline"], "mean": 0.875}), ["below", "0.875", "not worth"]),
        (record({**WORSE, "share": 0.0}), ["worse", "0.250 to 0.125", "given back as it was"]),
        (record({**WORSE, "share": 1.0, "after": 0.125}), ["worse", "all the same", "keep: last"]),
        (
            record({"after": 0.25, "trained": 0.24, "low": -0.1, "high": 0.1, "share": 0.0}),
            ["didn't make the student better", "as it was"],
        ),
        (
            record({"verdict": "nothing_to_teach"}, set_aside=["a/z"]),
            ["Nothing was taught", "no module is deficient", "0.28", "can't teach a/z"],
        ),
        (
            record({"verdict": "no_examples"}, rejects={"check_failed": 7, "duplicate": 2},
                   most_rejected=REJECTED),
            ["7 of 9", "check_failed", "a/x", "solved independently 16", "fill box 15?"],
        ),
        (record({"verdict": "no_examples"}), ["budget ended before its first example"]),
    ],
)  # fmt: skip
def test_the_conclusion_says_what_came_out(given: dict[str, Any], words: list[str]) -> None:
    for word in words:
        assert word in given["conclusion"]


def test_only_what_was_below_the_baseline_is_said_to_be() -> None:
    assert "below" not in record()["conclusion"]
    assert "below" not in record(baseline={**RECORD["baseline"], "mean": 0.75})["conclusion"]


def test_the_table_has_every_module_and_the_means() -> None:
    excluded = [{"module": "a/y", "reason": "length", "example": "", "calls": 3}]
    retained = {"modules": [], "examples": 0, "written": 0}
    assert module_rows(record(excluded=excluded, retained=retained)) == [
        ("a/x", "taught", "1.000", "0.000", "0.750", "0.375"),
        ("a/y", "excluded", "1.000", "0.500", "0.750", "0.625"),
        ("mean", "", "1.000", "0.250", "0.750", "0.500"),
    ]
    assert [row[-1] for row in module_rows(record(baseline=None))] == ["", "", ""]


def config(folder: Path, **settings: Any) -> DistillConfig:
    write_seeds(folder / "seeds.jsonl")
    return DistillConfig.model_validate(
        {
            "teacher": {"spec": "openai:cook@http://127.0.0.1/v1"},
            "student": {"spec": "tiny"},
            "seeds": str(folder / "seeds.jsonl"),
            **settings,
        }
    )


def test_the_card_has_what_was_taught_and_what_it_cost(tmp_path: Path) -> None:
    prices = {"prompt": 1, "completion": 2, "currency": "EUR", "as_of": "2026-01-01"}
    settings = config(tmp_path)
    card = model_card(settings, record(), 36)
    for words in (
        "# A student distilled by IOA\n",
        "40 examples that the teacher wrote from 36 seed tasks, and 8 references",
        "| retained | a/y; 12 examples |",
        "the graph is empty, and the stages begin with what the student knew best",
        "| a/x | taught | 1.000 | 0.000 | 0.750 | 0.375 |",
        "| synthesis | 12 | 1,000 | 345 |",
        "1 of 1 stages, and 1 of 1 modules, passed",
        "Plain fine-tuning on the same seeds has 0.500.",
    ):
        assert words in card
    priced = config(tmp_path, teacher={"spec": "smollm2", "prices": prices})
    assert "| synthesis | 12 | 1,000 | 345 | 0.5000 |" in model_card(priced, record(), 36)
    assert "follows the dependencies" in model_card(settings, record(order="dependencies"), 36)


def test_a_card_never_says_what_wasnt_learnt(tmp_path: Path) -> None:
    for outcome in ({**WORSE, "share": 0.0}, {**WORSE, "share": 1.0, "after": 0.125}):
        card = model_card(config(tmp_path), record(outcome), 36)
        assert "learnt" not in card
        assert "# A student that IOA didn't improve\n" in card
        assert "Training made the student worse" in card


def test_an_estimate_by_hand(tmp_path: Path) -> None:
    settings = config(
        tmp_path,
        diagnose={"decompose": {"max_batches": 2, "max_tokens": 100}, "min_gate_probes": 5},
        adapter={"examples_per_seed": 2, "max_tokens": 50, "max_retries": 1},
        budget={"student_tokens": 1000},
    )
    # 36 seeds of three modules: 7 are held out, 29 are kept; two attempts of each example, three of
    # each probe; without a limit of the teacher's tokens nothing is written for retention.
    found = estimate(settings)
    assert found == Estimate(
        seeds=len(SEEDS),
        modules=3,
        proposals=2 * 3,
        measured=7,
        probes=(3 * 5 - 7) * 3,
        retention_problems=0,
        examples=29 * 2 * 2,
        late_examples=29 * 2 * 2,
        solutions=2 * 116 + 24,
        teacher_tokens=6 * 100 + 7 * 512 + 256 * 50 + 256 * 512,
        student_tokens=1000,
        baseline_tokens=1000,
    )


def test_an_estimate_follows_the_settings(tmp_path: Path) -> None:
    usual = estimate(config(tmp_path))
    limited = estimate(config(tmp_path, budget={"teacher_tokens": 5000}, baseline=False))
    assert limited.teacher_tokens == 5000
    assert limited.retention_problems == 29 * 4 * 3
    assert limited.baseline_tokens == 0
    sequential = {"stage_mode": "sequential", "max_remedial_rounds": 2}
    assert estimate(config(tmp_path, organizer=sequential)).late_examples == 3 * usual.examples
    micro = estimate(config(tmp_path, adapter={"pack": "micro"}))
    assert micro.teacher_tokens > usual.teacher_tokens
    few = estimate(config(tmp_path, diagnose={"target_fraction": 0.5}))
    assert few.examples == pytest.approx(usual.examples / 2, rel=0.05)
