"""The tests are tested: what they call significant, simulated; and a world's measured power."""

import subprocess
import sys

import numpy as np
import pytest

from ioa_jax.errors import InputError
from ioa_jax.files import read_json
from suite import power as module
from suite.power import (
    Effects,
    SimulationPlan,
    correlation_of,
    draw_answers,
    find_power,
    find_simulation,
    measure_effects,
    measure_power,
    simulate,
    write_power,
    write_simulation,
)
from suite.report import write_report
from suite.results import read_run
from suite.stats import Bootstrap, difference
from suite.verify import verify_run
from tests.suite.runs import change_lines, change_settings, write_run

EFFECTS = Effects(0.77, 0.89, 0.8, 0.006)
POINTS = {"undistilled": 0.0, "uniform_right": 0.1, "oracle": 0.4}


def significant(test="bootstrap", effects=EFFECTS, gap=0.0, items=300, seeds=3, simulations=300):
    found = simulate(effects, gap, items, seeds, SimulationPlan(simulations, resamples=200))
    (row,) = (row for row in found if row.test == test)
    assert row.error == pytest.approx(
        np.sqrt(row.significant * (1 - row.significant) / simulations)
    )
    return row.significant


def test_without_a_difference_the_tests_seldom_find_one():
    assert significant() <= 0.06
    # One seed without effects of seeds: both are at their level.
    quiet = Effects(0.77, 0.89, 0.8, 0.0)
    assert 0.01 <= significant(effects=quiet, seeds=1) <= 0.09
    assert 0.01 <= significant("mcnemar", quiet, seeds=1) <= 0.09


def test_with_one_seed_its_luck_is_taken_for_the_methods():
    loud = Effects(0.77, 0.89, 0.8, 0.02)
    assert significant(effects=loud, seeds=1) > 0.2
    assert significant("mcnemar", loud, seeds=1) > 0.2
    assert significant(effects=loud, seeds=5) < 0.15


def test_a_difference_is_found_the_more_often_the_larger_it_and_the_test_are():
    small, large = significant(gap=0.03), significant(gap=0.08)
    assert small < 0.6 < 0.85 < large
    assert significant(gap=0.03, items=1200) > small + 0.15
    assert {row.test for row in simulate(EFFECTS, 0.0, 20, 2, SimulationPlan(5))} == {"bootstrap"}


def test_the_simulated_p_is_the_reports():
    first, second = draw_answers(EFFECTS, 0.05, 60, 3, 4, np.random.default_rng(0))
    draws = Bootstrap(60, "power", resamples=300)
    expected = [difference(a, b, draws).p_bootstrap for a, b in zip(first, second, strict=True)]
    assert module.p_of(draws.many(first - second)) == pytest.approx(expected)


def test_answers_have_the_effects_that_they_are_drawn_with():
    effects = Effects(0.7, 0.8, 0.6, 0.05)
    first, second = draw_answers(effects, 0.1, 400, 4, 300, np.random.default_rng(0))
    assert first.mean() == pytest.approx(0.75, abs=0.01)
    assert second.mean() == pytest.approx(0.65, abs=0.01)
    # Two seeds of a method, and two methods, agree as far as their correlations say.
    within = correlation_of(first.mean(), first.mean(), (first[:, 0] * first[:, 1]).mean())
    between = correlation_of(first.mean(), second.mean(), (first[:, 0] * second[:, 1]).mean())
    assert (within, between) == pytest.approx((0.8, 0.6), abs=0.02)
    spread = first.mean(axis=2).std(axis=1, ddof=1)
    luck = first.mean() * (1 - first.mean()) / 400
    assert np.sqrt((spread**2).mean()) == pytest.approx(0.05, abs=0.01)
    assert luck < 0.05**2


@pytest.mark.parametrize(
    ("effects", "gap", "message"),
    [(EFFECTS, 0.6, "leaves 0 to 1"), (Effects(0.77, 0.99, 0.8, 0.2), 0.0, "than the answers")],
)
def test_impossible_effects_are_refused(effects, gap, message):
    with pytest.raises(InputError, match=message):
        draw_answers(effects, gap, 5, 2, 2, np.random.default_rng(0))


def test_a_runs_effects_are_measured(tmp_path):
    effects = Effects(0.7, 0.85, 0.7, 0.03)
    names = [f"ioa_{i}" for i in range(6)]
    directory = write_run(
        tmp_path / "a",
        items=600,
        seeds=range(6),
        effects=dict.fromkeys(names, 0.0),
        tasks=("micro-math",),
        distill=False,
        curves=False,
    )
    # As `draw_answers`, which has two methods.
    generator = np.random.default_rng(7)
    z, scale = 0.5244, float(np.exp(-(0.5244**2) / 2) / np.sqrt(2 * np.pi))
    seed_variance = (effects.seed_sd / scale) ** 2
    common = generator.normal(0, np.sqrt(0.7), 600)
    for name in names:
        own = common + generator.normal(0, np.sqrt(0.15), 600)
        for seed in range(6):
            value = z + own + generator.normal(0, np.sqrt(seed_variance))
            right = value + generator.normal(0, np.sqrt(0.15 - seed_variance), 600) > 0
            change_lines(
                directory / "cells" / f"{name}-seed{seed}" / "scores.jsonl",
                lambda line, right=right: {**line, "score": float(right[int(line["id"][-3:])])},
            )
    found = measure_effects(read_run(directory))
    assert found.mean == pytest.approx(0.7, abs=0.05)
    assert found.same == pytest.approx(0.85, abs=0.04)
    assert found.other == pytest.approx(0.7, abs=0.06)
    assert found.seed_sd == pytest.approx(0.03, abs=0.01)


def test_effects_need_two_methods_with_two_seeds(tmp_path):
    directory = write_run(tmp_path / "a", items=5, seeds=(0,), distill=False)
    with pytest.raises(InputError, match="two methods with two seeds each"):
        measure_effects(read_run(directory))


# -- measured ------------------------------------------------------------------------------------


def development(path, **changes):
    return write_run(
        path, **{"items": 60, "seeds": (90, 91), "effects": POINTS, "curves": False, **changes}
    )


def test_power_is_the_oracles_gain_in_standard_deviations(tmp_path):
    result = read_run(development(tmp_path / "a"))
    found = measure_power(result)
    by_seed = [list(point.by_seed.values()) for point in (found.uniform, found.oracle)]
    variance = np.mean([np.var(values, ddof=1) for values in by_seed])
    assert found.seed_sd == pytest.approx(np.sqrt(variance))
    assert found.ratio == pytest.approx((found.oracle.mean - found.uniform.mean) / found.seed_sd)
    assert found.untaught.by_seed == {}
    assert list(found.oracle.by_seed) == [90, 91]
    assert found.oracle.mean == pytest.approx(np.mean(by_seed[1]))
    # Equal items a module and tasks: means over modules are those over all items.
    scores = [result.scores("oracle", task).mean() for task in result.ids]
    assert found.oracle.mean == pytest.approx(np.mean(scores))


def test_power_is_measured_on_development_seeds_of_finished_runs(tmp_path):
    with pytest.raises(InputError, match=r"seed 3 is for results.*seeds=\[90"):
        measure_power(read_run(development(tmp_path / "a", seeds=(3, 90))))
    with pytest.raises(InputError, match="two seeds are needed"):
        measure_power(read_run(development(tmp_path / "b", seeds=(90,))))
    directory = development(tmp_path / "c")
    (directory / "cells" / "oracle-seed91" / "cell.json").unlink()
    with pytest.raises(InputError, match="'oracle' isn't finished"):
        measure_power(read_run(directory))
    without = development(tmp_path / "d", effects={"undistilled": 0.0, "oracle": 0.1})
    with pytest.raises(InputError, match="'uniform_right' isn't finished"):
        measure_power(read_run(without))


def test_a_report_has_the_power_of_its_settings(tmp_path, monkeypatch):
    folder = tmp_path / "profiles"
    folder.mkdir()
    monkeypatch.setattr(module, "PROFILES", folder)
    for find in (find_power, find_simulation):
        monkeypatch.setattr(find, "__defaults__", (folder,))
    settings = {"teacher": {"spec": "t"}, "budgets": {"teacher_tokens": 5}}

    def with_settings(directory, **changes):
        return change_settings(directory, lambda own: own.update({**settings, **changes}))

    path, power = write_power(with_settings(development(tmp_path / "dev")))
    assert path == folder / "test.power.json"
    # Methods, seeds and rates may be others; what students are taught with, by and on may not.
    run = with_settings(
        write_run(tmp_path / "run", items=12, seeds=(0,), distill=False, profile="other"),
        train={"learning_rate": 1.0},
    )
    write_report(run)
    assert "simulated comparisons" not in (run / "report.html").read_text()
    (row,) = simulate(EFFECTS, 0.022, 12, 2, SimulationPlan(3, resamples=20))
    write_simulation(folder, "test", EFFECTS, [row], 3)
    (folder / "power.json").rename(folder / "test.simulation.json")
    write_report(run)
    text = (run / "report.html").read_text()
    assert "Share of 3 simulated comparisons" in text
    assert "2.2 points" in text
    assert read_json(run / "table.json")["power"]["run_id"] == "dev"
    assert f"{100 * power.uniform.mean:.1f} %" in (run / "table.md").read_text().splitlines()[2]
    assert 'id="power">Power: the untaught student' in (run / "report.html").read_text()
    # What is measured later changes no table that was made.
    path.unlink()
    assert verify_run(run, None).findings == ()
    assert find_power(read_json(run / "run.json")["settings"]) is None
    write_power(tmp_path / "dev", path)
    other = with_settings(
        write_run(tmp_path / "other", items=12, seeds=(0,), distill=False),
        budgets={"teacher_tokens": 6},
    )
    write_report(other)
    assert read_json(other / "table.json")["power"] is None
    assert "Power" not in (other / "report.html").read_text()
    assert "simulated comparisons" not in (other / "report.html").read_text()


def test_the_command_simulates_and_writes(tmp_path):
    run = write_run(tmp_path / "run", items=60, distill=False, curves=False)
    command = [
        sys.executable, "-m", "suite", "power", "--like", str(run), "--output", str(tmp_path / "o"),
        "--items", "40,50", "--seeds", "1,2", "--differences", "2.2", "--seed-sd", "1",
        "--simulations", "3",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    record = read_json(tmp_path / "o" / "power.json")
    assert (record["run"], record["effects"]["seed_sd"], record["simulations"]) == ("run", 0.01, 3)
    # Three without a difference and one with, of two numbers of items; McNemar's of one seed too.
    assert len(record["rows"]) == 4 * 2 * (2 + 1)
    text = (tmp_path / "o" / "power.md").read_text()
    assert text in done.stdout
    assert "| 2.2 points |" in text
    wrong = subprocess.run(
        [*command[:-2], "--items", "40,x"], capture_output=True, text=True, timeout=120
    )
    assert wrong.returncode == 2
    assert "--items '40,x': write numbers over 0" in wrong.stderr
