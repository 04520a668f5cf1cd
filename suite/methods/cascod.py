"""CasCoD: a cascade of two steps, the rationale from the question, then the answer from both.

Paper: Dai et al., 2024 (arXiv 2405.19842).
Loop: the teacher answers each seed with a rationale and a final answer. The student learns the
rationale given the question, without ever seeing the answer there, and the answer given question
and rationale. Measuring lets it write the rationale and go on with the answer: as the second step's
prompt is the first one's text, that is one answer.
Departures: both steps' tokens count alike in the mean, so that there is no weight alpha: an answer
of few tokens weighs less than alpha would give it. Where the teacher doesn't say which part is the
answer, it is what the seed's check judges: of an instruction that is all, and one step.
"""

from __future__ import annotations

from ioa_jax.engine.batching import TokenPair
from suite.methods.base import (
    Method,
    MethodContext,
    MethodResult,
    as_chat,
    ask_rationales,
    fine_tune,
    fits,
)


class CascadedDistillation:
    """An answer with a rationale makes two examples."""

    summary = "rationale from the question, then answer from both (CasCoD)"
    needs: tuple[str, ...] = ()

    def run(self, context: MethodContext) -> MethodResult:
        pairs: list[TokenPair] = []
        explained = ask_rationales(context)
        for prompt, rationale, answer in explained:
            chat = as_chat(prompt)
            if not rationale:
                pairs.append(context.student.answer_pair(chat, answer))
                continue
            first = context.student.answer_pair(chat, rationale + "\n", ended=False)
            last = context.student.answer_pair(chat, answer)
            pairs.append(first)
            pairs.append(TokenPair(first.prompt + first.completion, last.completion))
        pairs = [pair for pair in pairs if fits(context, pair)]
        notes = {"examples": len(pairs), "seeds": len(explained)}
        return MethodResult(fine_tune(context, pairs), notes)


METHOD: Method = CascadedDistillation()
