"""Progress of long work: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress_bar(label: str, total: int) -> Generator[Callable[[int, int], None]]:
    """Yield a function that takes (done, total) and shows them, rate and time left on stderr.

    Args:
        label: What is being done.
        total: Expected number of items; the function may correct it.
    """
    began = time.monotonic()
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total or None, rate="")

            def update(done: int, total: int) -> None:
                rate = f"{done / max(time.monotonic() - began, 1e-9):.3g}/s"
                bar.update(task, completed=done, total=total, rate=rate)

            yield update
        return
    last = began

    def line(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = done / max(now - began, 1e-9)
        left = (total - done) / rate if rate else float("inf")
        print(
            f"{label}: {done}/{total}, {rate:.3g}/s, {left:.0f} s left", file=sys.stderr, flush=True
        )

    yield line
