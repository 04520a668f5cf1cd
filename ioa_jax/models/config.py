"""Architecture of a decoder, read from and written to Hugging Face's `config.json`."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, Literal, cast

from ioa_jax.errors import ModelFormatError
from ioa_jax.json_text import parse_json

ModelType = Literal["llama", "qwen2", "qwen3"]

# More than any model has. What follows is a name a layer, and arrays of these sizes.
MAX_LAYERS = 10_000
MAX_SIZE = 2**31 - 1
_MOST = 1e300  # of a number that is divided and multiplied by

_ARCHITECTURES: dict[str, str] = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Frequency scaling of rotary position embeddings.

    Attributes:
        kind: `linear` divides every frequency by `factor`; `llama3` divides low frequencies and
            interpolates between the two bounds (Llama 3.1, "The Llama 3 Herd of Models").
        factor: Divisor, at least 1.
        low_freq_factor: `llama3` only; wavelengths above `original_max_position / low_freq_factor`
            are divided fully.
        high_freq_factor: `llama3` only; wavelengths under
            `original_max_position / high_freq_factor` stay as they are.
        original_max_position: `llama3` only; context length before scaling, in tokens.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Everything that fixes the shapes and the arithmetic of one decoder.

    Attributes:
        model_type: Family: `llama` (Llama 2, 3.x, SmolLM2), `qwen2` (Qwen2, Qwen2.5) or `qwen3`.
        vocab_size: Rows of the embedding as stored. May exceed the tokenizer's size (padded
            vocabularies); `real_vocab_size` says how many rows are tokens.
        hidden_size: Width `D` of the residual stream.
        intermediate_size: Width `F` of the gated MLP.
        num_layers: Number of blocks `L`.
        num_heads: Query heads.
        num_kv_heads: Key/value heads; divides `num_heads`.
        head_dim: Width of one head.
        rms_norm_eps: Epsilon of every RMSNorm.
        rope_theta: Base of the rotary frequencies.
        rope_scaling: Frequency scaling, or None.
        qkv_bias: Biases on the query, key and value projections (Qwen2).
        qk_norm: RMSNorm over each query and key head (Qwen3).
        tie_embeddings: The head is the embedding.
        max_position: Longest context the model was trained for, in tokens.
        real_vocab_size: Number of leading rows that stand for tokens; the rest is masked out of
            losses and sampling. None: all rows.
        bos_token_id: Beginning-of-text token, if the model has one.
        eos_token_ids: Tokens that end a text.
        pad_token_id: Padding token, if the model names one.
    """

    model_type: ModelType
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    tie_embeddings: bool = False
    max_position: int = 2048
    real_vocab_size: int | None = None
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        for name in _SIZES:
            most = MAX_LAYERS if name == "num_layers" else MAX_SIZE
            if not 1 <= getattr(self, name) <= most:
                raise ModelFormatError(f"{name}={getattr(self, name)}: 1 to {most} is needed")
        # Some files name a padding token that was never added; it isn't used.
        for name, ids in (("bos", (self.bos_token_id,)), ("eos", self.eos_token_ids)):
            if any(one is not None and not 0 <= one < self.vocab_size for one in ids):
                raise ModelFormatError(
                    f"{name}_token_id={', '.join(map(str, ids))}: outside the vocabulary of "
                    f"{self.vocab_size} tokens"
                )
        if self.num_heads % self.num_kv_heads:
            raise ModelFormatError(
                f"num_attention_heads={self.num_heads} is not a multiple of "
                f"num_key_value_heads={self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ModelFormatError(
                f"head_dim={self.head_dim} is odd; rotary embeddings need an even one"
            )
        for name in ("rms_norm_eps", "rope_theta"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ModelFormatError(f"{name}={value!r}: a finite number above 0 is needed")

    @property
    def queries_per_kv(self) -> int:
        """Query heads that share one key/value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def num_tokens(self) -> int:
        """Vocabulary rows that are real tokens."""
        return self.vocab_size if self.real_vocab_size is None else self.real_vocab_size

    def parameter_count(self) -> int:
        """Number of stored parameters; a tied head counts once."""
        attention = self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        if self.qkv_bias:
            attention += self.head_dim * (self.num_heads + 2 * self.num_kv_heads)
        if self.qk_norm:
            attention += 2 * self.head_dim
        mlp = 3 * self.hidden_size * self.intermediate_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_embeddings else 2)
        return (
            self.num_layers * (attention + mlp + 2 * self.hidden_size)
            + embeddings
            + self.hidden_size
        )

    @classmethod
    def from_hf(cls, raw: dict[str, Any], source: str = "config.json") -> DecoderConfig:
        """Read a Hugging Face configuration.

        Args:
            raw: The parsed `config.json`, in the form of transformers 4 (`rope_theta`,
                `rope_scaling`) or 5 (`rope_parameters`).
            source: Name of the file, for error messages.

        Raises:
            ModelFormatError: An architecture or option that this decoder doesn't implement, or a
                missing field. Computing something else in silence would be worse.
        """
        model_type = _supported_model_type(raw, source)

        size = functools.partial(_read_size, raw, source)
        token = functools.partial(_read_token, raw, source)
        num_heads = size("num_attention_heads")
        hidden_size = size("hidden_size")
        theta, scaling = _read_rope(raw, source)

        fields: dict[str, Any] = {
            "model_type": model_type,
            "vocab_size": size("vocab_size"),
            "hidden_size": hidden_size,
            "intermediate_size": size("intermediate_size"),
            "num_layers": size("num_hidden_layers"),
            "num_heads": num_heads,
            "num_kv_heads": size("num_key_value_heads", num_heads),
            # Left out by files whose heads share the residual stream's width evenly.
            "head_dim": size("head_dim", hidden_size // num_heads),
            "rms_norm_eps": _epsilon(raw, source),
            "rope_theta": theta,
            "rope_scaling": scaling,
            # No fields of these files: they belong to the family.
            "qkv_bias": model_type == "qwen2",
            "qk_norm": model_type == "qwen3",
            "tie_embeddings": bool(raw.get("tie_word_embeddings", False)),
            "max_position": size("max_position_embeddings", 2048),
            "bos_token_id": token("bos_token_id"),
            "eos_token_ids": read_token_ids(raw, "eos_token_id", source),
            "pad_token_id": token("pad_token_id"),
        }
        try:
            return cls(**fields)
        except ModelFormatError as error:
            raise ModelFormatError(f"{source}: {error}") from None

    def to_hf(self) -> dict[str, Any]:
        """The `config.json` that transformers (4 and 5) loads as this architecture."""
        raw: dict[str, Any] = {
            "architectures": [_ARCHITECTURES[self.model_type]],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "max_position_embeddings": self.max_position,
            "tie_word_embeddings": self.tie_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": list(self.eos_token_ids)
            if len(self.eos_token_ids) > 1
            else next(iter(self.eos_token_ids), None),
            "pad_token_id": self.pad_token_id,
            "attention_dropout": 0.0,
            "use_cache": True,
        }
        # Fields that the family's configuration class has; others would stay as unknown extras.
        if self.model_type != "qwen2":
            raw["attention_bias"] = False
        if self.model_type == "llama":
            raw["mlp_bias"] = False
        # The form of transformers 4, which 5 reads as well.
        scaling = self.rope_scaling
        if scaling is None:
            raw["rope_scaling"] = None
        elif scaling.kind == "linear":
            raw["rope_scaling"] = {"rope_type": "linear", "factor": scaling.factor}
        else:
            raw["rope_scaling"] = {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_position,
            }
        return raw


_SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads"),
    *("num_kv_heads", "head_dim", "max_position"),
)


def read_model_json(path: Path) -> Any:
    """A JSON file of a model.

    Raises:
        ModelFormatError: It is missing, can't be read, or isn't JSON.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFormatError(f"{path} is missing") from None
    except OSError as error:
        raise ModelFormatError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ModelFormatError(f"{path}: not valid JSON: {error}") from None


def _read_size(raw: dict[str, Any], source: str, field: str, default: int | None = None) -> int:
    """A whole number from 1 on; with a default, null or 0 is what the file doesn't say."""
    value = raw.get(field)
    value = default if default is not None and not value else value
    if value is None:
        raise ModelFormatError(f"{source}: field {field!r} is missing")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelFormatError(
            f"{source}: {field}={value!r:.60}: a whole number from 1 on is needed"
        )
    return value


def _read_token(raw: dict[str, Any], source: str, field: str) -> int | None:
    ids = read_token_ids(raw, field, source)
    if len(ids) > 1:
        raise ModelFormatError(f"{source}: {field}={raw[field]!r:.60}: one token is needed")
    return next(iter(ids), None)


def _epsilon(raw: dict[str, Any], source: str) -> float:
    value = raw.get("rms_norm_eps")
    if value is None:
        raise ModelFormatError(f"{source}: field 'rms_norm_eps' is missing")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1:
        raise ModelFormatError(
            f"{source}: rms_norm_eps={value!r:.60}: a number between 0 and 1 is needed"
        )
    return float(value)


def _supported_model_type(raw: dict[str, Any], source: str) -> ModelType:
    """The family, of which nothing is asked that the decoder lacks.

    Raises:
        ModelFormatError: Something is; named.
    """
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in _ARCHITECTURES:
        raise ModelFormatError(
            f"{source}: model_type={model_type!r:.60} is not supported; "
            f"supported: {', '.join(_ARCHITECTURES)}"
        )
    for field, allowed in (
        ("hidden_act", "silu"),
        ("attention_bias", False),
        ("mlp_bias", False),
        ("use_sliding_window", False),
    ):
        # A field that is absent or null is at this value.
        value = raw.get(field)
        if value is not None and value != allowed:
            raise ModelFormatError(
                f"{source}: {field}={value!r} is not supported (only {allowed!r})"
            )
    kinds = raw.get("layer_types") or []
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise ModelFormatError(f"{source}: layer_types other than full_attention")
    return cast(ModelType, model_type)


def read_token_ids(raw: dict[str, Any], field: str, source: str) -> tuple[int, ...]:
    """Token ids of a field that holds one, several or (null, or absent) none.

    Args:
        raw: A parsed configuration.
        field: Such as `eos_token_id`.
        source: Name of the file, for error messages.

    Raises:
        ModelFormatError: Something else is in it, such as text or a null in a list.
    """
    value = raw.get(field)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if any(not isinstance(one, int) or isinstance(one, bool) or one < 0 for one in ids):
        raise ModelFormatError(f"{source}: {field}={value!r:.60}: token ids are whole numbers")
    return tuple(ids)


def _rope_settings(raw: dict[str, Any], source: str) -> tuple[str, dict[str, Any]]:
    """Name and content of the field that says how positions are rotated."""
    name = "rope_scaling" if raw.get("rope_scaling") else "rope_parameters"
    rope = raw.get(name) or {}
    if not isinstance(rope, dict):
        raise ModelFormatError(f"{source}: {name}={rope!r:.60}: has to be an object")
    # One object for each kind of layer: all layers are of one kind here.
    nested = [key for key, value in rope.items() if isinstance(value, dict)]
    if nested:
        raise ModelFormatError(
            f"{source}: {name} is given by kind of layer ({', '.join(nested)}), which isn't "
            "supported; put the settings of full_attention in its place"
        )
    if (raw.get("partial_rotary_factor") or rope.get("partial_rotary_factor") or 1) != 1:
        raise ModelFormatError(f"{source}: partial_rotary_factor is not supported")
    return name, rope


def _read_rope(raw: dict[str, Any], source: str) -> tuple[float, RopeScaling | None]:
    """Rotary base and scaling, from either generation of the file format.

    As transformers 5 reads them (`RotaryEmbeddingConfigMixin`): `rope_scaling` replaces
    `rope_parameters`, the base is theirs or else the file's, and so is the original context length,
    which is the context length where it isn't given. transformers passes over an original length
    that stands beside them; one that says something else is refused.
    """
    name, rope = _rope_settings(raw, source)

    def number(field: str, value: Any, least: float) -> float:
        # A factor that is none would be computed with in silence.
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelFormatError(
                f"{source}: {name}: field {field!r} is {value!r:.60}, not a number"
            )
        if not least <= value < _MOST:
            raise ModelFormatError(f"{source}: {name}: {field}={value!r:.60}: at least {least:g}")
        return float(value)

    theta = number("rope_theta", rope.get("rope_theta", raw.get("rope_theta", 10000.0)), 1.0)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind not in ("linear", "llama3"):
        raise ModelFormatError(
            f"{source}: rope_type={kind!r} is not supported (default, linear, llama3 are)"
        )
    length = "original_max_position_embeddings"
    fields = {length: raw.get("max_position_embeddings"), **rope}
    if kind == "llama3" and raw.get(length) not in (None, fields[length]):
        raise ModelFormatError(
            f"{source}: {length}={raw[length]!r} stands beside {name}, where it is "
            f"{fields[length]!r}; transformers takes the latter, so put there what is meant"
        )
    try:
        factor = number("factor", fields["factor"], 1.0)
        if kind == "linear":
            return theta, RopeScaling("linear", factor)
        low = number("low_freq_factor", fields["low_freq_factor"], 0.0)
        high = number("high_freq_factor", fields["high_freq_factor"], 0.0)
        original = number(length, fields[length], 1.0)
    except KeyError as error:
        raise ModelFormatError(
            f"{source}: rope scaling {kind!r} lacks field {error.args[0]!r}"
        ) from None
    if not 0 < low < high:
        raise ModelFormatError(
            f"{source}: {name}: low_freq_factor={low:g} has to be above 0 and below "
            f"high_freq_factor={high:g}"
        )
    return theta, RopeScaling("llama3", factor, low, high, int(original))
