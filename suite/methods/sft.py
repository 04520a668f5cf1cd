"""Plain supervised fine-tuning on the teacher's answers, in random order."""

from __future__ import annotations

from suite.methods.base import Method, MethodContext, MethodResult, train_in_parts


class SupervisedFineTuning:
    """All seed tasks at once, in a new order each epoch."""

    def run(self, context: MethodContext) -> MethodResult:
        return train_in_parts(context, [("all", context.seeds)])


METHOD: Method = SupervisedFineTuning()
