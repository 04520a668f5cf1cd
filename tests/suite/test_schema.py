from pathlib import Path

import pytest

from ioa_jax.errors import InputError
from ioa_jax.files import read_json
from suite.archive import RunCells
from suite.results import read_run
from suite.schema import (
    FOLDER,
    SCHEMAS,
    check_run_folder,
    read_lines,
    schema_text,
    write_file,
    write_lines,
)
from suite.schema.models import CellFile, ScoreLine
from suite.verify import EARLIER, verify_run
from tests.suite.runs import change_lines, write_run

REFERENCES = sorted(
    path.parent for path in (Path(__file__).parents[2] / "results/reference").glob("*/run.json")
)


@pytest.mark.parametrize("name", SCHEMAS)
def test_written_schemas_are_those_of_the_models(name):
    path = FOLDER / f"{name}.schema.json"
    assert path.read_text() == schema_text(name), "run `python -m suite.schema`"


def test_there_is_no_schema_without_a_model():
    assert {path.name.split(".")[0] for path in FOLDER.glob("*.json")} == set(SCHEMAS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder",
    # Every resample of a table is drawn again. With the largest ones this takes minutes: they
    # were looked at by `suite verify --tables-only` when they came here.
    [
        pytest.param(f, marks=[] if f.name == "micro-short" else pytest.mark.slow)
        for f in REFERENCES
        if not f.name.startswith(("micro-full", "micro-large"))
    ],
    ids=lambda path: path.name,
)
def test_committed_results_fit_their_schemas_and_their_tables_follow_from_them(folder):
    cells = RunCells(folder)
    check_run_folder(folder, cells.path)
    found = verify_run(folder, None)
    assert found.findings == ()
    # Every cell's calls and steps are there, so that none of its tokens are taken on trust; but in
    # an archive of scores alone.
    if any(cells.path.glob("*/teacher.jsonl")):
        assert found.spends == len(read_run(folder).cells) > 0
    # Of an earlier version, the figures alone.
    assert found.tables == (1 if read_json(folder / "table.json")["version"] == EARLIER else 4)


def test_results_that_the_readme_shows_are_among_them():
    assert {path.name for path in REFERENCES} >= {"micro", "micro-short", "smollm2"}


def test_a_json_file_that_does_not_fit_is_not_written(tmp_path):
    path = tmp_path / "cell.json"
    cell = {"method": "sft", "seed": 0, "status": "complete", "notes": {"lessons": 3}}
    write_file(CellFile, path, cell)
    with pytest.raises(InputError, match=r"cell\.json: field 'notes\.sweep'"):
        write_file(CellFile, path, {**cell, "notes": {"sweep": "all"}})
    with pytest.raises(InputError, match=r"cell\.json: field 'spend\.steps'"):
        write_file(CellFile, path, {**cell, "spend": {"steps": -1}})
    assert read_json(path) == cell


def test_lines_that_do_not_fit_are_not_written(tmp_path):
    path = tmp_path / "scores.jsonl"
    rows = [{"task": "a", "id": "1", "score": 1.0}, {"task": "a", "id": "2", "score": 1.5}]
    with pytest.raises(InputError, match=r"scores\.jsonl:2: field 'score'"):
        write_lines(ScoreLine, path, rows)
    assert not path.exists()
    write_lines(ScoreLine, path, rows[:1])
    assert [line.id for line in read_lines(ScoreLine, path)] == ["1"]


def test_what_does_not_fit_is_named(tmp_path):
    directory = write_run(tmp_path / "a", items=4, seeds=(0,), distill=False)
    check_run_folder(directory)
    change_lines(
        directory / "cells" / "sft-seed0" / "curve.jsonl",
        lambda line: {**line, "student_tokens": -1},
    )
    with pytest.raises(InputError, match=r"curve.jsonl:1: field 'student_tokens'"):
        check_run_folder(directory)
