"""The files of a small model, written without JAX, to be broken."""

import json
import struct

import numpy as np
from safetensors.numpy import save
from tokenizers import Tokenizer, models, pre_tokenizers

from ioa_jax.models.config import DecoderConfig
from ioa_jax.models.tensors import hf_shapes

WORDS = 97
CONFIG = {
    "model_type": "llama",
    "vocab_size": WORDS,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 1,
}


def tensors() -> dict[str, np.ndarray]:
    """Zeros under Hugging Face's names."""
    shapes = hf_shapes(DecoderConfig.from_hf(CONFIG))
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def tokenizer() -> dict:
    """The content of a tokenizer.json: words are numbers."""
    vocab = {"<unk>": 0, "<eos>": 1, **{str(n): n for n in range(2, WORDS)}}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return json.loads(core.to_str())


def model_files(**changed: bytes) -> dict[str, bytes]:
    """A whole model; `config_json=b"..."` puts something else in config.json."""
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer.json": json.dumps(tokenizer()).encode(),
        "tokenizer_config.json": b'{"eos_token": "<eos>", "unk_token": "<unk>"}',
        "model.safetensors": save(tensors()),
    }
    names = {name.replace(".", "_"): name for name in files}
    return files | {names.get(name, name): content for name, content in changed.items()}


def safetensors_file(header: bytes | dict, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with a header as it is given."""
    if isinstance(header, dict):
        header = json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


# Types of GGUF's values.
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9


def gguf_text(text: str | bytes) -> bytes:
    """A text with its length."""
    content = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(content)) + content


def gguf_array(kind: int, entries: bytes, count: int) -> tuple[int, bytes]:
    """An array that says that it has `count` entries."""
    return ARRAY, struct.pack("<IQ", kind, count) + entries


def gguf_file(
    fields: dict[str, tuple[int, bytes]], tensors: bytes = b"", counts=None, version=3
) -> bytes:
    """A header; `counts` are what it says of its tensors and fields."""
    num_tensors, num_fields = counts or (0, len(fields))
    content = b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_fields)
    for name, (kind, value) in fields.items():
        content += gguf_text(name) + struct.pack("<I", kind) + value
    return content + tensors


def gguf_fields(**changed: tuple[int, bytes]) -> dict[str, tuple[int, bytes]]:
    """What a llama has to say of itself, but for its tokenizer."""

    def whole(number: int) -> tuple[int, bytes]:
        return U32, struct.pack("<I", number)

    fields = {
        "general.architecture": (STRING, gguf_text("llama")),
        "llama.context_length": whole(64),
        "llama.embedding_length": whole(8),
        "llama.block_count": whole(1),
        "llama.feed_forward_length": whole(12),
        "llama.attention.head_count": whole(2),
        "llama.attention.head_count_kv": whole(1),
        "llama.attention.layer_norm_rms_epsilon": (F32, struct.pack("<f", 1e-5)),
    }
    return fields | {name.replace("__", "."): value for name, value in changed.items()}
