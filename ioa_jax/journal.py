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


class Journal:
    """A JSONL file of finished items, each written before the next begins (see `DiskSync`).

    Attributes:
        path: The file.
        key: Fields that tell records apart.
    """

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        """Open, reading what an earlier process finished.

        A last line without its end, which a killed process leaves, is removed.

        Raises:
            InputError: Another line isn't a record with the key's fields, or a key occurs twice;
                or the file is there in compressed form only.
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
        for number, line in enumerate(data[:complete].splitlines(), start=1):
            try:
                record = json.loads(line)
                key_values = self._key_of(record)
            except (ValueError, KeyError, TypeError):
                self._file.close()
                raise InputError(
                    f"{path}:{number}: not a record with {', '.join(self.key)}"
                ) from None
            if key_values in self._records:
                self._file.close()
                raise InputError(f"{path}:{number}: {key_values} occurs twice")
            self._records[key_values] = record

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


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The complete records of a journal, [] without a file.

    Another process may be writing it, or it may be there in compressed form.

    Raises:
        InputError: The file can't be read.
    """
    if not is_there(path):
        return []
    data = read_bytes(path)
    # A last line without its end may stop in the middle of a letter.
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
