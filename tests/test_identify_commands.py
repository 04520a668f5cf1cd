"""`ioa validate`, `ioa diagnose` and `ioa curriculum`, on small models in directories."""

import dataclasses
import json

import pytest
import yaml
from typer.testing import CliRunner

from ioa_jax.cli import app
from ioa_jax.commands.identify import curriculum_lines, print_diagnosis
from ioa_jax.errors import InputError
from ioa_jax.identifier.decomposers import decompose
from ioa_jax.identifier.diagnosis import Diagnosis
from ioa_jax.identifier.estimate import NO_DEPENDENCY
from ioa_jax.identifier.forecast import forecast
from ioa_jax.identifier.settings import DiagnoseSettings
from ioa_jax.organizer.curriculum import plan_curriculum
from ioa_jax.seeds import SeedItem
from tests.report import values
from tests.suite.world import write_model
from tests.teachers.recorded import ScriptedTeacher


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


def test_validate_says_what_the_file_will_give(tmp_path):
    path = write_seeds(tmp_path / "s.jsonl")
    out = ioa("validate", path, "--no-grade")
    assert "with probe_fraction=0.2: 20 synthesis seeds and 4 probes in 2 modules" in out
    assert "  maths/doubling: 10 synthesis seeds, 2 probes" in out
    assert "from 2 a share of right answers is known within ± 0.49. 48 seeds of a module" in out
    assert "gates: measured on 40 probes of a module. The teacher writes" in out
    assert "38 at most, for at most 10% of its tokens" in out
    out = ioa("validate", path, "--no-grade", "--set", "gate_probe_share=0")
    assert "gates: measured on these probes alone" in out
    assert "The teacher writes" not in out
    out = ioa("validate", path, "--no-grade", "--set", "probe_fraction=0.5")
    assert "12 synthesis seeds and 12 probes" in out
    config = tmp_path / "settings.yaml"
    config.write_text("decompose: {min_seeds: 11}\nmin_gate_probes: 2\n")
    out = ioa("validate", path, "--no-grade", "--config", config)
    assert "under 11 synthesis seeds or 2 probes: maths/bold-sums (10 and 2); merged into" in out
    assert "add seeds, so that each stays a module of its own: 2 of maths/bold-sums" in out
    assert "gates" not in out
    config.write_text("budget: {student_tokens: 9}\ndiagnose: {probe_fraction: 0.5}\n")
    out = ioa("validate", path, "--no-grade", "--config", config)
    assert "12 synthesis seeds and 12 probes" in out
    out = ioa(
        "validate", path, "--no-grade", "--config", config, "--set", "diagnose.probe_fraction=0.2"
    )
    assert "20 synthesis seeds and 4 probes" in out
    config.write_text("diagnose: 3\n")
    with pytest.raises(InputError, match="setting 'diagnose': a section is needed"):
        ioa("validate", path, "--config", config)
    with pytest.raises(InputError, match="'probe_fractoin'"):
        ioa("validate", path, "--no-grade", "--set", "probe_fractoin=0.5")


def test_validate_tells_of_modules_without_a_sibling_and_of_seeds_without_a_module(tmp_path):
    path = write_seeds(tmp_path / "s.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for number, row in enumerate(rows[:8]):
        row["module"] = f"c{number % 2}/x"
    for row in rows[8:11]:
        del row["module"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = ioa("validate", path, "--no-grade", "--set", "decompose.min_seeds=4")
    assert "c0/x (2 and 2), c1/x (2 and 2); taken together as mixed/rest" in out
    assert "taken together" not in ioa("validate", path, "--no-grade")
    assert "not counted: 3 seeds without a module; the decomposer teacher finds theirs" in out
    for row in rows[:4]:
        row["module"] = "maths/doubling"
    for row in rows[5:8]:
        row["module"] = "maths/doubling"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = ioa("validate", path, "--no-grade")
    assert "c0/x (1 and 0); set aside, neither measured nor taught" in out
    out = ioa("validate", path, "--no-grade", "--set", "decompose.min_seeds=50")
    assert "no module is large enough, and `ioa diagnose` would refuse the file" in out


def test_validate_of_seeds_without_modules(tmp_path):
    out = ioa("validate", write_seeds(tmp_path / "s.jsonl", module=None), "--no-grade")
    assert "about 19 synthesis seeds and 5 probes" in out
    assert "found by the decomposer teacher, 6 at most, as each needs 4 seeds" in out
    out = ioa("validate", tmp_path / "s.jsonl", "--no-grade", "--set", "decompose.min_seeds=4")
    assert "add 6 seeds or more" in out
    many = write_seeds(tmp_path / "many.jsonl", 60, module=None)
    assert "add" not in ioa("validate", many, "--no-grade")


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("size", [2, 3, 5, 6, 9, 30])
def test_the_forecast_is_what_comes(tmp_path, fraction, size):
    modules = ["a/x"] * size + ["a/y"] * 12 + ["b/z"] * 3
    seeds = [
        SeedItem(f"i{n}", f"p{n}", "r", {"kind": "exact"}, "math", module)
        for n, module in enumerate(modules)
    ]
    settings = DiagnoseSettings(probe_fraction=fraction)
    found = forecast(seeds, settings)
    real = decompose(
        ScriptedTeacher(lambda *_: ""), seeds, settings.decompose, tmp_path, fraction, seed=7
    )
    assert found.merged == real.merged
    assert found.modules == {
        module.id: (len(real.items(module.id, "seed")), len(real.items(module.id, "probe")))
        for module in real.taxonomy.modules
    }
    # With as many seeds more as it says, a module stays.
    grown = [
        dataclasses.replace(seeds[0], id=f"j{module}{n}", prompt=f"{module}{n}", module=module)
        for module, count in found.to_add.items()
        for n in range(count)
    ]
    assert forecast([*seeds, *grown], settings).merged == ()


def test_what_a_diagnosis_prints(capsys):
    diagnosis = values.diagnosis()
    estimate = dataclasses.replace(
        diagnosis.dependencies, reason="the settings name it", note=NO_DEPENDENCY
    )
    print_diagnosis(dataclasses.replace(diagnosis, dependencies=estimate))
    out = capsys.readouterr().out
    assert "excluded: counting/permutations, in which the teacher itself has 0.00" in out
    assert "dependencies: by interventions, since the settings name it" in out
    assert "no dependency found: stages begin with the best known modules" in out
    assert "left out: 1 of 97 items, whose module wasn't found, as item-7" in out
    # Four probes, of which the student has one or two, don't decide.
    (uncertain,) = [line for line in out.splitlines() if line.startswith("uncertain")]
    assert "arithmetic/division" in uncertain
    assert "the interval holds the threshold (0.3)" in uncertain


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


def test_curriculum_says_that_there_are_no_dependencies(tmp_path):
    diagnosis = values.diagnosis()
    estimate = dataclasses.replace(diagnosis.dependencies, note=NO_DEPENDENCY)
    diagnosis = dataclasses.replace(diagnosis, dependencies=estimate)
    (tmp_path / "diagnosis.json").write_text(diagnosis.to_json())
    out = ioa("curriculum", tmp_path)
    assert out.splitlines()[0] == "no dependency found: stages begin with the best known modules"
    assert out.splitlines()[1].startswith("stage 1")


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
                "dependencies": {"steps": 2, "snapshots": 1, "row_length": 64},
                "tau_gap": -1,
            }
        )
    )
    arguments = (
        "diagnose", "--student", model, "--teacher", model, "--seeds", seeds, "--output",
        tmp_path / "out", "--config", config, "--pack", "micro",
        "--precision", "float32", "--teacher-set", "precision=float32",
    )  # fmt: skip
    out = ioa(*arguments)
    text = (tmp_path / "out" / "diagnosis.json").read_text()
    diagnosis = Diagnosis.from_json(text, "x")
    assert diagnosis.decomposition.decomposer == "given"
    # One model on both sides has no gap, and tau_gap makes a target of each module all the same.
    assert [gap.relative for gap in diagnosis.gaps] == pytest.approx([0.0, 0.0], abs=1e-3)
    # Every deficient module is a target, and no student tokens were spent unasked.
    assert diagnosis.dependencies.estimator == "teacher_prior"
    assert "no dependency found: stages begin with the best known modules" in out
    assert set(diagnosis.targets.modules) == {"maths/bold-sums", "maths/doubling"}
    assert "maths/doubling" in out
    assert "target" in out
    page = (tmp_path / "out" / "diagnosis.html").read_text()
    assert page.count("<svg") >= 2
    plan = ioa("curriculum", tmp_path / "out").splitlines()
    assert plan[0] == "no dependency found: stages begin with the best known modules"
    assert plan[1].startswith("stage 1")
    # Again: everything is there already.
    assert ioa(*arguments) == out
    with pytest.raises(InputError, match="another seed"):
        ioa(*arguments, "--seed", 3)
    with pytest.raises(InputError, match=r"'decompose\.min_seed'"):
        ioa(*arguments, "--set", "decompose.min_seed=3")
