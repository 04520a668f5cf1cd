"""Controls of IOA: the same run with some settings changed, so that each part is held to account.

Paper: He et al., 2026 (arXiv 2602.12172), and what its reviewers asked for.
"""

from __future__ import annotations

from typing import Any

from ioa_jax.adapter.dimensions import PLAIN

# By name: what it is, and its changes by section of `ioa_jax.config.MethodConfig`.
CONTROLS: dict[str, tuple[str, dict[str, Any]]] = {
    "ioa_paper": (
        "IOA as the paper reads: full JSON, easiest first, strictly sequential stages",
        {
            "diagnose": {
                "tau_gap": 0.3,
                "target_fraction": 0.25,
                "min_teacher_performance": 0.0,
                "min_gate_probes": 1,
            },
            "organizer": {
                "stage_mode": "sequential",
                "gate": "literal",
                "max_stage_modules": None,
                "references": False,
                "retention": {"kind": "off"},
                "keep": "last",
            },
            "adapter": {
                "protocol": "schema",
                "level_order": "easy_first",
                "styled_share": 1.0,
                "form_by_student": False,
            },
        },
    ),
    "ioa_uniform": (
        "IOA spread over all modules: what targeting is worth",
        {"diagnose": {"tau_gap": -1e6}},
    ),
    "ioa_no_identifier": (
        "IOA on half of random modules: what finding them is worth",
        {
            "diagnose": {
                # Each of them has about the mean gap, which may be under any threshold.
                "tau_gap": -1e6,
                "target_fraction": 0.5,
                "decompose": {"decomposer": "random"},
            }
        },
    ),
    "ioa_no_retention": (
        "IOA without retention: what it forgets",
        {"organizer": {"retention": {"kind": "off"}}},
    ),
    "ioa_replay": (
        "IOA that replays the references of mastered modules instead of self-distillation",
        {"organizer": {"retention": {"kind": "replay"}}},
    ),
    "ioa_no_references": (
        "IOA without the references of the taught modules' seeds",
        {"organizer": {"references": False}},
    ),
    "ioa_schema": (
        "IOA whose teacher writes the full JSON: what the lean protocol is worth",
        {"adapter": {"protocol": "schema"}},
    ),
    "ioa_easy_levels": (
        "ioa_schema with every seed's easiest level before any seed's next one",
        {"adapter": {"protocol": "schema", "level_order": "easy_first"}},
    ),
    "ioa_no_adapter": (
        "IOA in the teacher's plain style, at the seeds' own difficulty: what the five dimensions "
        "are worth",
        {
            "adapter": {
                "dimensions": PLAIN.model_dump(exclude={"template"}),
                "form_by_student": False,
                "levels": {"introductory": 0.0, "intermediate": 1.0, "advanced": 0.0},
            }
        },
    ),
    "ioa_no_zone": (
        "IOA with the layers of Eq. 7 as they are, without Eq. 8",
        {"organizer": {"zone": False}},
    ),
    "ioa_no_gate": (
        "IOA whose late examples go to all modules alike: what gates are worth",
        {"organizer": {"gate": "off"}},
    ),
    "ioa_no_late": (
        "IOA that writes all examples before training",
        {"organizer": {"late_share": 0.0}},
    ),
    "ioa_no_stages": (
        "IOA that trains on everything at once: what the pass through the stages is worth",
        {"organizer": {"first_pass_share": 0.0}},
    ),
}
