"""Eight devices give what one gives, and weights land where the rules say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jax.sharding import PartitionSpec

from ioa_jax.errors import InputError
from ioa_jax.models.mesh import make_mesh, partition_spec

RUN = """
import dataclasses, json, sys
import jax, numpy as np
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
from ioa_jax.models.mesh import decoder_shardings, make_mesh
from ioa_jax.engine.training import LoRAConfig, TrainConfig, train
from ioa_jax.engine.scoring import Scorer
from tests.tiny import random_pairs, tiny_decoder, tiny_model
shape, on_cpu, lora = json.loads(sys.argv[1])
assert len(jax.devices()) == 8
decoder = tiny_decoder()
decoder.precision = dataclasses.replace(decoder.precision, on_cpu=on_cpu)
mesh = make_mesh(*shape) if shape else None
config = TrainConfig(
    learning_rate=1e-2, epochs=3, batch_rows=8, row_length=48,
    lora=LoRAConfig(rank=2) if lora else None,
)
result = train(decoder, random_pairs(40), config, mesh=mesh)
model = dataclasses.replace(tiny_model(), decoder=result.decoder)
print(json.dumps({
    "losses": [m.loss for m in result.metrics],
    "norms": [m.grad_norm for m in result.metrics],
    "devices": len(result.decoder.blocks.qkv[...].sharding.device_set),
    "spec": str(getattr(result.decoder.blocks.gate_up[...].sharding, "spec", None)),
    "scores": [s.logprob for s in Scorer(model).score_tokens(random_pairs(5, seed=9))],
}))
"""


def run(shape, on_cpu=True, lora=False):
    root = Path(__file__).parents[2]
    env = {
        **os.environ,
        "PYTHONPATH": str(root),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps([shape, on_cpu, lora])],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def one_device():
    return run(None)


@pytest.mark.parametrize(
    ("shape", "on_cpu"), [((8, 1, 1), False), ((2, 2, 2), False), ((2, 2, 2), True)]
)
def test_eight_devices_equal_one(one_device, shape, on_cpu):
    eight = run(shape, on_cpu)
    assert eight["devices"] == 8
    assert eight["losses"] == pytest.approx(one_device["losses"], rel=1e-4)
    assert eight["norms"] == pytest.approx(one_device["norms"], rel=1e-3)
    assert eight["scores"] == pytest.approx(one_device["scores"], abs=0.02)
    if shape == (2, 2, 2):
        assert eight["spec"].endswith("(None, None, 'tensor', 'fsdp')")


def test_lora_on_eight_devices_equals_one():
    assert run((2, 2, 2), False, True)["losses"] == pytest.approx(
        run(None, True, True)["losses"], rel=1e-4
    )


def test_rules():
    mesh = make_mesh(1, 1, 2)
    assert partition_spec(".blocks.qkv.value", (3, 2, 4, 8, 32), mesh) == PartitionSpec(
        None, "tensor", None, None, "fsdp"
    )
    # Three key/value heads don't divide by two: whole.
    assert partition_spec(".blocks.qkv.value", (3, 3, 4, 8, 32), mesh)[1] is None
    assert partition_spec("[0].mu.blocks.input_norm.value", (3, 32), mesh) == PartitionSpec()
    with pytest.raises(InputError, match="no sharding rule"):
        partition_spec(".blocks.router.value", (3, 32), mesh)
    with pytest.raises(InputError, match="needs 3 devices"):
        make_mesh(3, 1, 1)
