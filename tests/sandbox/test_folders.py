"""Counting and removing what programs made, while it changes."""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from ioa_jax.sandbox import Limits, Sandbox
from ioa_jax.sandbox.workers import folders


def test_files_are_counted_by_the_room_they_take(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "FILES_BYTES", 1 << 20)
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 30)
    assert not folders.has_too_many_files(str(tmp_path))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "full").write_bytes(os.urandom((1 << 20) + 1))
    assert folders.has_too_many_files(str(tmp_path))


def test_names_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "FILES_COUNT", 5)
    for name in "abcde":
        (tmp_path / name).touch()
    assert not folders.has_too_many_files(str(tmp_path))
    (tmp_path / "f").mkdir()
    assert folders.has_too_many_files(str(tmp_path))


def test_a_link_in_place_of_a_folder_leads_nowhere(tmp_path, monkeypatch):
    """What is a folder when it is looked at is a link to one outside when it is opened."""
    outside, own = tmp_path / "outside", tmp_path / "own"
    outside.mkdir(mode=0o500)
    (own / "a").mkdir(parents=True)
    real = os.open

    def swapped(path, flags, *rest, **options):
        if path == "a":
            (own / "a").rmdir()
            (own / "a").symlink_to(outside)
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", swapped)
    assert folders.has_too_many_files(str(own))
    assert outside.stat().st_mode & 0o777 == 0o500


def test_descriptors_are_given_back(tmp_path, monkeypatch):
    for name in range(20):
        (tmp_path / str(name)).mkdir()
    before = len(os.listdir("/proc/self/fd"))
    assert not folders.has_too_many_files(str(tmp_path))
    monkeypatch.setattr(folders, "FILES_COUNT", 5)
    assert folders.has_too_many_files(str(tmp_path))
    monkeypatch.setattr(folders, "_MOST_OPEN", 3)
    assert folders.has_too_many_files(str(tmp_path))
    assert not folders.has_too_many_files(str(tmp_path / "gone"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_sandbox_is_closed_whatever_its_server_left(open_folder, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(open_folder))
    with Sandbox(backend="landlock+seccomp") as box:
        assert box.run("pass").passed
        server = box._server
        assert server is not None
        assert server.process is not None
        # As a server leaves it that died: deeper than Python's own recursion goes.
        here = os.getcwd()
        os.chdir(server.folder / "work")
        try:
            for _ in range(1500):
                os.mkdir("d")
                os.chdir("d")
        finally:
            os.chdir(here)
        server.process.kill()
        # The next program has another server.
        assert box.run("pass").passed
    assert os.listdir(open_folder) == []


def test_folders_of_killed_processes_are_swept(open_folder, monkeypatch):
    code = (
        "import os, signal\n"
        "from ioa_jax.sandbox import Sandbox\n"
        "box = Sandbox()\n"
        "assert box.run('pass').passed\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setenv("TMPDIR", str(open_folder))
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code])
    assert os.listdir(open_folder)
    monkeypatch.setattr(tempfile, "tempdir", str(open_folder))
    with Sandbox() as box:
        assert box.run("pass").passed
        used = set(os.listdir(open_folder))
        # One that is in use stays.
        with Sandbox() as other:
            assert other.run("pass").passed
            assert used <= set(os.listdir(open_folder))
        assert box.run("pass").passed
    assert os.listdir(open_folder) == []


HOLD = (
    "import os, time\nheld = []\n"
    "for i in range(12):\n"
    "    file = open(str(i), 'w+b')\n    os.unlink(str(i))\n"
    "    file.write(bytes(8 << 20))\n    file.flush()\n    held.append(KEEP)\n"
    "time.sleep(8)"
)
KEPT = ("file", "(__import__('mmap').mmap(file.fileno(), 4096), file.close())[0]")


@pytest.mark.parametrize("keep", KEPT)
def test_files_without_a_name_count(sandbox, keep):
    result = sandbox.run(HOLD.replace("KEEP", keep), Limits(wall_seconds=20.0))
    assert "No space" in result.detail or result.status == "output_limit", result
    few = HOLD.replace("KEEP", keep).replace("12", "4").replace("time.sleep(8)", "time.sleep(0.5)")
    assert sandbox.run(few).detail == ""


FILL = (
    "import time\ntry:\n    for i in range(8): open(str(i), 'wb').write(bytes(8 << 20))\n"
    "except OSError: pass\ntime.sleep(3)"
)
WRITE = "import time\ntime.sleep(1)\nopen('own', 'wb').write(bytes(6 << 20))"


def test_neighbours_have_files_of_their_own(sandbox):
    with ThreadPoolExecutor(4) as pool:
        fillers = [pool.submit(sandbox.run, FILL) for _ in range(2)]
        writers = [pool.submit(sandbox.run, WRITE) for _ in range(2)]
    assert [one.result().detail for one in writers] == ["", ""]
    assert {one.result().status for one in fillers} <= {"passed", "output_limit"}
