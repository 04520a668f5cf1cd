"""Methods with one number changed: their names, their settings, and a run that has one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ioa_jax.config import MethodConfig
from ioa_jax.errors import InputError
from ioa_jax.files import read_json
from ioa_jax.journal import read_journal
from ioa_jax.models.huggingface import write_decoder
from ioa_jax.settings import override_setting
from suite import run as job
from suite.cell_run import Steps
from suite.cells import Cell
from suite.methods import is_sweep, method_names
from suite.methods.ioa import IOA
from suite.methods.registry import load_method
from suite.methods.sweep import IDLE
from suite.plan import make_plan
from suite.profile import Profile
from suite.profile_files import load_profile, validate
from suite.report.summary import Figures, summarize
from suite.results import read_run
from suite.run import run_cells
from suite.schema import check_run_folder
from suite.verify import verify_run
from tests.distill_world import Cook, method_config, new_student, write_seeds

# The paper's symbols with other values than the profile `smollm2` has.
PAPERS = {
    "diagnose.tau_gap": 0.2,
    "organizer.tau_zpd": 0.3,
    "organizer.tau_mastery": 1,
    "organizer.late_share": 0.4,
    "organizer.first_pass_share": 0,
    "adapter.examples_per_seed": 5,
}
TAU_ZPD = "ioa@organizer.tau_zpd=0.2"


def profile_with(*methods: str, **options: Any) -> Profile:
    settings = load_profile("smollm2")[1].model_dump()
    settings |= {"methods": methods, "options": {**settings["options"], **options}}
    return validate(settings, "mine.yaml")


def ioa(name: str) -> IOA:
    method = load_method(name)
    assert isinstance(method, IOA)
    return method


@pytest.mark.parametrize(("setting", "value"), PAPERS.items())
def test_a_sweep_changes_one_number(setting: str, value: float) -> None:
    name = f"ioa@{setting}={value}"
    profile = profile_with("ioa", name)
    section, field = setting.split(".")
    usual, changed = (ioa(one).config(profile).model_dump() for one in ("ioa", name))
    assert changed[section].pop(field) == value != usual[section].pop(field)
    assert changed == usual
    assert (load_method(name).needs, is_sweep(name)) == ((), True)
    assert f"{setting} is {value}" in load_method(name).summary


def test_a_control_keeps_its_own_change() -> None:
    profile = profile_with("ioa_paper@organizer.tau_zpd=0.2", organizer={"tau_zpd": 0.4})
    config = ioa(profile.methods[0]).config(profile)
    assert (config.organizer.stage_mode, config.organizer.tau_zpd) == ("sequential", 0.2)


def test_what_the_options_say_is_the_usual_value() -> None:
    options = {"organizer": {"tau_zpd": 0.2}}
    with pytest.raises(InputError, match=r"tau_zpd' is 0\.2 in 'ioa' too"):
        profile_with(TAU_ZPD, **options)
    # The default is now another value.
    assert profile_with("ioa@organizer.tau_zpd=0.15", **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ioa@organizer.tau_zp=0.2", "'organizer.tau_zp' can't be changed in 'ioa'; numbers are "
         "organizer.tau_zpd, organizer.max_stage_modules,"),
        ("ioa@organizer.zone=0.2", "'organizer.zone' can't be changed"),
        ("ioa@organizer=0.2", "'organizer' can't be changed"),
        ("ioa@seed=3", "numbers are diagnose.decompose.batch_size,"),
        ("ioa@train.learning_rte=0.1", "'train.learning_rte' can't be changed in 'ioa'; numbers are"
         " train.learning_rate, train.batch_rows,"),
        ("sft@train.remat=1", "'train.remat' can't be changed in 'sft'"),
        ("sft@train.learning_rate=-1", "=-1: setting 'learning_rate': Input should be greater"),
        ("sft@train.batch_rows=2.5", "=2.5: setting 'batch_rows': Input should be a valid integer"),
        ("sft@train.clip=1", "'train.clip' is 1 in 'sft' too: this would be the same cell twice"),
        ("ioa@organizer.tau_zpd=2", "=2: setting 'organizer.tau_zpd': Input should be less"),
        ("ioa@adapter.examples_per_seed=2.5", "=2.5: setting 'adapter.examples_per_seed': Input "),
        ("ioa@diagnose.dependencies.tau_low=0.95", "tau_low=0.95 is above tau_high=0.9"),
        ("ioa@organizer.tau_zpd=0.15", "is 0.15 in 'ioa' too: this would be the same cell twice"),
        ("ioa@organizer.tau_zpd=0.20", "write 0.20 as 0.2"),
        ("ioa@adapter.examples_per_seed=5.0", "write 5.0 as 5"),
        ("ioa@organizer.tau_zpd=much", "write it as METHOD@SETTING=VALUE"),
        ("ioa@organizer.tau_zpd=nan", "write it as METHOD@SETTING=VALUE"),
        ("ioa@organizer.tau_zpd", "write it as METHOD@SETTING=VALUE"),
        ("ioa@=0.2", "write it as METHOD@SETTING=VALUE"),
        ("@organizer.tau_zpd=0.2", "write it as METHOD@SETTING=VALUE"),
        ("sft@seeds=1.5", "seeds is a whole number from 1"),
        ("sft@seeds=0", "seeds is a whole number from 1"),
        ("sft_matched@seeds=9", "'sft_matched' takes what ioa made of all seed items"),
        (f"{TAU_ZPD}@diagnose.alpha=1", "write it as METHOD@SETTING=VALUE"),
        ("sft@organizer.tau_zpd=0.2", "'sft' has no such settings; ioa and its controls have"),
        ("iao@organizer.tau_zpd=0.2", "method 'iao' is unknown; there are undistilled,"),
    ],
)  # fmt: skip
def test_a_wrong_sweep_is_named_when_the_profile_is_read(name: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        profile_with("undistilled", name)
    assert str(error.value).startswith(f"mine.yaml: setting 'methods': {name!r}: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ioa_no_zone@organizer.tau_zpd=0.2", "'ioa_no_zone', where organizer.zone is false"),
        ("ioa@organizer.max_remedial_rounds=2", "'ioa', where organizer.stage_mode is pooled"),
        ("ioa@organizer.remedial_share=0.2", "where organizer.stage_mode is pooled"),
        ("ioa_paper@organizer.late_share=0.4", "where organizer.stage_mode is sequential"),
        ("ioa_paper@organizer.retention.share=0.4", "where organizer.stage_mode is sequential"),
        ("ioa_no_retention@organizer.retention.weight=2", "where organizer.retention.kind is off"),
        ("ioa_replay@organizer.retention.weight=2", "where organizer.retention.kind is replay"),
        ("ioa_replay@organizer.retention.variants=2", "where organizer.retention.kind is replay"),
        ("ioa_no_late@organizer.late_share=0.4", "what 'ioa_no_late' itself changes of 'ioa'"),
        ("ioa@adapter.size_caps.introductory=9", "where adapter.protocol is few_shot"),
        ("ioa@adapter.styled_share=1", "where adapter.protocol is few_shot"),
        ("ioa_schema@adapter.decompose_below=1", "where adapter.protocol is schema"),
        ("ioa_easy_levels@adapter.levels.advanced=1", "where adapter.level_order is easy_first"),
        ("ioa_no_adapter@adapter.levels.advanced=1", "what 'ioa_no_adapter' itself changes"),
        ("ioa@diagnose.alpha=0", "'ioa', where diagnose.target_fraction is null"),
        ("ioa@diagnose.min_gate_probes=9", "where diagnose.gate_probe_share is 0.0"),
        ("ioa_no_identifier@diagnose.decompose.min_votes=9", "decompose.decomposer is random"),
        ("ioa@diagnose.decompose.num_modules=9", "where diagnose.decompose.decomposer is teacher"),
    ],
)
def test_a_number_that_is_switched_off_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        profile_with(name)
    assert str(error.value).startswith(f"mine.yaml: setting 'methods': {name!r}: setting ")


def test_two_settings_may_switch_a_number_off_together() -> None:
    of_style = ("ioa@adapter.styled_share=1",)
    for adapter in ({"protocol": "lean", "pack": "paper"}, {"protocol": "schema"}):
        assert profile_with(*of_style, adapter=adapter)
    with pytest.raises(InputError, match=r"adapter\.pack is micro and adapter\.protocol is lean"):
        profile_with(*of_style, adapter={"protocol": "lean", "pack": "micro"})
    with pytest.raises(
        InputError, match=r"organizer\.gate is off and organizer\.stage_mode is seq"
    ):
        profile_with("ioa_no_gate@organizer.max_remedial_rounds=2",
                     organizer={"stage_mode": "sequential"})  # fmt: skip


def test_what_the_options_switch_off_is_refused_too() -> None:
    options = {"adapter": {"verification": {"on": False}}, "organizer": {"zone": False}}
    for name in ("ioa@adapter.verification.max_tokens=9", TAU_ZPD):
        with pytest.raises(InputError, match="changes nothing in 'ioa'"):
            profile_with(name, **options)


def test_what_a_control_leaves_on_can_be_changed() -> None:
    kept = (
        "ioa_no_zone@organizer.tau_mastery=0.8",
        "ioa_no_gate@organizer.tau_mastery=0.8",
        "ioa_no_identifier@diagnose.decompose.num_modules=3",
        "ioa_paper@organizer.max_remedial_rounds=3",
        "ioa_paper@diagnose.alpha=1",
        "ioa_schema@adapter.size_caps.introductory=9",
        "ioa_schema@adapter.remedial_scale=0.2",
        "ioa_replay@organizer.retention.share=0.3",
        "ioa_no_adapter@adapter.examples_per_seed=7",
    )
    assert profile_with(*kept).methods == kept


def test_training_can_be_swept_for_every_method_from_its_own_rate() -> None:
    settings = load_profile("smollm2")[1].model_dump()
    settings["learning_rates"] = {"sft": 0.003}
    rate = settings["train"]["learning_rate"]
    names = [f"{name}@train.learning_rate={rate}" for name in ("sft", "sft_matched", "lion")]
    with pytest.raises(InputError, match=r"'sft_matched' too: this would be the same cell"):
        validate({**settings, "methods": names}, "mine.yaml")
    profile = validate({**settings, "methods": [names[0], "ioa@train.learning_rate=0.01"]}, "m")
    assert profile.train_of(names[0]).learning_rate == 0.003
    assert load_method("sft_matched@train.learning_rate=0.01").needs == ("ioa",)
    with pytest.raises(InputError, match="'sft' too: this would"):
        validate({**settings, "methods": ["sft@train.learning_rate=0.003"]}, "m")


def test_switches_and_what_they_make_idle_are_settings() -> None:
    settings = MethodConfig().model_dump()

    def value(path: str) -> Any:
        found: Any = settings
        for name in path.split("."):
            found = found[name]
        return found

    for switches, idle in IDLE:
        raw: dict[str, Any] = {}
        for path, off in switches.items():
            value(path)
            override_setting(raw, f"{path}={json.dumps(off)}")
        if "adapter.verification.on" in switches:  # nor are the teacher's probes verified then
            override_setting(raw, "diagnose.gate_probe_share=0")
        MethodConfig.model_validate(raw)
        assert all(isinstance(value(path), int | float | dict) for path in idle)


def test_overrides_take_sweeps_and_the_plan_has_their_cells() -> None:
    _, profile = load_profile("smollm2-short", [f"methods=[ioa, {TAU_ZPD}]", "seeds=[0, 1]"])
    names = [cell.name for cell in run_cells(profile)]
    assert names == ["teacher", "ioa-seed0", "ioa-seed1", f"{TAU_ZPD}-seed0", f"{TAU_ZPD}-seed1"]
    assert [cell.name for cell in make_plan(profile).cells] == names
    assert not any(is_sweep(name) for name in method_names())


# -- a run ---------------------------------------------------------------------------------------

SWEPT = "ioa@adapter.examples_per_seed=1"
FEWER = "sft@seeds=5"
RATE = "sft@train.learning_rate=0.01"
IOA_RATE = "ioa@train.learning_rate=0.01"


def test_more_seeds_than_there_are_are_refused() -> None:
    context: Any = SimpleNamespace(seeds=("a", "b"), seed=0)
    with pytest.raises(InputError, match="'sft@seeds=2': the profile has 2 seed items"):
        load_method("sft@seeds=2").run(context)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of cooks' lessons, whose swept cell stopped after its first checkpoint."""
    folder = tmp_path_factory.mktemp("sweep")
    student = new_student()
    write_decoder(student.model.decoder, student.model.tokenizer, folder / "model")
    write_seeds(folder / "seeds.jsonl")
    config = method_config().model_dump(mode="json")
    settings = {
        "description": "a test",
        "precision": "float32",
        "pack": "micro",
        "teacher": {"spec": "openai:cook@http://localhost:1/v1"},
        "student": {"spec": str(folder / "model")},
        "seed_items": {"source": str(folder / "seeds.jsonl"), "probe_fraction": 0.33},
        "tasks": [],
        "budgets": {"teacher_tokens": 8000, "student_tokens": 3000},
        # Problems of one module differ by a number.
        "overlap": {"similarity": 0.95, "common": 3},
        "sampling": {"max_tokens": 48},
        "train": {"learning_rate": 2e-2, "batch_rows": 2, "row_length": 96, "save_every": 6},
        "options": {name: config[name] for name in ("diagnose", "organizer", "adapter")},
        "learning_rates": {"ioa": 0.015},
        "methods": ["undistilled", "ioa", SWEPT, "sft", FEWER, RATE, IOA_RATE],
        "seeds": [0],
    }
    (folder / "cooks.yaml").write_text(yaml.safe_dump(settings))
    name, profile = load_profile(str(folder / "cooks.yaml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ioa_jax.teachers.spec.open_teacher", lambda spec, **settings: Cook())
        directory = job.start_run(profile, name, folder / "results", "run")
        add = Steps.add

        def stop(self: Any, part: str, metrics: Any, student: Any) -> None:
            add(self, part, metrics, student)
            if self._name.startswith(SWEPT) and len(self._journal) == 8:
                raise ValueError("stopped")

        with pytest.MonkeyPatch.context() as stopping:
            stopping.setattr(Steps, "add", stop)
            failed = job.run_job(directory)["failed"]
        assert failed == {Cell(SWEPT, 0).name: "ValueError: stopped"}
        assert list((directory / "cells" / Cell(SWEPT, 0).name).rglob("checkpoints/*"))
        job.run_job(directory)
        yield directory


def test_a_cell_says_what_it_changes(finished: Path) -> None:
    notes = read_json(finished / "cells" / f"{SWEPT}-seed0" / "cell.json")["notes"]
    sweep = {"of": "ioa", "setting": "adapter.examples_per_seed", "value": 1, "default": 2}
    assert notes["sweep"] == sweep
    assert notes["lessons"] > 0
    usual = read_json(finished / "cells" / "ioa-seed0" / "cell.json")["notes"]
    assert usual.keys() == notes.keys() - {"sweep"}
    assert usual["lessons"] != notes["lessons"]


def test_a_cell_can_start_from_fewer_seeds(finished: Path) -> None:
    cells = {name: read_json(finished / f"cells/{name}-seed0/cell.json") for name in ("sft", FEWER)}
    available = len(read_json(finished / "run.json")["seed_items"]["seeds"])
    sweep = {"of": "sft", "setting": "seeds", "value": 5, "default": available}
    assert cells[FEWER]["notes"]["sweep"] == sweep
    assert cells[FEWER]["spend"]["teacher_requests"] == 5
    assert cells["sft"]["spend"]["teacher_requests"] == available


def test_a_cell_can_be_trained_otherwise(finished: Path) -> None:
    cells = finished / "cells"
    notes = read_json(cells / f"{RATE}-seed0" / "cell.json")["notes"]
    assert notes["sweep"] == {"of": "sft", "setting": "train.learning_rate", "value": 0.01,
                              "default": 0.02}  # fmt: skip
    peaks = {
        name: max(row["learning_rate"] for row in read_journal(cells / f"{name}-seed0/train.jsonl"))
        for name in ("sft", RATE, "ioa", IOA_RATE, SWEPT)
    }
    assert peaks["sft"] == pytest.approx(2 * peaks[RATE])
    # The method's own rate, which a sweep of something else has too.
    assert peaks["ioa"] == pytest.approx(1.5 * peaks[IOA_RATE], rel=0.05)
    assert peaks[SWEPT] == pytest.approx(peaks["ioa"], rel=0.05)
    notes = read_json(cells / f"{IOA_RATE}-seed0" / "cell.json")["notes"]
    assert notes["sweep"]["default"] == 0.015


def test_the_report_sets_it_apart(finished: Path) -> None:
    check_run_folder(finished)
    result = read_run(finished)
    assert result.unfinished == ()
    table = summarize(Figures(result, resamples=50))
    assert [row.method for row in table.rows] == ["undistilled", "ioa", "sft"]
    swept = [SWEPT, FEWER, RATE, IOA_RATE]
    assert [(row.method, row.seeds) for row in table.sweeps] == [(name, [0]) for name in swept]
    assert table.reference == "ioa"
    assert verify_run(finished, None).findings == ()
    assert "ioa@adapter.examples_per_seed" in (finished / "plots/sensitivity.svg").read_text()
