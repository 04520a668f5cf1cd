"""Controls of IOA: what each changes, and what those over its lessons train on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import pytest
import yaml

from ioa_jax.config import MethodConfig
from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.training import Batch, StepMetrics, TrainConfig, Trainer
from ioa_jax.files import read_json
from ioa_jax.jsonl import read_objects
from ioa_jax.models.huggingface import write_decoder
from suite import run as job
from suite.cell_run import CellRun, Steps
from suite.methods import CONTROL_NAMES, METHODS
from suite.methods.base import MethodContext, as_chat
from suite.methods.controls import CONTROLS
from suite.methods.ioa import IOA
from suite.methods.pool import PARTS, parts_in_turn, read_pool
from suite.methods.registry import load_method
from suite.methods.retained import read_retention
from suite.profile import Profile
from suite.profile_files import load_profile, validate
from tests.distill_world import Cook, method_config, new_student, write_seeds

DIMENSIONS = ("concretization", "decomposition", "cognitive_load", "format", "language")
EASY_FIRST = {"adapter.protocol": "schema", "adapter.level_order": "easy_first"}
CHANGES: dict[str, dict[str, Any]] = {
    "ioa_paper": {
        "diagnose.tau_gap": 0.3,
        "diagnose.target_fraction": 0.25,
        "diagnose.min_teacher_performance": 0.0,
        "diagnose.min_gate_probes": 1,
        "organizer.stage_mode": "sequential",
        "organizer.gate": "literal",
        "organizer.max_stage_modules": None,
        "organizer.references": False,
        "organizer.retention.kind": "off",
        "organizer.keep": "last",
        **EASY_FIRST,
        "adapter.styled_share": 1.0,
        "adapter.form_by_student": False,
    },
    "ioa_uniform": {"diagnose.tau_gap": -1e6},
    "ioa_no_identifier": {
        "diagnose.decompose.decomposer": "random",
        "diagnose.tau_gap": -1e6,
        "diagnose.target_fraction": 0.5,
    },
    "ioa_no_retention": {"organizer.retention.kind": "off"},
    "ioa_replay": {"organizer.retention.kind": "replay"},
    "ioa_no_references": {"organizer.references": False},
    "ioa_schema": {"adapter.protocol": "schema"},
    "ioa_easy_levels": EASY_FIRST,
    "ioa_no_adapter": {
        **{f"adapter.dimensions.{name}": False for name in DIMENSIONS},
        "adapter.form_by_student": False,
        "adapter.levels.introductory": 0.0,
        "adapter.levels.intermediate": 1.0,
        "adapter.levels.advanced": 0.0,
    },
    "ioa_no_zone": {"organizer.zone": False},
    "ioa_no_gate": {"organizer.gate": "off"},
    "ioa_no_late": {"organizer.late_share": 0.0},
    "ioa_no_stages": {"organizer.first_pass_share": 0.0},
}
POOL_CONTROLS = ("ioa_shuffled", "ioa_easy_to_hard", "ioa_hard_to_easy")
RETAINED = ("sft_matched_retained", "lamini_retained")


def flat(settings: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{place}{name}.")
        else:
            found[f"{place}{name}"] = value
    return found


def plain(profile: str) -> Profile:
    """A profile without options: the method's own defaults."""
    return validate({**load_profile(profile)[1].model_dump(), "options": {}}, "plain.yaml")


def config_of(name: str, given: Profile) -> MethodConfig:
    method = load_method(name)
    assert isinstance(method, IOA)
    return method.config(given)


def test_every_control_is_here() -> None:
    assert {name for name in METHODS if name.startswith("ioa_")} == {*CHANGES, *POOL_CONTROLS}
    assert set(CONTROL_NAMES) == set(CONTROLS) == set(CHANGES)


@pytest.mark.parametrize("profile", ["smollm2", "micro"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_control_changes_what_it_says_and_nothing_else(name: str, profile: str) -> None:
    given = plain(profile)
    usual, changed = (flat(config_of(one, given).model_dump()) for one in ("ioa", name))
    assert usual.keys() == changed.keys()
    different = {place: changed[place] for place in usual if changed[place] != usual[place]}
    assert different == CHANGES[name]


@pytest.mark.parametrize("name", CHANGES)
def test_a_controls_changes_hold_over_a_profiles_options(name: str) -> None:
    options = {
        "diagnose": {"tau_gap": 0.1, "target_fraction": 0.6},
        "organizer": {"late_share": 0.4, "retention": {"kind": "replay", "weight": 2.0}},
        "adapter": {"levels": {"introductory": 0.3, "intermediate": 0.3, "advanced": 0.4}},
    }
    given = validate({**plain("micro").model_dump(), "options": options}, "mine.yaml")
    found = flat(config_of(name, given).model_dump())
    assert found.items() >= CHANGES[name].items()
    # What it doesn't speak of is as the options say.
    assert found["organizer.retention.weight"] == 2.0


def test_the_paper_is_read_literally() -> None:
    """Its defaults (its appendix), and none of what is our own."""
    config = config_of("ioa_paper", plain("micro"))
    diagnose, organizer, adapter = config.diagnose, config.organizer, config.adapter
    assert (diagnose.tau_gap, diagnose.target_fraction, diagnose.alpha) == (0.3, 0.25, 0.7)
    dependencies = diagnose.dependencies
    assert (dependencies.tau_high, dependencies.tau_low, dependencies.tau_dep) == (0.9, 0.7, 0.3)
    assert not diagnose.confident_gap
    assert (organizer.tau_zpd, organizer.tau_mastery, organizer.zone) == (0.15, 0.9, True)
    assert (organizer.stage_mode, organizer.gate, config.train.epochs) == (
        "sequential",
        "literal",
        3,
    )
    assert organizer.zone_settings().max_stage_modules is None
    assert organizer.gate_settings().max_remedial_rounds == 5
    assert not organizer.references
    assert (organizer.retention.kind, organizer.keep, organizer.average) == ("off", "last", (1.0,))
    assert all(getattr(adapter.dimensions, name) for name in DIMENSIONS)
    assert (adapter.protocol, adapter.level_order) == ("schema", "easy_first")
    assert (adapter.styled_share, adapter.form_by_student, adapter.zone) == (1.0, False, None)


def test_random_modules_are_taught_whatever_their_gaps() -> None:
    """Of random modules each has about the mean gap, which no threshold may decide about."""
    diagnose = config_of("ioa_no_identifier", load_profile("micro")[1]).diagnose
    assert diagnose.tau_gap < -1
    assert diagnose.target_fraction == 0.5


# -- controls over its lessons -------------------------------------------------------------------

BUDGET, TEACHER = 8000, 9000


@dataclasses.dataclass
class Ran:
    """A run of a cook's lessons.

    Attributes:
        folder: Its own.
        batches: What each cell's optimiser steps trained on, by the cell's name.
        tokens: Of each step.
        configs: Of each cell's last trainer.
        contexts: What each method was given, by the cell's name.
    """

    folder: Path
    batches: dict[str, list[Batch]]
    tokens: dict[str, list[int]]
    configs: dict[str, TrainConfig]
    contexts: dict[str, MethodContext]

    def spend(self, cell: str) -> dict[str, Any]:
        return read_json(self.folder / "cells" / cell / "cell.json")["spend"]

    def examples(self, cell: str) -> set[TokenPair]:
        return {pair for batch in self.batches[cell] for pair in batch.examples}

    def retained(self, cell: str) -> set[TokenPair]:
        return {pair for batch in self.batches[cell] for pair in batch.retained}


def write_world(folder: Path) -> Path:
    """Seeds, and a student that ends some of its answers, so that some are retained."""
    student = new_student()
    decoder = jax.tree.map(lambda x: x * 8 if x.ndim > 2 else x, student.model.decoder)
    (end,) = decoder.config.eos_token_ids
    embedding = decoder.embedding[...]
    # Found by trying: most of its answers end, and not all alike.
    decoder.embedding[...] = embedding.at[end].set(embedding[end] * 8)
    write_decoder(decoder, student.model.tokenizer, folder / "model")
    write_seeds(folder / "seeds.jsonl")
    return folder


def cooks_settings(folder: Path, methods: Sequence[str], **retention: Any) -> dict[str, Any]:
    # Two of three modules are taught: the third is retained.
    config = method_config(
        diagnose={"target_fraction": 0.5},
        organizer={"retention": {"variants": 1, **retention}},
    ).model_dump(mode="json")
    return {
        "description": "a test",
        "precision": "float32",
        "pack": "micro",
        "teacher": {"spec": "openai:cook@http://localhost:1/v1"},
        "student": {"spec": str(folder / "model")},
        "seed_items": {"source": str(folder / "seeds.jsonl"), "probe_fraction": 0.33},
        "tasks": [],
        "budgets": {"teacher_tokens": TEACHER, "student_tokens": BUDGET},
        # Problems of one module differ by a number.
        "overlap": {"similarity": 0.95, "common": 3},
        "sampling": {"max_tokens": 48},
        "train": {"learning_rate": 2e-2, "batch_rows": 4, "row_length": 96, "save_every": 1000},
        "options": {name: config[name] for name in ("diagnose", "organizer", "adapter")},
        "methods": list(methods),
        "seeds": [0],
    }


def run_watched(folder: Path, settings: Mapping[str, Any], run_id: str) -> Ran:
    """Run a profile and keep what its cells were given and trained on."""
    path = folder / "cooks.yaml"
    path.write_text(yaml.safe_dump(dict(settings)))
    name, profile = load_profile(str(path))
    found = Ran(folder / "results" / name / run_id, {}, {}, {}, {})
    step, of_cell = Trainer.step, CellRun.context
    cells: list[str] = []

    def keep_context(self: CellRun, *rest: Any) -> MethodContext:
        cells.append(self.cell.name)
        found.contexts[self.cell.name] = of_cell(self, *rest)
        return found.contexts[self.cell.name]

    def keep_step(self: Trainer, batch: Batch) -> StepMetrics | None:
        metrics = step(self, batch)
        if metrics is not None:
            found.batches.setdefault(cells[-1], []).append(batch)
            found.tokens.setdefault(cells[-1], []).append(metrics.tokens)
            found.configs[cells[-1]] = self.config
        return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ioa_jax.teachers.spec.open_teacher", lambda spec, **settings: Cook())
        patch.setattr(CellRun, "context", keep_context)
        patch.setattr(Trainer, "step", keep_step)
        directory = job.start_run(profile, name, folder / "results", run_id)
        assert not job.run_job(directory)["failed"]
    return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = write_world(tmp_path_factory.mktemp("controls"))
    methods = ("ioa", "sft_matched", *POOL_CONTROLS, *RETAINED)
    return run_watched(folder, cooks_settings(folder, methods), "run")


def test_ioa_retains_in_this_world(ran: Ran) -> None:
    """Or the tests below would be of nothing."""
    distill = ran.folder / "cells" / "ioa-seed0" / "distill"
    retained = read_json(distill / "retained.json")
    assert len(retained["modules"]) == 1
    assert {one["written"] for one in retained["examples"]} == {True, False}
    assert len(ran.retained("ioa-seed0")) > 3
    spend = read_json(distill / "record.json")["spend"]["teacher"]
    assert spend["retention"]["completion_tokens"] > 0


@pytest.mark.parametrize("name", POOL_CONTROLS)
def test_a_control_trains_on_what_ioa_taught(ran: Ran, name: str) -> None:
    cell = f"{name}-seed0"
    taught = ran.examples("ioa-seed0")
    assert ran.examples(cell) == taught
    # Lessons and the references of the taught modules' seeds, and nothing else.
    context = ran.contexts[cell]
    distill = ran.folder / "cells" / "ioa-seed0" / "distill"
    lessons = [lesson for _, lesson in read_objects(distill / "lessons.jsonl")]
    targets = read_json(distill / "diagnosis.json")["targets"]["modules"]
    roles = read_json(distill / "diagnosis.json")["decomposition"]["roles"]
    texts = {(lesson["prompt"], lesson["answer"]) for lesson in lessons}
    texts |= {
        (seed.prompt, seed.reference)
        for seed in context.seeds
        if seed.module in targets and roles[seed.id] == "seed"
    }
    assert taught == {context.student.answer_pair(as_chat(a), b) for a, b in texts}
    own, of_ioa = ran.spend(cell), ran.spend("ioa-seed0")
    assert sum(ran.tokens[cell]) == own["student_tokens"]
    for spend in (own, of_ioa):
        assert BUDGET - 96 < spend["student_tokens"] <= BUDGET
    assert own["teacher_of"] == "ioa"
    for figure in ("teacher_tokens", "teacher_requests", "by_purpose"):
        assert own[figure] == of_ioa[figure]
    assert own["teacher_tokens"] > 0
    assert context.teacher.used.completion_tokens == 0


@pytest.mark.parametrize("name", [*POOL_CONTROLS, *RETAINED])
def test_a_control_retains_what_ioa_retained_as_it_did(ran: Ran, name: str) -> None:
    cell = f"{name}-seed0"
    assert ran.retained(cell) == ran.retained("ioa-seed0")
    own, of_ioa = ran.configs[cell], ran.configs["ioa-seed0"]
    assert own == of_ioa
    assert own.retained_share == pytest.approx(0.65 / 3)
    assert (own.retention, own.retention_weight) == ("divergence", 4.0)


def test_what_is_retained_is_paid_for(ran: Ran) -> None:
    record = read_json(ran.folder / "cells" / "ioa-seed0" / "distill" / "record.json")
    cost = record["spend"]["teacher"]["retention"]["completion_tokens"]
    assert read_retention(ran.contexts["lamini_retained-seed0"], "ioa").teacher_tokens == cost
    # An answer takes 40 tokens and may take 48.
    assert TEACHER - cost - 2 * 48 < ran.spend("lamini_retained-seed0")["teacher_tokens"]
    assert ran.spend("lamini_retained-seed0")["teacher_tokens"] <= TEACHER - cost
    spent = ran.spend("ioa-seed0")["teacher_tokens"]
    cells = {name: ran.folder / f"cells/{name}-seed0/cell.json" for name in
             ("sft_matched", "sft_matched_retained")}  # fmt: skip
    notes = {name: read_json(path)["notes"] for name, path in cells.items()}
    assert notes["sft_matched"]["teacher_tokens_allowed"] == spent
    assert notes["sft_matched_retained"]["teacher_tokens_allowed"] == spent - cost
    assert notes["sft_matched_retained"]["retained"] == len(ran.retained("ioa-seed0"))
    assert ran.retained("sft_matched-seed0") == set()
    assert "teacher_of" not in ran.spend("sft_matched_retained-seed0")


class Killed(BaseException):
    """A process that ends here."""


# In each process what it is killed at: a call of the teacher, or an optimiser step.
KILLS = (("call", 30), ("call", 60), ("step", 3), ("step", 9), ("call", 25), ("step", 5))


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_leaves_the_same_bytes(
    ran: Ran, tmp_path: Path
) -> None:
    world = ran.folder.parents[2]
    settings = cooks_settings(world, ("ioa", "ioa_hard_to_easy", "lamini_retained"))
    settings["train"]["save_every"] = 4
    (tmp_path / "cooks.yaml").write_text(yaml.safe_dump(settings))
    name, profile = load_profile(str(tmp_path / "cooks.yaml"))
    directory = job.start_run(profile, name, tmp_path / "results", "killed")
    add = Steps.add
    for what, last in (*KILLS, ("call", -1)):
        done = {"call": 0, "step": 0}

        def count(kind: str, what: str = what, last: int = last, done: Any = done) -> None:
            done[kind] += 1
            if kind == what and done[kind] == last:
                raise Killed

        class Mortal(Cook):
            def say(self, request: Any, number: int, count: Any = count) -> str:
                count("call")
                return super().say(request, number)

        def counted(self: Any, *step: Any, count: Any = count) -> None:
            add(self, *step)
            count("step")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "ioa_jax.teachers.spec.open_teacher", lambda spec, cook=Mortal, **_: cook()
            )
            patch.setattr(Steps, "add", counted)
            if last > 0:
                with pytest.raises(Killed):
                    job.run_job(directory)
                assert read_json(directory / "run.json")["status"] == "interrupted"
            else:
                assert not job.run_job(directory)["failed"]
    for cell in ("ioa-seed0", "ioa_hard_to_easy-seed0", "lamini_retained-seed0"):
        own, other = (folder / "cells" / cell for folder in (directory, ran.folder))
        assert (own / "scores.jsonl").read_bytes() == (other / "scores.jsonl").read_bytes()
        assert untimed(own / "train.jsonl") == untimed(other / "train.jsonl")
        notes = [read_json(folder / "cell.json")["notes"] for folder in (own, other)]
        assert notes[0] == notes[1]
        for figure in ("teacher_tokens", "student_tokens", "by_purpose", "student_tokens_by_part"):
            spends = [read_json(folder / "cell.json")["spend"] for folder in (own, other)]
            assert spends[0][figure] == spends[1][figure]
    own, other = (folder / "cells/ioa-seed0/distill" for folder in (directory, ran.folder))
    for file in ("lessons.jsonl", "rejects.jsonl", "gates.jsonl", "retained.json", "forms.json",
                 "curriculum.json", "retention.json"):  # fmt: skip
        assert (own / file).read_bytes() == (other / file).read_bytes()


def untimed(path: Path) -> list[dict[str, Any]]:
    rows = [row for _, row in read_objects(path)]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_replayed_references_are_replayed_by_controls_too(tmp_path: Path) -> None:
    folder = write_world(tmp_path)
    settings = cooks_settings(
        folder, ("ioa", "ioa_shuffled", "sft_matched_retained"), kind="replay"
    )
    settings["budgets"] = {"teacher_tokens": 3000, "student_tokens": 3000}
    found = run_watched(folder, settings, "replay")
    references = found.retained("ioa-seed0")
    assert references
    for cell in ("ioa_shuffled-seed0", "sft_matched_retained-seed0"):
        assert found.retained(cell) == references
        assert found.configs[cell].retention == "replay"
        assert not found.configs[cell].needs_student_before


def test_parts_follow_each_other_by_difficulty(ran: Ran) -> None:
    pool = read_pool(ran.contexts["ioa_shuffled-seed0"])
    # By P_S of the module, then by the lesson's own: it grows from easy to hard.
    difficulty = {one.pair: (-one.performance, one.level) for one in pool}
    assert len(set(difficulty.values())) >= 6

    def cuts(batches: Sequence[Batch]) -> int:
        """Places before which nothing is harder than anything behind them."""
        keys = [[difficulty[pair] for pair in batch.examples] for batch in batches]
        return sum(
            max(max(batch) for batch in keys[:place]) <= min(min(batch) for batch in keys[place:])
            for place in range(1, len(keys))
        )

    assert cuts(ran.batches["ioa_easy_to_hard-seed0"]) >= PARTS - 1
    assert cuts(ran.batches["ioa_hard_to_easy-seed0"][::-1]) >= PARTS - 1
    assert cuts(ran.batches["ioa_shuffled-seed0"]) < PARTS - 1


def test_shuffled_is_another_order_for_another_seed(ran: Ran, tmp_path: Path) -> None:
    context = ran.contexts["ioa_shuffled-seed0"]
    control = load_method("ioa_shuffled")

    def order(seed: int, name: str) -> list[Batch]:
        taken: list[Batch] = []
        step = Trainer.step

        def keep(self: Trainer, batch: Batch) -> StepMetrics | None:
            taken.append(batch)
            return step(self, batch)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "step", keep)
            control.run(
                dataclasses.replace(
                    context,
                    seed=seed,
                    directory=tmp_path / name,
                    budgets=context.budgets.model_copy(update={"student_tokens": 1000}),
                    on_step=lambda part, metrics, now: None,
                )
            )
        return taken[:-1]

    first = order(0, "first")
    assert first
    assert first == order(0, "again") == ran.batches["ioa_shuffled-seed0"][: len(first)]
    assert order(1, "other") != first


def test_parts_share_the_budget_equally() -> None:
    """Of examples whose prompt is their place in the order."""
    pairs = [TokenPair((number,), (1,) * 9) for number in range(80)]
    kept = [TokenPair((number,), (2,) * 9) for number in range(100, 103)]
    config = TrainConfig(learning_rate=1e-3, batch_rows=2, row_length=24, retained_share=0.5)
    share = 333
    used = [0] * PARTS
    for batch in parts_in_turn(pairs, config, PARTS * share, kept):
        if sum(used) >= PARTS * share:
            break
        (part,) = {pair.prompt[0] * PARTS // len(pairs) for pair in batch.examples}
        assert not any(used[part + 1 :])
        assert batch.retained
        assert set(batch.retained) <= set(kept)
        used[part] += sum(len(pair) for pair in (*batch.examples, *batch.retained))
    # A part ends with a batch, and what it takes too much the next one goes without.
    assert all(abs(one - share) <= 40 for one in used)
