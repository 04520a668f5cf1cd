"""Compares answers with Math-Verify: a program of its own, run by `ioa_jax.graders.maths`.

It is started by its path and imports nothing of this project, so that a worker is ready soon and
holds no JAX. A request is a line of JSON on standard input, its reply a line on standard output;
before the first, a line says which version of Math-Verify answers. It ends with its input.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import resource
import signal
import sys
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

TARGETS = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())


def compare(golds: list[str], text: str, boxed: bool) -> dict[str, Any]:
    r"""Whether the text's answer equals one of the golds.

    Math-Verify's own limits are off: they are alarms, which a library may swallow. The kernel ends
    the process instead.

    Args:
        golds: Answers in LaTeX, without delimiters.
        text: Where to look for the answer.
        boxed: Whether the text has a box. What is in it is then the answer, even if it can't be
            parsed; without one, Math-Verify goes on to the next place that may hold an answer.

    Returns:
        `correct`; `extracted`, the answer as text or None; `parsed`, whether it was compared as an
        expression rather than as text.
    """
    answer = parse(
        text,
        TARGETS,
        extraction_mode="first_match" if boxed else "any_match",
        parsing_timeout=None,  # pyright: ignore[reportArgumentType]
    )
    texts = [one for one in answer if isinstance(one, str)]
    correct = False
    for gold in golds:
        expected = parse(
            rf"\boxed{{{gold}}}",
            TARGETS,
            parsing_timeout=None,  # pyright: ignore[reportArgumentType]
        )
        # Not symmetric: the gold comes first.
        correct = correct or verify(expected, answer, timeout_seconds=None)
    return {
        "correct": correct,
        "extracted": texts[-1] if texts else None,
        "parsed": len(texts) < len(answer),
    }


def main(cpu_seconds: float, memory_bytes: int) -> None:
    """Answer requests until the input ends.

    Args:
        cpu_seconds: Processor time for one request; past it, SIGPROF ends the process.
        memory_bytes: Address space (RLIMIT_AS); on Linux only, since others don't keep to it.
    """
    logging.disable(logging.CRITICAL)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # What a library may print must not stand between the replies.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    hello = {"version": importlib.metadata.version("math-verify")}
    print(json.dumps(hello), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            reply = compare(request["golds"], request["text"], request["boxed"])
        except Exception as error:
            # Whatever SymPy makes of a model's answer, it is an answer that isn't right.
            reply = {"correct": False, "extracted": None, "error": type(error).__name__}
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
