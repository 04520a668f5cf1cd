"""JSONL files of finished items, which a kill at any moment leaves as they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ioa_jax.errors import InputError
from ioa_jax.files import DiskSync, is_there, packed, read_bytes
from ioa_jax.rows import Row, parse_row


class Journal:
    """A JSONL file of finished items, each written before the next begins (see `DiskSync`).

    Attributes:
        path: The file.
        key: Fields that tell records apart.
    """

    def __init__(self, path: Path, key: Sequence[str], row: type[Row] = Row) -> None:
        """Open, reading what an earlier process finished.

        A last line without its end, which a killed process leaves, is removed.

        Args:
            path: The file; made where it is missing.
            key: Fields that tell records apart.
            row: What every record has to hold.

        Raises:
            InputError: Another line isn't such a record with the key's fields, or a key occurs
                twice; or the file is there in compressed form only. Names file, line and field.
        """
        if not path.exists() and packed(path).exists():
            raise InputError(f"{packed(path)}: nothing can be added to it; gunzip it first")
        self.path = path
        self.key = tuple(key)
        self._records: dict[tuple[Any, ...], dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        self._sync = DiskSync()
        self._file.seek(0)
        data = self._file.read()
        complete = data.rfind(b"\n") + 1
        if complete < len(data):
            self._file.truncate(complete)
        try:
            self._read(data[:complete].split(b"\n")[:-1], row)
        except InputError:
            self._file.close()
            raise

    def _read(self, lines: Sequence[bytes], row: type[Row]) -> None:
        for number, line in enumerate(lines, start=1):
            place = f"{self.path}:{number}"
            record = parse_row(line, row, place)
            try:
                key = self._key_of(record)
                if key in self._records:
                    raise InputError(f"{place}: {key} occurs twice")
            except (KeyError, TypeError):
                raise InputError(f"{place}: not a record with {', '.join(self.key)}") from None
            self._records[key] = record

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Force the file to the disk and close it; the records stay readable."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return key in self._records

    def __getitem__(self, key: tuple[Any, ...]) -> dict[str, Any]:
        return self._records[key]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._records.values())

    def append(self, record: dict[str, Any]) -> None:
        """Write a record.

        Raises:
            ValueError: The journal has one with this key.
        """
        key = self._key_of(record)
        if key in self._records:
            raise ValueError(f"{self.path}: {key} is recorded already")
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._sync(self._file)
        self._records[key] = record

    def _key_of(self, record: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(record[field] for field in self.key)


def read_journal(path: Path, row: type[Row] = Row) -> list[dict[str, Any]]:
    """The complete records of a journal, [] without a file.

    Another process may be writing it, or it may be there in compressed form.

    Args:
        path: The file.
        row: What every record has to hold.

    Raises:
        InputError: The file can't be read, or a line isn't such a record; names line and field.
    """
    if not is_there(path):
        return []
    data = read_bytes(path)
    # A last line without its end may stop in the middle of a letter.
    lines = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]
    return [parse_row(line, row, f"{path}:{number}") for number, line in enumerate(lines, start=1)]
