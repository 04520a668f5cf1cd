"""Logits equal to those of transformers (PyTorch) in float32, in both directions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.engine.generation import Generator
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.models.config import RopeScaling
from ioa_jax.models.huggingface import write_decoder
from ioa_jax.models.load import load_model
from ioa_jax.models.precision import Precision
from ioa_jax.models.tensors import build_decoder, hf_shapes
from ioa_jax.models.text import render_chat
from suite.tasks.seeds import load_seed_tasks
from tests.models.reading import read_decoder
from tests.tiny import CONFIGS, tiny_tokenizer

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")]

FLOAT32 = Precision.named("float32")
LLAMA3 = RopeScaling("llama3", 8.0, 1.0, 4.0, 16)
# Rows long enough that every band of the scaled frequencies matters.
TOKENS = np.random.default_rng(0).integers(2, 97, (2, 48)).astype(np.int32)

VARIANTS = {
    "llama": dataclasses.replace(CONFIGS["llama"], rope_scaling=None),
    "llama with llama3 scaling": dataclasses.replace(CONFIGS["llama"], rope_scaling=LLAMA3),
    "llama with linear scaling": dataclasses.replace(
        CONFIGS["llama"], rope_scaling=RopeScaling("linear", 4.0), tie_embeddings=True
    ),
    "qwen2 tied, padded": CONFIGS["qwen2"],
    "qwen2 untied": dataclasses.replace(CONFIGS["qwen2"], tie_embeddings=False),
    "qwen3": CONFIGS["qwen3"],
    "qwen3 tied, without groups": dataclasses.replace(
        CONFIGS["qwen3"], tie_embeddings=True, num_kv_heads=4
    ),
}


@pytest.fixture(params=VARIANTS)
def config(request):
    return dataclasses.replace(VARIANTS[request.param], real_vocab_size=None)


def our_logits(decoder, tokens=TOKENS):
    run = jax.jit(lambda decoder, tokens: decoder.logits(decoder.hidden(tokens)))
    return np.asarray(run(decoder, jnp.asarray(tokens)))


def their_logits(model, tokens=TOKENS):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(torch.tensor(tokens, dtype=torch.long)).logits.float().numpy()


def load_with_transformers(directory):
    pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(directory), attn_implementation="eager").eval()


def assert_close(ours, theirs, tolerance):
    difference = np.abs(ours - theirs).max()
    assert difference < tolerance, difference
    # Logits that hardly vary would agree whatever was computed.
    assert theirs.std() > 0.5


def random_tensors(config):
    rng = np.random.default_rng(1)
    return {
        name: (rng.normal(1, 0.2, shape) if "norm" in name else rng.normal(0, 0.3, shape)).astype(
            np.float32
        )
        for name, shape in hf_shapes(config).items()
    }


def test_our_export_in_transformers(config, tmp_path):
    tensors = random_tensors(config)
    decoder = build_decoder(
        config, FLOAT32, jnp.float32, None, lambda name, index: tensors[name][index]
    )
    write_decoder(decoder, tiny_tokenizer(), tmp_path / "model", max_shard_bytes=20_000)
    model = load_with_transformers(tmp_path / "model")
    assert type(model).__name__.lower().startswith(config.model_type)
    assert_close(our_logits(decoder), their_logits(model), 1e-4)

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "model"))
    assert tokenizer.eos_token_id == 1
    # transformers 5 gives every qwen2 model the Qwen2 tokenizer, whatever its files say.
    if config.model_type != "qwen2":
        assert tokenizer("12 7 90")["input_ids"] == [12, 7, 90]
    assert model.generation_config.eos_token_id == 1


def test_a_model_of_transformers_here(config, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = config.to_hf()
    theirs = AutoConfig.for_model(fields.pop("model_type"), **fields)
    model = AutoModelForCausalLM.from_config(theirs, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if "norm" in name else 0.3 * noise)
    model.save_pretrained(str(tmp_path))
    decoder = read_decoder(tmp_path, FLOAT32)
    assert dataclasses.replace(decoder.config, eos_token_ids=()) == dataclasses.replace(
        config, eos_token_ids=()
    )
    assert_close(our_logits(decoder), their_logits(model), 1e-4)


def test_rows_of_a_padded_vocabulary_are_masked(tmp_path):
    config = dataclasses.replace(CONFIGS["qwen2"], real_vocab_size=None)
    tensors = random_tensors(config)
    decoder = build_decoder(
        config, FLOAT32, jnp.float32, None, lambda name, index: tensors[name][index]
    )
    write_decoder(decoder, tiny_tokenizer(), tmp_path / "model")
    ours = our_logits(load_model(str(tmp_path / "model"), "float32").decoder)
    theirs = their_logits(load_with_transformers(tmp_path / "model"))
    assert_close(ours[..., :97], theirs[..., :97], 1e-4)
    assert (ours[..., 97:] < -1e29).all()


@pytest.mark.slow
@pytest.mark.smollm2
def test_smollm2(tmp_path):
    pytest.importorskip("torch")
    model = load_model("smollm2", "float32")
    write_decoder(model.decoder, model.tokenizer, tmp_path / "smollm2")
    theirs = load_with_transformers(tmp_path / "smollm2")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "smollm2"))
    text = render_chat(
        model.tokenizer, [{"role": "user", "content": "If 3 pens cost 2.40, what do 12 cost?"}]
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == model.tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens = np.array([ids])
    assert_close(our_logits(model.decoder, tokens), their_logits(theirs, tokens), 1e-3)


@pytest.mark.slow
@pytest.mark.smollm2
def test_greedy_text_of_smollm2(tmp_path):
    """20 chats of 64 tokens; a failure says which chat differs, and at which token first."""
    torch = pytest.importorskip("torch")
    model = load_model("smollm2", "float32")
    write_decoder(model.decoder, model.tokenizer, tmp_path / "smollm2")
    theirs = load_with_transformers(tmp_path / "smollm2")
    prompts = [
        model.tokenizer(
            render_chat(model.tokenizer, list(task.messages)), add_special_tokens=False
        )["input_ids"]
        for task in load_seed_tasks()[::10][:20]
    ]
    assert len(prompts) == 20
    ours = Generator(model, 20).generate(prompts, SamplingParams(max_tokens=64))
    differences = {}
    for i, (prompt, completion) in enumerate(zip(prompts, ours, strict=True)):
        with torch.no_grad():
            out = theirs.generate(torch.tensor([prompt]), max_new_tokens=64, do_sample=False)
        expected = tuple(out[0, len(prompt) :].tolist())
        if completion.tokens != expected:
            pairs = zip(completion.tokens, expected, strict=False)
            differences[i] = next((at for at, (a, b) in enumerate(pairs) if a != b), "length")
    assert differences == {}
