"""Files that survive a kill: values replaced whole, and folders that one process works in.

What is finished may be there in compressed form instead, as `gzip` leaves it: `read_bytes` and what
is built on it read that.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from ioa_jax.errors import InputError
from ioa_jax.json_text import parse_json
from ioa_jax.values import Value

Kind = TypeVar("Kind", bound=Value)

SYNC_SECONDS = 1.0


class DiskSync:
    """Forces a growing file to the disk, at most once a second, since each time takes milliseconds.

    What was flushed outlives its process, however that ends. A machine that fails may lose what was
    written within a second after the last time, unless the caller forces it at the end.
    """

    def __init__(self) -> None:
        """Nothing has been forced yet."""
        self._last = -math.inf

    def __call__(self, file: IO[bytes]) -> None:
        """Flush, and force if it is time to."""
        file.flush()
        if time.monotonic() - self._last >= SYNC_SECONDS:
            os.fsync(file.fileno())
            self._last = time.monotonic()


def packed(path: Path) -> Path:
    """Where `gzip` puts a file."""
    return path.with_name(path.name + ".gz")


def is_there(path: Path) -> bool:
    """Whether there is such a file, compressed or not."""
    return path.is_file() or packed(path).is_file()


def check_writable(path: Path) -> None:
    """Find before the work that a file, or a new directory, can't be written.

    Raises:
        InputError: It is a directory, or its folder isn't there or can't be written to.
    """
    if path.is_dir():
        raise InputError(f"{path} is a directory; name a file")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is not a directory")
    probe = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def check_folder(path: Path) -> None:
    """Find before the work that a folder, which may be new, can't be written to; none is made.

    Raises:
        InputError: It or a folder that it would be in is a file, or can't be written to.
    """
    there = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not there.is_dir():
        raise InputError(f"{there} is a file; name a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{there}: nothing can be written there")


def check_no_links(*paths: Path) -> None:
    """See that what is copied out of somebody else's folder is what lies in it.

    Args:
        paths: Files and folders; what isn't there is passed over.

    Raises:
        InputError: One of them, or something in a folder, is a symbolic link; named.
    """
    for path in paths:
        for one in (path, *path.rglob("*")):
            if one.is_symlink():
                raise InputError(f"{one}: is a symbolic link, which isn't followed")


def write_text(path: Path, text: str) -> None:
    """Replace a file whole, compressed or not, or leave the old one.

    Raises:
        InputError: It can't be written.
    """
    # Another process may be writing the same.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        packed(path).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def read_value(path: Path, kind: type[Kind]) -> Kind:
    """Read a value that `finished` wrote.

    Raises:
        InputError: The file isn't there, or isn't such a value.
    """
    return kind.from_json(read_text(path), str(path))


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file whole, or leave the old one; errors as `write_text`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_bytes(path: Path) -> bytes:
    """Read a file, compressed or not.

    Raises:
        InputError: It isn't there, or is compressed and broken.
    """
    try:
        if not path.is_file() and packed(path).is_file():
            path = packed(path)
            return gzip.decompress(path.read_bytes())
        return path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{path}: {reason}") from None


def read_text(path: Path) -> str:
    """Read a text, compressed or not, without the byte order mark that it may begin with.

    Raises:
        InputError: As `read_bytes`; or it isn't UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8: {error.reason}") from None


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: It isn't there or isn't JSON, as `parse_json` says.
    """
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object; errors as `read_json`."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: a JSON object is needed, not {type(value).__name__}")
    return cast("dict[str, Any]", value)


def finished(path: Path, kind: type[Kind], compute: Callable[[], Kind]) -> Kind:
    """The value of a finished step, or else the step: its value is on disk before it is returned.

    Args:
        path: JSON file.
        kind: Of the value.
        compute: The step.

    Raises:
        InputError: The file isn't such a value; or it can't be written.
    """
    if is_there(path):
        return read_value(path, kind)
    value = compute()
    write_text(path, value.to_json() + "\n")
    return value


def write_values(path: Path, values: Sequence[Value]) -> None:
    """Replace a JSONL file of values, one a line; errors as `write_text`."""
    lines = [json.dumps(json.loads(value.to_json()), ensure_ascii=False) for value in values]
    write_text(path, "".join(line + "\n" for line in lines))


def read_values(path: Path, kind: type[Kind]) -> tuple[Kind, ...]:
    """Read what `write_values` wrote.

    Raises:
        InputError: Names file, line and field of the first line that isn't such a value.
    """
    lines = read_text(path).split("\n")
    return tuple(
        kind.from_json(line, f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line
    )


@contextlib.contextmanager
def locked(directory: Path) -> Generator[None]:
    """Hold a folder: two processes in one run would write over each other.

    A killed process's lock ends with it.

    Raises:
        InputError: Another process holds it.
    """
    with contextlib.ExitStack() as stack:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((directory / ".lock").open("w"))
        except OSError as error:
            raise InputError(f"{directory}: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{directory}: another process is working in it") from None
        yield
