"""Judges an answer by others' rules: what a worker process of `suite.maths_agreement` runs."""

from __future__ import annotations

from typing import Any

from math_verify import parse, verify

from ioa_jax.graders.worker import serve
from suite.maths_agreement import minerva, qwen


def judge_by_math_verify(gold: str, text: str) -> tuple[bool, str]:
    """Whether Math-Verify, as it comes, takes an answer for the reference; the answer as read.

    Its limits of time, which are alarms, are left to the process.
    """
    unlimited: Any = None
    golds = parse(f"${gold}$", parsing_timeout=unlimited)
    answers = parse(text, parsing_timeout=unlimited)
    # The text that it read stands last, after the value, if it read one.
    values = [str(answer) for answer in answers if not isinstance(answer, str)]
    return verify(golds, answers, timeout_seconds=unlimited), " or ".join(values)


RULES = {
    "math-verify": judge_by_math_verify,
    "Minerva": minerva.judge,
    "Qwen": qwen.judge,
}


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    correct, read = RULES[request["rules"]](request["gold"], request["text"])
    return {"correct": bool(correct), "read": read}


if __name__ == "__main__":
    serve(_answer, "others' rules")
