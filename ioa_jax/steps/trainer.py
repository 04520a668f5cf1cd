"""The trainer that a run has from its first stage on."""

from __future__ import annotations

import dataclasses

from ioa_jax.engine.training import StepMetrics
from ioa_jax.organizer.stage_training import PooledTrainer, SequentialTrainer, StageTrainer
from ioa_jax.run import Run


def open_trainer(run: Run, num_retained: int) -> StageTrainer:
    """The run's trainer; the share of retained rows follows what there is to retain [ours]."""
    if run.trainers:
        return run.trainer
    config = run.config
    retention = config.organizer.retention
    train = config.train.train_config(config.seed)
    if num_retained:
        train = dataclasses.replace(
            train,
            retained_share=retention.share * num_retained / len(run.seeds),
            retention="replay" if retention.kind == "replay" else "divergence",
            retention_weight=retention.weight,
        )
    budget = config.budget.student_tokens
    if config.budget.count_interventions:
        budget = max(1, budget - run.diagnosis.dependencies.student_tokens)
    kind = PooledTrainer if config.organizer.stage_mode == "pooled" else SequentialTrainer

    def after_step(stage: str, metrics: StepMetrics) -> None:
        if (stage, metrics.step) not in run.journal:
            run.journal.append({"part": stage, **dataclasses.asdict(metrics)})
        if run.on_step is not None:
            run.on_step(stage, metrics, lambda: run.student)

    trainer = kind(run.before, train, budget, run.directory / "training", after_step)
    run.trainers.append(run.stack.enter_context(trainer))
    return trainer
