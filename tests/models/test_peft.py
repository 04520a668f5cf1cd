"""LoRA adapters in PEFT's layout."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ioa_jax.errors import InputError, ModelFormatError
from ioa_jax.models.lora import Adapter, LoRA, merge_lora, projection_shapes
from ioa_jax.models.peft import read_lora, write_lora
from ioa_jax.models.tensors import export_tensors
from tests.tiny import CONFIGS, tiny_decoder

PREFIX = "base_model.model."


def random_lora(config, rank=4, alpha=8.0, names=None):
    rng = np.random.default_rng(0)
    layers = {}
    for name, (out, width) in projection_shapes(config).items():
        if names is None or name in names:
            a = rng.normal(size=(config.num_layers, rank, width)).astype(np.float32)
            b = rng.normal(size=(config.num_layers, *out, rank)).astype(np.float32)
            layers[name] = Adapter(jnp.asarray(a), jnp.asarray(b), alpha / rank)
    return LoRA(layers)


@pytest.fixture
def adapter(tmp_path):
    directory = tmp_path / "adapter"
    write_lora(random_lora(CONFIGS["llama"]), directory, "org/base")
    return directory


def edit_config(directory, **fields):
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize("family", list(CONFIGS))
@pytest.mark.parametrize("names", [None, ("q", "v"), ("down",)])
def test_round_trip(names, family, tmp_path):
    lora = random_lora(CONFIGS[family], rank=3, alpha=10.0, names=names)
    write_lora(lora, tmp_path / "adapter", "org/base")
    again = read_lora(tmp_path / "adapter", CONFIGS[family])
    assert list(again.layers) == list(lora.layers)
    assert again.alpha == pytest.approx(10.0)
    jax.tree.map(np.testing.assert_array_equal, again, lora)


def test_layout_on_disk(adapter):
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8)
    assert config["base_model_name_or_path"] == "org/base"
    assert config["target_modules"] == [
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    ]
    tensors = load_file(adapter / "adapter_model.safetensors")
    assert len(tensors) == 3 * 7 * 2
    query = f"{PREFIX}model.layers.2.self_attn.q_proj"
    assert tensors[f"{query}.lora_A.weight"].shape == (4, 32)
    assert tensors[f"{query}.lora_B.weight"].shape == (32, 4)
    assert tensors[f"{PREFIX}model.layers.0.mlp.down_proj.lora_A.weight"].shape == (4, 48)


@pytest.mark.parametrize("family", list(CONFIGS))
@pytest.mark.parametrize("rslora", [False, True])
def test_merging_is_what_peft_does_to_each_matrix(rslora, family, tmp_path):
    config, decoder = CONFIGS[family], tiny_decoder(family)
    write_lora(random_lora(config), tmp_path / "adapter", "org/base")
    edit_config(tmp_path / "adapter", use_rslora=rslora)
    merged = dict(export_tensors(merge_lora(decoder, read_lora(tmp_path / "adapter", config))))
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    scale = 8.0 / (2.0 if rslora else 4.0)
    for name, weight in export_tensors(decoder):
        key = PREFIX + name.removesuffix(".weight")
        expected = weight
        if f"{key}.lora_A.weight" in tensors:
            delta = tensors.pop(f"{key}.lora_B.weight") @ tensors.pop(f"{key}.lora_A.weight")
            expected = weight + scale * delta
            assert np.abs(delta).max() > 1
        np.testing.assert_allclose(merged[name], expected, atol=1e-4, err_msg=name)
    assert not tensors


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("use_dora", True),
        ("bias", "all"),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 8}),
        ("alpha_pattern", {"q_proj": 8}),
        ("layers_to_transform", [0]),
        ("layer_replication", [[0, 1]]),
        ("fan_in_fan_out", True),
        ("init_lora_weights", "pissa"),
        ("lora_bias", True),
        ("trainable_token_indices", [3]),
        ("an_option_of_the_future", True),
    ],
)
def test_options_that_are_not_applied_are_refused(option, value, adapter):
    edit_config(adapter, **{option: value})
    with pytest.raises(ModelFormatError, match=f"{option}=.* is not supported"):
        read_lora(adapter, CONFIGS["llama"])


def test_neutral_options_are_accepted(adapter):
    edit_config(
        adapter,
        **{"rank_pattern": {}, "loftq_config": {}, "layers_pattern": None, "lora_dropout": 0.1},
        **{"megatron_core": "megatron.core", "corda_config": None, "init_lora_weights": "gaussian"},
    )
    assert read_lora(adapter, CONFIGS["llama"]).rank == 4


def test_tensors_that_do_not_fit_are_named(adapter):
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    name = f"{PREFIX}model.layers.1.mlp.up_proj.lora_B.weight"
    wrong = {**tensors, name: np.zeros((47, 4), np.float32)}
    save_file(wrong, path)
    with pytest.raises(ModelFormatError, match=r"up_proj.*shape \[47, 4\], not \[48, 4\]"):
        read_lora(adapter, CONFIGS["llama"])
    save_file({key: value for key, value in tensors.items() if key != name}, path)
    with pytest.raises(ModelFormatError, match=r"layers\.1\.mlp\.up_proj\.lora_B\.weight is mis"):
        read_lora(adapter, CONFIGS["llama"])
    save_file({**tensors, f"{PREFIX}lm_head.lora_A.weight": np.zeros((4, 32))}, path)
    with pytest.raises(ModelFormatError, match=r"lm_head\.lora_A\.weight has no place"):
        read_lora(adapter, CONFIGS["llama"])
    path.unlink()
    with pytest.raises(ModelFormatError, match="only safetensors"):
        read_lora(adapter, CONFIGS["llama"])


def test_what_cannot_be_written(adapter):
    config = CONFIGS["llama"]
    with pytest.raises(InputError, match="not an empty directory"):
        write_lora(random_lora(config), adapter, "org/base")
    mixed = LoRA({**random_lora(config).layers, **random_lora(config, rank=2, names="q").layers})
    with pytest.raises(InputError, match="differ in rank"):
        write_lora(mixed, adapter.with_name("other"), "org/base")


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), None, "16", True])
def test_scales_that_are_no_numbers_are_refused(adapter, alpha):
    edit_config(adapter, lora_alpha=alpha)
    with pytest.raises(
        ModelFormatError, match=r"lora_alpha=.*: a finite number|(NaN|Infinity) is no JSON"
    ):
        read_lora(adapter, CONFIGS["llama"])


def test_adapters_of_dtypes_that_are_not_read_are_named(adapter):
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name: np.zeros(t.shape, np.uint8) for name, t in tensors.items()}, path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].replace(b'"U8"', b'"F8_E4M3"')
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
    with pytest.raises(ModelFormatError, match=r"lora_A\.weight is stored as F8_E4M3; only F32"):
        read_lora(adapter, CONFIGS["llama"])


def test_adapters_that_are_not_finite_are_refused(adapter, tmp_path):
    path = adapter / "adapter_model.safetensors"
    lora = read_lora(adapter, CONFIGS["llama"])
    tensors = load_file(path)
    name = f"{PREFIX}model.layers.1.mlp.up_proj.lora_B.weight"
    tensors[name][0, 0] = np.nan
    save_file(tensors, path)
    with pytest.raises(ModelFormatError, match=r"up_proj\.lora_B\.weight holds values that aren't"):
        read_lora(adapter, CONFIGS["llama"])
    broken = jax.tree.map(lambda x: x * jnp.inf, lora)
    with pytest.raises(ModelFormatError, match=r"other isn't written: .* aren't finite"):
        write_lora(broken, tmp_path / "other", "base")
    assert not (tmp_path / "other").exists()
