"""Processes that work on one run together, each on a share of its cells and of the processors.

A small student keeps one processor busy, however many there are. The process that the user started
is the first worker, and the only one that writes run.json; the others write what `workers/` in the
run's folder shows, and end with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

from ioa_jax.errors import InputError, IOAError
from suite.cells import Share

_LAST_LINES = 5


@dataclasses.dataclass(frozen=True)
class Workers:
    """The other workers of a run.

    Attributes:
        first: The share of the process that has this object.
        others: Of each other worker, its log and its process.
    """

    first: Share
    others: tuple[tuple[Path, subprocess.Popen[bytes]], ...]

    def wait(self) -> None:
        """Until the others have done their shares.

        Raises:
            IOAError: One of them couldn't; cells that failed are told in their own files.
        """
        for path, process in self.others:
            if process.wait() != 0:
                last = path.read_text(encoding="utf-8", errors="replace").splitlines()
                raise IOAError(
                    f"a worker stopped with exit code {process.returncode}, see {path}: "
                    f"{' | '.join(last[-_LAST_LINES:])}"
                )


@contextlib.contextmanager
def open_workers(directory: Path, count: int) -> Generator[Workers]:
    """Start the other workers of a run; on exit those are stopped that still go.

    Meanwhile this process has its own share of the processors.

    Args:
        directory: Of the run.
        count: Workers, this process among them; one a processor where there are fewer of these.

    Raises:
        InputError: `count` is less than 1.
    """
    if count < 1:
        raise InputError(f"--jobs {count}: at least 1")
    processors = os.sched_getaffinity(0)
    first = Share(1, min(count, len(processors)))
    with contextlib.ExitStack() as stack:
        others = tuple(
            stack.enter_context(_started(directory, Share(index, first.count)))
            for index in range(2, first.count + 1)
        )
        stack.callback(os.sched_setaffinity, 0, processors)
        take_processors(first)
        yield Workers(first, others)


@contextlib.contextmanager
def _started(directory: Path, share: Share) -> Generator[tuple[Path, subprocess.Popen[bytes]]]:
    path = directory / "workers" / f"{share.index}.log"
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "suite.worker", str(directory), str(share)],
            # It ends when this pipe does, and so when this process ends in whatever way.
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    try:
        yield path, process
    finally:
        process.kill()
        process.communicate()


def take_processors(share: Share) -> None:
    """Keep this process to its share of the processors; before JAX makes its threads."""
    available = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, available[share.index - 1 :: share.count])
