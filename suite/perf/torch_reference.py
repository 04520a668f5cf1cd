"""The same calls in torch + transformers, written as one would write them there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from transformers import AutoModelForCausalLM

from suite.perf.workload import GENERATION_BATCH, NEW_TOKENS, Workload

SCORING_BATCH = 8


def load(directory: str, dtype: str) -> Any:
    """The exported model in evaluation mode."""
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=getattr(torch, dtype), trust_remote_code=False, use_safetensors=True
    )
    return model.eval()


def scoring(model: Any, workload: Workload, pad: int) -> Callable[[], int]:
    """Batches of similar length, right-padded; logits, log-softmax, gather."""
    order = sorted(workload.pairs, key=lambda pair: len(pair[0]) + len(pair[1]))

    def run() -> int:
        total = 0
        for start in range(0, len(order), SCORING_BATCH):
            batch = order[start : start + SCORING_BATCH]
            length = max(len(p) + len(c) for p, c in batch)
            ids = torch.full((len(batch), length), pad)
            mask = torch.zeros((len(batch), length), dtype=torch.long)
            for i, (prompt, completion) in enumerate(batch):
                row = torch.tensor(prompt + completion)
                ids[i, : len(row)], mask[i, : len(row)] = row, 1
                total += len(row)
            with torch.inference_mode():
                logits = model(input_ids=ids, attention_mask=mask).logits
                logprobs = logits[:, :-1].float().log_softmax(-1)
                logprobs.gather(-1, ids[:, 1:, None]).sum().item()
        return total

    return run


def generation(model: Any, workload: Workload, pad: int) -> Callable[[], int]:
    """Left-padded batches of similar length through `generate`."""
    prompts = sorted(workload.prompts, key=len)
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])

    def run() -> int:
        total = 0
        for start in range(0, len(prompts), GENERATION_BATCH):
            batch = prompts[start : start + GENERATION_BATCH]
            length = max(len(p) for p in batch)
            ids = torch.full((len(batch), length), pad)
            mask = torch.zeros((len(batch), length), dtype=torch.long)
            for i, prompt in enumerate(batch):
                ids[i, length - len(prompt) :] = torch.tensor(prompt)
                mask[i, length - len(prompt) :] = 1
            with torch.inference_mode():
                out = model.generate(
                    ids,
                    attention_mask=mask,
                    max_new_tokens=NEW_TOKENS,
                    do_sample=False,
                    pad_token_id=pad,
                )
            for row in out[:, length:].tolist():
                end = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
                total += end
        return total

    return run


def training(directory: str, dtype: str, rows: np.ndarray) -> Callable[[], int]:
    """One full fine-tuning step: loss, backward, clipping, AdamW; weights in `dtype`."""
    model = load(directory, dtype).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.01)
    ids = torch.from_numpy(rows.astype(np.int64))

    def run() -> int:
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return ids.numel()

    return run
