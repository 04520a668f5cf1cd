"""What a run does: a YAML file under a schema, with overrides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ioa_jax.errors import InputError
from suite.methods import METHODS

PROFILES = Path(__file__).with_name("profiles")

Positive = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TeacherSettings(Settings):
    spec: str = Field(description="Model: smollm2, gguf:FILE, a Hugging Face directory or hub id.")


class StudentSettings(Settings):
    spec: str = Field(description="As the teacher's.")
    keep_layers: Positive | None = Field(
        default=None, description="Keep this many layers, evenly spaced; null keeps all."
    )


class TaskSettings(Settings):
    probe_fraction: float = Field(
        gt=0, lt=1, description="Share of each module's seed tasks that are probes."
    )
    split_seed: int = Field(default=0, ge=0, description="Seed of the split.")
    max_seeds_per_module: Positive | None = Field(
        default=None, description="Cut after the split; null keeps all."
    )
    max_probes_per_module: Positive | None = Field(
        default=None, description="Cut after the split; null keeps all."
    )


class AnswerSettings(Settings):
    max_tokens: Positive = Field(description="Longest answer, in tokens.")
    temperature: float = Field(default=0.0, ge=0, description="0 is greedy.")
    top_k: int = Field(default=0, ge=0, description="Sample among this many; 0 is no limit.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus; 1 is no limit.")
    seed: int = Field(default=0, ge=0, description="Seed of the sampling.")


class ProbeSettings(Settings):
    max_tokens: Positive = Field(description="Longest answer to a probe, in tokens; greedy.")


class HumanEvalSettings(Settings):
    problems: int = Field(
        ge=1, le=164, description="How many problems, evenly spread over the 164."
    )
    max_tokens: Positive = Field(description="Longest answer, in tokens; greedy.")


class OrganizerSettings(Settings):
    num_stages: Positive = Field(description="Stages of the curriculum.")


class TrainSettings(Settings):
    learning_rate: float = Field(gt=0, description="Peak of the cosine.")
    epochs: Positive = Field(description="Passes over each example, whatever the method.")
    batch_rows: Positive = Field(description="Packed rows of one optimiser step.")
    row_length: Positive = Field(description="Tokens of a row; longer examples are cut.")
    accumulation: Positive = Field(default=1, description="Parts that a step is split into.")
    warmup_fraction: float = Field(default=0.03, ge=0, le=1, description="Of the steps.")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's, on matrices.")
    clip: float = Field(default=1.0, gt=0, description="Largest global gradient norm.")
    remat: Literal["none", "dots", "full", "offload"] = Field(
        default="full", description="What the backward pass computes again, to save memory."
    )
    save_every: Positive = Field(default=25, description="Steps between two checkpoints.")


class GenerationSettings(Settings):
    batch_size: Positive = Field(default=32, description="Rows that decode together.")
    chunk_size: Positive = Field(
        default=64,
        description="Requests that are generated together. A resumed run repeats an unfinished "
        "chunk whole: in another batch an answer could differ in its last bits.",
    )


class SandboxSettings(Settings):
    wall_seconds: float = Field(default=30.0, gt=0, description="Wall clock of one program.")
    cpu_seconds: Positive = Field(default=5, description="Processor time of one program.")
    memory_bytes: Positive = Field(default=1 << 30, description="Address space of one program.")
    allow_weak: bool = Field(
        default=False, description="Run programs although they can't be isolated here."
    )


class Profile(Settings):
    description: str = Field(description="One line for `list`.")
    precision: Literal["bfloat16", "float32"] = Field(
        description="Operands of matrix products, and weights in scoring and generation."
    )
    teacher: TeacherSettings
    student: StudentSettings
    tasks: TaskSettings
    answers: AnswerSettings
    probes: ProbeSettings
    humaneval: HumanEvalSettings
    organizer: OrganizerSettings
    train: TrainSettings
    generation: GenerationSettings = GenerationSettings()
    sandbox: SandboxSettings = SandboxSettings()
    methods: tuple[str, ...] = Field(description="`undistilled`, and the methods to compare.")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        min_length=1, description="Training seeds; each method runs once a seed."
    )

    @field_validator("methods")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in METHODS:
                raise ValueError(f"{name!r} is unknown; choose from {', '.join(METHODS)}")
        if len(set(value)) != len(value):
            raise ValueError("a method occurs twice")
        if "undistilled" not in value:
            # The gaps that order the stages are those of the undistilled student.
            raise ValueError("'undistilled' has to be one of them")
        return value

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a seed occurs twice")
        return value

    def digest(self) -> str:
        """sha256 of the settings, whatever file and overrides they came from."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()


def profile_names() -> list[str]:
    """Profiles that come with the suite."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(name: str, overrides: Sequence[str] = ()) -> tuple[str, Profile]:
    """A profile by name, or from a file.

    Args:
        name: One of `profile_names()`, or the path of a YAML file.
        overrides: `a.b=value`; the value is read as YAML.

    Returns:
        Its name (a file's without folder and ending) and the settings.

    Raises:
        InputError: There is no such profile; or a setting is unknown, missing or wrong.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(profile_names())
        raise InputError(f"profile {name!r} is unknown; choose from {known}, or name a YAML file")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: a mapping of settings is needed")
    for override in overrides:
        _override(raw, override)
    return path.stem, validate(raw, str(path))


def validate(raw: Any, source: str) -> Profile:
    """Settings under the schema.

    Raises:
        InputError: Names the source and the first bad field.
    """
    try:
        return Profile.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "profile"
        raise InputError(f"{source}: setting {field!r}: {first['msg']}") from None


def _override(raw: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise InputError(f"--set {override!r}: write it as a.b=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override!r}: {error}") from None
    *parents, last = name.split(".")
    place = raw
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise InputError(f"--set {override!r}: {parent!r} has no settings of its own")
    place[last] = value
