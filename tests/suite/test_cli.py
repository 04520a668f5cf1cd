import subprocess
import sys

import pytest

from ioa_jax.errors import InputError
from ioa_jax.files import write_json
from suite.profile_files import load_profile
from suite.run import start_run


def suite(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "suite", *arguments], capture_output=True, text=True, timeout=120
    )


def test_help_does_not_import_jax():
    code = (
        "import sys\nsys.argv = ['suite', '--help']\nimport suite.cli\n"
        "try: suite.cli.main()\nexcept SystemExit: pass\nassert 'jax' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "run" in result.stdout


def test_list():
    result = suite("list")
    assert result.returncode == 0, result.stderr
    for name in ("smollm2-short", "sft_matched", "lists/aggregate", "`humaneval`"):
        assert name in result.stdout


def test_dry_run_prints_and_does_nothing(tmp_path):
    result = suite("run", "--profile", "smollm2", "--dry-run", "--output", str(tmp_path / "r"))
    assert result.returncode == 0, result.stderr
    # Every method but the undistilled student asks the teacher, or has what another cell asked.
    _, profile = load_profile("smollm2")
    tokens = profile.budgets.teacher_tokens * (len(profile.methods) - 1)
    assert f"teacher tokens: at most {tokens:,}" in result.stdout
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "name a --profile"),
        (["run", "--profile", "nothing"], "profile 'nothing' is unknown"),
        (["run", "--profile", "smollm2", "--set", "train.lr=1"], "train.lr"),
        (["run", "--profile", "smollm2", "--resume", "x"], "give it alone"),
        (["run", "--resume", "nowhere"], "run.json"),
        (["run", "--profile", "smollm2", "--cells", "3/2"], "write it as i/n"),
        (["merge", "nowhere", "--output", "x"], "at least two runs"),
        (["merge", "nowhere", "there", "--output", "x"], "run.json"),
        (["table", "nowhere"], "run.json"),
    ],
)
def test_errors_are_one_line_with_exit_code_2(arguments, message):
    result = suite(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


def test_a_model_that_is_not_there_is_an_error_and_recorded(tmp_path):
    arguments = ["--set", "teacher.spec=./no-model", "--set", "tasks=[]"]
    result = suite(
        "run", "--profile", "smollm2-short", "--output", str(tmp_path), "--run-id", "a", *arguments
    )
    assert result.returncode == 2, result.stderr
    assert "no-model" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert '"status": "failed"' in (tmp_path / "smollm2-short" / "a" / "run.json").read_text()


def test_table_of_a_run_that_has_just_begun(tmp_path):
    name, profile = load_profile("smollm2-short")
    directory = start_run(profile, name, tmp_path)
    assert directory.name.endswith(profile.digest()[:8])
    result = suite("table", str(directory))
    assert result.returncode == 0, result.stderr
    assert "Not finished: sft-seed0" in result.stdout


def test_a_cell_without_records_is_an_error(tmp_path):
    from suite.table import summarize

    name, profile = load_profile("smollm2-short")
    directory = start_run(profile, name, tmp_path)
    cell = {"method": "teacher", "seed": None, "status": "complete"}
    write_json(directory / "cells" / "teacher" / "cell.json", cell)
    with pytest.raises(InputError, match=r"scores\.jsonl"):
        summarize(directory)
