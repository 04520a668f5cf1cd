"""The programs in examples/, run as they stand but for their sizes."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from ioa_jax.files import read_json
from ioa_jax.settings import merge_settings
from tests.distill_world import new_student, speak, write_seeds
from tests.teachers.server import running_server

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def load(name: str, **sizes: Mapping[str, Any]) -> Any:
    """An example whose settings have other sizes."""
    (path,) = (path for path in EXAMPLES if path.stem == name)
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.SETTINGS = merge_settings(module.SETTINGS, sizes)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_it_is_run(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert f"    python examples/{path.name} " in text


@pytest.mark.slow
def test_own_domain(tmp_path, capsys):
    example = load(
        "own_domain",
        budget={"teacher_tokens": 2000, "student_tokens": 4000},
        organizer={"retention": {"variants": 0, "teacher_share": 0}},
    )
    example.main(tmp_path / "out", num_seeds=48)
    record = read_json(tmp_path / "out/run/record.json")
    assert record["outcome"]["verdict"] == "taught"
    assert record["lessons"] > 0
    assert record["baseline"] is not None
    assert capsys.readouterr().out.strip() == record["conclusion"]
    assert (tmp_path / "out/student/model.safetensors").is_file()


@pytest.mark.slow
def test_openai_server(tmp_path, capsys, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    write_seeds(tmp_path / "seeds.jsonl")
    new_student().save(tmp_path / "student", "", jnp.float32)
    example = load(
        "openai_server",
        budget={"teacher_tokens": 2500, "student_tokens": 6000},
        diagnose={
            "decompose": {"min_seeds": 4},
            "measure": {"max_tokens": 32},
            "probe_fraction": 0.33,
            "min_gate_probes": 4,
        },
        adapter={"examples_per_seed": 1, "max_tokens": 60, "verification": {"max_tokens": 32}},
        train={"batch_rows": 2, "row_length": 96},
    )
    with running_server() as server:
        server.scores = None
        server.answer = lambda messages, seed: speak(messages[-1]["content"], seed)
        arguments = ("cook", server.url, str(tmp_path / "student"), str(tmp_path / "seeds.jsonl"))
        example.main(*arguments, tmp_path / "out")
        calls = len(server.calls)
        example.main(*arguments, tmp_path / "out")
    # Again nothing is asked but whether the server scores, which isn't a call of the ledger.
    assert {path for path, _, _ in server.calls[calls:]} <= {"/v1/completions"}
    record = read_json(tmp_path / "out/run/record.json")
    assert record["outcome"]["verdict"] == "taught"
    costs = [used["cost"] for used in record["spend"]["teacher"].values()]
    assert 0 < sum(costs) < example.MOST_COST
    assert "synthesis: " in capsys.readouterr().out
    assert (tmp_path / "out/student/config.json").is_file()


@pytest.mark.slow
@pytest.mark.smollm2
def test_smollm2(tmp_path, capsys):
    example = load("smollm2", measure={"max_tokens": 64})
    example.SEEDS_PER_MODULE = 4
    example.main(tmp_path)
    targets = read_json(tmp_path / "diagnosis.json")["targets"]["modules"]
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line.endswith("target")} == set(targets)
    # Without two of its layers it is worse at most things than it was.
    assert len(targets) > len(lines) / 2
