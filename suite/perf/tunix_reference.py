"""The same calls in google-tunix, written as one would write them there.

Its Llama model, its scoring function, its sampler and its supervised trainer's step, by default
settings. Imported only where google-tunix is installed.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tunix.generate.sampler import (  # pyright: ignore[reportMissingImports]
    CacheConfig,
    Sampler,
)
from tunix.models.llama3 import (  # pyright: ignore[reportMissingImports]
    model as llama,
)
from tunix.models.llama3.params import (  # pyright: ignore[reportMissingImports]
    create_model_from_safe_tensors,
)
from tunix.rl.common import (  # pyright: ignore[reportMissingImports]
    compute_per_token_logps,
)
from tunix.sft import peft_trainer  # pyright: ignore[reportMissingImports]
from tunix.sft.utils import (  # pyright: ignore[reportMissingImports]
    build_positions_from_mask,
    make_causal_attn_mask,
)

from ioa_jax.errors import ModelFormatError
from ioa_jax.models.huggingface import read_config
from suite.perf.workload import GENERATION_BATCH, NEW_TOKENS, Workload

SCORING_BATCH = 8

# What the unpatched function takes; `load` hands on a base to it.
_APPLY_ROPE = llama.apply_rope


@dataclasses.dataclass(frozen=True)
class Model:
    """tunix's module, and the tokens that end its texts."""

    module: Any
    ends: tuple[int, ...]


class _TokenIds:
    """Stands where the sampler expects a tokenizer, for prompts that are token ids already."""

    def __init__(self, pad: int, end: int) -> None:
        self._pad, self._end = pad, end

    def encode(self, text: list[int]) -> list[int]:
        return text

    def decode(self, ids: list[int]) -> list[int]:
        return ids

    def bos_id(self) -> int | None:
        return None

    def eos_id(self) -> int:
        return self._end

    def pad_id(self) -> int:
        return self._pad


def load(directory: str, dtype: str) -> Model:
    """The exported model.

    Raises:
        ModelFormatError: tunix's Llama can't compute this model.
    """
    config = read_config(Path(directory))
    if config.model_type != "llama" or config.rope_scaling is not None:
        raise ModelFormatError("tunix's Llama has no biases, no query norms and no scaled rotation")
    # tunix 0.1.5 leaves the base at 1e6 whatever its configuration says. The work is the same, but
    # answers would be another model's, of another length.
    llama.apply_rope = functools.partial(_APPLY_ROPE, rope_theta=config.rope_theta)
    module = create_model_from_safe_tensors(
        directory,
        llama.ModelConfig(
            num_layers=config.num_layers,
            vocab_size=config.vocab_size,
            embed_dim=config.hidden_size,
            hidden_dim=config.intermediate_size,
            num_heads=config.num_heads,
            head_dim=config.head_dim,
            num_kv_heads=config.num_kv_heads,
            rope_theta=int(config.rope_theta),
            norm_eps=config.rms_norm_eps,
            weight_tying=config.tie_embeddings,
        ),
        dtype=jnp.dtype(dtype),
    )
    return Model(module, config.eos_token_ids)


def scoring(model: Model, workload: Workload, pad: int) -> Callable[[], int]:
    """Batches of similar length, right-padded, through tunix's log-probabilities of tokens."""
    order = sorted(workload.pairs, key=lambda pair: len(pair[0]) + len(pair[1]))

    def run() -> int:
        total = 0
        for start in range(0, len(order), SCORING_BATCH):
            batch = order[start : start + SCORING_BATCH]
            length = max(len(p) + len(c) for p, c in batch)
            ids = np.full((len(batch), length), pad, np.int32)
            mask = np.zeros((len(batch), length), bool)
            for i, (prompt, completion) in enumerate(batch):
                row = prompt + completion
                ids[i, : len(row)], mask[i, : len(row)] = row, True
                total += len(row)
            # The first token is the prompt, so that nothing is padded on the left; no token is -1.
            logprobs = compute_per_token_logps(
                model.module,
                jnp.asarray(ids[:, :1]),
                jnp.asarray(ids[:, 1:]),
                pad_id=-1,
                eos_id=-1,
                completion_mask=jnp.asarray(mask[:, 1:]),
            )
            float(logprobs.sum())
        return total

    return run


def generation(model: Model, workload: Workload, pad: int) -> Callable[[], int]:
    """Batches of similar length through the sampler, greedily.

    The sampler takes every pad token for padding, and SmolLM2's pad token also ends turns inside of
    prompts; so `pad` gives way to the first token that no prompt holds.
    """
    prompts = sorted(workload.prompts, key=len)
    held = {token for prompt in prompts for token in prompt} | set(model.ends)
    if pad in held:
        pad = next(token for token in range(len(held) + 1) if token not in held)
    config = model.module.config
    # The sampler pads prompts to the next power of two.
    longest = 1 << (len(prompts[-1]) - 1).bit_length()
    sampler = Sampler(
        model.module,
        _TokenIds(pad, model.ends[0]),
        CacheConfig(
            cache_size=longest + NEW_TOKENS,
            num_layers=config.num_layers,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
        ),
    )

    def run() -> int:
        total = 0
        for start in range(0, len(prompts), GENERATION_BATCH):
            done = sampler(
                prompts[start : start + GENERATION_BATCH],
                max_generation_steps=NEW_TOKENS,
                eos_tokens=model.ends,
            )
            # Its answers end before the token that ends them.
            total += sum(min(len(tokens) + 1, NEW_TOKENS) for tokens in done.tokens)
        return total

    return run


def training(directory: str, dtype: str, rows: np.ndarray) -> Callable[[], int]:
    """One full fine-tuning step of the trainer: loss, gradients, clipping, AdamW; all in `dtype`.

    The trainer's step itself, without the metrics that its loop writes around it.
    """
    trainer = peft_trainer.PeftTrainer(
        load(directory, dtype).module,
        optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adamw(1e-5, b1=0.9, b2=0.95, weight_decay=0.01),
        ),
        peft_trainer.TrainingConfig(eval_every_n_steps=1),
    ).with_gen_model_input_fn(
        lambda batch: {
            "input_tokens": batch.input_tokens,
            "input_mask": batch.input_mask,
            "positions": build_positions_from_mask(batch.input_mask),
            "attention_mask": make_causal_attn_mask(batch.input_mask),
        }
    )
    step, _ = trainer.jit_train_and_eval_step()
    batch = peft_trainer.TrainingInput(jnp.asarray(rows), jnp.ones(rows.shape, bool))

    def run() -> int:
        loss, _ = step(trainer.model, trainer.optimizer, batch)
        jax.block_until_ready((loss, trainer.model, trainer.optimizer))
        return rows.size

    return run
