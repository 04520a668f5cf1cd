"""Programs, judged by a benchmark's own tests in the sandbox.

HumanEval (Chen et al., 2021, arXiv 2107.03374) asks for the rest of a function, MBPP (Austin et
al., 2021, arXiv 2108.07732) for a function. What of a text is the program is found by rules with
names:

- `fence`: a code block that defines the function, or has it as a method of a class `Solution`; of
  several the last complete one that isn't a stub and that the text doesn't call wrong. Helpers that
  it uses come from other blocks. What HumanEval's prompt has before its signature is put in front,
  as far as the block lacks it.
- `closing_fence`: the same, of a block whose opening fence isn't in the text, which begins with it.
- `fence_body`: HumanEval, no block has the signature; the longest continues the prompt.
- `fence_other`: MBPP, no block defines the function; the longest is the program.
- `repeated_signature`: no block, but the function, with imports and helpers before it; up to the
  first line that isn't code.
- `bare_body`: HumanEval, neither: the text continues the prompt, up to the next line at the margin.
- `whole`: MBPP, neither: the text is the program.
- `completion`: from a base model, HumanEval: continues the prompt, up to Codex's stop strings.
- `program`: from a base model, MBPP: up to `[DONE]`.
- Of contests' problems without a function, `fence` and `closing_fence` are the last complete block
  that calls something and that the text doesn't call wrong; or else the last one. With a function,
  and without a block, they are as MBPP's; a base model's program ends where its code block does.
- `empty`: there is no text.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from ioa_jax.errors import InputError
from ioa_jax.graders.base import GoldGrader, Item, Verdict
from ioa_jax.graders.contests import ContestTest, decode_tests, run_tests
from ioa_jax.graders.programs import (
    Block,
    blocks,
    calls_something,
    choose,
    definition,
    finished,
    unfenced,
    with_head,
    with_plain_lines,
)
from ioa_jax.sandbox import Backend, CheckResult, Limits, Sandbox

# What begins at the margin no longer belongs to the body that was being completed.
CODEX_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
MBPP_STOPS = ("[DONE]",)

_MARGIN = re.compile(r"\n(?=\S)")

REMEMBERED = 1 << 14  # programs; a result takes about a kilobyte

_TEXT_FIELDS = {
    "humaneval": ("prompt", "entry_point", "test"),
    "mbpp": ("entry_point",),
    "contest": ("public_tests", "private_tests"),
}


class Extraction(NamedTuple):
    """A program found in a text, and the rule that found it."""

    code: str
    rule: str


class CodeGrader(GoldGrader):
    """Grades programs by `data["kind"]`, which is `humaneval`, `mbpp` or `contest`.

    HumanEval's items have the texts `prompt`, `entry_point` and `test`, which defines
    `check(candidate)`; MBPP's have `entry_point`, the list `test_list`, and may have the text
    `test_setup_code` and the list `test_imports`. The reference is the body or the program.

    A contest's have the texts `public_tests` and `private_tests`, as `contests.decode_tests` takes
    them, and the text `entry_point`, which is empty where the program reads standard input. Limits
    are those of each test.

    The first two may have the text `plus_test`, which defines another `check(candidate)`, for what
    passes the first tests. A verdict's parts then are `base` and `plus`: whether the program passes
    the first ones, and all. All but HumanEval's may have the list `stops`, strings that end a base
    model's program instead of `[DONE]`.

    An item whose reference needs more than the limits may have the object `limits` with some of
    `Limits`' fields, each the least that its programs get.

    A program isn't run again with the same tests, since models write the same ones over and over.
    What came of a time limit or of the sandbox's own failure isn't kept.

    A verdict's `status` is the sandbox's. With `infra_error` nothing is known about the program:
    such items have to be reported apart. With `bad_test` the item's tests are at fault.
    """

    def __init__(
        self,
        style: str = "chat",
        limits: Limits | None = None,
        backend: Backend | None = None,
        allow_weak: bool = False,
        sandbox: Sandbox | None = None,
    ) -> None:
        """Finds out which isolation works here.

        Args:
            style: `chat` for answers of chat models, `base` for continuations of the prompt.
            limits: Of one program with its tests; default: the sandbox's.
            backend: As `Sandbox`.
            allow_weak: As `Sandbox`.
            sandbox: One to use, and not to close, rather than one of its own.

        Raises:
            InputError: There is no such style.
            SandboxError: Programs can't be run here as isolated as was asked.
        """
        if style not in ("chat", "base"):
            raise InputError(f"code grader: style={style!r}: 'chat' or 'base' is needed")
        self._style = style
        self._limits = limits
        self._owns_sandbox = sandbox is None
        self._sandbox = sandbox or Sandbox(limits, backend, allow_weak)
        self._results: dict[bytes, CheckResult] = {}
        info = self._sandbox.info
        self._source = f"sandbox {info.backend}, Python {info.python}"

    def check_item(self, item: Item) -> None:
        """As the class says.

        Raises:
            InputError: Otherwise.
        """
        kind = item.data.get("kind")
        if kind not in _TEXT_FIELDS:
            kinds = ", ".join(_TEXT_FIELDS)
            raise InputError(f"item {item.id!r}: field 'kind': {kind!r}: one of {kinds}")
        for field in _TEXT_FIELDS[kind]:
            value = item.data.get(field)
            if not isinstance(value, str) or not value.strip():
                raise InputError(f"item {item.id!r}: field {field!r}: a text is needed")
        self._check_limits(item)
        if kind == "contest":
            _contest_tests(item)
        elif kind == "humaneval":
            if definition(item.data["entry_point"], item.data["prompt"]) < 0:
                raise InputError(
                    f"item {item.id!r}: field 'prompt': it doesn't define "
                    f"{item.data['entry_point']!r}, which 'entry_point' names"
                )
        elif not item.data.get("test_list") or isinstance(item.data["test_list"], str):
            raise InputError(f"item {item.id!r}: field 'test_list': a list of tests is needed")

    def _judge(self, item: Item, answer: str) -> Verdict:
        return self._run(item, self._extract(item, answer))

    def grade_gold(self, item: Item) -> Verdict:
        """Judge the first reference.

        Raises:
            InputError: As `check_item`; or there is no reference.
        """
        self.check_item(item)
        if not item.references:
            raise InputError(f"item {item.id!r}: field 'references': a program is needed")
        before = item.data["prompt"] if item.data["kind"] == "humaneval" else ""
        return self._run(item, Extraction(before + item.references[0], "reference"))

    def close(self) -> None:
        """End the sandbox, if it is the grader's own."""
        if self._owns_sandbox:
            self._sandbox.close()

    def _extract(self, item: Item, text: str) -> Extraction:
        if item.data["kind"] == "humaneval":
            if self._style == "base":
                return continue_function(with_plain_lines(text), item.data["prompt"])
            return complete_function(text, item.data["prompt"], item.data["entry_point"])
        entry_point: str = item.data.get("entry_point", "")
        if self._style == "base":
            stops = tuple(item.data.get("stops") or MBPP_STOPS)
            found = continue_program(with_plain_lines(text), stops)
            if item.data["kind"] == "contest" and entry_point:
                return found._replace(code=finished(found.code, entry_point))
            return found
        return find_program(text, entry_point) if entry_point else find_script(text)

    def _run(self, item: Item, found: Extraction) -> Verdict:
        plus_test: str | None = item.data.get("plus_test")
        if found.rule == "empty":
            detail = "no program in the text"
            parts = {} if plus_test is None else {"base": False, "plus": False}
            return Verdict(False, 0.0, None, found.rule, self._source, detail, "failed", parts)
        # Half a surrogate pair has no place in a file.
        code = found.code.replace("\r\n", "\n").encode(errors="replace").decode()
        limits = self._limits_of(item)
        if item.data["kind"] == "contest":
            return self._verdict(found.rule, code, self._run_contest(item, code, limits), {})
        entry_point: str = item.data["entry_point"]
        if item.data["kind"] == "humaneval":
            # Some tests call a helper that the prompt defines.
            context = item.data["prompt"][: definition(entry_point, item.data["prompt"])]
            test = f"{item.data['test']}\n\ncheck({entry_point})\n"
        else:
            context = "\n".join(item.data.get("test_imports") or ())
            tests = [item.data.get("test_setup_code") or "", *item.data["test_list"]]
            test = "\n".join(tests).replace("\r\n", "\n") + "\n"
        result = self._check(code, test, entry_point, context, limits)
        parts: dict[str, bool] = {}
        if plus_test is not None:
            parts["base"] = result.passed
            if result.passed:
                more = f"{plus_test}\n\ncheck({entry_point})\n"
                result = self._check(code, more, entry_point, context, limits)
            parts["plus"] = result.passed
        return self._verdict(found.rule, code, result, parts)

    def _verdict(
        self, rule: str, code: str, result: CheckResult, parts: Mapping[str, bool]
    ) -> Verdict:
        return Verdict(
            correct=result.passed,
            score=float(result.passed),
            extracted=code,
            rule=rule,
            source=self._source,
            detail=result.detail,
            status=result.status,
            parts=parts,
        )

    def _check_limits(self, item: Item) -> None:
        limits = item.data.get("limits") or {}
        known = {field.name for field in dataclasses.fields(Limits)}
        if not isinstance(limits, Mapping) or not all(
            name in known and isinstance(value, int | float) and value > 0
            for name, value in cast("Mapping[Any, Any]", limits).items()
        ):
            raise InputError(
                f"item {item.id!r}: field 'limits': positive numbers by name, of "
                f"{', '.join(sorted(known))}"
            )

    def _limits_of(self, item: Item) -> Limits:
        own = self._limits or self._sandbox.limits
        least: Mapping[str, Any] = item.data.get("limits") or {}
        return dataclasses.replace(
            own, **{name: max(value, getattr(own, name)) for name, value in least.items()}
        )

    def _check(
        self, code: str, test: str, entry_point: str, context: str, limits: Limits
    ) -> CheckResult:
        return self._once(
            (code, test, entry_point, context, limits),
            lambda: self._sandbox.check(code, test, [entry_point], limits, context=context),
        )

    def _run_contest(self, item: Item, code: str, limits: Limits) -> CheckResult:
        function: str = item.data["entry_point"]
        tests = [item.data["public_tests"], item.data["private_tests"]]
        return self._once(
            (code, tests, function, limits),
            lambda: run_tests(self._sandbox, code, function, _contest_tests(item), limits),
        )

    def _once(self, job: tuple[Any, ...], run: Callable[[], CheckResult]) -> CheckResult:
        # Tests may have megabytes.
        key = hashlib.sha256(repr(job).encode()).digest()
        result = self._results.get(key)
        if result is None:
            result = run()
            if result.status not in ("timeout", "infra_error") and len(self._results) < REMEMBERED:
                self._results[key] = result
        return result


def complete_function(answer: str, prompt: str, entry_point: str) -> Extraction:
    """The function that a chat model's answer to HumanEval has, as a whole program.

    Args:
        answer: What the model wrote.
        prompt: Imports and helpers, then the signature with a docstring.
        entry_point: The function's name.
    """
    answer = with_plain_lines(answer)
    if not answer.strip():
        return Extraction(prompt, "empty")
    head = prompt[: max(0, definition(entry_point, prompt))]
    found = blocks(answer, entry_point)
    block = choose(found, entry_point)
    if block is not None:
        return Extraction(with_head(head, finished(block.code, entry_point)), _rule_of(block))
    if found:
        longest = max((block.code for block in found), key=len)
        return Extraction(prompt + _as_body(longest), "fence_body")
    code = unfenced(answer, entry_point)
    if code is not None:
        return Extraction(with_head(head, code), "repeated_signature")
    return Extraction(prompt + _MARGIN.split(_as_body(answer), maxsplit=1)[0], "bare_body")


def continue_function(completion: str, prompt: str) -> Extraction:
    """HumanEval's prompt with a base model's continuation, up to Codex's stop strings."""
    if not completion.strip():
        return Extraction(prompt, "empty")
    return Extraction(prompt + _cut(completion, CODEX_STOPS), "completion")


def find_program(answer: str, entry_point: str) -> Extraction:
    """The program that a chat model's answer to MBPP has."""
    answer = with_plain_lines(answer)
    if not answer.strip():
        return Extraction("", "empty")
    found = blocks(answer, entry_point)
    block = choose(found, entry_point)
    if block is not None:
        return Extraction(finished(block.code, entry_point), _rule_of(block))
    if found:
        return Extraction(max((block.code for block in found), key=len), "fence_other")
    code = unfenced(answer, entry_point)
    if code is not None:
        return Extraction(code, "repeated_signature")
    return Extraction(answer, "whole")


def find_script(answer: str) -> Extraction:
    """The program, of which no name is known, that a chat model's answer has."""
    answer = with_plain_lines(answer)
    if not answer.strip():
        return Extraction("", "empty")
    found = blocks(answer)
    if not found:
        return Extraction(answer, "whole")
    block = max(
        enumerate(found),
        key=lambda pair: (
            calls_something(pair[1].code) and not pair[1].counterexample,
            pair[1].closed,
            pair[0],
        ),
    )[1]
    return Extraction(block.code, _rule_of(block))


def continue_program(completion: str, stops: tuple[str, ...] = MBPP_STOPS) -> Extraction:
    """A base model's continuation of MBPP's prompt, up to `[DONE]` or other stop strings."""
    code = _cut(completion, stops)
    return Extraction(code, "program" if code.strip() else "empty")


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate `1 - C(n-c, k) / C(n, k)` of one problem's pass@k (Chen et al., eq. 1).

    Args:
        n: Samples.
        c: How many of them are correct.
        k: At least 1, at most `n`.

    Raises:
        InputError: Not `1 <= k <= n` or not `0 <= c <= n`.
    """
    if not 1 <= k <= n:
        raise InputError(f"pass@{k} of {n} samples: k must be from 1 to the number of samples")
    if not 0 <= c <= n:
        raise InputError(f"{c} correct of {n} samples")
    if n - c < k:
        return 1.0
    wrong = 1.0
    for i in range(n - c + 1, n + 1):
        wrong *= 1 - k / i
    return 1 - wrong


def _contest_tests(item: Item) -> list[ContestTest]:
    """The item's tests, the public ones first.

    Raises:
        InputError: There are none, or a field isn't what `CodeGrader` says.
    """
    function = item.data.get("entry_point")
    if not isinstance(function, str) or not (function.isidentifier() or function == ""):
        raise InputError(f"item {item.id!r}: field 'entry_point': {function!r}: a function's name")
    found: list[ContestTest] = []
    for field in _TEXT_FIELDS["contest"]:
        try:
            found += decode_tests(item.data[field], bool(function))
        except ValueError as error:
            raise InputError(f"item {item.id!r}: field {field!r}: {error}") from None
    if not found:
        raise InputError(f"item {item.id!r}: it has no tests")
    return found


def _rule_of(block: Block) -> str:
    return "fence" if block.opened else "closing_fence"


def _as_body(text: str) -> str:
    """A function's body with the indentation that answers tend to lose, on the first line or all.

    All have lost it if another line is at the margin too, or the first opens a block and the next
    is indented once only.
    """
    body = "\n".join(_with_spaces(line) for line in text.strip("\n").split("\n"))
    first, *others = [line for line in body.splitlines() if line.strip()]
    if first.startswith((" ", "\t")):
        return body
    indents = [len(line) - len(line.lstrip()) for line in others]
    opens = first.rstrip().endswith(":")
    if any(indent == 0 for indent in indents) or (opens and indents and indents[0] <= 4):
        return "".join("    " + line for line in body.splitlines(keepends=True))
    return "    " + body


def _with_spaces(line: str) -> str:
    """A line that tabs indent, as the prompt's lines are."""
    code = line.lstrip(" \t")
    return line[: len(line) - len(code)].expandtabs(4) + code


def _cut(text: str, stops: tuple[str, ...]) -> str:
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return text[: min(found, default=len(text))]
