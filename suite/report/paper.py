"""What the paper reports, to stand beside a run of its models: its numbers, not ours.

He et al., ICLR 2026, arXiv 2602.12172: teacher o1, student Qwen2.5-3B. Shots, temperature and
extraction of its evaluation aren't public, and it gives neither seeds nor intervals.
"""

from __future__ import annotations

from ioa_jax.report.page import View
from suite.report.tables import label, percent
from suite.schema.models import TableFile

PROFILE = "paper-qwen2.5-3b"  # the student that these numbers are of
METHODS = ("undistilled", "Self-Instruct", "MADA", "IOA")
SCORES = {
    "dolly": (25.37, 32.18, 36.42, 38.16),
    "gsm8k": (37.24, 43.69, 52.04, 55.79),
    "math": (5.79, 7.12, 13.15, 15.53),
    "humaneval": (22.46, 25.63, 33.39, 40.64),
    "mbpp": (31.58, 36.27, 42.18, 47.86),
}


def paper_view(table: TableFile) -> View | None:
    """The paper's numbers with ours below; None where the profile isn't the paper's, or no task is
    one of the paper's.
    """
    ours = {task.name for task in table.tasks}
    tasks = [task for task in SCORES if task in ours]
    if table.profile != PROFILE or not tasks:
        return None
    rows = [
        (f"paper: {method}", *(f"{SCORES[task][i]:.2f}" for task in tasks))
        for i, method in enumerate(METHODS)
    ]
    rows += [
        (f"ours: {label(row.method)}", *(percent(row.scores[task]) for task in tasks))
        for row in table.rows
    ]
    return View(
        "paper",
        "Beside the paper's own numbers",
        ("method", *tasks),
        tuple(rows),
        (
            "Rows marked paper: are what He et al. (ICLR 2026, arXiv 2602.12172) report for "
            "Qwen2.5-3B taught by o1, single numbers without seeds or intervals. They weren't "
            "measured here: shots, temperature and extraction of that evaluation aren't public. "
            "MADA can't be identified from public sources.",
            "Rows marked ours: are this run's, with 95 % intervals.",
        ),
    )
