import itertools
import subprocess
import sys

import numpy as np
import pytest

from ioa_jax.errors import InputError
from ioa_jax.files import read_json, write_json
from suite.compare import DIFFERENT, compare_runs, differences
from suite.stats import Bootstrap
from tests.suite.runs import EFFECTS, change_lines, environment, write_run


def run(path, **changes):
    return write_run(path, **{"items": 150, "seeds": (0, 1), "distill": False, **changes})


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "reference")


def findings(comparison):
    return {cell.finding for cell in comparison.cells}


def test_the_same_run_again_is_equivalent(reference, tmp_path):
    found = compare_runs(reference, run(tmp_path / "mine"))
    assert findings(found) == {"equivalent"}
    assert found.consistent
    assert found.warnings == ()
    assert len(found.cells) == 2 * (1 + len(EFFECTS))


def test_other_luck_is_consistent(reference, tmp_path):
    found = compare_runs(reference, run(tmp_path / "mine", draw=1))
    assert found.consistent
    assert "compatible" in findings(found)


def test_a_worse_student_is_not(reference, tmp_path):
    found = compare_runs(reference, run(tmp_path / "mine", draw=1, shift=-0.3))
    different = {cell.method for cell in found.cells if cell.finding == "different"}
    assert different == set(EFFECTS)
    assert not found.consistent


def test_a_small_sure_difference_is_within_a_wide_margin_only(reference, tmp_path):
    mine = run(tmp_path / "mine")

    def change(line):
        graded = line["task"] == "micro-instruct"
        return {**line, "score": line["score"] * 0.9} if graded else line

    for seed in (0, 1):
        change_lines(mine / "cells" / f"ioa-seed{seed}" / "scores.jsonl", change)
    narrow = compare_runs(reference, mine, margin=0.02)
    wide = compare_runs(reference, mine, margin=0.15)
    key = ("ioa", "micro-instruct")
    assert [c.finding for c in narrow.cells if (c.method, c.task) == key] == ["different"]
    assert [c.finding for c in wide.cells if (c.method, c.task) == key] == ["equivalent"]


SCORES = np.linspace(0.3, 0.7, 60)


def scored(path, scores=SCORES):
    """A run whose student has these scores."""
    made = write_run(
        path,
        items=len(scores),
        effects={"undistilled": 0.0},
        tasks=("micro-instruct",),
        distill=False,
        curves=False,
    )
    left = iter(scores)
    change_lines(
        made / "cells" / "undistilled" / "scores.jsonl",
        lambda line: {**line, "score": float(next(left))},
    )
    return made


def finding(reference, mine, margin):
    found = compare_runs(reference, mine, margin)
    return next(cell.finding for cell in found.cells if cell.method == "undistilled")


# Items that all gain as much: the difference is sure, whatever the items' own spread. And items of
# which every second gains 0.2 more than the mean and every other 0.2 less: about 0.05 either way.
SURE, LOOSE = np.zeros(60), np.tile([0.15, -0.15], 30)


@pytest.mark.parametrize(
    ("gain", "margin", "expected"),
    [
        (SURE + 0.04, 0.05, "equivalent"),
        # The two runs' intervals overlap, and that of the difference is beyond the margin.
        (SURE + 0.055, 0.05, "different"),
        (SURE - 0.055, 0.05, "different"),
        # That of the difference has the margin in it, and the two runs' intervals are apart.
        (LOOSE + 0.15, 0.15, "different"),
        (LOOSE - 0.15, 0.15, "different"),
        # Neither.
        (LOOSE + 0.05, 0.05, "compatible"),
        (LOOSE - 0.05, 0.05, "compatible"),
    ],
)
def test_what_makes_a_cell_different(tmp_path, gain, margin, expected):
    reference, mine = scored(tmp_path / "a"), scored(tmp_path / "b", SCORES + gain)
    assert finding(reference, mine, margin) == expected


def test_equivalence_is_of_the_90_percent_interval(tmp_path):
    reference, mine = scored(tmp_path / "a"), scored(tmp_path / "b", SCORES + LOOSE)
    resampled = Bootstrap(60, "micro-instruct").means(LOOSE[None])
    low, high = np.quantile(resampled, [0.05, 0.95])
    widest = max(-low, high)
    assert finding(reference, mine, widest + 0.002) == "equivalent"
    assert finding(reference, mine, widest - 0.002) == "compatible"


def test_spends_are_warned_of_from_a_twentieth_on(reference, tmp_path):
    mine = run(tmp_path / "mine")
    cells = [mine / "cells" / f"sft-seed{seed}" / "cell.json" for seed in (0, 1)]
    for path, (field, spent) in itertools.product(
        cells, {"teacher_tokens": 4760, "student_tokens": 57_100}.items()
    ):
        record = read_json(path)
        record["spend"][field] = spent
        write_json(path, record)
    assert compare_runs(reference, mine).warnings == ()
    record = read_json(cells[1])
    record["spend"] |= {"teacher_tokens": 5300, "student_tokens": 56_900}
    write_json(cells[1], record)
    assert compare_runs(reference, mine).warnings == (
        "sft-seed1: teacher tokens: 5,000 and 5,300",
        "sft-seed1: student tokens: 60,000 and 56,900",
    )


def test_a_cell_that_is_not_there_is_missing(reference, tmp_path):
    mine = run(tmp_path / "mine")
    (mine / "cells" / "sft-seed1" / "cell.json").unlink()
    found = compare_runs(reference, mine)
    assert {cell.method for cell in found.cells if cell.finding == "missing"} == {"sft"}
    assert not found.consistent


def test_other_environments_are_warned_of(reference, tmp_path):
    mine = run(
        tmp_path / "mine",
        environments=[
            environment(),
            environment(
                cpu={"model": "Another CPU", "cores": 2},
                variables={"XLA_FLAGS": "--xla"},
                lock_sha256="b" * 64,
            ),
        ],
    )
    warnings = "\n".join(compare_runs(reference, mine).warnings)
    assert "cpu.model: A CPU and Another CPU" in warnings
    assert "variables.XLA_FLAGS: None and --xla" in warnings
    assert "lock_sha256: aaa" in warnings
    assert "was made in 2 environments" in warnings
    assert "cores" not in warnings


def test_other_settings_are_refused(reference, tmp_path):
    mine = run(tmp_path / "mine", effects={**EFFECTS, "lion": 0.1})
    with pytest.raises(InputError, match=r"can't reproduce it: methods: .*'lion'"):
        compare_runs(reference, mine)


def test_other_items_are_refused(reference, tmp_path):
    mine = run(tmp_path / "mine", items=149)
    with pytest.raises(InputError, match="'micro-math-149' is in only one"):
        compare_runs(reference, mine)


def test_differences_are_told_by_place():
    assert list(differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4})) == [
        "a.c: 2 and 3",
        "d: None and 4",
    ]


def test_the_exit_code_says_so(reference, tmp_path):
    same, worse = run(tmp_path / "a"), run(tmp_path / "b", shift=-0.3)

    def compare(path):
        return subprocess.run(
            [sys.executable, "-m", "suite", "compare", str(reference), str(path)],
            capture_output=True,
            text=True,
            timeout=120,
        )

    good, bad, broken = compare(same), compare(worse), compare(tmp_path / "nowhere")
    assert good.returncode == 0, good.stderr
    assert "consistent: 12 equivalent" in good.stdout
    assert bad.returncode == DIFFERENT
    assert "NOT consistent" in bad.stdout
    assert broken.returncode == 2
    assert "nowhere" in broken.stderr
