"""What programs that a teacher wrote return for the inputs of their tests.

A teacher that writes a right program often expects wrong values of it. So the values are found by
running: several solutions of a problem run on the tests' inputs, in the jail, and where most agree,
these values are what is tested for.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence

from ioa_jax.errors import InputError
from ioa_jax.json_text import parse_json
from ioa_jax.sandbox import Sandbox

# What a program without content may return. Tests that one of them passes say nothing.
STUB_VALUES = ("None", "True", "0", "''", "[]")
MAX_CALLS = 12
_MARK = "value-of-call:"


def parse_python(source: str) -> ast.Module:
    """The syntax tree of Python that a teacher wrote.

    Raises:
        InputError: It isn't Python.
    """
    try:
        with warnings.catch_warnings():
            # Of its style, such as an escape that is none.
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"not Python: {error}") from None


def stub_program(program: str, value: str) -> str:
    """A program whose functions and methods do nothing but return a constant.

    Args:
        program: Python.
        value: The constant, as an expression.

    Raises:
        InputError: It isn't Python, or it defines no function.
    """
    tree = parse_python(program)
    body = ast.parse(f"def stub():\n    return {value}").body[0]
    assert isinstance(body, ast.FunctionDef)
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    if not functions:
        raise InputError("the program defines no function")
    for function in functions:
        function.body = body.body
    return _unparse(tree)


def main_function(program: str, called: str = "") -> str:
    """Name of the function that answers a problem: one that is called, else the last one.

    Args:
        program: Python.
        called: Text in which the function is called or named.

    Raises:
        InputError: It isn't Python, or it defines no function at the margin.
    """
    tree = parse_python(program)
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if not names:
        raise InputError("the program defines no function")
    named = [name for name in names if re.search(rf"(?<!\w){re.escape(name)}\(", called)]
    return (named or names)[-1]


def calls_under_test(tests: str) -> tuple[str, ...]:
    """The expressions whose values tests are about, such as `half(4)` of `assert half(4) == 2`.

    Of a comparison by `==` it is the left side where that calls anything; of any other assertion
    the whole of it; calls that stand alone are example inputs. Lines that aren't Python are left
    out, and so is what is no expression.
    """
    try:
        statements = parse_python(tests).body
    except InputError:
        statements = []
        for line in tests.splitlines():
            try:
                statements += parse_python(line.strip()).body
            except InputError:
                continue
    calls: list[str] = []
    for statement in statements:
        match statement:
            case ast.Assert(test=ast.Compare(left=left, ops=[ast.Eq()])) if _calls(left):
                value = left
            case ast.Assert(test=test):
                value = test
            case ast.Expr(value=ast.Call(func=ast.Name(id="print"), args=[inner])):
                value = inner
            case ast.Expr(value=inner):
                value = inner
            case _:
                continue
        if _calls(value):
            calls.append(_unparse(value))
    return tuple(dict.fromkeys(calls))[:MAX_CALLS]


def renamed(calls: Sequence[str], name: str, other: str) -> tuple[str, ...]:
    """Expressions in which another function is called in place of one."""
    trees = [ast.parse(call, mode="eval") for call in calls]
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id == name:
                node.id = other
    return tuple(_unparse(tree) for tree in trees)


def values_of(
    program: str, calls: Sequence[str], sandbox: Sandbox
) -> tuple[str | None, ...] | None:
    """What expressions are worth after a program has run, each as Python text.

    Args:
        program: Untrusted.
        calls: Expressions.
        sandbox: Where they run.

    Returns:
        One an expression, None where it raises or isn't plain data; None for all if the program
        itself fails.
    """
    lines = [
        program,
        "import json as _json",
        f"for _number, _call in enumerate({list(calls)!r}):",
        "    try:",
        "        _value = repr(eval(_call))",
        "    except Exception:",
        "        continue",
        f"    print({_MARK!r} + _json.dumps([_number, _value]))",
    ]
    result = sandbox.run("\n".join(lines) + "\n")
    if not result.passed:
        return None
    values: list[str | None] = [None] * len(calls)
    for line in result.stdout.splitlines():
        if line.startswith(_MARK):
            number, value = _read_value(line.removeprefix(_MARK))
            if 0 <= number < len(calls):
                values[number] = value
    return tuple(values)


def same_values(one: str | None, other: str | None) -> bool:
    """Whether two texts are of equal plain data; 2 and 2.0 are equal."""
    if one is None or other is None or one == other:
        return one == other
    return bool(ast.literal_eval(one) == ast.literal_eval(other))


def write_tests(calls: Sequence[str], values: Sequence[str | None]) -> str:
    """Assertions of what calls are worth, a line each; those without a value are left out."""
    return "\n".join(
        f"assert {call} == {value}"
        for call, value in zip(calls, values, strict=True)
        if value is not None
    )


def _read_value(text: str) -> tuple[int, str | None]:
    """The program writes here too: what it made up is no value."""
    try:
        number, value = parse_json(text)
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return -1, None
    return (number, value) if isinstance(number, int) else (-1, None)


def _calls(node: ast.expr) -> bool:
    return any(isinstance(part, ast.Call) for part in ast.walk(node))


def _unparse(tree: ast.AST) -> str:
    try:
        return ast.unparse(tree)
    except (RecursionError, ValueError) as error:
        # Deep brackets, or a number of thousands of digits that was written in another base.
        raise InputError(f"the program can't be written out: {error}") from None
