"""The benchmark job: cells, each a method with a seed, trained and measured one after the other.

run.json          settings, environments, models, tasks, status
ledger/           every call of the teacher, shared by the cells
shared/           dependencies of students on which cells agree
cells/<cell>/     cell.json · scores.jsonl · curve.jsonl · train.jsonl · tasks/<task>/…
table.json, .md   the comparison

A cell's cell.json is its last file: what has one that says `complete` isn't done again.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import gc
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ioa_jax.errors import InputError, IOAError
from ioa_jax.files import locked, read_object
from suite import table
from suite.cell_run import CellRun, Work, is_complete, local_model, spend_of
from suite.cells import TEACHER, VERSION, Cell, Share, cells_of, is_local, share_of
from suite.methods.registry import load_method
from suite.models import find_spec
from suite.profile import Profile
from suite.profile_files import validate
from suite.schema import check, write_file
from suite.schema.models import CellFile, RunFile
from suite.workers import open_workers

if TYPE_CHECKING:
    from ioa_jax.identifier.probes import ProbeGraders
    from ioa_jax.models.load import LanguageModel
    from ioa_jax.student import Student
    from ioa_jax.teachers.base import Teacher
    from suite.evaluate import Evaluation
    from suite.tasks.seeds import SeedSplit

log = logging.getLogger(__name__)


def run_cells(profile: Profile) -> list[Cell]:
    """All cells of a profile, those that others need first."""
    cells = cells_of(profile.methods, profile.seeds, method_needs(profile))
    return [cell for cell in cells if cell.method != TEACHER or is_local(profile.teacher.spec)]


def method_needs(profile: Profile) -> dict[str, tuple[str, ...]]:
    """By method of a profile, those that have to be done before."""
    return {name: load_method(name).needs for name in profile.methods}


def start_run(
    profile: Profile,
    name: str,
    output: Path,
    run_id: str | None = None,
    share: Share | None = None,
    ledger: Path | None = None,
) -> Path:
    """Make the folder of a new run, `output/<profile>/<run id>`, with its run.json.

    Args:
        profile: Settings.
        name: Of the profile.
        output: Root of the results.
        run_id: Default: UTC time and a hash of the settings, and the share.
        share: Which of the cells this run does; None is all.
        ledger: Folder for the teacher's calls; None is one inside the run.

    Raises:
        InputError: The folder exists or can't be made.
    """
    now = datetime.datetime.now(datetime.UTC)
    if run_id is None:
        run_id = f"{now:%Y%m%dT%H%M%SZ}-{profile.digest()[:8]}"
        if share is not None:
            run_id += f"-{share.index}of{share.count}"
    if run_id != Path(run_id).name or run_id in (".", ".."):
        raise InputError(f"run id {run_id!r} has to be the name of a folder")
    directory = output / name / run_id
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        raise InputError(
            f"{directory} exists; go on with it by --resume {directory}, or name another --run-id"
        ) from None
    except OSError as error:
        raise InputError(f"{directory}: {error.strerror}") from None
    write_file(
        RunFile,
        directory / "run.json",
        {
            "version": VERSION,
            "profile": name,
            "run_id": run_id,
            "created": now.isoformat(timespec="seconds"),
            "status": "created",
            "error": None,
            "settings": profile.model_dump(mode="json"),
            "settings_sha256": profile.digest(),
            "share": None if share is None else str(share),
            "ledger": "ledger" if ledger is None else str(ledger.resolve()),
            "environments": [],
            "models": {},
            "tasks": [],
            "sandbox": None,
        },
    )
    return directory


def run_job(directory: Path, jobs: int = 1) -> dict[str, Any]:
    """Do what a run's folder doesn't hold yet. A cell that fails doesn't stop the others.

    Args:
        directory: Made by `start_run`; may have been worked in before.
        jobs: Processes that work on it together, each on its share of the processors.

    Returns:
        The table's summary (`table.summarize`), with the cells that failed.

    Raises:
        InputError: `directory` isn't a run, is of another version, or is being worked in; or
            models or data can't be had.
        SandboxError: Programs can't be isolated here, or reference solutions don't pass.
    """
    run, profile = _read_run(directory)
    with locked(directory):
        log.info("results in %s", directory)
        try:
            with open_workers(directory, jobs) as workers:
                job = _Job(directory, profile, run, workers.first)
                job.run()
                workers.wait()
            failed = [cell.name for cell in job.cells() if not is_complete(directory, cell)]
        except BaseException as error:
            run["status"] = "failed" if isinstance(error, IOAError) else "interrupted"
            run["error"] = f"{type(error).__name__}: {error}"
            write_file(RunFile, directory / "run.json", run)
            raise
        run["status"], run["error"] = "complete", None
        if failed:
            run["status"], run["error"] = "failed", f"these cells failed: {', '.join(failed)}"
        write_file(RunFile, directory / "run.json", run)
        return table.write_table(directory)


def work(directory: Path, part: Share) -> None:
    """Do a part of a run's cells beside the process that does the first part, and has the run.

    Raises:
        InputError, SandboxError: As `run_job`.
    """
    run, profile = _read_run(directory)
    _Job(directory, profile, run, part).run()


def _read_run(directory: Path) -> tuple[dict[str, Any], Profile]:
    path = directory / "run.json"
    run = read_object(path)
    if run.get("version") != VERSION:
        raise InputError(f"{directory}: made by another version of the suite")
    check(RunFile, run, str(path))
    return run, validate(run["settings"], str(path))


class _Job:
    """One process's work on a run: a part of its cells."""

    def __init__(self, directory: Path, profile: Profile, run: dict[str, Any], part: Share) -> None:
        self.directory = directory
        self.profile = profile
        self.record = run
        self.part = part

    def cells(self, part: Share | None = None) -> list[Cell]:
        """Those of the whole run, or of a part of it."""
        needs = method_needs(self.profile)
        share = None if self.record["share"] is None else Share.parse(self.record["share"])
        return share_of(share_of(run_cells(self.profile), needs, share), needs, part)

    def run(self) -> None:
        """Finish the cells of this process's part that can be finished."""
        from ioa_jax.record import environment
        from ioa_jax.teachers.ledger import Ledger
        from suite.data import DataSource
        from suite.evaluate import open_evaluation
        from suite.probes import load_seed_items

        profile = self.profile
        self._note_environment(environment())
        self._save(status="running", error=None)
        data = DataSource.open()
        split = load_seed_items(profile.seed_items, data)
        with self._open_teacher() as teacher:
            student = self._open_student()
            self._note_models(teacher, student)
            measured = student.generator.model
            with open_evaluation(profile, split.probes, measured, data) as evaluation:
                self._note_tasks(evaluation, split)
                ledger = Ledger(self.directory / self.record["ledger"])
                # Most methods don't need it, and making it takes a while.
                benchmarks = functools.cache(evaluation.index)
                with self._open_graders() as graders:
                    work = Work(teacher, student, ledger, evaluation, split, benchmarks, graders)
                    for cell in self.cells(self.part):
                        self._finish(cell, work)
                self._note_tasks(evaluation, split)

    def _save(self, **fields: Any) -> None:
        self.record.update(fields)
        # One process writes it; the others found the same.
        if self.part.index == 1:
            write_file(RunFile, self.directory / "run.json", self.record)

    def _note_environment(self, now: dict[str, Any]) -> None:
        earlier = self.record["environments"]
        for part in ("python", "packages", "cpu", "devices", "git"):
            if earlier and earlier[-1][part] != now[part]:
                log.warning(
                    "resumed with another %s than before (%s, was %s): this run's figures belong "
                    "to a mixture of both; run.json has each",
                    part,
                    now[part],
                    earlier[-1][part],
                )
        if not earlier or earlier[-1] != now:
            earlier.append(now)

    def _note_models(self, teacher: Teacher, student: Student) -> None:
        profile = self.profile
        models: dict[str, Any] = {
            "teacher": {"fingerprint": teacher.fingerprint},
            "student": _model_record(student.model),
        }
        local = local_model(teacher)
        if local is not None:
            models["teacher"] |= _model_record(local)
        for part, settings in (("teacher", profile.teacher), ("student", profile.student)):
            models[part]["spec"] = settings.spec
            found, pinned = models[part]["fingerprint"], settings.fingerprint
            if pinned not in (None, found):
                raise InputError(
                    f"setting '{part}.fingerprint' pins {pinned}, and {settings.spec} has {found}: "
                    "it isn't the model that the profile was made for"
                )
        before = self.record["models"] or models
        if before != models:
            raise InputError(
                f"{self.directory}: the models have changed since the run began: {before} are now "
                f"{models}; start a new run"
            )
        self._save(models=models)

    def _note_tasks(self, evaluation: Evaluation, split: SeedSplit) -> None:
        """Tasks, with what is known of them from an earlier process; and the seed items' ids."""
        known = {task["name"]: task["metric"] for task in self.record["tasks"]}
        tasks = evaluation.describe()
        for task in tasks:
            task["metric"] = task["metric"] or known.get(task["name"])
        sandboxes = [found["sandbox"] for found in evaluation.checked.values()]
        self._save(
            tasks=tasks,
            sandbox=next((sandbox for sandbox in sandboxes if sandbox), None),
            seed_items={
                "seeds": [item.id for item in split.seeds],
                "probes": [item.id for item in split.probes],
            },
        )

    def _open_teacher(self) -> Teacher:
        from ioa_jax.teachers.spec import open_teacher

        settings = dict(self.profile.teacher.settings)
        if is_local(self.profile.teacher.spec):
            settings |= {
                "precision": self.profile.precision,
                "batch_size": self.profile.teacher.batch_size,
            }
        log.info("opening the teacher %s", self.profile.teacher.spec)
        return open_teacher(find_spec(self.profile.teacher.spec), **settings)

    def _open_graders(self) -> ProbeGraders:
        """For what is graded within the methods."""
        from ioa_jax.identifier.probes import ProbeGraders
        from suite.methods.ioa import make_config
        from suite.probes import limits_of

        measure = make_config(self.profile, {}).diagnose.measure
        return ProbeGraders(
            measure.threads, measure.allow_weak_sandbox, limits_of(self.profile.sandbox)
        )

    def _open_student(self) -> Student:
        from ioa_jax.student import Student

        profile = self.profile
        log.info("loading the student %s", profile.student.spec)
        student = Student.open(
            find_spec(profile.student.spec),
            profile.precision,
            profile.student.keep_layers,
            profile.generation.batch_size,
        )
        # What is recorded of it says nothing of where it lies on this machine.
        model = dataclasses.replace(student.model, spec=profile.student.spec)
        return Student(model, profile.generation.batch_size)

    def _finish(self, cell: Cell, work: Work) -> None:
        """Train and measure one cell, unless it is complete."""
        if is_complete(self.directory, cell):
            return
        folder = self.directory / "cells" / cell.name
        log.info("cell %s", cell.name)
        record: dict[str, Any] = {"method": cell.method, "seed": cell.seed}
        try:
            record |= CellRun(self.directory, self.profile, cell, work).run()
            record |= {"status": "complete", "error": None}
            write_file(CellFile, folder / "cell.json", record)
        except Exception as error:
            if isinstance(error, IOAError):
                log.error("cell %s failed: %s", cell.name, error)
            else:
                log.exception("cell %s failed", cell.name)
            record |= {
                "status": "failed",
                "error": f"{type(error).__name__}: {error}",
                "spend": spend_of(folder, None),
                "notes": {},
            }
            write_file(CellFile, folder / "cell.json", record)
        # Trained weights and their optimiser's state would be held until the next collection.
        gc.collect()
        if record["status"] == "failed":
            return
        # They can fill a disk, and nothing goes on from them any more.
        for checkpoints in folder.rglob("checkpoints"):
            shutil.rmtree(checkpoints)


def _model_record(model: LanguageModel) -> dict[str, Any]:
    from ioa_jax.models.text import template_date

    record: dict[str, Any] = {
        "fingerprint": model.fingerprint,
        "parameters": model.decoder.config.parameter_count(),
    }
    date = template_date(model.tokenizer)
    return record if date is None else {**record, "template_date": date}
