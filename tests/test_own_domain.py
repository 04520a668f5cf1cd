"""README's walk through distilling into one's own domain, with a teacher behind a real server."""

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

import pytest
from typer.testing import CliRunner

from ioa_jax.cli import app
from ioa_jax.files import read_json
from tests.distill_world import QUESTION, question, speak, write_seeds
from tests.suite.world import write_model
from tests.teachers.server import Server, running_server

pytest.importorskip("openai")

README = Path(__file__).parent.parent / "README.md"
# As README has it, at a size for a test.
SMALL = (
    "budget.teacher_tokens=6000",
    "budget.student_tokens=4000",
    "diagnose.decompose.min_seeds=4",
    "diagnose.decompose.max_tokens=200",
    "diagnose.measure.max_tokens=24",
    "adapter.examples_per_seed=1",
    "adapter.max_tokens=200",
    "adapter.verification.max_tokens=24",
    "adapter.size_caps={introductory: 2000, intermediate: 2000, advanced: null}",
    "organizer.max_remedial_rounds=1",
    "organizer.rounds=1",
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
    tests = [{"prompt": question(number, "spoons")} for number in range(14, 94)]
    (folder / "test.jsonl").write_text("".join(json.dumps(test) + "\n" for test in tests))
    (folder / "questions.jsonl").write_text('{"prompt": "How many units are 3 cups?"}\n')
    write_model(folder / "student")


def blocks(language: str) -> list[str]:
    """Fenced blocks of README's section."""
    section = README.read_text().partition("## Your own domain")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def commands(server: Server, folder: Path) -> list[list[str]]:
    """README's commands, each as a list of words."""
    values = {"TEACHER": f"openai:cook@{server.url}", "STUDENT": str(folder / "student")}
    lines = blocks("sh")[0].replace("\\\n", " ").splitlines()
    found = [shlex.split(Template(line).substitute(values)) for line in lines]
    return [words for words in found if words[0] == "ioa"]


def small(words: list[str]) -> list[str]:
    if words[1] == "distill":
        return [*words, *(part for setting in SMALL for part in ("--set", setting))]
    if words[1] == "diagnose":
        own = [s.removeprefix("diagnose.") for s in SMALL if s.startswith("diagnose.")]
        return [*words, *(part for setting in own for part in ("--set", setting))]
    return words


def test_the_section_is_short_and_its_seed_is_one() -> None:
    assert len(blocks("sh")[0].splitlines()) < 20
    (line,) = blocks("json")[0].splitlines()
    assert QUESTION.fullmatch(json.loads(line)["prompt"])


def test_the_walk(folder: Path, cook: Server) -> None:
    walk = commands(cook, folder)
    assert [words[1] for words in walk] == [
        "validate", "diagnose", "curriculum", "distill", "distill", "generate",
    ]  # fmt: skip
    outputs: list[str] = []
    for words in walk:
        result = CliRunner().invoke(app, small(words)[1:], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        outputs.append(result.output)
    assert "36 seeds" in outputs[0]
    assert "kitchen/cups" in outputs[2]
    assert "teacher tokens: 6,000" in outputs[3]
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
    card = (folder / "run" / "student" / "README.md").read_text()
    for words in ("openai:cook", "apache-2.0", "no training of rivals", "| licence of the seeds |"):
        assert words in card
    assert f"{record['lessons']} lessons that the teacher wrote from 36 seed tasks" in card
    assert (folder / "answers.jsonl").is_file()


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
@pytest.mark.parametrize("reached", ["parts/*", "diagnosis/decomposition.json", "gates/*"])
def test_a_killed_run_resumes(folder: Path, cook: Server, unkilled: Path, reached: str) -> None:
    words = small(commands(cook, folder)[4])
    process = subprocess.Popen(
        [sys.executable, "-c", "from ioa_jax.cli import main; main()", *words[1:]],
        env={**os.environ, "PYTHONPATH": str(README.parent)},
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
    assert read_json(run / "record.json")["spend"]["student_tokens"] <= 4000
    for name in ("lessons.jsonl", "rejects.jsonl", "gates.jsonl", "student/model.safetensors"):
        assert (run / name).read_bytes() == (unkilled / name).read_bytes(), name
