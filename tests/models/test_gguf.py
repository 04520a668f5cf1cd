"""GGUF files: quantisations, row order, rope scaling, tokenizers, and the shipped SmolLM2."""

import dataclasses

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Quantization
from gguf.quants import dequantize, quantize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from ioa_jax.errors import InputError, ModelFormatError
from ioa_jax.models.decoder import rotary_frequencies
from ioa_jax.models.gguf import GGUFFile, fit_llama3_scaling
from ioa_jax.models.huggingface import write_decoder
from ioa_jax.models.load import find_smollm2, load_model
from ioa_jax.models.mesh import decoder_shardings, make_mesh
from ioa_jax.models.precision import Precision
from ioa_jax.models.tensors import abstract_decoder, build_decoder, export_tensors, hf_shapes
from ioa_jax.models.text import encode_prompt_completion, render_chat
from tests.models.reading import read_decoder, read_gguf
from tests.tiny import CONFIGS

FLOAT32 = Precision.named("float32")
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = ["Ġ 1", "1 2", "12 3", "Ġ a", "a b", "Ġa b", "Ċ Ċ", "' s"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORE = [*SPECIAL, *ALPHABET, *(merge.replace(" ", "") for merge in MERGES)]
TEXTS = [
    "ab ab 123 1234\n\nab's  12.5ab",
    " lead and trail  ",
    "ünïcödé ½ ٣٤ 日本 12",
    "a\r\n\tb  !!!  12,345 AB'S",
]


def config_for(family):
    """Widths that are multiples of a quantisation block, 32."""
    return dataclasses.replace(
        CONFIGS[family],
        hidden_size=64,
        intermediate_size=96,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        vocab_size=len(CORE),
        real_vocab_size=None,
        rope_scaling=None,
        eos_token_ids=(2,),
        bos_token_id=1,
        pad_token_id=0,
    )


def random_decoder(config):
    """Drawn by NumPy: compiling a random initialisation takes seconds."""
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(0, 0.1, shape).astype(np.float32)
        for name, shape in hf_shapes(config).items()
    }
    return build_decoder(
        config, FLOAT32, jnp.float32, None, lambda name, index: tensors[name][index]
    )


def decoder_for(family):
    return random_decoder(config_for(family))


def llama_cpp_permute(weight, heads):
    """How llama.cpp's converter reorders query and key rows of a Llama."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1)
        .swapaxes(1, 2)
        .reshape(weight.shape)
    )


def write_gguf(
    path, decoder, quantization=Quantization.F32, *, metadata=(), extra=(), skip=(), tokens=None
):
    """A file like llama.cpp's converter writes; gives the dequantised Hugging Face tensors."""
    config = decoder.config
    arch = config.model_type
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(config.max_position)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    write_tokenizer(writer, **(tokens or {}))
    for key, value in dict(metadata).items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    names = gguf.get_tensor_name_map(
        next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == arch), config.num_layers
    )
    stored = {}
    for name, tensor in export_tensors(decoder):
        kind = quantization if tensor.ndim == 2 else Quantization.F32
        heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}.get(name.split(".")[-2])
        if arch == "llama" and heads and tensor.ndim == 2:
            data = quantize(llama_cpp_permute(tensor, heads), kind)
        else:
            data = quantize(tensor, kind)
        other = names.get_name(name, (".weight", ".bias"))
        assert other is not None
        if other not in skip:
            writer.add_tensor(other, data, raw_dtype=kind)
        # Quantisation works on pieces of a row, so the order of rows makes no difference to it.
        stored[name] = dequantize(quantize(tensor, kind), kind)
    for name, tensor in dict(extra).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


def write_tokenizer(writer, model="gpt2", pre="smollm", tokens=CORE, types=None, template=None):
    writer.add_tokenizer_model(model)
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types or [3 if token in SPECIAL else 1 for token in tokens])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    if template is not None:
        writer.add_chat_template(template)


@pytest.mark.parametrize("family", list(CONFIGS))
@pytest.mark.parametrize(
    "quantization",
    [
        Quantization.F32,
        Quantization.F16,
        Quantization.BF16,
        Quantization.Q8_0,
        Quantization.Q4_0,
        Quantization.Q4_1,
        Quantization.Q5_0,
        Quantization.Q5_1,
    ],
    ids=lambda kind: kind.name,
)
def test_weights(quantization, family, tmp_path):
    decoder = decoder_for(family)
    stored = write_gguf(tmp_path / "model.gguf", decoder, quantization)
    file = GGUFFile(tmp_path / "model.gguf")
    assert file.config == decoder.config
    tensors = dict(export_tensors(read_gguf(file, FLOAT32)))
    assert tensors.keys() == stored.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, stored[name], name)
    query = "model.layers.1.self_attn.q_proj.weight"
    error = np.abs(stored[query] - dict(export_tensors(decoder))[query]).max()
    assert (error > 0) == (quantization != Quantization.F32)
    assert error < 0.05


def test_reads_into_a_sharding(tmp_path):
    stored = write_gguf(tmp_path / "model.gguf", decoder_for("llama"), Quantization.Q8_0)
    file = GGUFFile(tmp_path / "model.gguf")
    shardings = decoder_shardings(abstract_decoder(file.config, FLOAT32), make_mesh(tensor=2))
    decoder = read_gguf(file, FLOAT32, shardings)
    assert len(decoder.blocks.qkv[...].sharding.device_set) == 2
    for name, tensor in export_tensors(decoder):
        np.testing.assert_array_equal(tensor, stored[name], name)


# -- metadata ------------------------------------------------------------------------------------


def llama3_factors(factor, low, high, original, theta, head_dim):
    """As llama.cpp's converter writes them."""
    frequencies = 1.0 / theta ** (np.arange(0, head_dim, 2) / head_dim)
    factors = []
    for frequency in frequencies:
        wavelength = 2 * np.pi / frequency
        if wavelength < original / high:
            factors.append(1)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


@pytest.mark.parametrize(
    ("factor", "low", "high", "original", "theta", "head_dim"),
    [
        (8.0, 1.0, 4.0, 8192, 500000.0, 128),  # Llama 3.1
        (32.0, 1.0, 4.0, 8192, 500000.0, 64),  # Llama 3.2 1B
        (16.0, 1.0, 2.5, 4096, 10000.0, 64),
    ],
)
def test_llama3_scaling_is_recovered(factor, low, high, original, theta, head_dim):
    factors = llama3_factors(factor, low, high, original, theta, head_dim)
    scaling = fit_llama3_scaling(factors, theta, head_dim)
    assert scaling is not None
    assert dataclasses.astuple(scaling) == ("llama3", factor, low, high, original)
    # Only ratios to the bounds count.
    doubled = llama3_factors(factor, 2 * low, 2 * high, 2 * original, theta, head_dim)
    assert fit_llama3_scaling(doubled, theta, head_dim) == scaling


def test_llama3_scaling_in_a_file(tmp_path):
    config = dataclasses.replace(config_for("llama"), head_dim=64, num_heads=2, num_kv_heads=1)
    decoder = random_decoder(config)
    factors = llama3_factors(8.0, 1.0, 4.0, 1000, config.rope_theta, 64)
    path = tmp_path / "model.gguf"
    write_gguf(path, decoder, extra={"rope_freqs.weight": factors})
    read = read_gguf(GGUFFile(path), FLOAT32)
    plain = rotary_frequencies(config)
    np.testing.assert_allclose(rotary_frequencies(read.config), plain / factors, rtol=1e-5)

    factors[10] *= 1.2
    write_gguf(path, decoder, extra={"rope_freqs.weight": factors})
    with pytest.raises(ModelFormatError, match=r"rope_freqs\.weight isn't Llama 3's"):
        GGUFFile(path)


def test_linear_scaling(tmp_path):
    path = tmp_path / "model.gguf"
    metadata = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    write_gguf(path, decoder_for("llama"), metadata=metadata)
    scaling = GGUFFile(path).config.rope_scaling
    assert scaling is not None
    assert (scaling.kind, scaling.factor) == ("linear", 4.0)
    # llama.cpp takes a factor without a type for linear scaling, and knows an older name.
    for name in ("llama.rope.scaling.factor", "llama.rope.scale_linear"):
        write_gguf(path, decoder_for("llama"), metadata={name: 4.0})
        assert GGUFFile(path).config.rope_scaling == scaling
    for metadata in (
        {"llama.rope.scaling.factor": 0.0},
        {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0},
    ):
        write_gguf(path, decoder_for("llama"), metadata=metadata)
        assert GGUFFile(path).config.rope_scaling is None
    for factor in (0.5, float("nan"), float("inf")):
        write_gguf(path, decoder_for("llama"), metadata={"llama.rope.scaling.factor": factor})
        with pytest.raises(ModelFormatError, match="at least 1"):
            GGUFFile(path)
    write_gguf(path, decoder_for("llama"), metadata={"llama.rope.scaling.type": "yarn"})
    with pytest.raises(ModelFormatError, match="rope scaling 'yarn'"):
        GGUFFile(path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "model.gguf"
    decoder = decoder_for("llama")
    norm = decoder.final_norm[...].at[3].set(jnp.nan)
    write_gguf(
        path, decoder, extra={"output_norm.weight": np.asarray(norm)}, skip=("output_norm.weight",)
    )
    with pytest.raises(ModelFormatError, match=r"output_norm\.weight holds values that aren't"):
        read_gguf(GGUFFile(path), FLOAT32)


def test_every_token_that_ends_a_text_counts(tmp_path):
    """Of a text, of a turn and of a message (llama.cpp's eos, eot and eom)."""
    path = tmp_path / "model.gguf"
    ends = {"tokenizer.ggml.eot_token_id": 5, "tokenizer.ggml.eom_token_id": 6}
    write_gguf(path, decoder_for("llama"), metadata=ends)
    assert load_model(f"gguf:{path}").decoder.config.eos_token_ids == (2, 5, 6)


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "model.gguf"
    decoder = decoder_for("llama")
    with pytest.raises(InputError, match="no such file"):
        GGUFFile(path)
    path.write_bytes(b"something else, not GGUF")
    with pytest.raises(ModelFormatError, match="not a readable GGUF file"):
        GGUFFile(path)
    write_gguf(path, decoder)
    whole = path.read_bytes()
    for size in (0, 100, 5000, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelFormatError, match="not a readable GGUF file"):
            GGUFFile(path)
    extra = {"blk.0.attn_q.bias": np.zeros(64, np.float32)}
    write_gguf(path, decoder, extra=extra, skip=["blk.2.ffn_up.weight"])
    with pytest.raises(ModelFormatError) as error:
        GGUFFile(path)
    assert "missing: blk.2.ffn_up.weight" in str(error.value)
    assert "without a place in the decoder: blk.0.attn_q.bias" in str(error.value)
    write_gguf(path, decoder, metadata={"llama.expert_count": 8})
    with pytest.raises(ModelFormatError, match=r"llama\.expert_count is set"):
        GGUFFile(path)
    write_gguf(path, decoder, metadata={"llama.rope.dimension_count": 8})
    with pytest.raises(ModelFormatError, match=r"llama\.rope\.dimension_count"):
        GGUFFile(path)
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelFormatError, match="'gemma3' is not supported; supported: llama"):
        GGUFFile(path)


# -- tokenizer -----------------------------------------------------------------------------------


def tokenizer_of(tmp_path, **tokens):
    path = tmp_path / "model.gguf"
    write_gguf(path, decoder_for("llama"), tokens=tokens)
    return GGUFFile(path).read_tokenizer()


def reference(*steps):
    """The same vocabulary under a pre-tokenizer written the way the model's authors do."""
    vocab = {token: number for number, token in enumerate(CORE)}
    pairs = [(left, right) for left, right in map(str.split, MERGES)]
    core = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    core.pre_tokenizer = pre_tokenizers.Sequence(list(steps))
    core.decoder = decoders.ByteLevel()
    return core


BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


@pytest.mark.parametrize(
    ("pre", "core"),
    [
        ("smollm", reference(pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL)),
        ("gpt-2", reference(BYTE_LEVEL)),
    ],
)
@pytest.mark.parametrize("text", TEXTS)
def test_pre_tokenizers_agree_with_the_originals(pre, core, text, tmp_path):
    tokenizer = tokenizer_of(tmp_path, pre=pre)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == core.encode(text).ids
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("smollm", ["ab", "Ġ", "1", "2", "3", "1"]),
        ("gpt-2", ["ab", "Ġ1", "2", "3", "1"]),
        ("qwen2", ["ab", "Ġ", "1", "2", "3", "1"]),
        ("llama-bpe", ["ab", "Ġ", "123", "1"]),
        ("default", ["ab", "Ġ", "123", "1"]),
    ],
)
def test_digits(pre, pieces, tmp_path):
    tokenizer = tokenizer_of(tmp_path, pre=pre)
    assert tokenizer.tokenize("ab 1231") == pieces


def test_special_tokens_and_chat_template(tmp_path):
    template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    tokenizer = tokenizer_of(tmp_path, template=template)
    text = render_chat(tokenizer, [{"role": "user", "content": "ab"}])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == [1, CORE.index("ab"), 2]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    # A user-defined token stays whole, but is text.
    types = [3 if token in SPECIAL else 4 if token == "Ġab" else 1 for token in CORE]
    tokenizer = tokenizer_of(tmp_path, types=types)
    assert tokenizer.tokenize("Ġab") == ["Ġab"]


def test_llama3_takes_whole_tokens_and_starts_with_bos(tmp_path):
    tokens = [*CORE, "xyz"]
    decoder = decoder_for("llama")
    config = dataclasses.replace(decoder.config, vocab_size=len(tokens))
    decoder = random_decoder(config)
    path = tmp_path / "model.gguf"
    write_gguf(path, decoder, tokens={"pre": "llama-bpe", "tokens": tokens})
    tokenizer = GGUFFile(path).read_tokenizer()
    assert tokenizer("xyz")["input_ids"] == [1, len(CORE)]
    write_gguf(path, decoder, tokens={"pre": "gpt-2", "tokens": tokens})
    assert GGUFFile(path).read_tokenizer().tokenize("xyz") == ["x", "y", "z"]


def test_padding_of_the_vocabulary_is_no_token(tmp_path):
    tokens = [*CORE, "[PAD1]", "[PAD2]"]
    types = [*(3 if token in SPECIAL else 1 for token in CORE), 5, 5]
    config = dataclasses.replace(config_for("qwen2"), vocab_size=len(tokens))
    decoder = random_decoder(config)
    path = tmp_path / "model.gguf"
    write_gguf(path, decoder, tokens={"pre": "qwen2", "tokens": tokens, "types": types})
    model = load_model(f"gguf:{path}")
    assert len(model.tokenizer) == len(CORE)
    assert model.decoder.config.real_vocab_size == len(CORE)
    # Of the metadata, and what Qwen's chat models end raw text by.
    assert model.decoder.config.eos_token_ids == (2, 0)


def test_tokenizers_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ModelFormatError, match=r"tokenizer\.ggml\.model='llama'"):
        tokenizer_of(tmp_path, model="llama")
    with pytest.raises(ModelFormatError, match=r"tokenizer\.ggml\.pre='tekken' is not supported"):
        tokenizer_of(tmp_path, pre="tekken")
    with pytest.raises(ModelFormatError, match=r"'tokenizer\.ggml\.pre' is missing"):
        tokenizer_of(tmp_path, pre=None)


def test_export_of_a_gguf_reads_back_the_same(tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, decoder_for("qwen3"), Quantization.Q8_0)
    model = load_model(f"gguf:{path}", "float32")
    write_decoder(model.decoder, model.tokenizer, tmp_path / "exported")
    again = load_model(str(tmp_path / "exported"), "float32")
    assert again.decoder.config == model.decoder.config
    jax.tree.map(np.testing.assert_array_equal, model.decoder, again.decoder)
    for text in TEXTS:
        assert again.tokenizer(text)["input_ids"] == model.tokenizer(text)["input_ids"]


# -- the shipped model ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2():
    return load_model("smollm2", "float32")


@pytest.mark.smollm2
def test_smollm2_knows_the_capital_of_france(smollm2):
    assert smollm2.decoder.config.parameter_count() == 134_515_008
    assert smollm2.decoder.config.eos_token_ids == (2,)
    prompt = render_chat(
        smollm2.tokenizer, [{"role": "user", "content": "What is the capital of France?"}]
    )
    assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
    answer = "The capital of France is Paris.<|im_end|>"
    before, after = encode_prompt_completion(smollm2.tokenizer, prompt, answer)
    hidden = smollm2.decoder.hidden(jnp.array([before + after]))
    predicted = smollm2.decoder.logits(hidden)[0, len(before) - 1 : -1].argmax(-1)
    assert predicted.tolist() == after


@pytest.mark.smollm2
def test_smollm2_tokenizer(smollm2):
    tokenizer = smollm2.tokenizer
    assert len(tokenizer) == 49152
    assert tokenizer.tokenize("In 2024, 3.5 is") == [
        *("In", "Ġ", "2", "0", "2", "4", ",", "Ġ", "3", ".", "5", "Ġis")
    ]
    chat = "<|im_start|>user\nhi<|im_end|>\n"
    ids = tokenizer(chat)["input_ids"]
    assert (ids[0], ids[4]) == (1, 2)
    assert tokenizer.decode(ids) == chat
    assert tokenizer.decode(ids, skip_special_tokens=True) == "user\nhi\n"
    core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL]
    )
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == core.encode(text).ids


@pytest.mark.smollm2
def test_smollm2_fingerprint_is_that_of_the_file(smollm2):
    other = load_model(f"gguf:{find_smollm2()}", "bfloat16", jnp.bfloat16)
    assert other.decoder.blocks.down[...].dtype == jnp.bfloat16
    assert other.fingerprint == smollm2.fingerprint


@pytest.mark.smollm2
def test_smollm2_exports_and_reads_back(smollm2, tmp_path):
    write_decoder(smollm2.decoder, smollm2.tokenizer, tmp_path / "smollm2", dtype=jnp.bfloat16)
    decoder = read_decoder(tmp_path / "smollm2", FLOAT32)
    down = smollm2.decoder.blocks.down[...].astype(jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_array_equal(decoder.blocks.down[...], down)
