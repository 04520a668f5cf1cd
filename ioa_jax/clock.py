"""Where the time went: seconds by step, over all processes that worked in a folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from pathlib import Path

from ioa_jax.journal import Journal, read_journal
from ioa_jax.rows import SecondsRow


class Clock:
    """Adds to a journal what each step took, when it ends, well or not.

    What a killed process had spent on the step that it was in is lost.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal, or go on with it; errors as of `Journal`."""
        self._journal = Journal(path, ("step", "number"), SecondsRow)

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, *error: object) -> None:
        self._journal.close()

    @contextlib.contextmanager
    def timed(self, step: str) -> Generator[None]:
        """Measure what is done within, in seconds of wall clock."""
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            self._journal.append({"step": step, "number": len(self._journal), "seconds": seconds})


@contextlib.contextmanager
def timed(path: Path, step: str) -> Generator[None]:
    """As `Clock.timed`, with the journal open for this step alone."""
    with Clock(path) as clock, clock.timed(step):
        yield


def read_seconds(path: Path) -> dict[str, float]:
    """Seconds by step in the order in which steps were first taken; {} without a file."""
    found: dict[str, float] = {}
    for line in read_journal(path, SecondsRow):
        found[line["step"]] = found.get(line["step"], 0.0) + line["seconds"]
    return found
