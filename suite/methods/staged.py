"""The same answers as `sft`, one stage of the curriculum after the other."""

from __future__ import annotations

from suite.methods.base import Method, MethodContext, MethodResult, train_in_parts


class Staged:
    """Each stage's tasks alone, in a new order each epoch, with a schedule of their own.

    The paper read literally (`sequential` in the method), without gates, retention or an Adapter:
    what the order alone does at an equal number of tokens.
    """

    def run(self, context: MethodContext) -> MethodResult:
        parts = [
            (f"stage{number}", [task for task in context.seeds if task.module in modules])
            for number, modules in enumerate(context.stages, start=1)
        ]
        return train_in_parts(context, parts)


METHOD: Method = Staged()
