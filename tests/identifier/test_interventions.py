import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.scoring import Scorer
from ioa_jax.engine.training import (
    LoRAConfig,
    TrainConfig,
    endless_batches,
    pack_batch,
    train_step,
)
from ioa_jax.errors import InputError
from ioa_jax.identifier.interventions import (
    InterventionProbe,
    InterventionSettings,
    intervene,
    warm_up,
)
from ioa_jax.models.load import LanguageModel
from ioa_jax.models.lora import init_lora, merge_lora
from tests.tiny import random_pairs, tiny_decoder, tiny_tokenizer

TRAIN = TrainConfig(
    learning_rate=1e-2, batch_rows=2, row_length=64, lora=LoRAConfig(rank=2, alpha=4.0)
)
SETTINGS = InterventionSettings(TRAIN, steps=4, snapshots=2, modules_at_once=3)
MODULES = ("m/a", "m/b", "m/c")
TEACHER: dict[str, float] = {module: 0.5 for module in MODULES}


@pytest.fixture(scope="module")
def decoder():
    return tiny_decoder("qwen2")


@pytest.fixture(scope="module")
def lessons():
    # 5, 9 and 13 lessons: the modules need different numbers of epochs for four steps.
    return {m: random_pairs(5 + 4 * i, seed=i) for i, m in enumerate(MODULES)}


@pytest.fixture(scope="module")
def probes():
    return {
        m: [InterventionProbe(p, len(p.completion)) for p in random_pairs(3 + i, seed=10 + i)]
        for i, m in enumerate(MODULES)
    }


@pytest.fixture(scope="module")
def together(decoder, lessons, probes):
    return intervene(decoder, lessons, probes, TEACHER, SETTINGS)


def performances(decoder, probes):
    """P_S by module, the slow way."""
    scorer = Scorer(LanguageModel(decoder, tiny_tokenizer(), "tiny", "0" * 64))
    return [
        np.mean(
            [
                np.exp(score.logprob / probe.length)
                for score, probe in zip(
                    scorer.score_tokens([p.pair for p in probes[m]]), probes[m], strict=True
                )
            ]
        )
        for m in MODULES
    ]


def test_the_population_is_the_student_and_every_snapshot(together, decoder, probes):
    population = together.population
    assert population.modules == MODULES
    assert population.states == (
        "base",
        *(f"{module}@{step}" for step in (2, 4) for module in MODULES),
    )
    np.testing.assert_allclose(population.student[0], performances(decoder, probes), rtol=1e-5)


def test_training_together_equals_one_after_another(together, decoder, lessons, probes):
    alone = intervene(
        decoder, lessons, probes, TEACHER, dataclasses.replace(SETTINGS, modules_at_once=1)
    )
    rows = dict(zip(alone.population.states, alone.population.student, strict=True))
    assert rows.keys() == set(together.population.states)
    np.testing.assert_allclose(
        together.population.student, [rows[s] for s in together.population.states], rtol=1e-4
    )
    assert alone.tokens == together.tokens


def test_each_adapter_is_what_plain_training_gives(together, decoder, lessons, probes):
    """Four calls of `train_step` on module b alone, merged and scored by `Scorer`."""
    config = dataclasses.replace(TRAIN, epochs=5)
    batches = endless_batches(lessons["m/b"], config)
    lora = init_lora(decoder.config, jax.random.key(0), 2, 4.0)
    settings = config.step_settings()
    state = settings.optimizer().init(cast(Any, lora))
    for step, batch in zip(range(4), batches, strict=False):
        rows = pack_batch(batch.examples, 64, 2).device_arrays()
        rate = config.learning_rate_at((step + 0.5) / 4)
        lora, state, _ = train_step(
            lora, state, decoder, rows, jnp.float32(rate), settings=settings
        )
    expected = performances(merge_lora(decoder, lora), probes)
    row = together.population.student[together.population.states.index("m/b@4")]
    np.testing.assert_allclose(row, expected, rtol=1e-4)
    assert not np.allclose(row, together.population.student[0], rtol=1e-2)


def test_a_module_learns_most_from_its_own_lessons(decoder):
    # Each module's answers are one word of its own.
    lessons = {
        m: [TokenPair(p.prompt, (20 + i,) * 3) for p in random_pairs(12, seed=i)]
        for i, m in enumerate(MODULES)
    }
    probes = {
        m: [InterventionProbe(TokenPair(p.prompt, (20 + i,) * 3), 3) for p in random_pairs(4, 9)]
        for i, m in enumerate(MODULES)
    }
    train = dataclasses.replace(TRAIN, learning_rate=3e-2, lora=LoRAConfig(4, 8.0, ".*"))
    settings = dataclasses.replace(SETTINGS, train=train, steps=20, snapshots=1)
    population = intervene(decoder, lessons, probes, TEACHER, settings).population
    ratios = np.asarray(population.student[1:]) / np.asarray(population.student[0])
    # The tiny model's output rows have norm 0.11 and its hidden states 5.7: no logit can pass 0.64,
    # so that no adapter can raise a probability to more than about exp(0.64) = 1.9 times.
    assert ratios.diagonal().min() > 1.6
    assert ratios[~np.eye(3, dtype=bool)].max() < 1.3


def test_tokens_are_those_of_the_steps(decoder, lessons, probes):
    seen = []
    settings = dataclasses.replace(SETTINGS, steps=1, snapshots=1, modules_at_once=2)
    result = intervene(
        decoder, lessons, probes, TEACHER, settings, lambda done, steps: seen.append((done, steps))
    )
    first = [next(endless_batches(lessons[m], TRAIN)) for m in MODULES]
    assert result.tokens == sum(len(pair) for batch in first for pair in batch.examples)
    assert seen == [(1, 2), (2, 2)]


def test_bad_input_names_the_module(decoder, lessons, probes):
    with pytest.raises(InputError, match="same modules"):
        intervene(decoder, lessons, probes, {"m/a": 0.5}, SETTINGS)
    with pytest.raises(InputError, match="module 'm/a': no examples"):
        intervene(decoder, lessons | {"m/a": []}, probes, TEACHER, SETTINGS)
    with pytest.raises(InputError, match="module 'm/b' has no probes"):
        intervene(decoder, lessons, probes | {"m/b": []}, TEACHER, SETTINGS)
    long = InterventionProbe(TokenPair((2,) * 600, (3,)), 1)
    with pytest.raises(InputError, match="module 'm/b', probe 0 has 601 tokens"):
        intervene(decoder, lessons, probes | {"m/b": [long]}, TEACHER, SETTINGS)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"train": TrainConfig()}, r"train\.lora"),
        ({"snapshots": 0}, "snapshots=0"),
        ({"snapshots": 5}, "at most 4"),
        ({"modules_at_once": 0}, "modules_at_once"),
    ],
)
def test_settings_are_checked(bad, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SETTINGS, **bad)


def test_a_warm_up_measures_one_adapter_on_all_modules(decoder, lessons, probes):
    result = warm_up(decoder, lessons, probes, TEACHER, SETTINGS)
    population = result.population
    assert population.modules == MODULES
    assert population.states == ("base", "warm-up@2", "warm-up@4")
    np.testing.assert_allclose(population.student[0], performances(decoder, probes), rtol=1e-5)
    # The same as teaching a single module that has all the lessons.
    joined = {"m/a": [pair for module in MODULES for pair in lessons[module]]}
    alone = intervene(decoder, joined, {"m/a": probes["m/a"]}, {"m/a": 0.5}, SETTINGS)
    np.testing.assert_allclose(
        [row[0] for row in population.student],
        [row[0] for row in alone.population.student],
        rtol=1e-4,
    )
    assert alone.tokens == result.tokens
