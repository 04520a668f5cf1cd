"""A complete small world for the job: a random Llama that speaks a vocabulary of a few hundred."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ioa_jax.models.config import DecoderConfig
from ioa_jax.models.decoder import init_decoder
from ioa_jax.models.huggingface import write_decoder
from ioa_jax.models.precision import Precision
from suite.tasks.seeds import load_seed_tasks

# Found by trying: the ending token then ends about half of the answers within 12 tokens.
END_SCALE = -20.0

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, trained on the seed tasks."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([task.prompt for task in load_seed_tasks()], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def chat_config(tokenizer: PreTrainedTokenizerFast, **changes: Any) -> DecoderConfig:
    """A small Llama that speaks the tokenizer's vocabulary."""
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert isinstance(end, int)
    config = DecoderConfig(
        model_type="llama",
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        tie_embeddings=True,
        max_position=2048,
        eos_token_ids=(end,),
    )
    return dataclasses.replace(config, **changes)


def write_model(directory: Path) -> None:
    """A Hugging Face directory with a random model of four layers."""
    tokenizer = chat_tokenizer()
    config = chat_config(tokenizer)
    (end,) = config.eos_token_ids
    decoder = init_decoder(config, jax.random.key(0), Precision.named("float32"), jnp.float32)
    # Far enough from uniform that answers differ, and that some of them end by themselves.
    decoder = jax.tree.map(lambda x: x * 5 if x.ndim > 2 else x, decoder)
    embedding = decoder.embedding[...]
    decoder.embedding[...] = embedding.at[end].set(embedding[end] * END_SCALE)
    write_decoder(decoder, tokenizer, directory)


def write_profile(path: Path, model: Path, **changes: object) -> None:
    """A profile whose run has several batches, epochs, checkpoints and points of a curve."""
    settings = {
        "description": "a test",
        "precision": "float32",
        "pack": "paper",
        "teacher": {"spec": str(model), "batch_size": 8},
        "student": {"spec": str(model), "keep_layers": 2},
        "seed_items": {
            "source": "seed_tasks",
            "probe_fraction": 0.375,
            "max_seeds_per_module": 2,
            "max_probes_per_module": 1,
        },
        "tasks": [{"name": "humaneval", "limit": 9, "max_tokens": 8}],
        "probes": {"max_tokens": 8},
        "budgets": {"teacher_tokens": 1000, "student_tokens": 6000},
        "sampling": {"max_tokens": 12, "temperature": 0.7},
        "train": {
            "learning_rate": 1e-2,
            "batch_rows": 2,
            "row_length": 256,
            "save_every": 2,
        },
        "curve": {"points": 2, "items": 3},
        "generation": {"batch_size": 8},
        "methods": ["undistilled", "sft", "sft_matched"],
        "seeds": [0, 1],
        **changes,
    }
    path.write_text(yaml.safe_dump(settings))
