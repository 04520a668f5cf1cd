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
    reading = _Reading(_HARMLESS.difference(entry_points, known))
    try:
        reading.read(test.body, {name: name for name in entry_points})
    except _UNFORESEEN:
        return reading.found
    return [*reading.found, ("end", None, None)]


class _Reading:
    """Statements read so far.

    The program's functions go by other names inside of a function of the tests': `subjects` has
    them by the name that they have there.

    Attributes:
        harmless: Functions that ask nothing of plain data.
        functions: Of the tests', by name.
        found: What was foreseen.
    """

    def __init__(self, harmless: Set[str]) -> None:
        self.harmless = harmless
        self.functions: dict[str, ast.FunctionDef] = {}
        self.found: list[Request] = []

    def read(self, body: list[ast.stmt], subjects: dict[str, str]) -> None:
        """All statements of a module.

        Raises:
            _UnforeseenError: One may do anything; what comes before it is in `found`. The methods
                below raise it likewise.
        """
        for statement in body:
            if isinstance(statement, ast.FunctionDef):
                self._define(statement, subjects)
            elif not self._is_check(statement, subjects):
                self._add_statement(statement, subjects)

    def _define(self, function: ast.FunctionDef, subjects: dict[str, str]) -> None:
        arguments = function.args
        if (
            function.name in subjects
            or function.name in self.harmless
            or function.decorator_list
            or arguments.defaults
            or arguments.kw_defaults
            or _has_annotations(function)
        ):
            raise _UnforeseenError
        self.functions[function.name] = function

    def _is_check(self, statement: ast.stmt, subjects: dict[str, str]) -> bool:
        """Whether it calls a function of the tests on one of the program's; adds what it asks."""
        if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
            return False
        call = statement.value
        if not isinstance(call.func, ast.Name) or len(call.args) != 1 or call.keywords:
            return False
        function, argument = self.functions.get(call.func.id), call.args[0]
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
        before = len(self.found)
        try:
            for inner in function.body:
                self._add_statement(inner, {parameters.args[0].arg: subjects[argument.id]})
        except _UNFORESEEN:
            # Of a generator, nothing runs.
            if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(function)):
                del self.found[before:]
            raise
        return True

    def _add_statement(self, statement: ast.stmt, subjects: dict[str, str]) -> None:
        if isinstance(statement, ast.Assert):
            # A message is only made where the tests end.
            self._add_expression(statement.test, subjects)
            if statement.msg is not None and not isinstance(statement.msg, ast.Constant):
                raise _UnforeseenError
        elif isinstance(statement, ast.Assign):
            target = statement.targets[0]
            if (
                len(statement.targets) > 1
                or not isinstance(target, ast.Name)
                or target.id in subjects
                or target.id in self.functions
                or target.id in self.harmless
            ):
                raise _UnforeseenError
            _literal(statement.value)
        elif isinstance(statement, ast.Expr):
            if not isinstance(statement.value, ast.Constant):
                raise _UnforeseenError
        elif not isinstance(statement, ast.Pass):
            raise _UnforeseenError

    def _add_expression(self, expression: ast.expr, subjects: dict[str, str]) -> None:
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
                self.found.append(("call", subjects[name], [arguments, {}]))
                return
            if name not in self.harmless or name in self.functions:
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
            self._add_expression(part, subjects)


def _has_annotations(function: ast.FunctionDef) -> bool:
    """Whether its definition evaluates any."""
    of = function.args
    arguments = [*of.posonlyargs, *of.args, *of.kwonlyargs, of.vararg, of.kwarg]
    annotated = any(argument is not None and argument.annotation for argument in arguments)
    return annotated or function.returns is not None


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
