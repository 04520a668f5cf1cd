"""IOA: pedagogically ordered data synthesis for distilling a language model, in JAX.

The names below are the public API; `distill` is the method as a whole. Each is imported when it is
first used, so that importing the package neither initialises a device nor reads a file.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ioa_jax.config import DistillConfig, MethodConfig
    from ioa_jax.distillation import distill
    from ioa_jax.engine.batching import TokenPair
    from ioa_jax.engine.generation import Completion, Generator
    from ioa_jax.engine.sampling import SamplingParams
    from ioa_jax.engine.scoring import Score, Scorer
    from ioa_jax.engine.training import (
        Batch,
        LoRAConfig,
        TrainConfig,
        Trainer,
        TrainResult,
        train,
    )
    from ioa_jax.errors import InputError, IOAError
    from ioa_jax.identifier.diagnosis import Diagnosis, diagnose
    from ioa_jax.models.huggingface import write_decoder
    from ioa_jax.models.load import LanguageModel, load_model
    from ioa_jax.models.prune import prune_model
    from ioa_jax.models.text import encode_prompt_completion, render_chat
    from ioa_jax.run import DistillResult, Outcome
    from ioa_jax.seeds import SeedItem, read_seeds
    from ioa_jax.student import Student
    from ioa_jax.teachers.base import Teacher
    from ioa_jax.teachers.ledger import Ledger
    from ioa_jax.teachers.replay import LedgeredTeacher
    from ioa_jax.teachers.spec import open_teacher

_MODULES = {
    "DistillConfig": "config",
    "MethodConfig": "config",
    "distill": "distillation",
    "TokenPair": "engine.batching",
    "Completion": "engine.generation",
    "Generator": "engine.generation",
    "SamplingParams": "engine.sampling",
    "Score": "engine.scoring",
    "Scorer": "engine.scoring",
    "Trainer": "engine.training",
    "Batch": "engine.training",
    "LoRAConfig": "engine.training",
    "TrainConfig": "engine.training",
    "TrainResult": "engine.training",
    "train": "engine.training",
    "InputError": "errors",
    "IOAError": "errors",
    "Diagnosis": "identifier.diagnosis",
    "diagnose": "identifier.diagnosis",
    "write_decoder": "models.huggingface",
    "LanguageModel": "models.load",
    "load_model": "models.load",
    "prune_model": "models.prune",
    "encode_prompt_completion": "models.text",
    "render_chat": "models.text",
    "DistillResult": "run",
    "Outcome": "run",
    "SeedItem": "seeds",
    "read_seeds": "seeds",
    "Student": "student",
    "Teacher": "teachers.base",
    "Ledger": "teachers.ledger",
    "LedgeredTeacher": "teachers.replay",
    "open_teacher": "teachers.spec",
}

__all__ = [
    "Batch",
    "Completion",
    "Diagnosis",
    "DistillConfig",
    "DistillResult",
    "Generator",
    "IOAError",
    "InputError",
    "LanguageModel",
    "Ledger",
    "LedgeredTeacher",
    "LoRAConfig",
    "MethodConfig",
    "Outcome",
    "SamplingParams",
    "Score",
    "Scorer",
    "SeedItem",
    "Student",
    "Teacher",
    "TokenPair",
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "diagnose",
    "distill",
    "encode_prompt_completion",
    "load_model",
    "open_teacher",
    "prune_model",
    "read_seeds",
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
