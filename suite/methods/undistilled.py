"""The student as it is: what the others are measured against."""

from __future__ import annotations

from suite.methods.base import Method, MethodContext, MethodResult, Spend


class Undistilled:
    """Does nothing and costs nothing."""

    def run(self, context: MethodContext) -> MethodResult:
        return MethodResult(context.student, Spend())


METHOD: Method = Undistilled()
