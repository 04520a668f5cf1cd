"""Processes that share a run: what they leave, and what becomes of one that can't work."""

import contextlib
import os
import subprocess
import sys
import time

import pytest

from ioa_jax.errors import InputError, IOAError
from suite.cells import Share
from suite.workers import open_workers, take_processors


def test_a_worker_that_cant_work_is_named_with_its_last_words(tmp_path):
    with (
        open_workers(tmp_path, 2) as workers,
        pytest.raises(IOAError, match=r"exit code 1, see .*2\.log: .*run\.json"),
    ):
        workers.wait()


def test_processors_are_dealt_and_come_back(tmp_path):
    before = os.sched_getaffinity(0)
    with open_workers(tmp_path, 2):
        assert len(os.sched_getaffinity(0)) == -(-len(before) // 2)
    assert os.sched_getaffinity(0) == before
    shares = set()
    for index in (1, 2):
        take_processors(Share(index, 2))
        assert not shares & os.sched_getaffinity(0)
        shares |= os.sched_getaffinity(0)
        os.sched_setaffinity(0, before)
    assert shares == before


def test_there_are_as_many_workers_as_processors_at_most(tmp_path):
    available = len(os.sched_getaffinity(0))
    with open_workers(tmp_path, 1000) as workers:
        assert workers.first == Share(1, available)
        assert len(workers.others) == available - 1
    with pytest.raises(InputError, match="--jobs 0: at least 1"), open_workers(tmp_path, 0):
        pass


def test_workers_end_with_the_process_that_started_them(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from suite.workers import open_workers\n"
        "with open_workers(Path(sys.argv[1]), 2) as workers:\n"
        "    print(workers.others[0][1].pid, flush=True); time.sleep(600)"
    )
    # A worker that waits for a run.json which never comes to its end.
    os.mkfifo(tmp_path / "run.json")
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    # Kept open: a reader without a writer is at the end of the file.
    descriptor = open_when_read(tmp_path / "run.json")
    assert is_running(worker)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 60
    while is_running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.close(descriptor)


def open_when_read(path):
    """The write end of a FIFO, once another process has opened it to read."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.1)
    raise AssertionError(f"nobody reads {path}")


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
