"""The end: which weights are given back, and what a plain fine-tuning would have given."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping

import jax
import numpy as np

from ioa_jax.bootstrap import draw_counts, percentile_interval
from ioa_jax.files import finished
from ioa_jax.identifier.gap import posterior_means
from ioa_jax.identifier.measure import ModulePerformance
from ioa_jax.organizer.stage_training import PooledTrainer
from ioa_jax.run import Baseline, DistillResult, Measured, Outcome, Run, State, Verdict
from ioa_jax.run_record import write_record
from ioa_jax.steps.measure import measure
from ioa_jax.steps.train import fitting_pairs
from ioa_jax.streams import stream
from ioa_jax.student import Student

RESAMPLES = 2000
LEVEL = 0.95


def finish(run: Run, state: State, baseline: bool) -> DistillResult:
    """Choose the weights that are given back, and write the whole run's record."""
    student, state, outcome = _choose(run, state)
    trained_sft = _sft_baseline(run) if baseline and outcome.verdict == "taught" else None
    write_record(run, state, outcome, trained_sft)
    return DistillResult(student, run.diagnosis, outcome, run.directory)


def _choose(run: Run, state: State) -> tuple[Student, State, Outcome]:
    before = run.performance_before(state.performance)
    mean_before = _mean(before)
    if not run.trainers or run.trainer.tokens == 0:
        nothing = not run.diagnosis.targets.modules
        verdict: Verdict = "nothing_to_teach" if nothing else "no_examples"
        return (
            run.before,
            state,
            Outcome(verdict, mean_before, mean_before, mean_before, 0.0, 0.0, 0.0),
        )
    organizer = run.config.organizer
    found: dict[float, dict[str, ModulePerformance]] = {}
    for share in sorted(organizer.average, reverse=True):
        found[share] = state.performance
        if share != 1.0:
            student = averaged(run.before, run.student, share)
            path = run.directory / f"measured/average-{share:g}.json"
            measured = finished(
                path, Measured, functools.partial(measure, run, student, sorted(run.probes))
            )
            found[share] = {one.module: one for one in measured.performances}
    best = max(found, key=lambda share: (_mean(found[share]), share))
    trained = found[best]
    low, high = _interval_of_change(before, trained, run.config.seed)
    share = best
    if organizer.keep == "best" and _mean(trained) < mean_before:
        share = 0.0
    after = before if share == 0 else trained
    outcome = Outcome("taught", mean_before, _mean(after), _mean(trained), low, high, share)
    student = run.before if share == 0 else averaged(run.before, run.student, share)
    return student, dataclasses.replace(state, performance=dict(after)), outcome


def averaged(before: Student, after: Student, share: float) -> Student:
    """before + share · (after - before) of every weight (Wortsman et al. 2022, 2109.01903)."""
    if share == 1:
        return after
    decoder = jax.tree.map(
        lambda a, b: (a + share * (b - a)).astype(a.dtype),
        before.model.decoder,
        after.model.decoder,
    )
    return before.with_decoder(decoder)


def _mean(performance: Mapping[str, ModulePerformance]) -> float:
    return math.fsum(one.mean for one in performance.values()) / len(performance)


def _interval_of_change(
    before: Mapping[str, ModulePerformance], after: Mapping[str, ModulePerformance], seed: int
) -> tuple[float, float]:
    """95 % of the change of the mean over modules, by draws of each one's probes in pairs.

    Of right and wrong answers by a posterior (`posterior_means`) with one unseen probe for all
    modules together, so that a few probes that all changed alike don't give an interval without
    width; of scores in between by the bootstrap.
    """
    drawn: list[np.ndarray] = []
    for module in sorted(before):
        old = dict(zip(before[module].probes, before[module].values, strict=True))
        new = dict(zip(after[module].probes, after[module].values, strict=True))
        pairs = np.asarray([[values[probe] for probe in sorted(old)] for values in (old, new)])
        generator = stream(seed, "outcome", module)
        if np.isin(pairs, (0.0, 1.0)).all():
            means = posterior_means(pairs.tolist(), RESAMPLES, generator, 1 / len(before))
        else:
            means = pairs @ draw_counts(generator, len(old), RESAMPLES).T / len(old)
        drawn.append(means[1] - means[0])
    interval = percentile_interval(np.mean(drawn, axis=0), LEVEL)
    assert interval is not None
    found = _mean(after) - _mean(before)
    return min(interval.low, found), max(interval.high, found)


def _sft_baseline(run: Run) -> Baseline:
    """What the seeds alone give: their references, for as many student tokens."""

    def train() -> Baseline:
        config = run.config.train.train_config(run.config.seed)
        texts = [
            (seed.prompt, seed.reference) for module in run.seeds for seed in run.seeds[module]
        ]
        folder = run.directory / "baseline"
        with PooledTrainer(run.before, config, run.trainer.budget_tokens, folder) as trainer:
            trained = trainer.train("sft", fitting_pairs(run, texts))
            measured = measure(run, trainer.student, sorted(run.probes))
        return Baseline(trained.tokens, {one.module: one for one in measured.performances})

    with run.clock.timed("baseline"):
        return finished(run.directory / "baseline.json", Baseline, train)
