"""A package with a method and a task of its own, installed by pip and used by the commands."""

import os
import subprocess
import sys
import textwrap
import zipfile

import pytest

from ioa_jax.files import read_json
from suite.results import read_run
from tests.suite.world import write_model, write_profile

MODULE = """
    import dataclasses

    from ioa_jax.graders.base import Item
    from suite.methods.base import MethodResult, answer_tasks, example_pairs, fine_tune
    from suite.tasks.base import (
        Description, GenerationSettings, Prompt, TaskData, chat_prompt, mean_metric,
    )


    class Half:
        summary = "half of the seeds"
        needs = ("sft",)

        def run(self, context):
            chats = [seed.messages for seed in context.seeds[::2]]
            answered, _ = answer_tasks(context, chats)
            student = fine_tune(context, example_pairs(context, answered))
            return MethodResult(student, {"asked": len(chats)})


    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Sums(Description):
        def load(self, data, shots=0):
            pairs = [(i, i + 3) for i in range(8)]
            return TaskData(
                tuple(Item(f"{a}+{b}", f"What is {a} + {b}?", (str(a + b),)) for a, b in pairs)
            )

        def prompt(self, item, style="chat", examples=()):
            if style == "chat":
                return chat_prompt(item.prompt)
            return Prompt(text=item.prompt)

        def metrics(self, graded):
            return mean_metric(graded)


    METHOD = Half()
    TASK = Sums(
        name="sums",
        version=1,
        summary="sums of two numbers",
        source="a test",
        licence="CC0-1.0",
        grader_kind="number",
        settings=GenerationSettings(6),
    )
"""

FILES = {
    "sums_and_halves.py": textwrap.dedent(MODULE),
    "sums_and_halves-1.0.dist-info/METADATA": (
        "Metadata-Version: 2.1\nName: sums-and-halves\nVersion: 1.0\n"
    ),
    "sums_and_halves-1.0.dist-info/WHEEL": (
        "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    ),
    "sums_and_halves-1.0.dist-info/entry_points.txt": (
        "[ioa.methods]\nhalf = sums_and_halves:METHOD\n\n[ioa.tasks]\nsums = sums_and_halves:TASK\n"
    ),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder into which pip installed the package's wheel."""
    folder = tmp_path_factory.mktemp("third-party")
    wheel = folder / "sums_and_halves-1.0-py3-none-any.whl"
    record = "sums_and_halves-1.0.dist-info/RECORD"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
        archive.writestr(record, "".join(f"{name},,\n" for name in (*FILES, record)))
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-index", "--no-cache-dir", "--target", str(target), str(wheel)]
    subprocess.run([*pip, *options], check=True, timeout=120)
    return target


def suite(site, *arguments):
    """A command in a process of its own, which finds what is installed there."""
    path = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-m", "suite", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
    )


def test_what_is_installed_is_listed(site, tmp_path):
    listed = suite(site, "list")
    assert listed.returncode == 0, listed.stderr
    assert "  half: half of the seeds\n" in listed.stdout
    assert "  | `sums` | sums of two numbers | a test | CC0-1.0 |\n" in listed.stdout
    assert "  half:" not in suite(tmp_path, "list").stdout


@pytest.mark.slow
def test_a_profile_runs_it(site, tmp_path):
    write_model(tmp_path / "model")
    write_profile(
        tmp_path / "theirs.yaml",
        tmp_path / "model",
        tasks=[{"name": "sums"}],
        methods=["half", "sft"],
        seeds=[0],
        probes={},
        curve={},
    )
    run = ["run", "--profile", tmp_path / "theirs.yaml", "--output", tmp_path, "--run-id", "a"]
    without = suite(tmp_path, *run)
    assert without.returncode == 2
    assert "'sums' is unknown; choose from math, " in without.stderr
    done = suite(site, *run)
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "theirs" / "a"
    result = read_run(directory)
    assert [cell.name for cell in result.cells] == ["teacher", "half-seed0", "sft-seed0"]
    half, sft = (read_json(directory / f"cells/{name}-seed0/cell.json") for name in ("half", "sft"))
    # Both spend the student's budget; theirs asks the teacher for half as much.
    assert half["notes"] == {"asked": 12}
    assert (half["spend"]["teacher_requests"], sft["spend"]["teacher_requests"]) == (12, 24)
    assert 5000 < half["spend"]["student_tokens"] <= 6000
    assert list(result.ids["sums"]) == sorted(f"{i}+{i + 3}" for i in range(8))
    assert "| half |" in (directory / "table.md").read_text()
    verified = suite(site, "verify", directory)
    assert verified.returncode == 0, verified.stdout
    assert "everything agrees: 24 texts graded again" in verified.stdout
