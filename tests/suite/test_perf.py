import dataclasses

import pytest

from ioa_jax.student import Student
from suite.perf import interventions
from suite.perf.measure import TUNIX, WITHOUT_DRAFTS, table
from suite.perf.workload import alternate
from tests.suite.world import write_model


def results(tunix):
    rates = {"ours bfloat16": 900.0, "torch float32": 450.0, "torch bfloat16": 1200.0}
    found = {name: {"tokens_per_second": rate} for name, rate in rates.items()}
    return {
        "model": "m",
        "rounds": 3,
        "parts": {
            "scoring": found if tunix is None else {**found, TUNIX: tunix},
            "memory": {"peak_bytes": 5 * 2**30},
        },
        "targets": {"scoring/float32": 2.0},
        "derived": {
            "scoring/float32": 2.0,
            "scoring/bfloat16": 0.75,
            "scoring/share_of_peak": 0.25,
        },
        "peak": {
            "float32_flops": 1e11,
            "bfloat16_flops": 2e11,
            "read_bytes_per_second": 1.5e10,
        },
    }


def cells(text):
    head, row = (line for line in text.splitlines() if line.startswith(("| part", "| scoring")))
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in (head, row)]
    assert len(split[0]) == len(split[1])
    return split[1]


def test_table():
    text = table(results({"tokens_per_second": 123.4}))
    assert cells(text)[:9] == [
        "scoring",
        "900",
        "450",
        "1200",
        "2.00",
        "2.0",
        "0.75",
        "-",
        "123",
    ]
    assert "| memory" not in text
    assert "100 GFLOP/s float32 and 200 GFLOP/s bfloat16 products, 15.0 GB/s reads" in text
    assert "- scoring: share of peak: 25%" in text
    assert "5.00 GiB (asked: under 6)" in text
    assert "without drafts" not in text


def test_generation_without_drafts_is_told_beside_the_rest():
    found = results(None)
    rates = {**found["parts"]["scoring"], WITHOUT_DRAFTS: {"tokens_per_second": 850.4}}
    found["parts"] = {"generation": rates}
    found["derived"] = {"generation/float32": 2.0, "generation/bfloat16": 0.75}
    assert "- generation without drafts: 850 tokens/s" in table(found)


@pytest.mark.parametrize(
    ("tunix", "cell"),
    [
        (None, "not installed"),
        ({"error": "ValueError: no cache"}, "ValueError: no cache"),
    ],
)
def test_table_says_why_tunix_has_no_figure(tunix, cell):
    assert cells(table(results(tunix)))[8] == cell


def test_a_bar_in_a_message_stays_in_its_cell():
    assert "| TypeError: int \\| None |" in table(results({"error": "TypeError: int | None"}))


def test_alternate_takes_turns_after_one_warm_up(monkeypatch):
    called, clock = [], [0.0]
    # First calls compile and aren't timed; then a's take 1, 5 and 2 s, and b's 4 s each.
    durations = {"a": iter([100.0, 1.0, 5.0, 2.0]), "b": iter([100.0, 4.0, 4.0, 4.0])}
    monkeypatch.setattr("suite.perf.workload.time.perf_counter", lambda: clock[0])

    def contestant(name, tokens):
        def run():
            called.append(name)
            clock[0] += next(durations[name])
            return tokens

        return run

    lines = []
    found = alternate({"a": contestant("a", 10), "b": contestant("b", 20)}, 3, lines.append)
    assert called == ["a", "b"] * 4
    assert found["a"] == {"tokens": 10, "seconds": [1.0, 5.0, 2.0], "tokens_per_second": 5.0}
    assert found["b"]["tokens_per_second"] == 5.0
    assert len(lines) == 6


def test_table_has_the_interventions():
    found = results(None)
    found["parts"]["interventions"] = {
        "a student": {
            "together": {"tokens_per_second": 300.0},
            "one after another": {"tokens_per_second": 120.0},
            "largest_difference": 2e-4,
        }
    }
    line = next(line for line in table(found).splitlines() if "interventions" in line)
    assert "on a student: " in line
    assert "2.5 times (asked: 3)" in line
    assert "0.0002" in line


def test_the_world_has_lessons_and_probes_for_interventions():
    material = interventions.world()
    assert len(material.seeds) == interventions.MODULES
    assert all(len(items) == 12 for items in material.seeds.values())
    assert material.probes.keys() == material.seeds.keys()


@pytest.mark.slow
def test_interventions_give_the_same_numbers_both_ways(tmp_path):
    write_model(tmp_path / "model")
    settings = dataclasses.replace(interventions.SETTINGS, steps=2)
    student = Student.open(str(tmp_path / "model"), "float32")
    material = interventions.seed_tasks()
    found = interventions.compare(student, material, 1, lambda line: None, settings)
    assert found["together"]["tokens"] == found["one after another"]["tokens"] > 0
    assert found["largest_difference"] < 1e-5
