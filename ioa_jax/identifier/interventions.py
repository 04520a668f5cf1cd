"""The population of Eq. 3 by teaching the student a little (method 1.5) [ours].

With `intervene` every module gets a small LoRA of its own, trained on its synthesis seeds; the
student's weights are shared and don't change. The population is the student as it is and every LoRA
at a few points of its training. That a state masters a module then has a known cause, and what else
it has become better at is an effect. `warm_up` trains one LoRA on all modules instead: cheaper, and
what its states have in common is only that they come one after another.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from ioa_jax.engine import batching, losses
from ioa_jax.engine.batching import PackedRows, PrefixGroup, TokenPair
from ioa_jax.engine.scoring import row_statistics
from ioa_jax.engine.training import (
    LoRAConfig,
    StepSettings,
    TrainConfig,
    endless_batches,
    pack_batch,
    train_step,
)
from ioa_jax.errors import InputError
from ioa_jax.identifier.dependency import Population
from ioa_jax.models.decoder import Decoder
from ioa_jax.models.lora import LoRA, init_lora

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class InterventionSettings:
    """How the adapters are trained.

    Attributes:
        train: Batches, learning rate and LoRA of each; `epochs`, `accumulation` and `save_every`
            don't matter.
        steps: Optimiser steps of each adapter.
        snapshots: States of each adapter that are measured, evenly spaced, the last at the end.
        modules_at_once: Adapters that are trained together; memory grows with it, and their rows
            with the steps between two snapshots.
        probe_tokens: Tokens of one compiled call of scoring, for each adapter.
    """

    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(learning_rate=1e-3, lora=LoRAConfig(rank=8, alpha=16.0))
    )
    steps: int = 24
    snapshots: int = 3
    modules_at_once: int = 8
    probe_tokens: int = 2048

    def __post_init__(self) -> None:
        if self.train.lora is None:
            raise InputError("interventions train adapters: set train.lora")
        if not 1 <= self.snapshots <= self.steps:
            raise InputError(f"snapshots={self.snapshots}: at least 1 and at most {self.steps}")
        for field in ("modules_at_once", "probe_tokens"):
            if getattr(self, field) < 1:
                raise InputError(f"{field}={getattr(self, field)}: at least 1")

    def snapshot_steps(self) -> tuple[int, ...]:
        """Steps after which the adapters are measured."""
        return tuple(
            math.ceil(self.steps * (i + 1) / self.snapshots) for i in range(self.snapshots)
        )


@dataclasses.dataclass(frozen=True)
class InterventionProbe:
    """A probe, tokenised for the student.

    Attributes:
        pair: Prompt and reference answer.
        length: |y|, as in the teacher's performance: tokens, or UTF-8 bytes.
    """

    pair: TokenPair
    length: int


@dataclasses.dataclass(frozen=True)
class InterventionResult:
    """What the interventions gave, and cost.

    Attributes:
        population: State `base`, then `MODULE@STEP` by step and module (`warm-up@STEP` for
            `warm_up`); P_S by log-probability.
        tokens: Student tokens trained on by all adapters together, prompts included.
    """

    population: Population
    tokens: int


def intervene(
    decoder: Decoder,
    lessons: Mapping[str, Sequence[TokenPair]],
    probes: Mapping[str, Sequence[InterventionProbe]],
    teacher: Mapping[str, float],
    settings: InterventionSettings | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> InterventionResult:
    """Teach each module alone, and measure all modules.

    All adapters begin with the same weights, so that they differ by what they were taught.

    Args:
        decoder: The student, stacked. It isn't changed.
        lessons: Synthesis seeds by module id, with reference answers.
        probes: Probes by module id, of the same modules.
        teacher: P_T by module id, by log-probability over the same probes; above 0.
        settings: None is the default.
        on_step: Called after each snapshot, with (steps done, steps in all) over all groups of
            modules.

    Raises:
        InputError: The mappings aren't about the same modules; a module without lessons or probes;
            a lesson or probe that is too long.
    """
    _check_modules(lessons, probes, teacher)
    return _teach(decoder, lessons, probes, teacher, settings or InterventionSettings(), on_step)


def warm_up(
    decoder: Decoder,
    lessons: Mapping[str, Sequence[TokenPair]],
    probes: Mapping[str, Sequence[InterventionProbe]],
    teacher: Mapping[str, float],
    settings: InterventionSettings | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> InterventionResult:
    """Teach all modules together, and measure all modules on the way.

    Takes and raises what `intervene` does.
    """
    _check_modules(lessons, probes, teacher)
    mixed = {"warm-up": [pair for module in sorted(lessons) for pair in lessons[module]]}
    return _teach(decoder, mixed, probes, teacher, settings or InterventionSettings(), on_step)


def _check_modules(
    lessons: Mapping[str, Any], probes: Mapping[str, Any], teacher: Mapping[str, float]
) -> None:
    if not lessons or not lessons.keys() == probes.keys() == teacher.keys():
        raise InputError("interventions: lessons, probes and teacher need the same modules")


def _teach(
    decoder: Decoder,
    lessons: Mapping[str, Sequence[TokenPair]],
    probes: Mapping[str, Sequence[InterventionProbe]],
    teacher: Mapping[str, float],
    settings: InterventionSettings,
    on_step: Callable[[int, int], None] | None,
) -> InterventionResult:
    """One adapter for each entry of `lessons`, measured on every module of `probes`."""
    if not decoder.is_stacked:
        raise InputError("interventions: give the stacked decoder, before unstacked()")
    names, modules = tuple(sorted(lessons)), tuple(sorted(probes))
    batches = [_lesson_batches(name, lessons[name], settings) for name in names]
    # Rows of all adapters have one shape, so that they can be stacked.
    config = settings.train
    length = config.row_length
    scored = max(pack_batch(batch, length).labels.shape[1] for own in batches for batch in own)
    rows_of = [
        [pack_batch(batch, length, config.batch_rows, scored).device_arrays() for batch in own]
        for own in batches
    ]
    scorer = _ProbeScorer(decoder, {module: probes[module] for module in modules}, settings)
    fresh = _fresh_adapter(decoder, config)
    places = [(step + 0.5) / settings.steps for step in range(settings.steps)]
    rates = [config.learning_rate_at(place) for place in places]
    snapshots = settings.snapshot_steps()
    measured = {"base": scorer.performances(_stack([fresh]))[0]}
    groups = np.array_split(np.arange(len(names)), -(-len(names) // settings.modules_at_once))
    for number, group in enumerate(groups):
        log.info("training %d adapters, group %d of %d", len(group), number + 1, len(groups))
        adapters = _stack([fresh] * len(group))
        optimizer_state = _init_optimizers(adapters, settings=config.step_settings())
        done = 0
        for snapshot in snapshots:
            steps = range(done, snapshot)
            rows = _stack_rows([[rows_of[k][step] for k in group] for step in steps])
            adapters, optimizer_state, found = _train_together(
                adapters,
                optimizer_state,
                decoder,
                rows,
                np.asarray([rates[step] for step in steps], np.float32),
                settings=config.step_settings(),
            )
            _check_losses(np.asarray(found), [names[k] for k in group], done, config)
            done = snapshot
            for k, values in zip(group, scorer.performances(adapters), strict=True):
                measured[f"{names[k]}@{snapshot}"] = values
            if on_step is not None:
                on_step(number * settings.steps + done, len(groups) * settings.steps)
    return InterventionResult(
        Population(
            modules,
            tuple(measured),
            tuple(measured.values()),
            tuple(teacher[module] for module in modules),
            tuple(len(probes[module]) for module in modules),
        ),
        sum(len(pair) for own in batches for batch in own for pair in batch),
    )


def _fresh_adapter(decoder: Decoder, config: TrainConfig) -> LoRA:
    """What every adapter begins as."""
    assert config.lora is not None
    return init_lora(
        decoder.config,
        jax.random.key(config.seed),
        config.lora.rank,
        config.lora.alpha,
        config.lora.targets,
    )


def _check_losses(
    values: np.ndarray, modules: Sequence[str], before: int, config: TrainConfig
) -> None:
    """Losses [steps, modules] of the steps after the first `before` are numbers."""
    for step, module in np.argwhere(~np.isfinite(values)):
        raise InputError(
            f"module {modules[module]!r}: the loss is {values[step, module]} at step "
            f"{before + step + 1}; lower the learning rate ({config.learning_rate}) or look at the "
            "module's seeds"
        )


def _lesson_batches(
    module: str, pairs: Sequence[TokenPair], settings: InterventionSettings
) -> list[tuple[TokenPair, ...]]:
    """The examples of each step, in as many epochs as that takes."""
    try:
        endless = endless_batches(pairs, settings.train)
        return [batch.examples for batch in itertools.islice(endless, settings.steps)]
    except InputError as error:
        raise InputError(f"module {module!r}: {error}") from None


def _stack(trees: Sequence[Any]) -> Any:
    """Trees of one shape as one tree with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@functools.partial(jax.jit, static_argnames=("settings",))
def _init_optimizers(adapters: LoRA, *, settings: StepSettings) -> Any:
    init: Any = settings.optimizer().init
    return jax.vmap(init)(adapters)


def _stack_rows(steps: Sequence[Sequence[dict[str, np.ndarray]]]) -> dict[str, np.ndarray]:
    """Rows of every step and adapter, [steps, adapters, ...], still on the host."""
    names = steps[0][0]
    return {name: np.stack([[one[name] for one in step] for step in steps]) for name in names}


@functools.partial(jax.jit, static_argnames=("settings",), donate_argnums=(0, 1))
def _train_together(
    adapters: LoRA,
    optimizer_state: Any,
    decoder: Decoder,
    rows: dict[str, Array],
    rates: Float[Array, " S"],
    *,
    settings: StepSettings,
) -> tuple[LoRA, Any, Float[Array, "S M"]]:
    """Some steps of every adapter in one program: on a GPU, starting one takes as long as a step.

    Args:
        adapters: With a leading axis, as the optimizer's state.
        optimizer_state: Of each.
        decoder: Of all.
        rows: [steps, adapters, ...].
        rates: Learning rate of each step.
        settings: Of a step.

    Returns:
        Adapters and state after the last step, and each step's losses.
    """

    def one(adapter: LoRA, state: Any, rows: dict[str, Array], rate: Array) -> tuple[Any, ...]:
        return train_step(adapter, state, decoder, rows, rate, settings=settings)

    def step(carry: tuple[LoRA, Any], given: tuple[dict[str, Array], Array]) -> tuple[Any, Array]:
        rows, rate = given
        *carried, scalars = jax.vmap(one, in_axes=(0, 0, 0, None))(*carry, rows, rate)
        return tuple(carried), scalars["loss"]

    (adapters, optimizer_state), found = jax.lax.scan(
        step, (adapters, optimizer_state), (rows, rates)
    )
    return adapters, optimizer_state, found


@functools.partial(jax.jit, static_argnames=("chunk",))
def _logprobs_together(
    decoder: Decoder, adapters: LoRA, rows: dict[str, Array], *, chunk: int
) -> Float[Array, "M R N"]:
    """Log-probabilities of the scored tokens of the same rows under each adapter."""
    return jax.vmap(
        lambda adapter: row_statistics(decoder, rows, chunk=chunk, lora=adapter).logprob
    )(adapters)


class _ProbeScorer:
    """All modules' probes in packed rows of one shape, scored under many adapters at once."""

    def __init__(
        self,
        decoder: Decoder,
        probes: Mapping[str, Sequence[InterventionProbe]],
        settings: InterventionSettings,
    ) -> None:
        self.decoder = decoder
        self.chunk = losses.CPU_SCORING_CHUNK if decoder.precision.on_cpu else losses.CHUNK
        self.lengths = np.asarray([p.length for own in probes.values() for p in own], np.float64)
        # Where each module's probes begin among all.
        counts = [len(own) for own in probes.values()]
        self.starts = np.cumsum([0, *counts])
        context = decoder.config.max_position
        for module, own in probes.items():
            if not own:
                raise InputError(f"module {module!r} has no probes")
            for i, probe in enumerate(own):
                if not probe.pair.prompt or not probe.pair.completion or probe.length < 1:
                    raise InputError(
                        f"module {module!r}, probe {i}: prompt, answer and length have to be at "
                        "least 1"
                    )
                if len(probe.pair) > context:
                    raise InputError(
                        f"module {module!r}, probe {i} has {len(probe.pair)} tokens, more than the "
                        f"model's context ({context})"
                    )
        self.batches = _pack_probes(
            [probe.pair for own in probes.values() for probe in own], settings.probe_tokens
        )

    def performances(self, adapters: LoRA) -> list[tuple[float, ...]]:
        """P_S of every module under each adapter of a stack, [adapters, modules]."""
        count = jax.tree.leaves(adapters)[0].shape[0]
        totals = np.zeros((count, len(self.lengths)))
        for batch in self.batches:
            logprobs = np.asarray(
                _logprobs_together(self.decoder, adapters, batch.device_arrays(), chunk=self.chunk),
                np.float64,
            )
            real = batch.owners >= 0
            for adapter in range(count):
                np.add.at(totals[adapter], batch.owners[real], logprobs[adapter][real])
        probabilities = np.exp(np.minimum(totals / self.lengths, 0.0))
        return [
            tuple(
                float(row[start:end].mean())
                for start, end in zip(self.starts, self.starts[1:], strict=False)
            )
            for row in probabilities
        ]


def _pack_probes(pairs: Sequence[TokenPair], tokens_per_batch: int) -> list[PackedRows]:
    """Rows of one shape that hold all pairs."""
    row_length = batching.row_bucket(max(len(pair) for pair in pairs))
    groups = [PrefixGroup(len(pair.prompt), [i], len(pair)) for i, pair in enumerate(pairs)]
    rows = [[groups[i] for i in row] for row in batching.pack_groups(groups, row_length)]
    per_batch = min(max(1, tokens_per_batch // row_length), len(rows))
    scored = max(sum(len(pairs[i].completion) for g in row for i in g.members) for row in rows)
    return [
        batching.build_rows(pairs, rows[start : start + per_batch], row_length, per_batch, scored)
        for start in range(0, len(rows), per_batch)
    ]
