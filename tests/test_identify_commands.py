"""`ioa validate`, `ioa diagnose` and `ioa curriculum`, on small models in directories."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from ioa_jax.cli import app
from ioa_jax.commands.identify import curriculum_lines
from ioa_jax.errors import InputError
from ioa_jax.identifier.diagnosis import Diagnosis
from ioa_jax.organizer.curriculum import plan_curriculum
from tests.page import values
from tests.suite.world import write_model


def ioa(*arguments):
    """What a command prints; its error is raised here."""
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False).stdout


def failing(*arguments):
    """The error of a command that fails, and what it printed before."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert isinstance(result.exception, InputError)
    return str(result.exception), result.stdout


def write_seeds(path, count=24, **changes):
    rows = [
        {
            "prompt": f"What is {n} and {n}?",
            "reference": f"It is \\boxed{{{2 * n}}}.",
            "check": {"kind": "math"},
            "module": "maths/doubling" if n % 2 else "maths/[bold]sums",
        }
        | changes
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_validate_counts(tmp_path):
    out = ioa("validate", write_seeds(tmp_path / "s.jsonl"))
    assert "24 seeds" in out
    assert "checks: math 24" in out
    assert "maths/doubling 12" in out


def test_validate_finds_references_that_fail_their_check(tmp_path):
    path = write_seeds(tmp_path / "s.jsonl", check={"kind": "math", "answer": "4"})
    error, out = failing("validate", path)
    assert "s.jsonl: 23 of 24 references fail their own check" in error
    # 2 and 2 is 4.
    names = [line.split(": ")[1] for line in out.splitlines()]
    assert names == [f"line-{n}" for n in range(1, 25) if n != 3]
    assert "24 seeds" in ioa("validate", path, "--no-grade")


def test_validate_names_each_bad_line(tmp_path):
    path = write_seeds(tmp_path / "s.jsonl")
    good = path.read_text()
    path.write_text("{not JSON\n[1]\n" + good + '{"prompt": "a"}\n' + good.splitlines()[0] + "\n")
    error, out = failing("validate", path)
    assert error == f"{path}: bad lines: 4; each is named above"
    faults = out.splitlines()
    assert [line.removeprefix(f"{path}:").split(":")[0] for line in faults] == [
        "1",
        "2",
        "27",
        "28",
    ]
    for fault, words in zip(
        faults,
        ("not JSON", "object is needed, not list", "field 'reference'", "same as in line 3"),
        strict=True,
    ):
        assert words in fault
    with pytest.raises(InputError, match="12 seeds; at least 20"):
        ioa("validate", write_seeds(tmp_path / "few.jsonl", 12))


def test_curriculum_says_why(tmp_path):
    diagnosis = values.diagnosis()
    (tmp_path / "diagnosis.json").write_text(diagnosis.to_json())
    out = ioa("curriculum", tmp_path)
    assert out.splitlines()[0] == "stage 1 (mean P_S 0.25)"
    assert "arithmetic/division is in stage 2: it needs arithmetic/multiplication." in out
    assert "first a bridge of easier examples" in out
    wide = ioa("curriculum", tmp_path, "--tau-zpd", 1)
    assert "bridge" not in wide
    with pytest.raises(InputError, match="tau_zpd"):
        ioa("curriculum", tmp_path, "--tau-zpd", 2)
    with pytest.raises(InputError, match=r"diagnosis\.json"):
        ioa("curriculum", tmp_path / "none")


def test_a_diagnosis_without_targets_has_no_stages():
    graph = values.diagnosis().graph
    assert curriculum_lines(plan_curriculum((), graph, {}, ())) == [
        "no stages: the diagnosis has no targets"
    ]


@pytest.mark.slow
def test_diagnose_then_curriculum(tmp_path):
    model, seeds = tmp_path / "model", write_seeds(tmp_path / "s.jsonl")
    write_model(model)
    config = tmp_path / "settings.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "measure": {"scorer": "logprob"},
                "decompose": {"min_seeds": 4},
                "dependencies": {"steps": 2, "snapshots": 1, "row_length": 64},
                "tau_gap": -1,
            }
        )
    )
    arguments = (
        "diagnose", "--student", model, "--teacher", model, "--seeds", seeds, "--output",
        tmp_path / "out", "--config", config, "--pack", "micro", "--set", "target_fraction=1",
        "--precision", "float32", "--teacher-set", "precision=float32",
    )  # fmt: skip
    out = ioa(*arguments)
    text = (tmp_path / "out" / "diagnosis.json").read_text()
    diagnosis = Diagnosis.from_json(text, "x")
    assert diagnosis.decomposition.decomposer == "given"
    # One model on both sides has no gap, and tau_gap makes a target of each module all the same.
    assert [gap.relative for gap in diagnosis.gaps] == pytest.approx([0.0, 0.0], abs=1e-3)
    assert set(diagnosis.targets.modules) == {"maths/bold-sums", "maths/doubling"}
    assert "maths/doubling" in out
    assert "target" in out
    page = (tmp_path / "out" / "diagnosis.html").read_text()
    assert page.count("<svg") >= 2
    assert "stage 1" in ioa("curriculum", tmp_path / "out")
    # Again: everything is there already.
    assert ioa(*arguments) == out
    with pytest.raises(InputError, match="another seed"):
        ioa(*arguments, "--seed", 3)
    with pytest.raises(InputError, match=r"'decompose\.min_seed'"):
        ioa(*arguments, "--set", "decompose.min_seed=3")
