"""Answers that fit a schema: asked for, found in the text, repaired a little, else asked for again.

The schema goes into the prompt, since not every teacher can be held to one while it generates; and
into the request, for those that can.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

import json_repair
from pydantic import BaseModel, ValidationError

from ioa_jax.errors import InputError, first_fault
from ioa_jax.json_text import parse_written_json
from ioa_jax.streams import stream
from ioa_jax.teachers.base import ChatRequest, Completion, Sampling, Teacher, without_answer

Model = TypeVar("Model", bound=BaseModel)

# Repair takes time with a text's length times the quotation marks and brackets in it: a text that
# has more than these is not repaired, and of one with more brackets the later ones are not tried.
# All are beyond what a teacher writes that means to answer.
MAX_REPAIRED_CHARACTERS = 20_000
MAX_REPAIRED_SIGNS = 2_000
MAX_STARTS = 200


@dataclasses.dataclass(frozen=True)
class Accepted(Generic[Model]):
    """An answer that fits.

    Attributes:
        value: As the schema parses it.
        completion: The whole answer.
        attempts: Calls that it took.
        repaired: The text was no JSON and was repaired.
    """

    value: Model
    completion: Completion
    attempts: int
    repaired: bool


@dataclasses.dataclass(frozen=True)
class Reject:
    """An answer that doesn't fit.

    Attributes:
        request: Index of the request.
        attempt: From 1.
        completion: The whole answer, with its raw text.
        kind: `length` (cut off), `filtered`, `no_json`, `schema` or `check`.
        reason: In words.
    """

    request: int
    attempt: int
    completion: Completion
    kind: str
    reason: str


@dataclasses.dataclass(frozen=True)
class StructuredResult(Generic[Model]):
    """What became of a list of requests.

    Attributes:
        accepted: One a request, in input order; None where every attempt was rejected.
        rejects: Every rejected answer, also of requests that a later attempt answered.
    """

    accepted: tuple[Accepted[Model] | None, ...]
    rejects: tuple[Reject, ...]


@dataclasses.dataclass(frozen=True)
class Rules:
    """How answers are asked for and read.

    Attributes:
        max_retries: Further attempts of a rejected request, at least 0.
        repair: Try to repair text that is no JSON: quotes, commas, comments, a bracket too few. An
            answer that was cut at the token limit is never repaired: it would lack its end.
        describe: Append the schema, and to a further attempt the reason. Off, requests are asked
            as they stand, for a small teacher whose prompts tell the form themselves.
    """

    max_retries: int = 2
    repair: bool = True
    describe: bool = True

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise InputError(f"max_retries={self.max_retries}: at least 0")


class Unfit(Exception):
    """An answer is rejected.

    Attributes:
        kind: As of `Reject`.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def generate_structured(
    teacher: Teacher,
    requests: Sequence[ChatRequest],
    sampling: Sampling,
    schema: type[Model],
    rules: Rules | None = None,
    check: Callable[[int, Model], str | None] | None = None,
) -> StructuredResult[Model]:
    """Ask for JSON that fits a schema.

    The schema is appended to each request's last message. A rejected answer is asked for again with
    another seed and the reason in the prompt. All requests of one attempt go to the teacher
    together.

    Args:
        teacher: Behind a ledger, if its calls should be kept.
        requests: What to ask.
        sampling: Of every attempt.
        schema: A pydantic model; a `RootModel` for an array.
        rules: Attempts and reading; None is the default.
        check: Called with (request index, value); what is wrong with a value that fits the schema,
            or None.

    Raises:
        TeacherError, BudgetExceeded: As of `teacher.generate`.
    """
    rules = rules or Rules()
    instruction = schema_instruction(schema) if rules.describe else None
    requests = [
        dataclasses.replace(request, answer_schema=schema.model_json_schema())
        for request in requests
    ]
    accepted: list[Accepted[Model] | None] = [None] * len(requests)
    rejects: list[Reject] = []
    reasons: dict[int, str] = dict.fromkeys(range(len(requests)), "")
    for attempt in range(1, rules.max_retries + 2):
        if not reasons:
            break
        asked = list(reasons)
        completions = teacher.generate(
            [_attempt(requests[i], attempt, instruction, reasons[i]) for i in asked], sampling
        )
        reasons = {}
        for index, completion in zip(asked, completions, strict=True):
            try:
                value, repaired = parse_completion(completion, schema, rules.repair)
                complaint = check(index, value) if check is not None else None
                if complaint is not None:
                    raise Unfit("check", complaint)
            except Unfit as unfit:
                reasons[index] = str(unfit)
                rejects.append(Reject(index, attempt, completion, unfit.kind, str(unfit)))
            else:
                accepted[index] = Accepted(value, completion, attempt, repaired)
    return StructuredResult(tuple(accepted), tuple(rejects))


def schema_instruction(schema: type[BaseModel]) -> str:
    """What tells a teacher to answer in JSON that fits."""
    text = json.dumps(schema.model_json_schema(), ensure_ascii=False, separators=(",", ":"))
    return f"Answer with JSON alone, without any other text. It has to fit this schema:\n{text}"


def _attempt(
    request: ChatRequest, attempt: int, instruction: str | None, reason: str
) -> ChatRequest:
    """A request that tells the schema, and from the second attempt on what was wrong."""
    seed = request.seed
    if attempt > 1:
        seed = int(stream(request.seed, "structured", attempt).integers(2**31))
    if instruction is None:
        return dataclasses.replace(request, seed=seed)
    parts = [request.messages[-1]["content"], instruction]
    if attempt > 1:
        parts.append(f"An earlier answer was rejected: {reason}")
    last = {**request.messages[-1], "content": "\n\n".join(parts)}
    return dataclasses.replace(request, messages=(*request.messages[:-1], last), seed=seed)


def parse_completion(
    completion: Completion, schema: type[Model], repair: bool = True
) -> tuple[Model, bool]:
    """The value in an answer, and whether its text was repaired.

    Args:
        completion: The answer.
        schema: As for `generate_structured`.
        repair: As of `Rules`.

    Raises:
        Unfit: No value in it fits.
    """
    answer = answer_text(completion)
    try:
        return _parse(answer, schema, repair, completion.finish_reason == "stop")
    except Unfit as unfit:
        if completion.finish_reason == "stop":
            raise
        raise cut_off(completion, str(unfit)) from None


def answer_text(completion: Completion) -> str:
    """What a teacher answered, without what it thought.

    Every reader of answers begins here. An answer that was cut off has a text, which may still hold
    what is wanted.

    Raises:
        Unfit: There is no answer: it was filtered (`filtered`), or a thought never ended or used
            all tokens (`length`).
    """
    if completion.finish_reason == "filtered":
        raise Unfit("filtered", "the teacher's server refused to answer")
    answer = completion.answer
    if answer is None and completion.finish_reason == "stop":
        raise Unfit("length", "a thought that never ended, and no answer")
    if not (answer or "").strip() and completion.finish_reason == "length":
        raise Unfit("length", without_answer(completion))
    if answer is None:
        raise cut_off(completion, "a thought that never ended")
    return answer


def whole_answer(completion: Completion) -> str:
    """As `answer_text`, of an answer that is of no use unless it is whole.

    Raises:
        Unfit: Also if it was cut off.
    """
    answer = answer_text(completion)
    if completion.finish_reason != "stop":
        raise cut_off(completion)
    return answer


def cut_off(completion: Completion, fault: str = "") -> Unfit:
    """Why an answer without a known end is rejected.

    Args:
        completion: Its finish reason isn't `stop`.
        fault: What it lacks.
    """
    end = f": {fault}" if fault else ""
    if completion.finish_reason == "unknown":
        return Unfit("length", f"the server doesn't say that the answer is whole{end}")
    return Unfit(
        "length",
        f"cut off after {completion.completion_tokens} tokens{end}; if the answer needs more, "
        "raise max_tokens",
    )


@dataclasses.dataclass(frozen=True)
class _Piece:
    """A JSON value in a text.

    Attributes:
        value: The value.
        start: Where it starts.
        end: Where it ends.
    """

    value: Any
    start: int
    end: int


def _parse(text: str, schema: type[Model], repair: bool, whole: bool) -> tuple[Model, bool]:
    """What the JSON in a text says, else the repaired text where that fits.

    Of several values that fit a schema of one object, the last counts: it is the revised one. An
    array may come in pieces: arrays, or objects with an array as their only value, one after
    another without words between; or else objects, whatever stands between them.
    """
    escaped = escape_latex(text)
    if escaped != text and not repair:
        raise Unfit(
            "no_json", "LaTeX with single backslashes, which JSON takes for other characters"
        )
    pieces = list(_pieces(escaped))
    misfits: list[tuple[int, str]] = []
    for value in _candidates(escaped, pieces, _is_array(schema)):
        try:
            return schema.model_validate(value), escaped != text
        except ValidationError as error:
            misfits.append((len(json.dumps(value)), first_fault(error, "answer")))
    # Also with misfits: where the whole is no JSON, they are parts of it.
    value = _repaired(escaped) if repair and whole else None
    if value is not None:
        try:
            return schema.model_validate(value), True
        except ValidationError as error:
            rest = len(escaped) - sum(piece.end - piece.start for piece in pieces)
            misfits.append((rest, first_fault(error, "answer")))
    if misfits:
        # What was meant as the answer is most likely the longest.
        raise Unfit("schema", max(misfits, key=lambda misfit: misfit[0])[1])
    raise Unfit("no_json", "no JSON object or array in the answer")


@functools.cache
def _is_array(schema: type[BaseModel]) -> bool:
    return schema.model_json_schema().get("type") == "array"


def _candidates(text: str, pieces: Sequence[_Piece], array: bool) -> Iterator[Any]:
    """Values that may be meant, likeliest first."""
    if not array:
        for piece in reversed(pieces):
            yield piece.value
        for piece in reversed(pieces):
            inner = _unwrapped(piece.value)
            if isinstance(inner, dict):
                yield inner
        return
    runs: list[list[_Piece]] = []
    for piece in pieces:
        if not runs or _WORD.search(_FENCE.sub("", text[runs[-1][-1].end : piece.start])):
            runs.append([])
        runs[-1].append(piece)
    lists = [[_unwrapped(piece.value) for piece in run] for run in runs]
    arrays = [run for run in lists if any(isinstance(value, list) and value for value in run)]
    objects = [value for run in lists for value in run if isinstance(value, dict) and value]
    for run in reversed(arrays):
        parts = [value if isinstance(value, list) else [value] for value in run if value]
        yield list(itertools.chain(*parts))
    if objects:
        yield objects
        # Some may be no more than an example of the form.
        for value in reversed(objects):
            yield [value]
    for piece in pieces:
        yield piece.value


_WORD = re.compile(r"\w")
_FENCE = re.compile(r"```\w*")


def _unwrapped(value: Any) -> Any:
    """The array of objects that an object holds beside plain values, or the one object in it."""
    if not isinstance(value, dict):
        return value
    parts = list(cast("dict[str, Any]", value).values())
    inner = [part for part in parts if isinstance(part, dict | list)]
    if len(inner) != 1:
        return value
    (only,) = inner
    if isinstance(only, dict):
        return only if len(parts) == 1 else value
    listed = cast("list[Any]", only)
    return listed if listed and all(isinstance(part, dict) for part in listed) else value


def _pieces(text: str) -> Iterator[_Piece]:
    """The objects and arrays in a text, outermost ones alone."""
    position = 0
    for _ in range(MAX_STARTS):
        start = _next_bracket(text, position)
        if start is None:
            return
        try:
            value, end = parse_written_json(text, start)
        except ValueError:
            position = start + 1
        else:
            yield _Piece(value, start, end)
            position = end


# Commands of LaTeX whose first letter makes an escape of JSON with the backslash, where that and
# the rest are no likely text: "\times" is no tab before "imes". Every word behind \b and \f is one,
# since nobody writes those characters.
_LATEX = re.compile(
    r"""[bf]\w+|text\{|text(?:bf|it|rm|tt|sf|sc|up|normal|style)
    |tanh|tau|tbinom|tfrac|therefore|theta|thickapprox|thicksim|thinspace|tilde|times|tiny
    |triangle(?:left|right|q)?|twoheadrightarrow
    |raise(?:box)?|rangle|ratio|r(?:brace|brack|ceil|floor|group|vert|Vert)|renewcommand|rho|right
    |right(?:arrow|harpoonup|leftharpoons|rightarrows)|rtimes|rule
    |nabla|natural|ncong|n(?:e|w|r|R|l|L)(?:ight|eft)?arrow|new(?:command|line)|n[gl]eq|ngtr
    |nolimits|nonumber|normalsize|not|notag|notin|nparallel|nprec|nsu[bp]seteq|nsucc
    |(?!u[0-9a-fA-F]{4})[^\W\d_bfnrt]\w+|[^\W\d_bfnrt]|[^a-zA-Z"\\/]""",
    re.VERBOSE,
)
# The same, where the rest may as well be text: LaTeX only beside other LaTeX.
_SHORT_LATEX = re.compile("tan|to|top|tt|rm|ne|neg|neq|nu")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|text\{|[A-Za-z]+|.)", re.DOTALL)


def escape_latex(text: str) -> str:
    r"""JSON in which the backslashes of LaTeX are doubled, as JSON wants them.

    Where they are single, `\frac`, `\times`, `\boxed` or `\theta` are escapes of JSON, and turn
    into control characters without an error; most others are errors. What may as well be meant, as
    a line end before a word, stays as it is.

    Args:
        text: Of an answer. What stands before the first bracket and behind the last is no JSON.
    """
    start, end = _next_bracket(text, 0), max(text.rfind("}"), text.rfind("]"))
    if start is None:
        return text
    end = end + 1 if end > start else len(text)
    inside = text[start:end]
    if not any(_LATEX.fullmatch(match[1]) for match in _ESCAPE.finditer(inside)):
        return text

    def double(match: re.Match[str]) -> str:
        name = match[1]
        latex = _LATEX.fullmatch(name) or _SHORT_LATEX.fullmatch(name)
        return "\\" + match[0] if latex else match[0]

    return text[:start] + _ESCAPE.sub(double, inside) + text[end:]


def _next_bracket(text: str, position: int) -> int | None:
    found = [at for at in (text.find(bracket, position) for bracket in "{[") if at >= 0]
    return min(found, default=None)


def _repaired(text: str) -> dict[str, Any] | list[Any] | None:
    """What the text from its first bracket on was meant to be; None if that can't be told."""
    start = _next_bracket(text, 0)
    if start is None or len(text) > MAX_REPAIRED_CHARACTERS:
        return None
    if sum(map(text.count, "{[\"'")) > MAX_REPAIRED_SIGNS:
        return None
    end = max(text.rfind("}"), text.rfind("]")) + 1
    try:
        repaired = json_repair.loads(text[start:end] if end > start else text[start:])
        value, _ = parse_written_json(json.dumps(repaired))
    except Exception:
        # Whatever the library makes of a teacher's text, the text is at fault.
        return None
    return value if isinstance(value, dict | list) else None
