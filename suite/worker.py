"""`python -m suite.worker RUN i/n`, which `workers.open_workers` starts: does a share of a run."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from ioa_jax.errors import IOAError
from suite.cells import Share
from suite.cli import log_to_terminal
from suite.workers import take_processors


def _end_with_parent() -> None:
    # Nothing is ever written to the pipe. Not by sys.stdin, whose lock the exit would wait for.
    os.read(0, 1)
    os._exit(1)


def main() -> None:
    """Do the share, and end with the process that started this one."""
    directory, share = Path(sys.argv[1]), Share.parse(sys.argv[2])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    take_processors(share)
    # Imports JAX, which makes as many threads as there are processors.
    from suite.run import work

    log_to_terminal(verbose=False)
    try:
        work(directory, share)
    except IOAError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
