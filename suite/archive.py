"""A finished run as it is committed: what its figures follow from, in one compressed file."""

from __future__ import annotations

import contextlib
import itertools
import json
import lzma
import shutil
import tempfile
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ioa_jax.errors import InputError
from ioa_jax.files import check_no_links, read_bytes, read_json
from ioa_jax.json_text import parse_json
from suite.schema import check_run_folder

# What `report`, `table`, `compare`, `verify` and a reader of the record look at. The rest serves
# to go on with a run that was stopped: the ledger, a method's own steps, weights, where the
# seconds went that cell.json adds up.
KEPT = (
    "*/cell.json",
    "*/scores.jsonl",
    "*/curve.jsonl",
    "*/train.jsonl",
    "*/teacher.jsonl",
    "*/tasks/*/texts.jsonl",
    "*/tasks/*/verdicts.jsonl",
    "*/curve/*/*/texts.jsonl",
    "*/curve/*/*/verdicts.jsonl",
    "*/distill/diagnosis.json",
    "*/distill/curriculum.json",
    "*/distill/retention.json",
    "*/distill/record.json",
    "*/distill/forms.json",
    "*/distill/gates.jsonl",
    "*/distill/lessons.jsonl",
    "*/distill/rejects.jsonl",
    "*/distill/parts/*/limits.json",
)
# What the figures are computed from once more by `verify`, and most of an archive's size. Not the
# texts of curves: their items are what a curve's ends are computed on.
EVIDENCE = (
    "*/train.jsonl",
    "*/teacher.jsonl",
    "*/tasks/*/texts.jsonl",
    "*/tasks/*/verdicts.jsonl",
    "*/curve/*/*/verdicts.jsonl",
    "*/distill/lessons.jsonl",
    "*/distill/rejects.jsonl",
)
# What people read without the suite.
_PLAIN = ("table.md", "table.csv", "table.tex", "table.json", "report.html", "plots/*.svg")
# Everything of the cells, a line each: {"cell", "file", "record"} of a line of a JSONL file,
# {"cell", "file", "value"} of a JSON file.
RECORDS = "records.jsonl.xz"
# Unpacked: a folder of somebody else's may hold anything.
_MOST_BYTES, _LONGEST_LINE = 4 << 30, 1 << 28


def archive_run(run: Path, output: Path, evidence: bool = True) -> None:
    """Copy a run, without what its figures don't need, the records of its cells in one file.

    What reads runs reads the copy too; `verify` says what it lacks. The run stays as it is; it may
    be an archive itself, which gives the same files again.

    Args:
        run: Folder of a complete run.
        output: Folder of the copy; must not exist.
        evidence: Keep texts, calls, steps and examples, by which `verify` computes scores and spend
            anew; without them the tables alone can be.

    Raises:
        InputError: `run` isn't a complete run, or a file doesn't fit its schema; or `output`
            exists or can't be written.
    """
    record = read_json(run / "run.json")
    if not isinstance(record, dict) or record.get("status") != "complete":
        raise InputError(f"{run}: its status in run.json isn't 'complete': finish it first")
    check_no_links(run / "run.json", run / "cells", run / RECORDS, run / "plots")
    plain = sorted(path for pattern in _PLAIN for path in run.glob(pattern))
    check_no_links(*plain)
    cells = RunCells(run)
    with cells.naming():
        check_run_folder(run, cells.path)
    try:
        output.mkdir(parents=True)
    except FileExistsError:
        raise InputError(f"{output} exists; name another --output") from None
    except OSError as error:
        raise InputError(f"{output}: {error.strerror}") from None
    try:
        for path in plain:
            target = output / path.relative_to(run)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
        patterns = [one for one in KEPT if evidence or one not in EVIDENCE]
        _pack(cells.path, output / RECORDS, patterns)
        # The last file: a part of a run isn't taken for a whole one.
        shutil.copyfile(run / "run.json", output / "run.json")
    except OSError as error:
        shutil.rmtree(output, ignore_errors=True)
        raise InputError(f"{output}: {error.strerror}") from None


def kept_files(cells: Path, patterns: Sequence[str]) -> list[Path]:
    """The files of cells/ that an archive keeps; each by its name without `.gz`."""
    found = {path for one in patterns for path in cells.glob(one) if path.suffix != ".gz"}
    found |= {path.with_suffix("") for one in patterns for path in cells.glob(f"{one}.gz")}
    return sorted(found)


def _pack(cells: Path, target: Path, patterns: Sequence[str]) -> None:
    with lzma.open(target, "wt", encoding="utf-8", newline="\n") as packed:
        for path in kept_files(cells, patterns):
            cell, file = path.relative_to(cells).as_posix().split("/", 1)
            text = read_bytes(path).decode("utf-8")
            if path.suffix == ".jsonl":
                # An empty file, too, says something: of none there was any.
                records = [{"record": parse_json(line)} for line in text.split("\n") if line]
            else:
                records = [{"value": parse_json(text)}]
            for record in records or [{}]:
                row = {"cell": cell, "file": file, **record}
                packed.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


class RunCells:
    """The cells of a run, as files: its own, or of an archive unpacked into a temporary folder.

    Attributes:
        path: The folder of the cells' folders. A temporary one is removed with this object.
    """

    def __init__(self, run: Path) -> None:
        """Unpack where there is something to unpack.

        Raises:
            InputError: The archive is broken, or holds what no run has.
        """
        packed = run / RECORDS
        self._packed = packed if packed.is_file() else None
        if self._packed is None:
            self.path = run / "cells"
            return
        if (run / "cells").is_dir():
            raise InputError(f"{run}: has both cells/ and {RECORDS}; remove one of them")
        self.path = Path(tempfile.mkdtemp(prefix="ioa-run-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        name = ""
        try:
            for name, rows in itertools.groupby(_rows(packed), key=lambda row: row[0]):
                _unpack(self.path / name, [row[1] for row in rows])
        except FileExistsError:
            raise InputError(f"{packed}: {name}: its records don't stand together") from None
        except (lzma.LZMAError, EOFError, ValueError, OSError) as error:
            raise InputError(self.named(f"{packed}: {error}")) from None

    def named(self, text: str) -> str:
        """A text in which files are named by where they stand: in the archive, if it is one."""
        return text if self._packed is None else text.replace(f"{self.path}/", f"{self._packed}: ")

    @contextlib.contextmanager
    def naming(self) -> Generator[None]:
        """Within it, errors name files as `named` does: the temporary ones will be gone.

        Raises:
            InputError: Instead of the one that is raised within.
        """
        try:
            yield
        except InputError as error:
            raise InputError(self.named(str(error))) from None


def _unpack(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a file of a cell.

    Raises:
        OSError: It can't be written, or is there, since its rows don't stand together.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        for row in rows:
            if path.suffix == ".json":
                json.dump(row["value"], file, indent=2, ensure_ascii=False)
                file.write("\n")
            elif "record" in row:
                file.write(json.dumps(row["record"], ensure_ascii=False) + "\n")


def _rows(packed: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name below cells/ and content of each line.

    Raises:
        ValueError: A line isn't a record of a file in a cell's folder, or there is too much.
        OSError, LZMAError, EOFError: It can't be read.
    """
    size = 0
    with lzma.open(packed) as file:
        for number in itertools.count(1):
            line = file.readline(_LONGEST_LINE + 1)
            size += len(line)
            if not line:
                return
            if len(line) > _LONGEST_LINE or size > _MOST_BYTES:
                raise ValueError(f"line {number}: more bytes than a run's records have")
            row = parse_json(line.decode("utf-8"))
            fits = isinstance(row, dict) and all(
                isinstance(row.get(field), str) for field in ("cell", "file")
            )
            name = PurePosixPath(row["cell"], row["file"]) if fits else PurePosixPath()
            # Others' folders are read too, and nothing is written outside.
            if (
                name.is_absolute()
                or ".." in name.parts
                or name.suffix not in (".json", ".jsonl")
                or (name.suffix == ".json" and "value" not in row)
            ):
                raise ValueError(f"line {number}: not a record of a cell's file")
            yield name.as_posix(), row
