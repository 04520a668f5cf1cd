"""Programs for contests' problems, as LiveCodeBench judges them (Jain et al., arXiv 2403.07974).

A program is right if it passes every test. Each test is a process of its own in the sandbox, with
limits of its own; what is expected never gets there. The rules are those of LiveCodeBench's
`lcb_runner/evaluation/testing_util.py`:

- A program that reads standard input: its output, stripped, has the expected lines, each stripped;
  a line is the expected one if it is equal, or both are numbers and these are equal as decimals.
  Leaving by `sys.exit` is an end, whatever the code.
- A function, or a method of `Solution`: the arguments are the input's lines, one JSON value each,
  and what it returns is equal to the output's JSON value. A tuple counts as a list.
- Before the program come the names of the modules of `_STARRED`, which the problems' own starting
  code needs.

One difference: a test's time is the processor's, so that a busy machine fails nobody.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import pickletools
import zlib
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple, cast

from ioa_jax.graders.programs import put_first
from ioa_jax.sandbox import CheckResult, Limits, Sandbox

# Of a problem's private tests. A line of LiveCodeBench's files has some megabytes.
MAX_TESTS_BYTES = 1 << 30
# Beside twice what is expected.
_SPARE_OUTPUT = 1 << 16

_STARRED = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random",
    "statistics", "itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
# One line, so that errors' lines are nearly the program's own.
_PRELUDE = "; ".join(
    [
        *(f"from {name} import *" for name in _STARRED),
        # Where a module has a name of its own, such as `datetime`, the module comes last.
        f"import {', '.join(_STARRED[:16])}",
        "sys.setrecursionlimit(50000)",
        "sys.set_int_max_str_digits(50000)",
    ]
)
_TEXT = ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_AROUND_TEXT = ("PROTO", "FRAME", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "STOP")


class ContestTest(NamedTuple):
    """What a program is given, and what has to come of it."""

    input: str
    output: str


# Those of the items that are being graded, which have several samples.
@functools.lru_cache(4)
def decode_tests(text: str, values: bool) -> tuple[ContestTest, ...]:
    """The tests of a field of LiveCodeBench's.

    It is the JSON of a list of objects with `input` and `output`, or base64 of zlib of a pickle of
    that text. The pickle is taken apart, not executed: nothing but one text may be in it.

    Args:
        text: The field.
        values: Whether the tests are a function's, of JSON values.

    Raises:
        ValueError: It is something else, or more than `MAX_TESTS_BYTES`.
    """
    try:
        tests = json.loads(text if text.lstrip().startswith("[") else _unpacked(text))
    except RecursionError:
        raise ValueError("brackets nested too deep") from None
    if not isinstance(tests, list):
        raise ValueError("a list of tests is needed")
    found: list[ContestTest] = []
    for number, test in enumerate(cast("list[Any]", tests), start=1):
        parts = [test.get(name) if isinstance(test, dict) else None for name in ContestTest._fields]
        if not all(isinstance(part, str) for part in parts):
            raise ValueError(f"test {number}: the texts 'input' and 'output' are needed")
        found.append(ContestTest(*cast("list[str]", parts)))
        try:
            for line in (*_argument_lines(found[-1].input), found[-1].output) if values else ():
                json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"test {number}: not JSON: {error}") from None
    return tuple(found)


def run_tests(
    sandbox: Sandbox, code: str, function: str, tests: Sequence[ContestTest], limits: Limits
) -> CheckResult:
    """What came of the last test, or of the first that isn't passed.

    Args:
        sandbox: Runs the program.
        code: The program.
        function: Name of its function; empty where it reads standard input.
        tests: One at least.
        limits: Of each test; the output's is at least what is expected needs.
    """
    # The name by which programs run what they have under `if __name__ == ...`.
    name = "" if function else '; __name__ = "__main__"'
    code = put_first(f"{_PRELUDE}{name}\n", code)
    result = None
    for number, test in enumerate(tests, start=1):
        if function:
            result = sandbox.check(code, _function_test(function, test), [function], limits)
        else:
            size = max(limits.output_bytes, 2 * len(test.output.encode()) + _SPARE_OUTPUT)
            own = dataclasses.replace(limits, output_bytes=size)
            result = _with_output(sandbox.run(code, own, stdin=test.input), test.output)
        if not result.passed:
            where = f"test {number} of {len(tests)}"
            return dataclasses.replace(result, detail=f"{where}: {result.detail}")
    assert result is not None
    return result


def same_output(found: str, expected: str) -> bool:
    """Whether a program's output is the expected one, as this module says."""
    one, other = ([line.strip() for line in text.strip().split("\n")] for text in (found, expected))
    return len(one) == len(other) and all(map(_same_line, one, other))


def _same_line(found: str, expected: str) -> bool:
    if found == expected:
        return True
    try:
        return [Decimal(one) for one in found.split()] == [Decimal(one) for one in expected.split()]
    except InvalidOperation:
        # It is no number, or one that can't be compared.
        return False


def _with_output(result: CheckResult, expected: str) -> CheckResult:
    left = result.status == "failed" and result.detail.startswith("SystemExit:")
    if not (result.passed or left):
        return result
    if same_output(result.stdout, expected):
        return dataclasses.replace(result, status="passed", detail="")
    return dataclasses.replace(result, status="failed", detail="not the expected output")


def _function_test(function: str, test: ContestTest) -> str:
    # The statement that fails is told in the verdict; it needn't hold the values.
    return (
        f"_input = {_argument_lines(test.input)!r}\n_output = {test.output!r}\n"
        f"_found = {function}(*map(json.loads, _input))\n"
        "_found = list(_found) if isinstance(_found, tuple) else _found\n"
        "assert _found == json.loads(_output), 'not the expected value'\n"
    )


def _argument_lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _unpacked(text: str) -> str:
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(base64.b64decode(text, validate=True), MAX_TESTS_BYTES)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"neither JSON nor base64 of zlib: {error}") from None
    if not unpacker.eof:
        raise ValueError(f"compressed data without an end, or of more than {MAX_TESTS_BYTES} bytes")
    texts: list[Any] = []
    for code, argument, _ in pickletools.genops(data):
        if code.name in _TEXT:
            texts.append(argument)
        elif code.name not in _AROUND_TEXT:
            raise ValueError(f"a pickle of more than a text, with {code.name} in it")
    if len(texts) != 1:
        raise ValueError(f"a pickle of {len(texts)} texts, not of one")
    return texts[0]
