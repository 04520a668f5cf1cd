"""The share of an evaluation's wall time that isn't spent in the engine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from suite.data import DataSource
from suite.eval import EvalSettings, evaluate

ITEMS = 64
MAX_TOKENS = 128


def overhead(spec: str) -> dict[str, Any]:
    """Evaluate the first problems of HumanEval.

    Returns:
        `seconds` by step, and `share`: what prompts, records and waiting for the graders took of
        the whole.
    """
    with tempfile.TemporaryDirectory() as folder:
        # The first evaluation compiles, which belongs to neither.
        for name in ("warm", "timed"):
            results = evaluate(
                EvalSettings(spec, ("humaneval",), limit=ITEMS, max_tokens=MAX_TOKENS),
                DataSource(),
                Path(folder) / name,
            )
    (seconds,) = results["tasks"]["humaneval"]["seconds"]
    return {"seconds": seconds, "share": 1 - seconds["generation"] / seconds["all"]}
