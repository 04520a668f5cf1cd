"""IOA: Identifier, Organizer and Adapter, as `ioa_jax.distill` runs them.

Paper: He et al., 2026 (arXiv 2602.12172).
Loop: find what the student lacks, order it by what depends on what, and teach it stage by stage
with examples made for the student; keep what it can do already.
Departures: those that `ioa_jax` names as its own; every one is an option and stands in the cell's
distill/record.json. `ioa_paper` is the paper read literally, but for the population of Eq. 3:
`dependencies.estimator` chooses there too, and under small budgets takes the teacher's word alone,
since adapters by which dependencies are found train on the student's budget.

Controls are the same run with some settings changed (`suite.methods.controls`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ioa_jax.config import MethodConfig
from ioa_jax.distillation import distill
from ioa_jax.files import read_json
from ioa_jax.settings import check_settings, merge_settings
from suite.methods.base import Method, MethodContext, MethodResult
from suite.profile import Profile

Settings = Mapping[str, Any]


class IOA:
    """The method under the profile's `options`, with a control's changes over them."""

    needs: tuple[str, ...] = ()

    def __init__(self, summary: str, changes: Settings | None = None) -> None:
        """`changes`: by section of `ioa_jax.config.MethodConfig`."""
        self.summary = summary
        self.changes = changes or {}

    def config(self, given: MethodContext | Profile) -> MethodConfig:
        """A cell's settings, as `make_config`."""
        return make_config(given, self.changes)

    def run(self, context: MethodContext) -> MethodResult:
        directory = context.directory / "distill"
        result = distill(
            context.student,
            context.teacher,
            context.seeds,
            self.config(context),
            directory,
            benchmarks=context.benchmarks(),
            on_step=context.on_step,
            shared=context.shared,
            graders=context.graders,
        )
        record = read_json(directory / "record.json")
        return MethodResult(
            result.student,
            {
                name: record[name]
                for name in ("lessons", "references", "retained", "rejects", "gates", "outcome")
            },
            further_student_tokens=record["spend"]["student_tokens_of_interventions"],
        )


def make_config(given: MethodContext | Profile, changes: Settings) -> MethodConfig:
    """The cell's settings: what all methods share, the profile's options, a control's changes.

    Args:
        given: A profile alone leaves the seed at its default, since it is the cell's.
        changes: By section of `ioa_jax.config.MethodConfig`.

    Raises:
        InputError: The profile's options don't fit.
    """
    train = given.train
    shared: dict[str, Any] = {
        "budget": {
            "teacher_tokens": given.budgets.teacher_tokens,
            "student_tokens": given.budgets.student_tokens,
        },
        "train": train.model_dump(mode="json"),
        "diagnose": {
            "decompose": {"pack": given.pack},
            "measure": {
                "max_tokens": given.sampling.max_tokens,
                "allow_weak_sandbox": given.sandbox.allow_weak,
            },
            "dependencies": {"row_length": train.row_length, "batch_rows": train.batch_rows},
        },
        "adapter": {"pack": given.pack},
    }
    if isinstance(given, MethodContext):
        shared["seed"] = given.seed
    merged = merge_settings(merge_settings(shared, given.options), changes)
    return check_settings(MethodConfig, merged, "options")


METHOD: Method = IOA("Identifier, Organizer and Adapter")
