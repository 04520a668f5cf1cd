"""The student's steps: a stage, the consolidation, or a part alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ioa_jax.adapter.schema import Lesson, StageKind
from ioa_jax.adapter.stage import StageMaterial
from ioa_jax.engine.batching import TokenPair
from ioa_jax.organizer.curriculum import Stage
from ioa_jax.organizer.retention import Retained
from ioa_jax.run import Run, State, as_chat
from ioa_jax.steps.parts import part_name, stage_limits
from ioa_jax.steps.trainer import open_trainer


def train_stage(
    run: Run, state: State, stage: Stage, examples: StageMaterial, retained: Retained
) -> None:
    """`pooled`: the first pass, with what came before, for the stage's share of the tokens."""
    stages = state.curriculum.stages
    so_far = [m for one in stages if one.number <= stage.number for m in one.modules]
    pool = _pairs(run, examples.lessons, so_far)
    whole = _pairs(run, examples.lessons, [m for one in stages for m in one.modules])
    first = run.config.organizer.first_pass_share
    trainer = open_trainer(run, len(retained.modules))
    goal = round(trainer.budget_tokens * first * _size(pool) / max(_size(whole), 1))
    if first > 0 and pool:
        trainer.train(
            f"stage-{stage.number:02d}", pool, _retained_pairs(run, retained), until_tokens=goal
        )


def consolidate(
    run: Run, state: State, materials: Sequence[StageMaterial], retained: Retained
) -> None:
    """`pooled` [ours]: everything that there is, for the rest of the student's tokens."""
    modules = [module for stage in state.curriculum.stages for module in stage.modules]
    lessons = [lesson for material in materials for lesson in material.lessons]
    trainer = open_trainer(run, len(retained.modules))
    trainer.train("consolidation", _pairs(run, lessons, modules), _retained_pairs(run, retained))


def train_alone(
    run: Run, state: State, stage: Stage, examples: StageMaterial, kind: StageKind
) -> None:
    """`sequential`: a part's examples alone, in epochs, within the stage's share of the tokens."""
    if not examples.lessons:
        return
    pairs = _pairs(run, examples.lessons, stage.modules if kind == "stage" else ())
    if pairs:
        limits = stage_limits(run, state, stage)
        name = part_name(state, stage, kind)
        open_trainer(run, 0).train(name, pairs, until_tokens=limits.student_to)


def _pairs(run: Run, lessons: Iterable[Lesson], modules: Collection[str]) -> list[TokenPair]:
    """Examples of modules as tokens, with the references of these modules' seeds."""
    texts = [(one.prompt, one.answer) for one in lessons if not modules or one.module in modules]
    if run.config.organizer.references:
        texts += [(seed.prompt, seed.reference) for m in modules for seed in run.seeds[m]]
    return fitting_pairs(run, texts)


def _retained_pairs(run: Run, retained: Retained) -> list[TokenPair]:
    return fitting_pairs(run, [(one.prompt, one.answer) for one in retained.examples])


def fitting_pairs(run: Run, texts: Iterable[tuple[str, str]]) -> list[TokenPair]:
    """As tokens, without those whose prompt alone fills a row."""
    pairs = [run.before.answer_pair(as_chat(prompt), answer) for prompt, answer in texts]
    length = run.config.train.row_length
    return [pair for pair in pairs if pair.completion and len(pair.prompt) < length]


def _size(pairs: Sequence[TokenPair]) -> int:
    return sum(map(len, pairs))
