"""Folders that programs write to: how much is in them, and their removal.

A program may change its folder meanwhile, put a link where a folder was, lock what it made, and
nest as deep as it likes. So nothing is followed, no mode is changed before the program is dead, and
no path is longer than one name below a folder that is open or was moved up.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat

FILES_BYTES = 64 << 20  # of a program
FILES_COUNT = 4096
SYSTEMS = 64  # of files, which as many programs have to themselves where there can be some
# Open at a time, of what a program nests or puts beside each other.
_MOST_OPEN = 256
_BLOCK = 512  # bytes of `st_blocks`, whatever the file system's own


def file_systems(work: str) -> list[str]:
    """Where file systems of their own lie, or will lie."""
    return [os.path.join(work, f"files-{number}") for number in range(SYSTEMS)]


def nameless_bytes(pid: int, directory: str, largest: int) -> int:
    """Room of files without a name that a process holds open or mapped.

    Only for who may look into the process, see `Isolation.show_to_server`.

    Args:
        pid: The process's number. It may end meanwhile.
        directory: Where the files were.
        largest: Bytes that a file has at most; counts for those that are only mapped.

    Raises:
        OSError: It can't be looked at.
    """
    mapped = rf"^\S+ \S+ \S+ \S+ (\d+) +{re.escape(directory)}/.* \(deleted\)$"
    sizes = dict.fromkeys(map(int, re.findall(mapped, _maps(pid), re.MULTILINE)), largest)
    try:
        device = os.stat(directory).st_dev
        # A thread may have descriptors of its own.
        for thread in os.listdir(f"/proc/{pid}/task"):
            descriptors = f"/proc/{pid}/task/{thread}/fd"
            for number in os.listdir(descriptors):
                # It may be closed by now.
                with contextlib.suppress(FileNotFoundError):
                    found = os.stat(f"{descriptors}/{number}")
                    if found.st_nlink == 0 and found.st_dev == device:
                        sizes[found.st_ino] = found.st_blocks * _BLOCK
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except PermissionError:
        # One that is about to end, and has no memory any more, belongs to root.
        if _maps(pid):
            raise
        return 0
    return sum(sizes.values())


def _maps(pid: int) -> str:
    """What is mapped into a process, as the kernel shows it; "" if it is about to end."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def has_too_many_files(directory: str, size: int = 0) -> bool:
    """Whether a program's files are over the limits, by the room that they take.

    What can't be looked at counts as too many, but for folders that it can't enter either.

    Args:
        directory: The program's.
        size: Bytes of files that aren't in it any more.
    """
    if size > FILES_BYTES:
        return True
    pending: list[int] = []
    count = 0
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        pending.append(os.open(directory, flags))
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        # It may be gone by now.
                        with contextlib.suppress(FileNotFoundError):
                            found = entry.stat(follow_symlinks=False)
                            size += found.st_blocks * _BLOCK
                            count += 1
                            # One that is locked is empty: programs can't change a mode.
                            if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_IXUSR:
                                pending.append(os.open(entry.name, flags, dir_fd=folder))
                        if count > FILES_COUNT or size > FILES_BYTES or len(pending) > _MOST_OPEN:
                            return True
            finally:
                os.close(folder)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    finally:
        for folder in pending:
            os.close(folder)
    return False


def remove(directory: str) -> None:
    """Remove a dead program's directory, however deep, and even what it made unreadable.

    What can't be removed is left: nobody else's work may end for it.
    """
    # A process that the program left behind, where it could, may still write there.
    with contextlib.suppress(OSError):
        pending = [directory]
        moved = 0
        while pending:
            folder = pending.pop()
            with contextlib.suppress(OSError):
                os.rmdir(folder)
                continue
            os.chmod(folder, 0o700)
            with os.scandir(folder) as entries:
                found = list(entries)
            pending.append(folder)
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    # To beside the program's own, so that no path gets long.
                    moved += 1
                    aside = f"{directory}.{moved}"
                    os.chmod(entry.path, 0o700)
                    os.rename(entry.path, aside)
                    pending.append(aside)
                else:
                    os.unlink(entry.path)
