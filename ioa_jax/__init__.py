"""IOA: pedagogically ordered data synthesis for distilling a language model, in JAX.

The names below are the public API. Each is imported when it is first used, so that importing the
package neither initialises a device nor reads a file.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ioa_jax.engine.batching import TokenPair
    from ioa_jax.engine.generation import Completion, Generator
    from ioa_jax.engine.sampling import SamplingParams
    from ioa_jax.engine.scoring import Score, Scorer
    from ioa_jax.engine.training import LoRAConfig, TrainConfig, TrainResult, train
    from ioa_jax.errors import InputError, IOAError
    from ioa_jax.models.huggingface import write_decoder
    from ioa_jax.models.load import LanguageModel, load_model
    from ioa_jax.models.prune import prune_model
    from ioa_jax.models.text import encode_prompt_completion, render_chat

_MODULES = {
    "TokenPair": "engine.batching",
    "Completion": "engine.generation",
    "Generator": "engine.generation",
    "SamplingParams": "engine.sampling",
    "Score": "engine.scoring",
    "Scorer": "engine.scoring",
    "LoRAConfig": "engine.training",
    "TrainConfig": "engine.training",
    "TrainResult": "engine.training",
    "train": "engine.training",
    "IOAError": "errors",
    "InputError": "errors",
    "write_decoder": "models.huggingface",
    "LanguageModel": "models.load",
    "load_model": "models.load",
    "prune_model": "models.prune",
    "encode_prompt_completion": "models.text",
    "render_chat": "models.text",
}

__all__ = [
    "Completion",
    "Generator",
    "IOAError",
    "InputError",
    "LanguageModel",
    "LoRAConfig",
    "SamplingParams",
    "Score",
    "Scorer",
    "TokenPair",
    "TrainConfig",
    "TrainResult",
    "encode_prompt_completion",
    "load_model",
    "prune_model",
    "render_chat",
    "train",
    "write_decoder",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
