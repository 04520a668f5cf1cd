import subprocess
import sys

import pytest
import yaml

from ioa_jax.errors import InputError
from ioa_jax.files import read_json
from suite.profile_files import load_profile
from suite.results import read_run
from suite.tune import tune
from tests.suite.runs import write_run

SETTING = "train.learning_rate"
# By method and rate, what it adds; .0005 is the usual rate.
SWEEPS = [
    ("sft", SETTING, 0.0002, 0.0005, 0.0),
    ("sft", SETTING, 0.001, 0.0005, 0.3),
    ("ioa", SETTING, 0.001, 0.0005, 0.1),
    ("ioa", SETTING, 0.0002, 0.0005, 0.1),
    ("ioa", "diagnose.tau_gap", 0.1, 0.3, 0.9),
]
EFFECTS = {"undistilled": 0.0, "sft": 0.15, "ioa": 0.35}


def grid(path, **changes):
    return write_run(
        path,
        **{
            "items": 80, "seeds": (90, 91), "effects": EFFECTS, "sweeps": SWEEPS, "distill": False,
            "curves": False, **changes,
        },
    )  # fmt: skip


def test_each_method_has_the_best_of_its_grid(tmp_path):
    result = read_run(grid(tmp_path / "a"))
    found = tune(result)
    assert found.best == {"sft": 0.001, "ioa": 0.0005}
    assert found.at_an_end == ("sft",)
    assert [point.rate for point in found.grid["ioa"]] == [0.0002, 0.0005, 0.001]
    point = found.grid["sft"][2]
    assert list(point.by_seed) == [90, 91]
    assert point.mean == pytest.approx(sum(point.by_seed.values()) / 2)
    # As many items of each module in both tasks.
    expected = [result.scores(f"sft@{SETTING}=0.001", task).mean() for task in result.ids]
    assert point.mean == pytest.approx(sum(expected) / 2)


def test_of_equal_rates_the_lowest_is_taken(tmp_path):
    directory = grid(tmp_path / "a")
    text = (directory / "cells" / "ioa-seed90" / "scores.jsonl").read_text()
    for cell in (directory / "cells").glob("ioa*"):
        (cell / "scores.jsonl").write_text(text)
    assert tune(read_run(directory)).best["ioa"] == 0.0002


def test_rates_are_not_chosen_by_results(tmp_path):
    with pytest.raises(InputError, match=r"seed 0 is for results; .* from 90 on"):
        tune(read_run(grid(tmp_path / "a", seeds=(0, 90))))


def test_a_grid_has_to_be_whole(tmp_path):
    directory = grid(tmp_path / "a")
    (directory / "cells" / f"ioa@{SETTING}=0.001-seed91" / "cell.json").unlink()
    with pytest.raises(InputError, match=r"cell ioa@train.learning_rate=0.001-seed91 isn't"):
        tune(read_run(directory))
    with pytest.raises(InputError, match=r"has no METHOD@train.learning_rate=RATE"):
        tune(read_run(grid(tmp_path / "b", sweeps=())))
    with pytest.raises(InputError, match="has no 'ioa' with its usual"):
        tune(read_run(grid(tmp_path / "c", effects={"undistilled": 0.0, "sft": 0.1})))


@pytest.mark.parametrize("name", ["rates.yaml", "rates.json"])
def test_the_command_writes_what_profiles_take(tmp_path, name):
    directory, output = grid(tmp_path / "a"), tmp_path / name
    command = [sys.executable, "-m", "suite", "tune", str(directory), "--output"]
    done = subprocess.run([*command, str(output)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "sft: 0.001 of 0.0002: " in done.stdout
    assert "best at an end of the grid: sft" in done.stdout
    record = read_json(output) if name.endswith("json") else yaml.safe_load(output.read_text())
    assert record["learning_rates"] == {"sft": 0.001, "ioa": 0.0005}
    taken = load_profile("micro", [f"learning_rates={record['learning_rates']}"])[1]
    assert taken.train_of("sft").learning_rate == 0.001
    assert [point["rate"] for point in record["grid"]["sft"]] == [0.0002, 0.0005, 0.001]
    wrong = subprocess.run(
        [*command, str(tmp_path / "a.txt")], capture_output=True, text=True, timeout=120
    )
    assert wrong.returncode == 2
    assert "name a .json or .yaml file" in wrong.stderr


def test_a_second_run_goes_on_beyond_an_end_of_the_grid(tmp_path):
    first = read_run(grid(tmp_path / "a"))
    beyond = [("sft", SETTING, 0.002, 0.0005, 0.2)]
    second = read_run(grid(tmp_path / "b", sweeps=beyond, effects={"undistilled": 0.0}))
    found = tune(first, second)
    assert [point.rate for point in found.grid["sft"]] == [0.0002, 0.0005, 0.001, 0.002]
    assert found.best["sft"] == 0.001
    assert found.at_an_end == ()
    with pytest.raises(InputError, match="no 'sft' with its usual"):
        tune(second)
