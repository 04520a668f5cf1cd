"""The guide to one's own domain, walked through with a teacher behind a real server."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from string import Template

import jax.numpy as jnp
import pytest
from typer.testing import CliRunner

from ioa_jax.cli import app
from ioa_jax.errors import NothingTaught
from ioa_jax.files import read_json
from ioa_jax.settings import override_setting
from tests.distill_world import QUESTION, new_student, question, speak, write_seeds
from tests.teachers.server import Server, running_server

pytest.importorskip("openai")

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "guides" / "own-domain.md"
# As the guide has it, at a size for a test.
SMALL = (
    "budget.teacher_tokens=6000",
    "budget.student_tokens=24000",
    "diagnose.decompose.min_seeds=4",
    "diagnose.decompose.max_tokens=200",
    "diagnose.measure.max_tokens=32",
    "diagnose.probe_fraction=0.33",
    "diagnose.min_gate_probes=6",
    "adapter.examples_per_seed=2",
    "adapter.calls_per_round=16",
    "adapter.max_tokens=60",
    "adapter.verification.max_tokens=32",
    "train.learning_rate=1.0e-2",
    "train.batch_rows=2",
    "train.row_length=96",
    "precision=float32",
    "teacher.settings.backoff_seconds=0.001",
    "licences={student: apache-2.0, teacher: no training of rivals}",
    "benchmarks=[test.jsonl]",
)


@pytest.fixture(scope="module")
def cook() -> Iterator[Server]:
    with running_server() as server:
        server.scores = None
        server.answer = lambda messages, seed: speak(messages[-1]["content"], seed)
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    return tmp_path


def write_files(folder: Path) -> None:
    """What the walk begins with."""
    write_seeds(folder / "seeds.jsonl", named=False)
    (folder / "distill.yaml").write_text(blocks("yaml")[0])
    # Of the cook's lessons on spoons, all overlap with these.
    tests = [{"prompt": question(number, "spoons")} for number in range(100)]
    (folder / "test.jsonl").write_text("".join(json.dumps(test) + "\n" for test in tests))
    (folder / "questions.jsonl").write_text('{"prompt": "How many cups fill box 12?"}\n')
    new_student().save(folder / "student", "", jnp.float32)


def blocks(language: str) -> list[str]:
    """Fenced blocks of the guide."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def commands(server: Server, folder: Path) -> list[list[str]]:
    """The guide's commands, each as a list of words."""
    values = {"TEACHER": f"openai:cook@{server.url}", "STUDENT": str(folder / "student")}
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    found = [shlex.split(Template(line).substitute(values)) for line in lines]
    return [words for words in found if words[0] == "ioa"]


def small(words: list[str]) -> list[str]:
    if words[1] == "distill":
        return [*words, *(part for setting in SMALL for part in ("--set", setting))]
    if words[1] == "diagnose":
        own = [s.removeprefix("diagnose.") for s in SMALL if s.startswith("diagnose.")]
        return [*words, *(part for setting in own for part in ("--set", setting))]
    return words


def test_its_seed_is_one() -> None:
    (line,) = blocks("json")[0].splitlines()
    assert QUESTION.fullmatch(json.loads(line)["prompt"])


@pytest.mark.parametrize("language", ["sh", "json", "yaml", "python"])
def test_readme_says_the_same(language: str) -> None:
    """So what README has of the walk is run too."""
    readme = (ROOT / "README.md").read_text()
    section = readme.partition("## Your own domain")[2].partition("\n## ")[0]
    written = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    ours = {line for block in blocks(language) for line in block.splitlines()}
    assert {line for block in written for line in block.splitlines()} <= ours


def test_the_walk(folder: Path, cook: Server) -> None:
    walk = commands(cook, folder)
    assert [words[1] for words in walk] == [
        "validate", "distill", "diagnose", "curriculum", "distill", "generate",
    ]  # fmt: skip
    outputs: list[str] = []
    for words in walk:
        result = CliRunner().invoke(app, small(words)[1:], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        outputs.append(result.output)
    assert "36 seeds" in outputs[0]
    assert "teacher tokens: 6,000" in outputs[1]
    assert "kitchen/cups" in outputs[3]
    record = read_json(folder / "run" / "record.json")
    assert record["lessons"] > 0
    assert record["rejects"]["contaminated"] > 0
    lessons = (folder / "run" / "lessons.jsonl").read_text().splitlines()
    taught = {json.loads(line)["module"] for line in lessons}
    assert taught
    assert "kitchen/spoons" not in taught
    # The modules are the teacher's, of a domain that no code has heard of.
    assert all(module.startswith("kitchen/") for module in record["performance"])
    assert (folder / "run" / "report.html").is_file()
    assert {one["module"]: one["reason"] for one in record["excluded"]} == {
        "kitchen/spoons": "contaminated"
    }
    card = (folder / "run" / "student" / "README.md").read_text()
    for words in (
        "openai:cook", "apache-2.0", "no training of rivals", "| licence of the seeds |",
        "## What it learnt", "the graph is empty", record["conclusion"],
    ):  # fmt: skip
        assert words in card
    assert f"{record['lessons']} examples that the teacher wrote from 36 seed tasks" in card
    # It is better than it was, and no worse than what the seeds give without a teacher.
    means = {
        name: sum(values[name] for values in record["performance"].values()) / 3
        for name in ("before", "after")
    }
    assert means["after"] > means["before"] + 0.5
    assert means["after"] >= record["baseline"]["mean"]
    assert "SFT baseline" in outputs[4]
    assert outputs[4].splitlines()[-1] == record["conclusion"]
    (answered,) = (folder / "answers.jsonl").read_text().splitlines()
    assert json.loads(answered)["completion"]


@pytest.fixture(scope="module")
def taught(cook: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guide's lines of Python, run; the folder that they leave."""
    folder = tmp_path_factory.mktemp("python")
    write_files(folder)
    (block,) = blocks("python")
    assert len([line for line in block.splitlines() if line]) == 10
    program = block.replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(folder / "student"))
    program = program.replace("openai:MODEL@https://HOST/v1", f"openai:cook@{cook.url}")
    settings: dict[str, object] = {}
    for setting in SMALL:
        if setting.startswith(("budget", "diagnose", "adapter", "train")):
            override_setting(settings, setting)
    written = re.search(r"settings = (\{.*\})\n", program)
    assert written is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OPENAI_API_KEY", raising=False)
        patch.chdir(folder)
        exec(program.replace(written[1], repr(settings)), {})
    return folder


def test_ten_lines_of_python(taught: Path) -> None:
    record = read_json(taught / "run" / "record.json")
    assert record["outcome"]["verdict"] == "taught"
    assert record["baseline"] is not None
    used = record["spend"]["teacher"].values()
    assert 0 < sum(one["completion_tokens"] for one in used) <= 6000
    assert (taught / "run/student/README.md").read_text() == "# Knows my domain\n"


def test_a_student_that_lacks_nothing(taught: Path) -> None:
    """The taught student as its own teacher."""
    model, run = str(taught / "run/student"), taught / "again"
    words = ["--teacher", model, "--student", model, "--seeds", str(taught / "seeds.jsonl")]
    words += ["--output", str(run), "--set", "diagnose.decompose.decomposer=random"]
    words += [part for setting in SMALL[:-3] for part in ("--set", setting)]
    with pytest.raises(NothingTaught, match="no module is deficient") as raised:
        CliRunner().invoke(app, ["distill", *words], catch_exceptions=False)
    assert raised.value.exit_code == 7
    assert not (run / "student").exists()
    assert read_json(run / "record.json")["spend"]["student_tokens"] == 0
    assert "Nothing was taught" in (run / "report.html").read_text()


@pytest.fixture(scope="module")
def unkilled(cook: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unkilled")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = small(commands(cook, folder)[4])
        result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
    assert result.exit_code == 0
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("reached", ["parts/*", "diagnosis/decomposition.json", "states/gate*"])
def test_a_killed_run_resumes(folder: Path, cook: Server, unkilled: Path, reached: str) -> None:
    words = small(commands(cook, folder)[4])
    process = subprocess.Popen(
        [sys.executable, "-c", "from ioa_jax.cli import main; main()", *words[1:]],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    run = folder / "run"
    deadline = time.monotonic() + 300
    while not [*run.glob(reached)] and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert [*run.glob(reached)]
    assert not (run / "record.json").exists()
    again = CliRunner().invoke(app, words[1:], catch_exceptions=True)
    assert "--resume" in str(again.exception)
    resumed = CliRunner().invoke(app, ["distill", "--resume", "run"], catch_exceptions=False)
    assert resumed.exit_code == 0
    assert read_json(run / "record.json")["spend"]["student_tokens"] <= 24_000
    for name in ("lessons.jsonl", "rejects.jsonl", "gates.jsonl", "student/model.safetensors"):
        assert (run / name).read_bytes() == (unkilled / name).read_bytes(), name
