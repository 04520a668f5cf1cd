"""The measured calls of this project's engine."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ioa_jax.engine import batching
from ioa_jax.engine.generation import DRAFT_TOKENS, Generator
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.engine.scoring import Scorer
from ioa_jax.engine.training import TrainConfig, train_step
from ioa_jax.models.load import LanguageModel, load_model
from suite.perf.workload import GENERATION_BATCH, NEW_TOKENS, Workload

TRAIN_CONFIG = TrainConfig(learning_rate=1e-5)


def scoring(model: LanguageModel, workload: Workload) -> Callable[[], int]:
    """Score all pairs; counts prompt and completion tokens."""
    scorer = Scorer(model)
    pairs = [batching.TokenPair(tuple(p), tuple(c)) for p, c in workload.pairs]

    def run() -> int:
        scorer.score_tokens(pairs)
        return sum(len(pair) for pair in pairs)

    return run


def generation(
    model: LanguageModel, workload: Workload, draft_tokens: int = DRAFT_TOKENS
) -> Callable[[], int]:
    """Answer all prompts greedily; counts new tokens up to the end of each answer."""
    generator = Generator(model, GENERATION_BATCH, draft_tokens)

    def run() -> int:
        done = generator.generate(workload.prompts, SamplingParams(max_tokens=NEW_TOKENS))
        return sum(len(completion.tokens) for completion in done)

    return run


def training(spec: str, precision: str, rows: np.ndarray) -> Callable[[], int]:
    """One full fine-tuning step (AdamW, clipping) on full rows; counts tokens."""
    model = load_model(spec, precision, dtype=jnp.float32)
    settings = TRAIN_CONFIG.step_settings()
    state = [model.decoder, jax.jit(settings.optimizer().init)(model.decoder)]
    count, length = rows.shape
    pairs = [batching.TokenPair((int(row[0]),), tuple(int(t) for t in row[1:])) for row in rows]
    groups = [[batching.PrefixGroup(1, [i], length)] for i in range(count)]
    batch = batching.build_rows(pairs, groups, length).device_arrays()

    def run() -> int:
        state[0], state[1], scalars = train_step(
            state[0], state[1], None, batch, jnp.float32(1e-5), settings=settings
        )
        jax.block_until_ready((state, scalars))
        return rows.size

    return run


def product_peak(dtype: str) -> float:
    """Matrix-product rate of this machine in FLOP/s: best of five 4096³ products."""
    import time

    a = jax.random.normal(jax.random.key(0), (4096, 4096)).astype(dtype)

    @jax.jit
    def product(a: jax.Array) -> jax.Array:
        return jax.lax.dot_general(
            a, a, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )

    jax.block_until_ready(product(a))
    times: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(product(a))
        times.append(time.perf_counter() - began)
    return 2 * 4096**3 / min(times)


def read_bandwidth() -> float:
    """Memory read rate of this machine in bytes/s: best of five sums over 1 GiB."""
    import time

    x = jnp.ones((2**18, 1024), jnp.float32)
    total = jax.jit(lambda x: x.sum(axis=0))
    jax.block_until_ready(total(x))
    times: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(total(x))
        times.append(time.perf_counter() - began)
    return x.size * 4 / min(times)
