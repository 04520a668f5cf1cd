"""Hugging Face model directories: `config.json`, safetensors and tokenizer files; no torch."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from huggingface_hub import StateDictSplit, split_state_dict_into_shards_factory
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedTokenizerBase

from ioa_jax.errors import InputError, ModelFormatError
from ioa_jax.models.config import DecoderConfig, read_model_json, read_token_ids
from ioa_jax.models.decoder import Decoder
from ioa_jax.models.tensors import (
    EMBEDDING,
    FLOAT_DTYPES,
    HEAD,
    check_names,
    export_tensors,
    hf_shapes,
    require_finite,
    save_tensors,
)

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CHUNK_BYTES = 64 * 2**20  # of a tensor that is compared or hashed, on the host at a time


class SafetensorsCheckpoint:
    """The tensors of a Hugging Face directory, opened; use as a context manager.

    Why not Orbax's safetensors layout, which also reads only what each process needs: it yields one
    device array a tensor, so that stacking them would hold every weight on the device twice. Slices
    of the memory-mapped files go straight into the stacked array instead.

    Attributes:
        path: The directory.
        config: Architecture.
    """

    def __init__(self, directory: Path, config: DecoderConfig) -> None:
        """Open the files and make sure that they hold this architecture.

        Args:
            directory: Holds `model.safetensors`, or else the files that
                `model.safetensors.index.json` names: transformers' order. What else is there
                doesn't count.
            config: Architecture, as `read_config` gives it.

        Raises:
            ModelFormatError: No safetensors, or both forms with all their files, so that there is
                no telling which is meant; an unreadable file, a tensor that is missing, unknown,
                of another shape or of a dtype other than float32, float16 and bfloat16, or a
                `lm_head.weight` that differs from the embedding it is said to be tied to.
        """
        self.config = config
        self.path = directory
        self._stack = contextlib.ExitStack()
        self._tensors: dict[str, Any] = {}
        # Without `__init__` ending well there is no `with` that would close the files.
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> SafetensorsCheckpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._tensors.clear()
        self._stack.close()

    def _open(self) -> None:
        listed = self._listed()
        for path in sorted({self.path / file for file in listed.values()}):
            try:
                file = self._stack.enter_context(safe_open(path, framework="numpy"))
            except FileNotFoundError:
                raise ModelFormatError(
                    f"{self.path / INDEX} names {path.name}, which is missing"
                ) from None
            except SafetensorError as error:
                raise ModelFormatError(
                    f"{path}: not a readable safetensors file: {error}"
                ) from None
            # A file may hold more than its index says: a tensor counts where the index has it.
            for name in file.keys():  # noqa: SIM118 - not a mapping
                if listed.get(name, path.name) == path.name:
                    self._tensors[name] = file.get_slice(name)
        source = str(self.path)
        absent = [name for name in listed if name and name not in self._tensors]
        if absent:
            raise ModelFormatError(
                f"{self.path / INDEX} lists tensors that its files lack: " + ", ".join(absent[:8])
            )
        shapes = hf_shapes(self.config)
        # Some files keep a tied head beside the embedding. A copy does no harm; of another matrix,
        # nothing tells which of the two is meant.
        tied_head = self.config.tie_embeddings and HEAD in self._tensors
        if tied_head:
            shapes[HEAD] = shapes[EMBEDDING]
        check_names(self._tensors, shapes, self.config, source)
        for name, shape in shapes.items():
            tensor = self._tensors[name]
            found, dtype = tuple(tensor.get_shape()), tensor.get_dtype()
            if found != shape:
                raise ModelFormatError(
                    f"{source}: {name} has shape {list(found)}; config.json implies {list(shape)}"
                )
            if dtype not in FLOAT_DTYPES:
                raise ModelFormatError(
                    f"{source}: {name} is stored as {dtype}; only {', '.join(FLOAT_DTYPES)} are "
                    "read, so quantised checkpoints have to be dequantised first"
                )
        if tied_head:
            for head, embedding in zip(self._chunks(HEAD), self._chunks(EMBEDDING), strict=True):
                if not np.array_equal(head, embedding):
                    raise ModelFormatError(
                        f"{source}: config.json says tie_word_embeddings, but {HEAD} differs from "
                        f"{EMBEDDING}; set tie_word_embeddings to false to use both"
                    )

    def _listed(self) -> dict[str, str]:
        """Tensor to file name; `{"": file}` for a single file."""
        index, single = self.path / INDEX, self.path / SINGLE
        if single.is_file():
            shards = self._shards(index) if index.is_file() else set[str]()
            if shards - {SINGLE} and all((self.path / name).is_file() for name in shards):
                raise ModelFormatError(
                    f"{self.path} holds two sets of weights: {SINGLE}, and {INDEX} with "
                    f"{', '.join(sorted(shards))}; remove the one that isn't meant"
                )
            return {"": SINGLE}
        if index.is_file():
            self._shards(index)
            return _read_json(index)["weight_map"]
        other = sorted(
            path.name
            for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf", "*.safetensors")
            for path in self.path.glob(pattern)
        )
        raise ModelFormatError(
            f"{self.path} has neither {SINGLE} nor {INDEX}"
            + (f", only {', '.join(other)}" if other else "")
            + "; save the model with transformers' save_pretrained, which writes them"
        )

    def _shards(self, index: Path) -> set[str]:
        """Names of the files that an index lists."""
        mapping = _read_json(index).get("weight_map")
        if not isinstance(mapping, dict) or not mapping:
            raise ModelFormatError(f"{index}: field 'weight_map' is missing or empty")
        # An index is untrusted: a path would lead out of the directory.
        strange = [file for file in mapping.values() if Path(str(file)).name != file]
        if strange:
            raise ModelFormatError(
                f"{index}: field 'weight_map' names {strange[0]!r}, which is no file beside it"
            )
        return set(mapping.values())

    def read(self, name: str, index: tuple[slice, ...]) -> Float[np.ndarray, "*hf"]:
        """A rectangle of a tensor, in the dtype it is stored in.

        Raises:
            ModelFormatError: It holds values that aren't finite.
        """
        return require_finite(name, self._tensors[name][index], str(self.path))

    def _chunks(self, name: str) -> Iterable[Float[np.ndarray, "rows ..."]]:
        """A tensor in runs of rows."""
        tensor = self._tensors[name]
        rows, *rest = tensor.get_shape()
        step = max(1, CHUNK_BYTES // (4 * max(1, int(np.prod(rest)))))
        return (tensor[start : min(start + step, rows)] for start in range(0, rows, step))

    def stored_bytes(self) -> Iterator[bytes | memoryview]:
        """What identifies the weights: name, dtype, shape and bytes of each as stored, in pieces.

        How they are spread over files makes no difference.
        """
        for name, shape in hf_shapes(self.config).items():
            yield f"{name} {self._tensors[name].get_dtype()} {list(shape)}\n".encode()
            for chunk in self._chunks(name):
                yield np.ascontiguousarray(chunk).view(np.uint8).data


def read_config(directory: Path) -> DecoderConfig:
    """Architecture of a Hugging Face directory.

    Tokens that end a text are those of `generation_config.json` followed by those of `config.json`.

    Raises:
        ModelFormatError: A file is missing or malformed, or the architecture isn't supported.
    """
    path = directory / "config.json"
    raw = _read_json(path)
    if raw.get("quantization_config"):
        raise ModelFormatError(
            f"{path}: quantization_config is set; dequantise the checkpoint first"
        )
    if raw.get("transformers_weights"):
        raise ModelFormatError(
            f"{path}: transformers_weights is set, which isn't supported; rename the file to "
            f"{SINGLE}"
        )
    config = DecoderConfig.from_hf(raw, str(path))
    generation = directory / "generation_config.json"
    if generation.is_file():
        ids = read_token_ids(_read_json(generation), "eos_token_id", str(generation))
        config = dataclasses.replace(
            config, eos_token_ids=tuple(dict.fromkeys((*ids, *config.eos_token_ids)))
        )
    return config


def write_decoder(
    decoder: Decoder,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    dtype: Any = None,
    max_shard_bytes: int = 5_000_000_000,
    overwrite: bool = False,
) -> None:
    """Write a directory that transformers loads as it is.

    Everything is written beside the target and renamed, so that a target is complete or absent. In
    a run of several processes all of them call this, and process 0 writes.

    Args:
        decoder: Stacked.
        tokenizer: Its files go along.
        directory: New, or empty.
        dtype: Dtype of the tensors in the files; default that of the embedding.
        max_shard_bytes: Largest safetensors file; one file's tensors are on the host at a time.
        overwrite: Replace a directory that isn't empty.

    Raises:
        InputError: The directory isn't empty, is a file, or its parent doesn't exist; or the
            decoder is unstacked.
        ModelFormatError: Weights aren't finite, or aren't any more in `dtype`.
    """
    if not decoder.is_stacked:
        raise InputError("write the stacked decoder, not what unstacked() returns")
    _check_target(directory, overwrite)
    dtype = jnp.dtype(decoder.embedding[...].dtype if dtype is None else dtype)
    shapes = {
        name: jax.ShapeDtypeStruct(shape, dtype)
        for name, shape in hf_shapes(decoder.config).items()
    }
    plan = split_state_dict_into_shards_factory(
        shapes,
        get_storage_size=lambda tensor: tensor.size * tensor.dtype.itemsize,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_bytes,
    )
    tensors = export_tensors(decoder, dtype)
    if jax.process_index() != 0:
        # Sharded arrays are gathered by all processes together.
        for _ in tensors:
            pass
        return

    temporary = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}")
    temporary.mkdir()
    try:
        _write_weights(tensors, plan, temporary, directory)
        _write_configs(decoder.config, dtype, temporary)
        _write_tokenizer(tokenizer, temporary)
        _move(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _check_target(directory: Path, overwrite: bool) -> None:
    """Raise what `write_decoder` says of the directory."""
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; name a directory")
    if directory.is_dir() and any(directory.iterdir()) and not overwrite:
        raise InputError(f"{directory} is not empty; name a new directory")
    if not directory.absolute().parent.is_dir():
        raise InputError(f"{directory.absolute().parent} is not a directory")


def _write_weights(
    tensors: Iterator[tuple[str, Float[np.ndarray, "*hf"]]],
    plan: StateDictSplit,
    directory: Path,
    target: Path,
) -> None:
    """Files of `plan`; `target` is what errors call the directory."""
    # Shards hold tensors in the order of `hf_shapes`, so one pass over the decoder fills them.
    for file, names in plan.filename_to_tensors.items():
        shard = {
            name: require_finite(name, tensor, f"{target} isn't written")
            for _, (name, tensor) in zip(names, tensors, strict=False)
        }
        if list(shard) != names:
            raise AssertionError(f"{file} should hold {names}, not {list(shard)}")
        save_tensors(shard, directory / file)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        _write_json(directory / INDEX, index)


def _write_configs(config: DecoderConfig, dtype: Any, directory: Path) -> None:
    # transformers 4 reads `torch_dtype`, 5 reads either.
    _write_json(directory / "config.json", {**config.to_hf(), "torch_dtype": dtype.name})
    _write_json(directory / "generation_config.json", _generation_config(config))


def _write_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    tokenizer.save_pretrained(str(directory))
    # transformers 5 writes its new name of the class, which 4 doesn't know; 5 knows the old one.
    path = directory / "tokenizer_config.json"
    config = _read_json(path)
    if config.get("tokenizer_class") == "TokenizersBackend":
        _write_json(path, {**config, "tokenizer_class": "PreTrainedTokenizerFast"})


def _move(source: Path, target: Path) -> None:
    """Rename a directory, over another one if need be."""
    # A rename replaces an empty directory; a full one is moved aside first, and deleted last.
    if not target.exists() or not any(target.iterdir()):
        source.replace(target)
        return
    old = target.with_name(f"{source.name}.old")
    target.rename(old)
    source.rename(target)
    shutil.rmtree(old)


def _generation_config(config: DecoderConfig) -> dict[str, Any]:
    eos = list(config.eos_token_ids)
    fields = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": eos[0] if len(eos) == 1 else eos or None,
        "pad_token_id": config.pad_token_id,
    }
    return {field: value for field, value in fields.items() if value is not None}


def _read_json(path: Path) -> dict[str, Any]:
    value = read_model_json(path)
    if not isinstance(value, dict):
        raise ModelFormatError(f"{path}: has to be a JSON object")
    return value


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
