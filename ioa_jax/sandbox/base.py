"""What a sandbox takes and gives back."""

from __future__ import annotations

import dataclasses
from typing import Literal

from ioa_jax.errors import InputError

Status = Literal[
    "passed", "failed", "timeout", "memory", "output_limit", "forged", "bad_test", "infra_error"
]  # fmt: skip
Backend = Literal["bubblewrap+landlock+seccomp", "landlock+seccomp", "rlimits"]

JAILED: Backend = "bubblewrap+landlock+seccomp"
WEAK: Backend = "rlimits"
# The strongest first.
STRONG: tuple[Backend, ...] = (JAILED, "landlock+seccomp")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
        wall_seconds: From its start to its verdict, tests included. Generous: a busy machine must
            not fail anyone.
        cpu_seconds: Processor time, the limit that is meant to bind; whole seconds. The tests'
            own process has the same limit apart.
        memory_bytes: Address space (RLIMIT_AS), likewise.
        output_bytes: Of standard output and standard error together.
        file_bytes: Size of any file that it writes. All its files together, those
            without a name included, have 64 MiB.
        open_files: Open descriptors.
        processes: Threads; counted with those of the programs that run at the same time. It can't
            start processes.

    Raises:
        InputError: A limit is not positive.
    """

    wall_seconds: float = 30.0
    cpu_seconds: int = 5
    memory_bytes: int = 1 << 30
    output_bytes: int = 1 << 16
    file_bytes: int = 8 << 20
    open_files: int = 64
    processes: int = 64

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value <= 0:
                raise InputError(f"sandbox limit {name}={value}: must be positive")


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """What became of a program.

    Attributes:
        status: `passed` (all tests, or to its end), `failed` (an exception, an early end, a signal
            or a wrong answer), `timeout` (processor time or wall clock), `memory`, `output_limit`
            (text, files or a returned value), `forged` (it wrote to the descriptor that its answers
            go through), `bad_test` (the tests are at fault: they can't be compiled, say), or
            `infra_error`: the sandbox itself failed twice, which says nothing about
            the program and has to be reported apart.
        detail: The reason in a few words; empty for `passed`.
        stdout: At most `output_bytes`; undecodable bytes are replaced.
        stderr: As stdout.
        cpu_seconds: Processor time of the program.
        wall_seconds: Wall time until the verdict.
    """

    status: Status
    detail: str
    stdout: str
    stderr: str
    cpu_seconds: float
    wall_seconds: float

    @property
    def passed(self) -> bool:
        """Whether the status is `passed`."""
        return self.status == "passed"


@dataclasses.dataclass(frozen=True)
class SandboxInfo:
    """How programs are isolated here, for the record of a run.

    Attributes:
        backend: Which of the backends.
        landlock_abi: The kernel's Landlock ABI; 0 where it isn't used.
        isolation: What is in force, as the sandbox's processes reported it.
        python: Version of the interpreter that runs the programs.
        interpreter: Its path.
        packages: What programs can import beside the standard library, with versions.
    """

    backend: Backend
    landlock_abi: int
    isolation: tuple[str, ...]
    python: str
    interpreter: str
    packages: tuple[str, ...] = ()
