"""`kill -9` at random moments of `ioa distill` and `suite run`, which then go on.

    python -m tests.attacks.kills --points 20 --output results/reference/reliability/kills.json

Of each job, one run that nothing stops, and as many runs as it takes for all the kills: a run is
killed and resumed until a process of it comes to its end. All have to leave the same bytes, all
answers that a server was paid for in their ledgers, and none paid for twice.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from fnmatch import fnmatchcase
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from ioa_jax.files import write_json
from ioa_jax.teachers.ledger import Ledger
from tests.attacks.paid import Till, call_of, open_till
from tests.distill_world import method_config, new_student, speak, write_seeds
from tests.suite.world import write_profile

# Forked from one that has imported everything, or importing would be most of what is killed.
_FORKS = multiprocessing.get_context("forkserver")
_IMPORTED = [
    *("ioa_jax.distillation", "ioa_jax.card", "ioa_jax.report.pages", "ioa_jax.teachers.openai"),
    *("ioa_jax.teachers.transport", "openai", "suite.cli", "suite.run", "suite.evaluate"),
    *("suite.methods.ioa", "suite.methods.sft_matched", "suite.report.page", "suite.report.plots"),
]
JOBS = ("ioa distill", "suite run")
ANSWER_SECONDS = 0.5
CONCURRENCY = 4
LONGEST_SECONDS = 600.0  # of a process that hangs

# What a kill may change: times, locks, pages that show seconds, and what training goes on from.
_CHANGES = (
    "*seconds.jsonl", "*.lock", "*/lock", "*report.html", "*checkpoints/*", "*run.json",
    "*ledger/*.jsonl", "workers/*",
)  # fmt: skip
# Fields that tell of the machine and the clock.
_NOT_MADE = ("seconds", "environment")
# Lines come in the order in which answers end.
_UNORDERED = ("*counted.jsonl", "*teacher.jsonl", "*texts.jsonl", "*verdicts.jsonl")


@dataclasses.dataclass(frozen=True)
class Job:
    """A command that is killed.

    Attributes:
        name: Of it.
        module: Of the command.
        begin: Its words for a run in a folder.
        resume: Those that go on with it.
        run: The run's folder, below that folder.
    """

    name: str
    module: str
    begin: Callable[[Path], list[str]]
    resume: Callable[[Path], list[str]]
    run: Callable[[Path], Path]

    def is_begun(self, folder: Path) -> bool:
        """Whether there is a run to go on with."""
        return any((self.run(folder) / name).is_file() for name in ("run.json", "config.json"))


@dataclasses.dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        round: Which of the runs.
        seconds: After its process began.
        paid: Calls of the run that were paid by then.
    """

    round: int
    seconds: float
    paid: int


@dataclasses.dataclass(frozen=True)
class Found:
    """What kills of a job brought.

    Attributes:
        job: Its name.
        kills: Every one.
        runs: That came to their end, killed or not.
        seconds: Of the run that nothing stopped.
        calls: That it took.
        files: That were compared in each run.
        other_bytes: Files that a killed run left in other bytes, and those that it lacks.
        lost: Answers that were paid for and are in no ledger.
        paid_twice: Answers that were paid for once more than needed.
        unread: Answers that their caller hadn't read when it was killed, and was sent again.
        broken_off: Calls that a kill ended before their answers were written; nothing was paid.
    """

    job: str
    kills: tuple[Kill, ...]
    runs: int
    seconds: float
    calls: int
    files: int
    other_bytes: tuple[str, ...]
    lost: int
    paid_twice: int
    unread: int
    broken_off: int

    @property
    def is_sound(self) -> bool:
        """Nothing was changed, lost or paid twice."""
        return not (self.other_bytes or self.lost or self.paid_twice)


def jobs(world: Path, url: str) -> tuple[Job, Job]:
    """`ioa distill` and `suite run`, small, with a teacher at an address; makes the folder."""
    world.mkdir()
    seeds, student, teacher = world / "seeds.jsonl", world / "student", f"openai:cook@{url}"
    write_seeds(seeds)
    new_student().save(student, "", jnp.float32)
    settings = {"concurrency": CONCURRENCY, "backoff_seconds": 0.001}
    own = method_config().model_dump(mode="json", exclude_unset=True)
    # The server gives no log-probabilities of texts.
    own["diagnose"]["measure"] = {"scorer": "accuracy", "max_tokens": 32}
    own["diagnose"]["min_gate_probes"] = 4
    own["budget"] = {"teacher_tokens": 1000, "student_tokens": 4000}
    own["train"]["save_every"] = 10
    teaching = {
        "teacher": {"spec": teacher, "settings": settings},
        "student": {"spec": str(student), "batch_size": 8},
        "seeds": str(seeds),
        "precision": "float32",
        "baseline": False,
    }
    write_json(world / "distill.json", {**own, **teaching})
    options = {name: own[name] for name in ("diagnose", "organizer", "adapter")}
    options["diagnose"]["measure"].pop("max_tokens")
    write_profile(
        world / "kills.yaml",
        student,
        pack="micro",
        teacher={"spec": teacher, "settings": settings},
        student={"spec": str(student)},
        seed_items={"source": str(seeds), "probe_fraction": 0.33},
        tasks=[],
        # Every question is like every other.
        overlap={"similarity": 0.99, "common": 3},
        budgets={"teacher_tokens": 1000, "student_tokens": 4000},
        sampling={"max_tokens": 48},
        train={"learning_rate": 1e-2, "batch_rows": 2, "row_length": 96, "save_every": 10},
        curve={"points": 1, "items": 3},
        methods=["undistilled", "sft_matched", "ioa"],
        seeds=[0],
        options=options,
    )
    return (
        Job(
            JOBS[0],
            "ioa_jax.cli",
            lambda folder: [
                *("distill", "--config", str(world / "distill.json")),
                *("--output", str(folder / "run")),
            ],
            lambda folder: ["distill", "--resume", str(folder / "run")],
            lambda folder: folder / "run",
        ),
        Job(
            JOBS[1],
            "suite.cli",
            lambda folder: [
                *("run", "--profile", str(world / "kills.yaml")),
                *("--output", str(folder), "--run-id", "run"),
            ],
            lambda folder: ["run", "--resume", str(folder / "kills/run")],
            lambda folder: folder / "kills/run",
        ),
    )


def prepare(imported: Sequence[str], folder: Path) -> None:
    """Have the processes to come import modules once, and compile into `folder` if nowhere else."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/compiled")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    _FORKS.set_forkserver_preload(["tests.attacks.kills", *imported])


def start(module: str, words: Sequence[str], log: Path) -> BaseProcess:
    """Begin a process of ours; what it prints goes to `log`."""
    process = _FORKS.Process(target=work, args=(module, words, log))
    process.start()
    return process


def work(module: str, words: Sequence[str], log: Path) -> None:
    """A command in a process of its own."""
    os.chdir(log.parent)
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.pop("OPENAI_API_KEY", None)
    sys.argv = [module, *words]
    importlib.import_module(module).main()


def finish(process: BaseProcess, log: Path) -> None:
    """Wait until a process has done its work.

    Raises:
        RuntimeError: It failed or hangs; the message has the end of its log.
    """
    process.join(LONGEST_SECONDS)
    if process.exitcode is None:
        process.kill()
    if process.exitcode != 0:
        told = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"exit code {process.exitcode}: {told}")


def kill_again_and_again(job: Job, world: Path, till: Till, points: int, seed: int) -> Found:
    """Kill a job at so many random moments; see this file's head."""
    log = world / f"{job.name.replace(' ', '-')}.log"
    draws = random.Random(seed)
    till.forget()
    till.first, began = None, time.monotonic()
    finish(start(job.module, job.begin(world / f"{job.name} whole"), log), log)
    whole, calls = time.monotonic() - began, len(till.paid)
    assert till.first is not None
    before = till.first - began
    expected = contents(job.run(world / f"{job.name} whole"))
    kills: list[Kill] = []
    other: list[str] = []
    lost = twice = runs = 0
    till.broken_off = till.unread = 0
    while len(kills) < points:
        folder = world / f"{job.name} {runs}"
        till.forget()
        till.first = None
        words = job.begin(folder)
        is_whole, began = True, time.monotonic()
        while True:
            process = start(job.module, words, log)
            if len(kills) == points:
                finish(process, log)
                break
            # Into the work, or towards its end where little of it is left.
            moment = draws.uniform(0.5 * before, before + 0.4 * (whole - before))
            process.join(moment)
            if process.exitcode is not None:
                finish(process, log)
                break
            process.kill()
            process.join()
            is_whole = False
            kills.append(Kill(runs, round(moment, 3), len(till.paid)))
            if job.is_begun(folder):
                words = job.resume(folder)
            else:
                # Nothing was asked yet; a part of a folder is refused, as somebody else's may be.
                shutil.rmtree(folder, ignore_errors=True)
        runs += 1
        if is_whole and till.first is not None:
            # The machine is faster or slower than it was.
            whole, before = time.monotonic() - began, till.first - began
        found = contents(job.run(folder))
        other += [
            f"{job.run(folder) / name}"
            for name in sorted(expected.keys() | found.keys())
            if expected.get(name) != found.get(name)
        ]
        lost += len(till.paid.keys() - recorded(job.run(folder) / "ledger"))
        twice += till.paid_twice
    return Found(
        job.name, tuple(kills), runs, round(whole, 1), calls, len(expected), tuple(other), lost,
        twice, till.unread, till.broken_off,
    )  # fmt: skip


def recorded(ledger: Path) -> set[str]:
    """Calls that a ledger has answers to."""
    return {
        call_of(record["messages"], record["seed"], record["sampling"])
        for record in Ledger(ledger)
        if record["kind"] == "generate"
    }


def contents(run: Path) -> dict[str, bytes]:
    """What a run's files hold, without the times in them."""
    found: dict[str, bytes] = {}
    for path in sorted(one for one in run.rglob("*") if one.is_file()):
        name = path.relative_to(run).as_posix()
        if any(fnmatchcase(name, pattern) for pattern in _CHANGES):
            continue
        data = path.read_bytes()
        if path.suffix == ".json":
            data = _dump(json.loads(data))
        elif path.suffix == ".jsonl":
            lines = [_dump(json.loads(line)) for line in data.splitlines()]
            unordered = any(fnmatchcase(name, pattern) for pattern in _UNORDERED)
            data = b"\n".join(sorted(lines) if unordered else lines)
        found[name] = data
    return found


def _dump(value: Any) -> bytes:
    return json.dumps(_untimed(value), ensure_ascii=False).encode()


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _untimed(inner) for name, inner in value.items() if name not in _NOT_MADE}
    return [_untimed(inner) for inner in value] if isinstance(value, list) else value


def attack(points: int, seed: int, only: str | None = None) -> list[Found]:
    """Kill each job at so many moments, or only one of them; both go on beside each other."""
    with tempfile.TemporaryDirectory(prefix="ioa-kills-") as folder, ExitStack() as stack:
        prepare(_IMPORTED, Path(folder))
        pool = stack.enter_context(ThreadPoolExecutor())
        found: list[Future[Found]] = []
        for number, name in enumerate(JOBS):
            if only in (None, name):
                till = stack.enter_context(open_till(speak, ANSWER_SECONDS))
                world = Path(folder) / str(number)
                job = jobs(world, till.url)[number]
                found.append(pool.submit(kill_again_and_again, job, world, till, points, seed))
        return [one.result() for one in found]


def main() -> None:
    """See this file's head."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20, help="kills of each job")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--job", choices=JOBS, help="only this one")
    parser.add_argument("--output", type=Path, help="JSON file; default: printed")
    chosen = parser.parse_args()
    found = attack(chosen.points, chosen.seed, chosen.job)
    told = [dataclasses.asdict(one) | {"is_sound": one.is_sound} for one in found]
    if chosen.output is None:
        print(json.dumps(told, indent=2))
    else:
        write_json(chosen.output, told)
        print(chosen.output)
    if not all(one.is_sound for one in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
