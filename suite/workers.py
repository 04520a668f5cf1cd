"""Processes that work on one run together, each on a share of its cells and of the processors.

A small student keeps one processor busy, however many there are. The process that the user started
is the first worker, and the only one that writes run.json; the others write what `workers/` in the
run's folder shows, and end with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

from ioa_jax.errors import InputError, IOAError
from suite.cells import Share

_LAST_LINES = 5


class Workers:
    """The other workers of a run; they are started on entry, and stopped on exit if they still go.

    Attributes:
        first: The share of the process that has this object.
    """

    def __init__(self, directory: Path, count: int) -> None:
        """Prepare.

        Args:
            directory: Of the run.
            count: Workers, this process among them; one a processor where there are fewer of these.

        Raises:
            InputError: `count` is less than 1.
        """
        if count < 1:
            raise InputError(f"--jobs {count}: at least 1")
        self.first = Share(1, min(count, len(os.sched_getaffinity(0))))
        self._directory = directory
        self._others: list[tuple[Path, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Workers:
        folder = self._directory / "workers"
        for index in range(2, self.first.count + 1):
            folder.mkdir(exist_ok=True)
            path = folder / f"{index}.log"
            share = str(Share(index, self.first.count))
            with path.open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "suite.workers", str(self._directory), share],
                    # It ends when this pipe does, and so when this process ends in whatever way.
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                )
            self._others.append((path, process))
        self._processors = os.sched_getaffinity(0)
        take_processors(self.first)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _, process in self._others:
            process.kill()
            process.communicate()
        os.sched_setaffinity(0, self._processors)

    def wait(self) -> None:
        """Until the others have done their shares.

        Raises:
            IOAError: One of them couldn't; cells that failed are told in their own files.
        """
        for path, process in self._others:
            if process.wait() != 0:
                last = path.read_text(encoding="utf-8", errors="replace").splitlines()
                raise IOAError(
                    f"a worker stopped with exit code {process.returncode}, see {path}: "
                    f"{' | '.join(last[-_LAST_LINES:])}"
                )


def take_processors(share: Share) -> None:
    """Keep this process to its share of the processors; before JAX makes its threads."""
    available = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, available[share.index - 1 :: share.count])


def _end_with_parent() -> None:
    # Nothing is ever written to the pipe. Not by sys.stdin, whose lock the exit would wait for.
    os.read(0, 1)
    os._exit(1)


def main() -> None:
    """`python -m suite.workers RUN i/n`, which `Workers` starts."""
    from suite.cli import log_to_terminal
    from suite.run import work

    directory, share = Path(sys.argv[1]), Share.parse(sys.argv[2])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    take_processors(share)
    log_to_terminal(verbose=False)
    try:
        work(directory, share)
    except IOAError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
