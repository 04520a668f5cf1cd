"""The ledger: every call of a teacher once, kept in files that only grow."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from ioa_jax.errors import InputError
from ioa_jax.files import DiskSync
from ioa_jax.rows import Row, parse_row

log = logging.getLogger(__name__)

# Part of every key: a change of what a record means must not find the old ones.
SCHEMA_VERSION = 1
SEGMENT_BYTES = 64 << 20
# Of a record, what its key isn't made of.
_BESIDE = ("key", "schema", "time", "purpose", "result")


class _Record(Row):
    """A line: what was asked, and what it brought."""

    key: str
    model: str
    # Of all the rest of the line; lines of before there were any have none.
    sha256: str | None = None


class Ledger:
    """Records by key, in JSONL segments of one folder.

    Any number of threads and processes may share a folder. A record is written before `append`
    returns; `sync` forces the last ones to the disk (see `DiskSync`). A killed process leaves at
    most a last line without its end, which readers pass over and the next append removes.

    Attributes:
        directory: The folder.
    """

    def __init__(self, directory: Path) -> None:
        """Open, indexing what is there; the folder is made if it is missing.

        Raises:
            InputError: The folder can't be used, or a complete line isn't a record as written.
        """
        self.directory = directory
        self._places: dict[str, tuple[Path, int]] = {}
        self._models: set[str] = set()
        # Of each segment, the end of the last complete line that is indexed.
        self._read: dict[Path, int] = {}
        self._thread_lock = threading.RLock()
        self._sync = DiskSync()
        self._written: set[Path] = set()
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"ledger {directory}: {error.strerror}") from None
        self._file_lock = FileLock(directory / "lock", thread_local=False)
        self.refresh()

    def __len__(self) -> int:
        with self._thread_lock:
            return len(self._places)

    @property
    def models(self) -> list[str]:
        """Fingerprints of the models whose calls are recorded."""
        with self._thread_lock:
            return sorted(self._models)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self._thread_lock:
            keys = list(self._places)
        for key in keys:
            yield self._load(key)

    def find(self, key: str) -> dict[str, Any] | None:
        """The record of a key, also one that another process has added since; None if none."""
        with self._thread_lock:
            if key not in self._places:
                self.refresh()
            return self._load(key) if key in self._places else None

    def append(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Write a record, unless its key has one.

        Args:
            record: JSON-able, with `model` and `key`: `call_key` of all but `key`, `schema`,
                `time`, `purpose` and `result`.

        Returns:
            The record that the ledger keeps: the earlier one if another process was faster, so that
            all processes go on with the same.

        Raises:
            InputError: The folder can't be written; the record is logged, so that it isn't lost.
        """
        signed = {**record, "sha256": _sha256(record)}
        line = json.dumps(signed, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            return self._append(record["key"], line)
        except (OSError, InputError) as error:
            # It was paid for: the log is where it can be had from.
            log.error("a record that the ledger lacks: %s", line.decode().rstrip())
            reason = str(error)
            if isinstance(error, OSError):
                reason = f"ledger {self.directory}: {error.strerror or error}"
            raise InputError(
                f"{reason}; the record is in the log, and can be added to the last file as a line"
            ) from None

    def _append(self, key: str, line: bytes) -> dict[str, Any]:
        with self._thread_lock, self._locked():
            self.refresh()
            if key not in self._places:
                segment = self._open_segment()
                with segment.open("r+b" if segment.exists() else "xb") as file:
                    # Under the lock, what lies behind the last complete line was left by a kill.
                    file.truncate(self._read.get(segment, 0))
                    file.seek(0, os.SEEK_END)
                    file.write(line)
                    self._written.add(segment)
                    self._sync(file)
                if segment not in self._read:
                    _sync_directory(self.directory)
                self.refresh()
            return self._load(key)

    def sync(self) -> None:
        """Force what was appended to the disk.

        Raises:
            InputError: The folder can't be written.
        """
        with self._thread_lock:
            for segment in sorted(self._written):
                try:
                    with segment.open("r+b") as file:
                        os.fsync(file.fileno())
                except OSError as error:
                    raise InputError(f"ledger {segment}: {error.strerror}") from None
            self._written.clear()

    def refresh(self) -> None:
        """Index the complete lines that have been added, by whomever.

        Raises:
            InputError: A complete line isn't a record as it was written.
        """
        with self._thread_lock:
            for segment in sorted(self.directory.glob("[0-9]*.jsonl")):
                start = self._read.get(segment, 0)
                if segment.stat().st_size > start:
                    self._index(segment, start)

    def _index(self, segment: Path, start: int) -> None:
        with segment.open("rb") as file:
            file.seek(start)
            data = file.read()
        offset = start
        for line in data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]:
            record = read_record(line, f"ledger {segment}: the line at byte {offset}")
            self._places.setdefault(record["key"], (segment, offset))
            self._models.add(record["model"])
            offset += len(line) + 1
        self._read[segment] = offset

    def _load(self, key: str) -> dict[str, Any]:
        segment, offset = self._places[key]
        with segment.open("rb") as file:
            file.seek(offset)
            line = file.readline().rstrip(b"\n")
        return read_record(line, f"ledger {segment}: the line at byte {offset}")

    def _open_segment(self) -> Path:
        """The last segment, or a new one where that is full."""
        last = max(self._read, default=None)
        if last is not None and self._read[last] < SEGMENT_BYTES:
            return last
        # A segment that a killed process made but wrote no line to isn't in _read: it is reused.
        number = 0 if last is None else int(last.stem) + 1
        return self.directory / f"{number:06d}.jsonl"

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        try:
            self._file_lock.acquire()
        except OSError as error:
            raise InputError(f"ledger {self.directory}: can't be locked: {error}") from None
        try:
            yield
        finally:
            self._file_lock.release()


def _sync_directory(directory: Path) -> None:
    """A new file's name is on disk only once its folder is."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_record(line: bytes, place: str) -> dict[str, Any]:
    """A record of a ledger, as it was written.

    Args:
        line: Without its end.
        place: Of the line, for errors.

    Raises:
        InputError: It isn't a record, or one that was changed; names the place.
    """
    try:
        record = parse_row(line, _Record, place)
    except InputError as error:
        raise InputError(f"{error}; remove the line, and its call is made again") from None
    signed = record.pop("sha256", None)
    content = {name: value for name, value in record.items() if name not in _BESIDE}
    if signed is not None and signed != _sha256(record):
        changed = "what is in it doesn't have its SHA-256"
    elif record["key"] != call_key(content, record.get("schema", SCHEMA_VERSION)):
        changed = "its key isn't that of what was asked"
    else:
        return record
    raise InputError(
        f"{place} was changed: {changed}; put it back, or remove it, and its call is made again"
    )


def _sha256(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def call_key(content: Mapping[str, Any], schema: int | None = None) -> str:
    """SHA-256 (hex) of the canonical JSON of what a call depends on.

    Args:
        content: What it depends on.
        schema: Version of what records mean; None is today's.
    """
    return _sha256({**content, "schema": SCHEMA_VERSION if schema is None else schema})
