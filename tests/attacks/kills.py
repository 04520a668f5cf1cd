"""`kill -9` at random moments of `ioa distill` and `suite run`, which then go on.

    python -m tests.attacks.kills --points 20 --output results/reference/reliability/kills.json

Of each job, one run that nothing stops, and as many runs as it takes for all the kills: a run is
killed and resumed until a process of it comes to its end. All have to leave the same bytes, all
answers that a server was paid for in their ledgers, and none paid for twice.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from ioa_jax.files import write_json
from ioa_jax.teachers.ledger import Ledger
from tests.attacks.paid import Till, call_of, open_till
from tests.distill_world import method_config, new_student, speak, write_seeds
from tests.suite.world import write_profile

ROOT = Path(__file__).parents[2]
JOBS = ("ioa distill", "suite run")
ANSWER_SECONDS = 0.2
CONCURRENCY = 4
LONGEST_SECONDS = 600.0  # of a process that hangs

# What a kill may change: times, locks, pages that show seconds, and what training goes on from.
_CHANGES = (
    "*seconds.jsonl", "*.lock", "*/lock", "*report.html", "*checkpoints/*", "*run.json",
    "*ledger/*.jsonl", "workers/*",
)  # fmt: skip
# Lines come in the order in which answers end.
_UNORDERED = ("*counted.jsonl", "*teacher.jsonl", "*texts.jsonl", "*verdicts.jsonl")


@dataclasses.dataclass(frozen=True)
class Job:
    """A command that is killed.

    Attributes:
        name: Of it.
        begin: Its words for a run in a folder.
        resume: Those that go on with it.
        run: The run's folder, below that folder.
    """

    name: str
    begin: Callable[[Path], list[str]]
    resume: Callable[[Path], list[str]]
    run: Callable[[Path], Path]


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
        runs: That were killed, and came to their end.
        seconds: Of the run that nothing stopped.
        calls: That it took.
        files: That were compared in each run.
        other_bytes: Files that a killed run left in other bytes, and those that it lacks.
        lost: Answers that were paid for and are in no ledger.
        paid_twice: Answers that were paid for once more than needed.
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
    own["diagnose"]["min_gate_probes"] = 6
    own["budget"] = {"teacher_tokens": 1500, "student_tokens": 6000}
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
        budgets={"teacher_tokens": 1500, "student_tokens": 5000},
        sampling={"max_tokens": 48},
        train={"learning_rate": 1e-2, "batch_rows": 2, "row_length": 96, "save_every": 3},
        curve={"points": 1, "items": 3},
        methods=["undistilled", "sft_matched", "ioa"],
        seeds=[0],
        options=options,
    )
    return (
        Job(
            JOBS[0],
            lambda folder: [
                *("-c", "from ioa_jax.cli import main; main()", "distill"),
                *("--config", str(world / "distill.json"), "--output", str(folder / "run")),
            ],
            lambda folder: [
                *("-c", "from ioa_jax.cli import main; main()", "distill"),
                *("--resume", str(folder / "run")),
            ],
            lambda folder: folder / "run",
        ),
        Job(
            JOBS[1],
            lambda folder: [
                *("-m", "suite", "run", "--profile", str(world / "kills.yaml")),
                *("--output", str(folder), "--run-id", "run"),
            ],
            lambda folder: ["-m", "suite", "run", "--resume", str(folder / "kills/run")],
            lambda folder: folder / "kills/run",
        ),
    )


def start(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Begin a process of ours; what it prints goes to `log`."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get(
            "JAX_COMPILATION_CACHE_DIR", str(log.parent / "jax")
        ),
    }
    environment.pop("OPENAI_API_KEY", None)
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, *words], cwd=log.parent, env=environment, stdout=file, stderr=file
        )


def finish(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a process has done its work.

    Raises:
        RuntimeError: It failed; the message has the end of its log.
    """
    try:
        code = process.wait(LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        code = "none: it hangs"
    if code != 0:
        raise RuntimeError(f"exit code {code}: {log.read_text(errors='replace')[-2000:]}")


def kill_again_and_again(job: Job, world: Path, till: Till, points: int, seed: int) -> Found:
    """Kill a job at so many random moments; see this file's head."""
    log = world / f"{job.name.replace(' ', '-')}.log"
    draws = random.Random(seed)
    till.forget()
    till.first, began = None, time.monotonic()
    finish(start(job.begin(world / f"{job.name} whole"), log), log)
    whole, calls = time.monotonic() - began, len(till.paid)
    assert till.first is not None
    before = till.first - began
    expected = contents(job.run(world / f"{job.name} whole"))
    kills: list[Kill] = []
    other: list[str] = []
    lost = twice = runs = 0
    till.broken_off = 0
    while len(kills) < points:
        folder = world / f"{job.name} {runs}"
        till.forget()
        words = job.begin(folder)
        while True:
            process = start(words, log)
            # Into the work, or towards its end where little of it is left.
            moment = draws.uniform(0.5 * before, before + 0.4 * (whole - before))
            try:
                process.wait(moment if len(kills) < points else LONGEST_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills.append(Kill(runs, round(moment, 3), len(till.paid)))
                if job.run(folder).is_dir() and any(job.run(folder).glob("*.json")):
                    words = job.resume(folder)
                continue
            finish(process, log)
            break
        runs += 1
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
        twice, till.broken_off,
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
        return {name: _untimed(inner) for name, inner in value.items() if name != "seconds"}
    return [_untimed(inner) for inner in value] if isinstance(value, list) else value


def attack(points: int, seed: int, only: str | None = None) -> list[Found]:
    """Kill each job at so many moments, or only one of them; both go on beside each other."""
    with tempfile.TemporaryDirectory(prefix="ioa-kills-") as folder, ExitStack() as stack:
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
