import json
from pathlib import Path

import pytest

from ioa_jax.errors import InputError
from suite.schema import FOLDER, SCHEMAS, check_run_folder, schema_text
from tests.suite.runs import change_lines, write_run

RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.parametrize("name", SCHEMAS)
def test_written_schemas_are_those_of_the_models(name):
    path = FOLDER / f"{name}.schema.json"
    assert path.read_text() == schema_text(name), "run `python -m suite.schema`"


def test_there_is_no_schema_without_a_model():
    assert {path.name.split(".")[0] for path in FOLDER.glob("*.json")} == set(SCHEMAS)


def test_committed_results_fit_their_schemas():
    checked = 0
    for path in RESULTS.rglob("run.json"):
        # Files of versions before 3 are kept as records of their own revision.
        if json.loads(path.read_text())["version"] >= 3:
            check_run_folder(path.parent)
            checked += 1
    versions = {json.loads(p.read_text())["version"] for p in RESULTS.rglob("run.json")}
    assert checked or max(versions) < 3


def test_what_does_not_fit_is_named(tmp_path):
    directory = write_run(tmp_path / "a", items=4, seeds=(0,), distill=False)
    check_run_folder(directory)
    change_lines(
        directory / "cells" / "sft-seed0" / "curve.jsonl",
        lambda line: {**line, "student_tokens": -1},
    )
    with pytest.raises(InputError, match=r"curve.jsonl:1: field 'student_tokens'"):
        check_run_folder(directory)
