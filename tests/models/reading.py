"""Weights of a file as a decoder, without the tokenizer that `load_model` asks for as well."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp

from ioa_jax.models.decoder import Decoder
from ioa_jax.models.gguf import GGUFFile
from ioa_jax.models.huggingface import SafetensorsCheckpoint, read_config
from ioa_jax.models.precision import Precision
from ioa_jax.models.tensors import build_decoder


def read_decoder(
    directory: Path, precision: Precision, dtype: Any = jnp.float32, shardings: Any = None
) -> Decoder:
    """The weights of a Hugging Face directory."""
    with SafetensorsCheckpoint(directory, read_config(directory)) as file:
        return build_decoder(file.config, precision, dtype, shardings, file.read)


def read_gguf(file: GGUFFile, precision: Precision, shardings: Any = None) -> Decoder:
    """The weights of a GGUF file, in float32."""
    return build_decoder(file.config, precision, jnp.float32, shardings, file.read)
