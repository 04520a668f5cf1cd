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
from tests.distill_world import QUESTION, speak, write_seeds
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
    write_seeds(tmp_path / "seeds.jsonl", named=False)
    (tmp_path / "distill.yaml").write_text(blocks("yaml")[0])
    (tmp_path / "questions.jsonl").write_text('{"prompt": "How many units are 3 cups?"}\n')
    write_model(tmp_path / "student")
    return tmp_path


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
    # The modules are the teacher's, of a domain that no code has heard of.
    assert all(module.startswith("kitchen/") for module in record["performance"])
    assert (folder / "run" / "report.html").is_file()
    card = (folder / "run" / "student" / "README.md").read_text()
    assert "openai:cook" in card
    assert (folder / "answers.jsonl").is_file()


def test_a_killed_run_resumes(folder: Path, cook: Server) -> None:
    words = small(commands(cook, folder)[4])
    process = subprocess.Popen(
        [sys.executable, "-c", "from ioa_jax.cli import main; main()", *words[1:]],
        env={**os.environ, "PYTHONPATH": str(README.parent)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    lessons = folder / "run" / "parts"
    deadline = time.monotonic() + 300
    while not lessons.is_dir() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert lessons.is_dir()
    assert not (folder / "run" / "record.json").exists()
    again = CliRunner().invoke(app, words[1:], catch_exceptions=True)
    assert "--resume" in str(again.exception)
    resumed = CliRunner().invoke(app, ["distill", "--resume", "run"], catch_exceptions=False)
    assert resumed.exit_code == 0
    assert read_json(folder / "run" / "record.json")["spend"]["student_tokens"] <= 4000
