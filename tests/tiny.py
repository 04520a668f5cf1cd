"""Small models and data that tests share."""

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ioa_jax.engine.batching import TokenPair
from ioa_jax.models.config import DecoderConfig, RopeScaling
from ioa_jax.models.decoder import Decoder, init_decoder
from ioa_jax.models.load import LanguageModel
from ioa_jax.models.precision import Precision

CONFIGS = {
    "llama": DecoderConfig(
        model_type="llama",
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 16),
        max_position=512,
        eos_token_ids=(1,),
    ),
    "qwen2": DecoderConfig(
        model_type="qwen2",
        vocab_size=104,
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        qkv_bias=True,
        tie_embeddings=True,
        max_position=512,
        real_vocab_size=97,
        eos_token_ids=(1,),
    ),
    "qwen3": DecoderConfig(
        model_type="qwen3",
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        qk_norm=True,
        max_position=512,
        eos_token_ids=(1,),
    ),
}


def tiny_decoder(family: str = "llama", precision: str = "float32", seed: int = 0) -> Decoder:
    """Random weights, large enough that probabilities differ visibly from uniform."""
    decoder = init_decoder(
        CONFIGS[family], jax.random.key(seed), Precision.named(precision), jnp.float32
    )
    return jax.tree.map(lambda x: x * 5 if x.ndim > 2 else x, decoder)


def random_pairs(count: int, seed: int = 0, vocab: int = 97) -> list[TokenPair]:
    """Prompts of 3-20 and completions of 1-12 tokens."""
    rng = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(t) for t in rng.integers(2, vocab, rng.integers(low, high)))

    return [TokenPair(tokens(3, 21), tokens(1, 13)) for _ in range(count)]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Token n is the word "n"; 0 is <unk>, 1 is <eos>."""
    vocab = {"<unk>": 0, "<eos>": 1, **{str(n): n for n in range(2, 97)}}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>"
    )


def tiny_model(family: str = "llama", precision: str = "float32") -> LanguageModel:
    """A `tiny_decoder` that reads and writes numbers."""
    return LanguageModel(tiny_decoder(family, precision), tiny_tokenizer(), "tiny", "0" * 64)
