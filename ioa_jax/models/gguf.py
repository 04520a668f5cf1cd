"""GGUF files (llama.cpp): architecture, weights and tokenizer of Llama, Qwen2 and Qwen3 models."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from gguf import (
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    GGUFReader,
    Keys,
    ReaderTensor,
    TokenType,
    get_tensor_name_map,
)
from gguf.quants import dequantize
from jaxtyping import Float, Float32
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ioa_jax.errors import InputError, ModelFormatError
from ioa_jax.models.config import DecoderConfig, ModelType, RopeScaling
from ioa_jax.models.gguf_header import check_header
from ioa_jax.models.tensors import check_names, hf_shapes, require_finite

ARCHITECTURES: dict[str, MODEL_ARCH] = {
    name: arch for arch, name in MODEL_ARCH_NAMES.items() if name in get_args(ModelType)
}
# Divisors of the rotary frequencies, by which llama.cpp stores Llama 3's scaling.
ROPE_FACTORS = "rope_freqs.weight"

_GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
# `tokenizer.ggml.pre` -> how text is cut before merging, as in the models' own tokenizer.json. Each
# pattern cuts the pieces that the one before it left; byte-level encoding follows.
_SPLITS: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2_SPLIT,),
    # Digits one by one.
    "smollm": (r"\p{N}", _GPT2_SPLIT),
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "llama-bpe": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    # What llama.cpp does with a file that says no more.
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2_SPLIT, r"\p{N}+", "[0-9][0-9][0-9]"),
}


class GGUFFile:
    """An opened GGUF file; weights stay in the memory-mapped file until they are read.

    Attributes:
        path: The file.
        config: Architecture.
    """

    def __init__(self, path: Path) -> None:
        """Read the metadata and make sure that the tensors fit the architecture.

        Raises:
            InputError: There is no such file.
            ModelFormatError: Not a GGUF file; an architecture, option or quantisation that isn't
                supported; or metadata or tensors that are missing or don't fit, named.
        """
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        self.path = path
        check_header(path)
        try:
            self._reader = GGUFReader(path)
        except (ValueError, IndexError, OverflowError, KeyError, TypeError) as error:
            raise ModelFormatError(f"{path}: not a readable GGUF file: {error}") from None
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        if self._get(Keys.Split.LLM_KV_SPLIT_COUNT, int, 1) > 1:
            raise ModelFormatError(
                f"{path}: is one of several parts; join them with llama-gguf-split --merge"
            )
        self.config = self._read_config()
        # Now and not at the first read, which may come after minutes of other work.
        self._gguf_names = self._name_tensors()

    # -- metadata --------------------------------------------------------------------------------

    def _get(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """A metadata value of a given type; without a default it has to be there."""
        field = self._reader.get_field(key)
        if field is None:
            if default is None:
                raise ModelFormatError(f"{self.path}: metadata {key!r} is missing")
            return default
        try:
            value = field.contents()
        except UnicodeDecodeError as error:
            raise ModelFormatError(f"{self.path}: metadata {key!r} isn't UTF-8: {error}") from None
        if not isinstance(value, kind):
            raise ModelFormatError(
                f"{self.path}: metadata {key!r} is {value!r:.60}, which isn't supported"
            )
        return value

    def _float(self, key: str, default: float | None = None) -> float:
        # Stored as float32: its shortest decimal is the number that was meant (1e-5, not
        # 9.99999975e-06).
        return float(str(np.float32(self._get(key, (float, int), default))))

    def _read_config(self) -> DecoderConfig:
        arch = self._get(Keys.General.ARCHITECTURE, str)
        if arch not in ARCHITECTURES:
            raise ModelFormatError(
                f"{self.path}: {Keys.General.ARCHITECTURE}={arch!r} is not supported; "
                f"supported: {', '.join(ARCHITECTURES)}"
            )

        def key(template: str) -> str:
            return template.format(arch=arch)

        for option in (Keys.LLM.EXPERT_COUNT, Keys.Attention.SLIDING_WINDOW):
            if self._get(key(option), int, 0):
                raise ModelFormatError(f"{self.path}: {key(option)} is set; not supported")
        hidden_size = self._get(key(Keys.LLM.EMBEDDING_LENGTH), int)
        num_heads = self._get(key(Keys.Attention.HEAD_COUNT), int)
        if num_heads < 1:
            raise ModelFormatError(f"{self.path}: {key(Keys.Attention.HEAD_COUNT)}={num_heads}")
        head_dim = self._get(key(Keys.Attention.KEY_LENGTH), int, hidden_size // num_heads)
        for other in (Keys.Attention.VALUE_LENGTH, Keys.Rope.DIMENSION_COUNT):
            if self._get(key(other), int, head_dim) != head_dim:
                raise ModelFormatError(
                    f"{self.path}: {key(other)} isn't the key width {head_dim}; not supported"
                )
        # llama.cpp's default, where a file names no base.
        theta = self._float(key(Keys.Rope.FREQ_BASE), 10000.0)
        # Chat models end a turn by another token than a text, and messages to tools by a third.
        eos = [
            self._get(name, int)
            for name in (Keys.Tokenizer.EOS_ID, Keys.Tokenizer.EOT_ID, Keys.Tokenizer.EOM_ID)
            if self._reader.get_field(name) is not None
        ]
        return DecoderConfig(
            model_type=cast(ModelType, arch),
            vocab_size=_shape(self._tensor("token_embd.weight"))[0],
            hidden_size=hidden_size,
            intermediate_size=self._get(key(Keys.LLM.FEED_FORWARD_LENGTH), int),
            num_layers=self._get(key(Keys.LLM.BLOCK_COUNT), int),
            num_heads=num_heads,
            num_kv_heads=self._get(key(Keys.Attention.HEAD_COUNT_KV), int, num_heads),
            head_dim=head_dim,
            rms_norm_eps=self._float(key(Keys.Attention.LAYERNORM_RMS_EPS)),
            rope_theta=theta,
            rope_scaling=self._read_rope_scaling(arch, theta, head_dim),
            qkv_bias=arch == "qwen2",
            qk_norm=arch == "qwen3",
            tie_embeddings="output.weight" not in self._tensors,
            max_position=self._get(key(Keys.LLM.CONTEXT_LENGTH), int),
            bos_token_id=self._token_id(Keys.Tokenizer.BOS_ID),
            eos_token_ids=tuple(dict.fromkeys(eos)),
            pad_token_id=self._token_id(Keys.Tokenizer.PAD_ID),
        )

    def _token_id(self, key: str) -> int | None:
        return None if self._reader.get_field(key) is None else self._get(key, int)

    def _read_rope_scaling(self, arch: str, theta: float, head_dim: int) -> RopeScaling | None:
        """Of a file that names a factor and no type: linear, as llama.cpp takes it."""
        factor_key = Keys.Rope.SCALING_FACTOR.format(arch=arch)
        factor = self._float(factor_key, self._float(f"{arch}.rope.scale_linear", 1.0))
        kind = self._get(Keys.Rope.SCALING_TYPE.format(arch=arch), str, "linear")
        if kind not in ("none", "linear"):
            raise ModelFormatError(f"{self.path}: rope scaling {kind!r} is not supported")
        # llama.cpp takes 0 for a factor that isn't given.
        if factor and not 1 <= factor < math.inf:
            raise ModelFormatError(f"{self.path}: metadata {factor_key!r} is {factor}: at least 1")
        scaled = kind == "linear" and factor not in (0, 1)
        tensor = self._tensors.get(ROPE_FACTORS)
        if tensor is None:
            return RopeScaling("linear", factor) if scaled else None
        scaling = fit_llama3_scaling(self._dequantize(tensor), theta, head_dim)
        if scaling is None or scaled:
            raise ModelFormatError(
                f"{self.path}: tensor {ROPE_FACTORS} isn't Llama 3's frequency scaling, the only "
                "one supported in this form"
            )
        return scaling

    # -- weights ---------------------------------------------------------------------------------

    def _tensor(self, name: str) -> ReaderTensor:
        if name not in self._tensors:
            raise ModelFormatError(f"{self.path}: tensor {name} is missing")
        return self._tensors[name]

    def _name_tensors(self) -> dict[str, str]:
        """Hugging Face name of each weight to its name here; checks presence and shapes."""
        names = get_tensor_name_map(ARCHITECTURES[self.config.model_type], self.config.num_layers)
        shapes = hf_shapes(self.config)
        renamed: dict[str, str] = {}
        for name in shapes:
            # lm_head has no layer number and token_embd no ambiguity: gguf knows them all.
            other = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert other is not None, name
            renamed[name] = other
        # Read as part of the configuration, not as a weight.
        found = self._tensors.keys() - {ROPE_FACTORS}
        check_names(found, renamed.values(), self.config, str(self.path))
        for name, other in renamed.items():
            shape = _shape(self._tensors[other])
            if shape != shapes[name]:
                raise ModelFormatError(
                    f"{self.path}: {other} has shape {list(shape)}; the metadata implies "
                    f"{list(shapes[name])}"
                )
        return renamed

    def _dequantize(
        self, tensor: ReaderTensor, rows: slice = slice(None)
    ) -> Float32[np.ndarray, "*hf"]:
        """Rows of a tensor; of a vector, all of it."""
        data = tensor.data[rows] if tensor.data.ndim > 1 else tensor.data
        try:
            return dequantize(data, tensor.tensor_type)
        except NotImplementedError:
            raise ModelFormatError(
                f"{self.path}: {tensor.name} is stored as {tensor.tensor_type.name}, which the "
                "gguf package can't dequantise; requantise the model, for instance to Q8_0"
            ) from None

    def read(self, name: str, index: tuple[slice, ...]) -> Float32[np.ndarray, "*hf"]:
        """A rectangle of a tensor, by its Hugging Face name and row order.

        Raises:
            ModelFormatError: It holds values that aren't finite.
        """
        return require_finite(self._gguf_names[name], self._read(name, index), str(self.path))

    def _read(self, name: str, index: tuple[slice, ...]) -> Float32[np.ndarray, "*hf"]:
        tensor = self._tensors[self._gguf_names[name]]
        if len(index) == 1:
            return self._dequantize(tensor)[index]
        rows, columns = index
        # llama.cpp interleaves the two halves of every query and key head of this architecture, so
        # that rotary pairs are neighbours.
        interleaved = self.config.model_type == "llama" and (
            "self_attn.q_proj" in name or "self_attn.k_proj" in name
        )
        if not interleaved:
            return self._dequantize(tensor, rows)[:, columns]
        width = self.config.head_dim
        # Whole heads around the wanted rows, since the halves of each are apart from each other.
        first = rows.start // width * width
        heads = self._dequantize(tensor, slice(first, -(-rows.stop // width) * width))
        heads = heads.reshape(-1, width // 2, 2, heads.shape[-1]).swapaxes(1, 2)
        heads = heads.reshape(-1, heads.shape[-1])
        return heads[rows.start - first : rows.stop - first, columns]

    def stored_bytes(self) -> Iterator[bytes | memoryview]:
        """What identifies the weights: name, quantisation, shape and bytes of each as stored."""
        for name in sorted(self._tensors):
            tensor = self._tensors[name]
            yield f"{name} {tensor.tensor_type.name} {list(_shape(tensor))}\n".encode()
            yield np.ascontiguousarray(tensor.data).view(np.uint8).data

    # -- tokenizer -------------------------------------------------------------------------------

    @property
    def chat_template(self) -> str | None:
        """The chat template; None if there is none."""
        if self._reader.get_field(Keys.Tokenizer.CHAT_TEMPLATE) is None:
            return None
        return self._get(Keys.Tokenizer.CHAT_TEMPLATE, str)

    def read_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer and chat template that the metadata describe.

        transformers has such a conversion too, but knows no digit splitting (SmolLM2) and takes an
        unknown `tokenizer.ggml.pre` for GPT-2's, which gives other tokens without a word.

        Raises:
            ModelFormatError: Not a byte-level BPE tokenizer, an unknown pre-tokenizer, or metadata
                that are missing.
        """
        model = self._get(Keys.Tokenizer.MODEL, str)
        if model != "gpt2":
            raise ModelFormatError(
                f"{self.path}: {Keys.Tokenizer.MODEL}={model!r} is not supported, only byte-level "
                "BPE ('gpt2'); use the Hugging Face directory of the model instead"
            )
        pre = self._get(Keys.Tokenizer.PRE, str)
        if pre not in _SPLITS:
            raise ModelFormatError(
                f"{self.path}: {Keys.Tokenizer.PRE}={pre!r} is not supported; "
                f"supported: {', '.join(_SPLITS)}"
            )
        texts: list[Any] = self._get(Keys.Tokenizer.LIST, list)
        types = self._token_types(texts)
        merges: list[Any] = self._get(Keys.Tokenizer.MERGES, list)
        if not all(isinstance(text, str) for text in (*texts, *merges)):
            raise ModelFormatError(
                f"{self.path}: {Keys.Tokenizer.LIST} and merges have to be texts"
            )
        try:
            core = _byte_level_bpe(texts, types, merges, pre)
        except Exception as error:  # tokenizers raises bare Exception for what it can't use
            raise ModelFormatError(f"{self.path}: the tokenizer can't be built: {error}") from None
        return PreTrainedTokenizerFast(
            tokenizer_object=core,
            clean_up_tokenization_spaces=False,
            model_max_length=self.config.max_position,
            add_bos_token=self._get(Keys.Tokenizer.ADD_BOS, bool, pre == "llama-bpe"),
            add_eos_token=self._get(Keys.Tokenizer.ADD_EOS, bool, False),
            **self._special_tokens(texts),
        )

    def _token_types(self, texts: list[str]) -> list[int]:
        """Type of each token, without the padding at the end of the vocabulary."""
        types = cast("list[int]", self._get(Keys.Tokenizer.TOKEN_TYPE, list))
        if len(types) != len(texts):
            raise ModelFormatError(f"{self.path}: {len(types)} token types for {len(texts)} tokens")
        # Padding is no part of the tokenizer.
        while types and types[-1] == TokenType.UNUSED:
            types.pop()
        if len(set(texts[: len(types)])) != len(types):
            raise ModelFormatError(f"{self.path}: {Keys.Tokenizer.LIST} holds a token twice")
        return types

    def _special_tokens(self, texts: list[str]) -> dict[str, str | None]:
        """Keyword arguments of the tokenizer: its named tokens and chat template."""
        named: dict[str, str | None] = {}
        for name, key in (
            ("bos_token", Keys.Tokenizer.BOS_ID),
            ("eos_token", Keys.Tokenizer.EOS_ID),
            ("unk_token", Keys.Tokenizer.UNK_ID),
            ("pad_token", Keys.Tokenizer.PAD_ID),
        ):
            number = self._token_id(key)
            if number is not None and not 0 <= number < len(texts):
                raise ModelFormatError(f"{self.path}: {key}={number} is beyond the vocabulary")
            named[name] = None if number is None else texts[number]
        if self.chat_template is not None:
            named["chat_template"] = self.chat_template
        return named


def _byte_level_bpe(texts: list[str], types: list[int], merges: list[str], pre: str) -> Tokenizer:
    """A tokenizer of the `len(types)` first texts; `pre` is a key of `_SPLITS`."""
    vocab = {text: number for number, text in enumerate(texts[: len(types)])}
    core = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=[cast("tuple[str, str]", tuple(merge.split(" "))) for merge in merges],
            # Llama 3 takes a word that is a token as it is, even where no merges lead to it.
            ignore_merges=pre == "llama-bpe",
        )
    )
    if pre == "qwen2":
        core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(regex), "isolated") for regex in _SPLITS[pre]),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    for kind, special in ((TokenType.CONTROL, True), (TokenType.USER_DEFINED, False)):
        core.add_tokens(
            [
                AddedToken(text, special=special, normalized=False)
                for text, found in zip(vocab, types, strict=True)
                if found == kind
            ]
        )
    return core


def _shape(tensor: ReaderTensor) -> tuple[int, ...]:
    # GGUF lists the innermost axis first.
    return tuple(int(size) for size in reversed(tensor.shape))


def fit_llama3_scaling(
    factors: Float[np.ndarray, " half"], theta: float, head_dim: int
) -> RopeScaling | None:
    """The Llama 3 scaling whose frequency divisors these are, or None if there is none.

    Divisor i is `1 / (s + (1 - s) / factor)`, where s rises linearly in the frequency from 0 to 1
    between two bounds. Only the ratios of the original context to the bounds matter, so the lower
    bound is put at 1, as in every published model.

    Args:
        factors: Divisors of head_dim / 2 frequencies, from the highest frequency to the lowest.
        theta: Base of the rotary frequencies.
        head_dim: Width of a head.
    """
    if factors.shape != (head_dim // 2,) or not np.all(np.isfinite(factors) & (factors >= 1)):
        return None
    # In float64: the fit's residuals are compared with float32's own rounding.
    inverse = 1 / factors.astype(np.float64)
    frequency = theta ** (-np.arange(0, head_dim, 2) / head_dim) / (2 * np.pi)
    factor = float(factors.max())
    share = (inverse - 1 / factor) / (1 - 1 / factor) if factor > 1 else np.ones_like(inverse)
    ramp = (share > 1e-4) & (share < 1 - 1e-4)
    if ramp.sum() < 2:
        return None
    slope, offset = np.polyfit(frequency[ramp], share[ramp], 1)
    if slope <= 0 or offset >= 0:
        return None
    high = round(float(1 - 1 / offset), 3)
    scaling = RopeScaling(
        "llama3", float(str(np.float32(factor))), 1.0, high, round(float(-slope / offset))
    )
    smooth = np.clip((scaling.original_max_position * frequency - 1) / (high - 1), 0, 1)
    expected = smooth + (1 - smooth) / factor
    return scaling if np.allclose(inverse, expected, rtol=1e-5, atol=0) else None
