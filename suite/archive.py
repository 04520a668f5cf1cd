"""A finished run as it is committed: what its figures follow from, and nothing else, compressed."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

from ioa_jax.errors import InputError
from ioa_jax.files import packed, read_bytes, read_json
from suite.schema import check_run_folder

# What `report`, `table`, `compare`, `verify` and a reader of the record look at. The rest serves
# to go on with a run that was stopped: the ledger, a method's own steps, weights, where the
# seconds went that cell.json adds up.
KEPT = (
    "table.md",
    "table.csv",
    "table.tex",
    "table.json",
    "report.html",
    "plots/*.svg",
    "cells/*/cell.json",
    "cells/*/scores.jsonl",
    "cells/*/curve.jsonl",
    "cells/*/train.jsonl",
    "cells/*/teacher.jsonl",
    "cells/*/tasks/*/texts.jsonl",
    "cells/*/tasks/*/verdicts.jsonl",
    "cells/*/curve/*/*/texts.jsonl",
    "cells/*/curve/*/*/verdicts.jsonl",
    "cells/*/distill/diagnosis.json",
    "cells/*/distill/curriculum.json",
    "cells/*/distill/retention.json",
    "cells/*/distill/record.json",
    "cells/*/distill/forms.json",
    "cells/*/distill/gates.jsonl",
    "cells/*/distill/lessons.jsonl",
    "cells/*/distill/rejects.jsonl",
    "cells/*/distill/parts/*/limits.json",
)
# A file takes a block of the disk of about this size at the least.
COMPRESSED_FROM = 4096  # bytes


def archive_run(run: Path, output: Path) -> None:
    """Copy a run, without what its figures don't need, and with large records compressed.

    What reads runs reads the copy too. The run stays as it is; it may be an archive itself, which
    gives the same files again.

    Args:
        run: Folder of a complete run.
        output: Folder of the copy; must not exist.

    Raises:
        InputError: `run` isn't a complete run, or a file doesn't fit its schema; or `output`
            exists or can't be written.
    """
    record = read_json(run / "run.json")
    if not isinstance(record, dict) or record.get("status") != "complete":
        raise InputError(f"{run}: its status in run.json isn't 'complete': finish it first")
    check_run_folder(run)
    try:
        output.mkdir(parents=True)
    except FileExistsError:
        raise InputError(f"{output} exists; name another --output") from None
    except OSError as error:
        raise InputError(f"{output}: {error.strerror}") from None
    try:
        _copy(run, output)
    except OSError as error:
        shutil.rmtree(output, ignore_errors=True)
        raise InputError(f"{output}: {error.strerror}") from None


def _copy(run: Path, output: Path) -> None:
    for path in kept_files(run):
        name = path.relative_to(run)
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        data = read_bytes(path)
        if _is_compressed(name, len(data)):
            # Without the time, the same file is the same bytes.
            packed(target).write_bytes(gzip.compress(data, mtime=0))
        else:
            target.write_bytes(data)
    # The last file: a part of a run isn't taken for a whole one.
    shutil.copyfile(run / "run.json", output / "run.json")


def kept_files(run: Path) -> list[Path]:
    """A run's files that an archive keeps, but for run.json; each by its name without `.gz`."""
    found = {path for pattern in KEPT for path in run.glob(pattern) if path.suffix != ".gz"}
    found |= {path.with_suffix("") for pattern in KEPT for path in run.glob(f"{pattern}.gz")}
    return sorted(found)


def _is_compressed(name: Path, size: int) -> bool:
    """Whether a file of a run is a large record of a cell; cell.json says that there is one."""
    return name.parts[0] == "cells" and name.name != "cell.json" and size > COMPRESSED_FROM
