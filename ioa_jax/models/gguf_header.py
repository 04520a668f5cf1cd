"""The header of a GGUF file, seen to be one before the gguf package reads it.

That package makes Python objects of every entry of every array, as many as the file says it has:
of a few bytes that say 2^31, it goes on for hours. Format: ggml's docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from ioa_jax.errors import ModelFormatError

# Of all arrays together: vocabulary, types, scores and merges of the largest have some 1.3 million.
MAX_ENTRIES = 4_000_000
MAX_FIELDS = 10_000
MAX_TENSORS = 200_000
MAX_DIMENSIONS = 8
# Bytes of each type of value, but for texts and arrays.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT, _ARRAY = 8, 9


def check_header(path: Path) -> None:
    """See that what a GGUF file says of its fields and tensors lies within it.

    Raises:
        ModelFormatError: It isn't such a file, it ends before its header does, or it says that it
            has more than any model.
    """
    try:
        with path.open("rb") as file:
            _Header(file, path.stat().st_size).check()
    except OSError as error:
        raise ModelFormatError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ModelFormatError(f"{path}: not a readable GGUF file: {error}") from None


class _Header:
    """Reads on from the beginning; everything raises ValueError where the file has no such thing.

    Attributes:
        left: Entries of arrays that may still come.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.left = MAX_ENTRIES

    def check(self) -> None:
        """From the magic number to the last tensor's description."""
        if self._file.read(4) != b"GGUF":
            raise ValueError("it doesn't begin with GGUF")
        version = self._whole(4)
        if version not in (2, 3):
            raise ValueError(f"version {version}; 2 and 3, in little-endian order, are read")
        tensors, fields = self._whole(8), self._whole(8)
        if tensors > MAX_TENSORS or fields > MAX_FIELDS:
            raise ValueError(f"{tensors} tensors and {fields} fields; no model has as many")
        for _ in range(fields):
            name = self._text()
            try:
                self._value(self._whole(4))
            except ValueError as error:
                raise ValueError(f"field {name!r:.60}: {error}") from None
        for _ in range(tensors):
            name = self._text()
            dimensions = self._whole(4)
            if dimensions > MAX_DIMENSIONS:
                raise ValueError(f"tensor {name!r:.60}: {dimensions} dimensions")
            self._skip(8 * dimensions + 4 + 8)

    def _value(self, kind: int) -> None:
        if kind == _TEXT:
            self._text()
        elif kind == _ARRAY:
            inner, count = self._whole(4), self._whole(8)
            self.left -= count
            if self.left < 0:
                raise ValueError(f"{count} entries; no model has as many")
            if inner == _ARRAY:
                raise ValueError("arrays of arrays aren't read")
            if inner in _SIZES:
                self._skip(count * _SIZES[inner])
            else:
                for _ in range(count):
                    self._value(inner)
        elif kind in _SIZES:
            self._skip(_SIZES[kind])
        else:
            raise ValueError(f"a value of type {kind}, which is unknown")

    def _whole(self, size: int) -> int:
        data = self._file.read(size)
        if len(data) < size:
            raise ValueError("it ends before its header does")
        return struct.unpack("<I" if size == 4 else "<Q", data)[0]

    def _text(self) -> str:
        length = self._whole(8)
        place = self._file.tell()
        self._skip(length)
        self._file.seek(place)
        return self._file.read(length).decode("utf-8", "replace")

    def _skip(self, size: int) -> None:
        if self._file.tell() + size > self._size:
            raise ValueError("it ends before its header does")
        self._file.seek(size, 1)
