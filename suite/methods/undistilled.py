"""The student as it is: what the others are measured against.

Loop: none. It spends nothing.
"""

from __future__ import annotations

from suite.methods.base import Method, MethodContext, MethodResult


class Undistilled:
    """Does nothing and costs nothing."""

    summary = "the student as it is"
    needs: tuple[str, ...] = ()

    def run(self, context: MethodContext) -> MethodResult:
        return MethodResult(context.student)


METHOD: Method = Undistilled()
