"""LoRA adapters in the layout of Hugging Face PEFT: `adapter_config.json` and safetensors."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from ioa_jax.errors import InputError, ModelFormatError
from ioa_jax.models.config import DecoderConfig, read_model_json
from ioa_jax.models.lora import PROJECTIONS, Adapter, LoRA, projection_shapes
from ioa_jax.models.tensors import FLOAT_DTYPES, require_finite, save_tensors

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_DTYPES = (*FLOAT_DTYPES, "F64")

# Options that change nothing about how a finished adapter is applied. (`target_modules` is implied
# by the tensors, which are checked to be complete.)
_HARMLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)


def write_lora(lora: LoRA, directory: Path, base_model: str) -> None:
    """Write an adapter that PEFT's `PeftModel.from_pretrained` loads.

    In a run of several processes, process 0 writes.

    Args:
        lora: Adapters of one rank and scale.
        directory: New, or empty.
        base_model: Model that it belongs to, for `base_model_name_or_path`.

    Raises:
        InputError: The directory isn't empty, or the adapters differ in rank or scale.
        ModelFormatError: Weights aren't finite.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} is not an empty directory; name a new one")
    adapters = lora.layers
    if len({(adapter.a.shape[-2], adapter.scale) for adapter in adapters.values()}) != 1:
        raise InputError("the adapters differ in rank or scale; PEFT's plain LoRA has one of each")
    tensors: dict[str, Float[np.ndarray, "*hf"]] = {}
    for name, adapter in adapters.items():
        a, b = np.asarray(adapter.a), np.asarray(adapter.b)
        # [L, *out, r] -> [L, out, r]: heads are in Hugging Face's order already.
        b = b.reshape(b.shape[0], -1, b.shape[-1])
        for layer in range(a.shape[0]):
            for side, stack in (("A", a), ("B", b)):
                key = _key(layer, name, side)
                source = f"{directory} isn't written"
                tensors[key] = require_finite(key, np.ascontiguousarray(stack[layer]), source)
    alpha = lora.alpha
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": lora.rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": 0.0,
        "target_modules": [PROJECTIONS[name].split(".")[-1] for name in adapters],
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }
    # Only now: what is wrong is raised in every process, though one writes.
    if jax.process_index() != 0:
        return
    directory.mkdir(parents=True, exist_ok=True)
    save_tensors(tensors, directory / WEIGHTS_FILE)
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (directory / CONFIG_FILE).write_text(text, encoding="utf-8")


def read_lora(directory: Path, config: DecoderConfig) -> LoRA:
    """Read a PEFT adapter.

    Args:
        directory: Holds `adapter_config.json` and `adapter_model.safetensors`.
        config: Architecture of the model that it belongs to.

    Returns:
        Float32 adapters. rsLoRA's scale (alpha over the root of r) is honoured.

    Raises:
        ModelFormatError: A file is missing or malformed; an option that this engine doesn't apply
            (DoRA, biases, saved modules, ranks or alphas by layer and the like) is set, named; or
            tensors are missing, unknown, of another shape or dtype, or hold values that aren't
            finite.
    """
    path = directory / CONFIG_FILE
    if not path.exists():
        raise ModelFormatError(f"{path} is missing; is {directory} a PEFT adapter?")
    raw = read_model_json(path)
    if not isinstance(raw, dict) or raw.get("peft_type") != "LORA":
        raise ModelFormatError(f"{path}: peft_type has to be LORA")
    # Options that are unknown count too: PEFT adds some that change how an adapter is applied.
    for option, value in raw.items():
        if option not in _HARMLESS and _matters(option, value):
            raise ModelFormatError(f"{path}: {option}={value!r} is not supported")
    rank, alpha = raw.get("r"), raw.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise ModelFormatError(f"{path}: r={rank!r}: a whole number from 1 on is needed")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ModelFormatError(f"{path}: lora_alpha={alpha!r}: a finite number is needed")
    scale = alpha / (math.sqrt(rank) if raw.get("use_rslora") else rank)
    return LoRA(_read_adapters(directory / WEIGHTS_FILE, config, rank, scale))


def _matters(option: str, value: Any) -> bool:
    """Whether an option, known or not, is set to something other than its neutral value."""
    if option == "bias":
        return value not in ("none", None)
    if option == "init_lora_weights":
        # Adapters that start elsewhere (PiSSA, OLoRA, LoftQ) belong to changed base weights.
        return value not in (True, False, None, "gaussian")
    return bool(value)


def _read_adapters(
    path: Path, config: DecoderConfig, rank: int, scale: float
) -> dict[str, Adapter]:
    try:
        # numpy has no type for some of the dtypes that safetensors has: they are asked for first.
        with safe_open(path, framework="numpy") as file:
            dtypes = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
            for key, dtype in dtypes.items():
                if dtype not in _DTYPES:
                    raise ModelFormatError(
                        f"{path}: {key} is stored as {dtype}; only {', '.join(_DTYPES)} are read"
                    )
            tensors: dict[str, Float[np.ndarray, "*hf"]] = {
                key: require_finite(key, file.get_tensor(key), str(path)) for key in dtypes
            }
    except FileNotFoundError:
        raise ModelFormatError(f"{path} is missing; only safetensors adapters are read") from None
    except SafetensorError as error:
        raise ModelFormatError(f"{path}: not a readable safetensors file: {error}") from None
    present = {
        name
        for name, module in PROJECTIONS.items()
        if any(re.search(rf"\.{re.escape(module)}\.lora_", key) for key in tensors)
    }
    shapes = projection_shapes(config)
    expected: dict[str, tuple[int, ...]] = {}
    for name in present:
        out, width = shapes[name]
        for layer in range(config.num_layers):
            expected[_key(layer, name, "A")] = (rank, width)
            expected[_key(layer, name, "B")] = (math.prod(out), rank)
    for what, keys in (
        ("is missing", sorted(expected.keys() - tensors.keys())),
        ("has no place in the decoder", sorted(tensors.keys() - expected.keys())),
    ):
        if keys:
            more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
            raise ModelFormatError(f"{path}: tensor {keys[0]} {what}{more}")
    if not present:
        raise ModelFormatError(f"{path}: holds no adapter")
    for key, shape in expected.items():
        if tensors[key].shape != shape:
            raise ModelFormatError(
                f"{path}: {key} has shape {list(tensors[key].shape)}, not {list(shape)}"
            )

    adapters: dict[str, Adapter] = {}
    for name in (name for name in PROJECTIONS if name in present):
        stacks = {
            side: np.stack(
                [
                    tensors[_key(layer, name, side)].astype(np.float32)
                    for layer in range(config.num_layers)
                ]
            )
            for side in "AB"
        }
        b = stacks["B"].reshape(config.num_layers, *shapes[name][0], rank)
        adapters[name] = Adapter(jnp.asarray(stacks["A"]), jnp.asarray(b), scale)
    return adapters


def _key(layer: int, name: str, side: str) -> str:
    return f"base_model.model.model.layers.{layer}.{PROJECTIONS[name]}.lora_{side}.weight"
