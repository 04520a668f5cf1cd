r"""Mathematical answers, compared by Math-Verify in processes that can be killed.

The answer is what the text's last `\boxed{...}` holds; without a box, what Math-Verify finds after
"final answer is", after "answer", or else last as LaTeX or as a number. Boxes joined by commas or
"and" are one answer, a set; but where the last one alone is the gold's text, that is enough: MATH's
golds are made from the last box of a solution even where it has several. Percent signs are left out
on both sides, as in MATH's own normalisation: `10\%` is 10, not 0.1.

Known limits of Math-Verify 0.9: forms are not told apart, so that an answer which the problem wants
simplified passes unsimplified; of an equation `x = 2` the right side is enough, and so is a number
without the subscript of its base; an inequality isn't equal to its interval.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ioa_jax.errors import InputError, MissingDependencyError
from ioa_jax.graders.base import GoldGrader, Item, Verdict

_WORKER = Path(__file__).with_name("maths_worker.py")
_START_SECONDS = 120.0
_BOX = re.compile(r"\\boxed\s*\{")
_BRACE = re.compile(r"(?<!\\)[{}]")
_PERCENT = re.compile(r"\\?%")
# Size, which says nothing of the value.
_STYLE = ((r"\dfrac", r"\frac"), (r"\tfrac", r"\frac"), (r"\left", ""), (r"\right", ""))


class MathGrader(GoldGrader):
    r"""Grades answers against LaTeX golds: `Item.references`, without delimiters or box.

    A verdict's `rule` is `boxed`, `unboxed` or `none`. Its `source` is `string` where box and gold
    are the same text but for spacing and size, `math-verify VERSION` where that library compared
    them, and `timeout` where it was killed at the limit; such an answer counts as wrong.
    """

    def __init__(
        self,
        workers: int = 2,
        cpu_seconds: float = 10.0,
        wall_seconds: float = 60.0,
        memory_bytes: int = 2 << 30,
    ) -> None:
        """No process is started yet.

        Args:
            workers: Processes, each for one comparison at a time.
            cpu_seconds: Processor time for one comparison: the limit that is meant to bind, since
                it doesn't depend on what else the machine does.
            wall_seconds: Wall time for one comparison.
            memory_bytes: Address space of a worker.

        Raises:
            InputError: One of them isn't positive.
        """
        settings = {
            "workers": workers,
            "cpu_seconds": cpu_seconds,
            "wall_seconds": wall_seconds,
            "memory_bytes": memory_bytes,
        }
        for name, value in settings.items():
            if value <= 0:
                raise InputError(f"math grader: {name}={value}: a positive number is needed")
        self._num_workers = workers
        self._wall_seconds = wall_seconds
        self._closed = False
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for _ in range(workers):
            self._idle.put(_Worker(cpu_seconds, memory_bytes))

    def check_item(self, item: Item) -> None:
        """At least one reference, none of them blank.

        Raises:
            InputError: Otherwise.
        """
        if not item.references or not all(gold.strip() for gold in item.references):
            raise InputError(f"item {item.id!r}: field 'references': an answer in LaTeX is needed")

    def grade(self, item: Item, text: str) -> Verdict:
        """Judge a solution.

        Raises:
            InputError: As `check_item`.
            MissingDependencyError: The worker can't import Math-Verify.
        """
        self.check_item(item)
        box = last_boxed(text)
        if box is not None and any(_plain(box) == _plain(gold) for gold in item.references):
            return Verdict(True, 1.0, box, "boxed", "string")
        return self._compare(item, text, box)

    def grade_gold(self, item: Item) -> Verdict:
        """Judge the first reference, in a box, without the shortcut of equal strings.

        Raises:
            InputError: As `check_item`.
            MissingDependencyError: As `grade`.
        """
        self.check_item(item)
        gold = item.references[0]
        return self._compare(item, rf"\boxed{{{gold}}}", gold)

    def close(self) -> None:
        """End the workers, after the comparisons that are under way."""
        if not self._closed:
            self._closed = True
            for _ in range(self._num_workers):
                self._idle.get().stop()

    def _compare(self, item: Item, text: str, box: str | None) -> Verdict:
        if self._closed:
            raise RuntimeError("the grader is closed")
        request = {
            "golds": [_PERCENT.sub("", gold) for gold in item.references],
            "text": _PERCENT.sub("", text),
            "boxed": box is not None,
        }
        worker = self._idle.get()
        try:
            reply, source, detail = worker.ask(request, self._wall_seconds)
        finally:
            self._idle.put(worker)
        if reply is None:
            rule = "none" if box is None else "boxed"
            return Verdict(False, 0.0, box, rule, source, detail)
        extracted = reply["extracted"] if box is None else box
        if "error" in reply:
            detail = f"{reply['error']} while comparing"
        elif extracted is None:
            detail = "no answer found"
        elif not reply["parsed"]:
            detail = "not an expression, compared as text"
        rule = "boxed" if box is not None else "none" if extracted is None else "unboxed"
        correct = bool(reply["correct"])
        return Verdict(correct, float(correct), extracted, rule, source, detail)


def last_boxed(text: str) -> str | None:
    r"""What the last complete `\boxed{...}` that isn't empty holds, None if there is none."""
    for start in reversed([match.end() for match in _BOX.finditer(text)]):
        depth = 1
        for brace in _BRACE.finditer(text, start):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                content = text[start : brace.start()].strip()
                if content:
                    return content
                break
    return None


def _plain(latex: str) -> str:
    for old, new in _STYLE:
        latex = latex.replace(old, new)
    return "".join(_PERCENT.sub("", latex).split())


class _Worker:
    """One process, started when it is first needed and again after its end. Not thread-safe."""

    def __init__(self, cpu_seconds: float, memory_bytes: int) -> None:
        # -P: the folder of graders has a code.py, which must not stand in for Python's own.
        self._command = [sys.executable, "-P", str(_WORKER), str(cpu_seconds), str(memory_bytes)]
        self._cpu_seconds = cpu_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._source = ""

    def ask(
        self, request: Mapping[str, Any], wall_seconds: float
    ) -> tuple[dict[str, Any] | None, str, str]:
        """The reply, None if the process had to end; what judged; and why there is no reply.

        Raises:
            MissingDependencyError: The process doesn't get as far as to take requests.
        """
        process = self._started()
        assert process.stdin is not None
        # A process that ended meanwhile shows below.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        reply, late = _read_line(process, wall_seconds)
        if reply is not None:
            return reply, self._source, ""
        code = self.stop()
        if late:
            return None, "timeout", f"killed after {wall_seconds:g} s"
        if code == -signal.SIGPROF:
            return None, "timeout", f"killed after {self._cpu_seconds:g} s of processor time"
        return None, self._source, f"the comparison ended its process, exit status {code}"

    def stop(self) -> int | None:
        """Kill the process if there is one; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin is not None
        assert process.stdout is not None
        process.kill()
        process.stdout.close()
        # Closing flushes what a process that ended early never read.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        hello, _ = _read_line(self._process, _START_SECONDS)
        if hello is None:
            code = self.stop()
            raise MissingDependencyError(
                f"the maths worker ended with status {code} before it took a request. See why with "
                f"{' '.join(self._command)}; to install what it needs: pip install ioa-jax"
            )
        self._source = f"math-verify {hello['version']}"
        return self._process


def _read_line(
    process: subprocess.Popen[bytes], wall_seconds: float
) -> tuple[dict[str, Any] | None, bool]:
    """The next reply, None if there is none; whether that is because of the limit."""
    assert process.stdout is not None
    deadline = time.monotonic() + wall_seconds
    read = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not read.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None, True
            new = os.read(process.stdout.fileno(), 1 << 16)
            if not new:
                return None, False
            read += new
    return json.loads(read), False
