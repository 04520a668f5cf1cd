"""What tests are certain to ask of a program, whatever it answers, read off their code.

Most are a list of `assert f(1, [2]) == 3`, at the margin or in a function `check(candidate)` that
is called with the program's. Calls with literal arguments are foreseen, up to the first statement
or expression that could do anything else with the program, or be jumped over. Answers that aren't
plain data are `checker.Channel`'s concern: what is relied on is that operators and a few functions
ask nothing of plain data.

There is no `match`, which takes several times as long, and this is a part of each program's time.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Set
from typing import Any

Request = tuple[str, str | None, Any]

# Builtin functions that ask nothing of plain data.
_HARMLESS = frozenset(
    (
        "abs", "bool", "dict", "float", "frozenset", "int", "len", "list", "max", "min", "repr",
        "round", "set", "sorted", "str", "sum", "tuple", "type",
    )
)  # fmt: skip


class _UnforeseenError(Exception):
    """From here on nothing is certain."""


# An expression may be too deep, and a literal may have no value.
_UNFORESEEN = (_UnforeseenError, RecursionError, OverflowError)


def foresee(
    test: ast.Module, entry_points: list[str], known: Collection[str] = ()
) -> list[Request]:
    """What `Channel.ask` will be called with, in order; with the end only if nothing is left out.

    Args:
        test: The tests' code.
        entry_points: Names of the program's functions in it.
        known: Names that may mean something else than in Python before the tests begin.
    """
    subjects = {name: name for name in entry_points}
    harmless = _HARMLESS.difference(entry_points, known)
    functions: dict[str, ast.FunctionDef] = {}
    found: list[Request] = []
    try:
        for statement in test.body:
            if isinstance(statement, ast.FunctionDef):
                arguments = statement.args
                if (
                    statement.name in subjects
                    or statement.name in harmless
                    or statement.decorator_list
                    or arguments.defaults
                    or arguments.kw_defaults
                    or _has_annotations(statement)
                ):
                    return found
                functions[statement.name] = statement
            elif not _is_check(statement, functions, subjects, harmless, found):
                _add_statement(statement, subjects, functions, harmless, found)
    except _UNFORESEEN:
        return found
    found.append(("end", None, None))
    return found


def _has_annotations(function: ast.FunctionDef) -> bool:
    """Whether its definition evaluates any."""
    of = function.args
    arguments = [*of.posonlyargs, *of.args, *of.kwonlyargs, of.vararg, of.kwarg]
    annotated = any(argument is not None and argument.annotation for argument in arguments)
    return annotated or function.returns is not None


def _is_check(
    statement: ast.stmt,
    functions: dict[str, ast.FunctionDef],
    subjects: dict[str, str],
    harmless: Set[str],
    found: list[Request],
) -> bool:
    """Whether it calls a function of the tests' with one of the program's; if so, what that asks.

    Raises:
        _UnforeseenError: What the function does is not certain, from some point on.
    """
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
        return False
    call = statement.value
    if not isinstance(call.func, ast.Name) or len(call.args) != 1 or call.keywords:
        return False
    function, argument = functions.get(call.func.id), call.args[0]
    if function is None or not isinstance(argument, ast.Name) or argument.id not in subjects:
        return False
    parameters = function.args
    if (
        len(parameters.args) != 1
        or parameters.posonlyargs
        or parameters.kwonlyargs
        or parameters.vararg
        or parameters.kwarg
    ):
        raise _UnforeseenError
    subjects = {parameters.args[0].arg: subjects[argument.id]}
    asked: list[Request] = []
    try:
        for inner in function.body:
            _add_statement(inner, subjects, functions, harmless, asked)
    except _UNFORESEEN:
        # Of a generator, nothing runs.
        if not any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(function)):
            found += asked
        raise
    found += asked
    return True


def _add_statement(
    statement: ast.stmt,
    subjects: dict[str, str],
    functions: dict[str, ast.FunctionDef],
    harmless: Set[str],
    found: list[Request],
) -> None:
    if isinstance(statement, ast.Assert):
        # A message is only made where the tests end.
        _add_expression(statement.test, subjects, functions, harmless, found)
        if statement.msg is not None and not isinstance(statement.msg, ast.Constant):
            raise _UnforeseenError
    elif isinstance(statement, ast.Assign):
        target = statement.targets[0]
        if (
            len(statement.targets) > 1
            or not isinstance(target, ast.Name)
            or target.id in subjects
            or target.id in functions
            or target.id in harmless
        ):
            raise _UnforeseenError
        _literal(statement.value)
    elif isinstance(statement, ast.Expr):
        if not isinstance(statement.value, ast.Constant):
            raise _UnforeseenError
    elif not isinstance(statement, ast.Pass):
        raise _UnforeseenError


def _add_expression(
    expression: ast.expr,
    subjects: dict[str, str],
    functions: dict[str, ast.FunctionDef],
    harmless: Set[str],
    found: list[Request],
) -> None:
    """In the order in which Python evaluates it."""
    if isinstance(expression, ast.Constant):
        return
    parts: list[ast.expr]
    if isinstance(expression, ast.Compare):
        # Of several comparisons, a false one is the last.
        if len(expression.comparators) > 1:
            raise _UnforeseenError
        parts = [expression.left, *expression.comparators]
    elif (
        isinstance(expression, ast.Call)
        and isinstance(expression.func, ast.Name)
        and not expression.keywords
    ):
        name, parts = expression.func.id, expression.args
        if name in subjects:
            arguments = tuple([_literal(argument) for argument in parts])
            found.append(("call", subjects[name], [arguments, {}]))
            return
        if name not in harmless or name in functions:
            raise _UnforeseenError
    elif isinstance(expression, ast.List | ast.Tuple | ast.Set):
        parts = expression.elts
    elif isinstance(expression, ast.BinOp):
        parts = [expression.left, expression.right]
    elif isinstance(expression, ast.UnaryOp):
        parts = [expression.operand]
    elif isinstance(expression, ast.Subscript):
        parts = [expression.value, expression.slice]
    else:
        _literal(expression)
        return
    for part in parts:
        _add_expression(part, subjects, functions, harmless, found)


def _literal(expression: ast.expr) -> Any:
    """The value of an expression of literals.

    Raises:
        _UnforeseenError: It isn't one, or has no value.
    """
    if isinstance(expression, ast.Constant):
        return expression.value
    if isinstance(expression, ast.List):
        return [_literal(element) for element in expression.elts]
    if isinstance(expression, ast.Tuple):
        return tuple([_literal(element) for element in expression.elts])
    try:
        return ast.literal_eval(expression)
    except (ValueError, TypeError):
        raise _UnforeseenError from None
