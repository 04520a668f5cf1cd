"""What servers answer in OpenAI's protocol, as far as it is read.

Chat completions, and text completions that echo their prompt with log-probabilities: as OpenAI
defined them, with the field that vLLM adds, and with what else servers are known to do with them.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import json
import math
import re
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ioa_jax.errors import first_fault
from ioa_jax.json_text import parse_served_json
from ioa_jax.teachers.base import Completion, FinishReason
from ioa_jax.teachers.pacing import retry_after_seconds

LONGEST_TOKEN = 128  # bytes: a run of spaces
# More than any call has, and few enough to be multiplied by a price.
_MOST_TOKENS = 1 << 53
_SHOWN_BYTES = 10_000  # of what a server says of an error
_ERROR_STATUS = re.compile("[45][0-9]{2}")
# Tokens beyond the limit that an answer may have all the same: llama.cpp's Python server goes on
# until a character is whole, and UTF-8 has four bytes at most.
MOST_BEYOND_LIMIT = 3
# Of a text that ends inside a character, some servers (llama.cpp's, by Python's words or those of
# its own JSON library) can't make an answer.
_BROKEN_TEXT = re.compile(
    r"codec can't decode byte|(?:invalid|incomplete|ill-formed) UTF-?8|type_error\.316",
    re.IGNORECASE,
)
# Timeouts, conflicts and rate limits pass; servers' own errors (5xx) do too.
_PASSING_STATUS = (408, 409, 425, 429)
# Whatever the status: another attempt would be refused for the same reason.
_LASTING = re.compile(
    r"invalid_request|not_supported|unsupported|authentication|permission|not_found"
    r"|insufficient_quota|billing|invalid_api_key|context_length|content_policy",
    re.IGNORECASE,
)

_FORM = re.compile("response_format|json_schema")

# How servers name the end of an answer, in lower case. What stands in none of these isn't known to
# be a whole answer.
_WHOLE = frozenset(
    {
        *("stop", "eos", "eos_token", "eos_token_found", "stop_sequence", "stop_token"),
        *("stop_str", "end_turn", "end_of_turn", "complete", "completed", "finished"),
    }
)
_CUT = frozenset(
    {
        *("length", "limit", "max_tokens", "max_new_tokens", "max_output_tokens", "max_length"),
        *("model_length", "context_length", "token_limit", "max_completion_tokens"),
        *("model_context_window_exceeded", "context_window_exceeded", "max_tokens_reached"),
    }
)
_FILTERED = frozenset(
    {
        *("content_filter", "content_filtered", "safety", "refusal", "recitation", "blocklist"),
        *("prohibited_content", "spii", "sensitive", "guardrail_intervened", "error_toxic"),
    }
)
_FAILED = frozenset(
    {
        *("error", "abort", "aborted", "cancel", "cancelled", "canceled", "timeout", "failed"),
        *("interrupted", "network_error", "insufficient_system_resource"),
    }
)


class Fault(Exception):
    """An answer that can't be used.

    Attributes:
        passing: Whether another attempt may bring one that can.
        wait: Seconds that the server asks to wait for before that.
        status: Of HTTP, or what a body calls its status; None where there is none.
        filtered: The server's filter refused the request.
        broken_text: The server generated a text that isn't UTF-8, and failed to send it.
        reason: What is wrong, in words.
    """

    def __init__(
        self,
        reason: str,
        passing: bool,
        wait: float = 0.0,
        status: int | None = None,
        filtered: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.passing = passing
        self.wait = wait
        self.status = status
        self.filtered = filtered
        self.broken_text = _BROKEN_TEXT.search(reason) is not None


class _Answer(BaseModel):
    """Of bodies, what is read; servers add fields of their own."""

    model_config = ConfigDict(extra="ignore")


class _Usage(_Answer):
    # What is no count doesn't spoil the answer beside it.
    prompt_tokens: Any = None
    completion_tokens: Any = None


class _Message(_Answer):
    # A text, or a list of parts.
    content: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None


class _ChatLogprob(_Answer):
    logprob: float


class _ChatLogprobs(_Answer):
    content: list[_ChatLogprob] | None = None


class _ChatChoice(_Answer):
    message: _Message
    finish_reason: Any = None
    logprobs: Any = None


class ChatBody(_Answer):
    """Of a chat completion."""

    choices: list[_ChatChoice] = Field(min_length=1)
    usage: Any = None
    model: Any = None
    system_fingerprint: Any = None


class _EchoLogprobs(_Answer):
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]


class _EchoPlaces(_Answer):
    tokens: list[str]
    text_offset: list[int]


class _PromptLogprob(_Answer):
    logprob: float
    rank: int


class _PromptLogprobs(_Answer):
    # vLLM's own: of each prompt token, by id, the asked number of likeliest tokens and itself.
    prompt_logprobs: list[dict[str, _PromptLogprob] | None]


class _TextChoice(_Answer):
    logprobs: Any = None
    prompt_logprobs: Any = None


class TextBody(_Answer):
    """Of a text completion."""

    choices: list[_TextChoice] = Field(min_length=1)
    usage: Any = None


Body = ChatBody | TextBody


def read_body(content: bytes, body_type: type[Any]) -> Any:
    """A body of status 200.

    Raises:
        Fault: It is no JSON, another shape, or an error all the same.
    """
    try:
        value = parse_served_json(content.decode(errors="replace"))
    except ValueError as error:
        raise Fault(f"broken answer: not JSON: {error}", passing=True) from None
    if isinstance(value, dict) and not cast("dict[str, Any]", value).get("choices"):
        said = words(cast("dict[str, Any]", value))
        if said:
            status, kind = _status(cast("dict[str, Any]", value)), _kind(value)
            passing = _may_pass(status) and _LASTING.search(kind) is None
            where = "" if status is None else f" ({status})"
            filtered = kind.lower() in _FILTERED
            raise Fault(f"the server says{where}: {said}", passing, 0.0, status, filtered)
    try:
        return body_type.model_validate(value)
    except ValidationError as error:
        # A server that answers without an answer has a bad moment; one of another shape has not.
        passing = not isinstance(value, dict) or not cast("dict[str, Any]", value).get("choices")
        raise Fault(f"broken answer: {first_fault(error, 'body')}", passing) from None


def words(body: Any) -> str:
    """What an error's body says: its message wherever it stands, or else all of it; "" for none."""
    if isinstance(body, str):
        return body.strip()
    if isinstance(body, list):
        # FastAPI's, of what is wrong with a request.
        return "; ".join(filter(None, (words(one) for one in cast("list[Any]", body))))
    if not isinstance(body, dict):
        return ""
    fields = cast("dict[str, Any]", body)
    for name in ("error", "detail", "errors", "message", "msg", "error_message"):
        said = words(fields.get(name))
        if said:
            place = fields.get("loc")
            where = ".".join(map(str, cast("list[Any]", place))) if isinstance(place, list) else ""
            return f"{where}: {said}" if where else said
    return json.dumps(fields) if "error" in fields else ""


def _status(body: dict[str, Any]) -> int | None:
    """The status that an error in a body names."""
    inner = body.get("error")
    for place in (inner, body):
        if isinstance(place, dict):
            for name in ("code", "status", "status_code", "http_code"):
                value = cast("dict[str, Any]", place).get(name)
                if _ERROR_STATUS.fullmatch(str(value)):
                    return int(str(value))
    return None


def _kind(body: Any) -> str:
    """The code of an error in a body, or else its type, where they are words."""
    inner = cast("dict[str, Any]", body).get("error") if isinstance(body, dict) else None
    for place in (inner, body):
        if isinstance(place, dict):
            for name in ("code", "type"):
                value = cast("dict[str, Any]", place).get(name)
                if isinstance(value, str) and not value.isdigit():
                    return value
    return ""


def _may_pass(status: int | None) -> bool:
    return status is None or status in _PASSING_STATUS or (status >= 500 and status != 501)


def http_fault(status: int, content: bytes, headers: Mapping[str, str]) -> Fault:
    """What a status other than 200 means.

    Args:
        status: Of HTTP.
        content: The body.
        headers: By lower-case name.
    """
    if 300 <= status < 400:
        return Fault(
            f"status {status}: the server sends calls on to {headers.get('location', '')!r:.200}, "
            "where prompts and key aren't sent by themselves; if it is right, name that address",
            passing=False,
            status=status,
        )
    text = content.decode(errors="replace")
    try:
        body = parse_served_json(text)
    except ValueError:
        body = None
    plain = re.sub(r"<[^<>]*+>", " ", text[:_SHOWN_BYTES])
    said = words(body)[:_SHOWN_BYTES] or " ".join(plain.split())[:300] or "no more"
    kind = _kind(body)
    # Of rate limits only a quota lasts.
    last = re.compile("quota|billing") if status in _PASSING_STATUS else _LASTING
    # Some servers fail at the form that is asked for, instead of refusing it.
    of_form = status not in _PASSING_STATUS and _FORM.search(said) is not None
    passing = _may_pass(status) and last.search(kind) is None and not of_form
    filtered = kind.lower() in _FILTERED
    return Fault(
        f"status {status}: {said}", passing, retry_after_seconds(headers), status, filtered
    )


@dataclasses.dataclass(frozen=True)
class ReadCompletion:
    """An answer, and what the server left out of it.

    Attributes:
        completion: The answer; tokens that the server doesn't tell are counted at their bounds.
        bounded: They were.
    """

    completion: Completion
    bounded: bool


def read_completion(
    body: ChatBody, logprobs: bool, prompt_bound: int, max_tokens: int
) -> ReadCompletion:
    """The answer in a body.

    Args:
        body: The body.
        logprobs: They were asked for.
        prompt_bound: Tokens that the prompt has at most.
        max_tokens: Tokens that the answer has at most.

    Raises:
        Fault: The server says that the answer failed, or its content is no text.
    """
    choice = body.choices[0]
    text, thought, refused = _content(choice.message)
    read, generated = _counts(body.usage)
    reason = _finish(choice.finish_reason, generated, max_tokens)
    if refused or reason == "filtered":
        reason, text = "filtered", text or refused or ""
    names = [
        _clean(name)
        for name in (body.model, body.system_fingerprint)
        if isinstance(name, str) and name
    ]
    if generated is not None:
        # A server that counts too few would have the budget last forever.
        generated = max(generated, _fewest_tokens(text + thought))
    completion = Completion(
        text,
        prompt_bound if read is None else read,
        max_tokens if generated is None else generated,
        reason,
        _chat_logprobs(choice.logprobs) if logprobs else None,
        " ".join(names) or None,
        thought or None,
    )
    return ReadCompletion(completion, read is None or generated is None)


def _counts(given: Any) -> tuple[int | None, int | None]:
    """Tokens of prompt and answer as a server counts them; None for what is no count."""
    try:
        usage = _Usage.model_validate(given)
    except ValidationError:
        return None, None
    return _count(usage.prompt_tokens), _count(usage.completion_tokens)


def _count(value: Any) -> int | None:
    known = isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST_TOKENS
    return value if known else None


def _fewest_tokens(text: str) -> int:
    """Fewer no text of this length has, by the longest tokens of today's vocabularies."""
    return -(-len(text.encode()) // LONGEST_TOKEN)


def _finish(named: Any, generated: int | None, max_tokens: int) -> FinishReason:
    """What a server's word for the end of an answer means."""
    name = named.strip().lower() if isinstance(named, str) else ""
    name = name.removeprefix("finish_reason_").replace("-", "_")
    if name in _FAILED:
        raise Fault(f"the server broke the answer off (finish_reason {named!r})", passing=True)
    if name in _FILTERED:
        return "filtered"
    if name in _CUT:
        return "length"
    if name not in _WHOLE:
        return "unknown"
    # Some servers stop at the limit, or a little beyond it, and call it that.
    return "length" if generated is not None and generated >= max_tokens else "stop"


def _content(message: _Message) -> tuple[str, str, str]:
    """Text, thoughts and refusal of a message: each joined of its parts."""
    text, thought, refusal = _joined(message.content)
    for field in (message.reasoning_content, message.reasoning):
        if isinstance(field, str | list | dict) and not thought:
            thought = "".join(_joined(field)[:2])
    if isinstance(message.refusal, str):
        refusal = refusal or _clean(message.refusal)
    return text, thought, refusal


def _joined(content: Any) -> tuple[str, str, str]:
    if content is None:
        return "", "", ""
    if isinstance(content, str):
        return _clean(content), "", ""
    text, thought, refusal = "", "", ""
    for part in cast("list[Any]", content) if isinstance(content, list) else [content]:
        if isinstance(part, str):
            text += _clean(part)
            continue
        fields = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
        kind = fields.get("type", "text")
        if kind in ("thinking", "reasoning"):
            thought += _joined(fields.get(kind) or fields.get("text"))[0]
        elif kind == "refusal":
            refusal += _clean(str(fields.get("refusal") or ""))
        elif kind in ("text", "output_text") and isinstance(fields.get("text"), str):
            text += _clean(fields["text"])
        else:
            raise Fault(f"the answer's content has a part that is no text: {part!r:.80}", False)
    return text, thought, refusal


def _clean(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _chat_logprobs(given: Any) -> tuple[float, ...] | None:
    """None where they aren't there, in a shape that isn't known, or no numbers."""
    try:
        values = _ChatLogprobs.model_validate(given).content
    except ValidationError:
        return None
    if values is None or not all(math.isfinite(value.logprob) for value in values):
        return None
    return tuple(value.logprob for value in values)


def prompt_tokens(body: TextBody) -> int | None:
    """Tokens of a text completion's prompt, where the server says how many."""
    return _counts(body.usage)[0]


def prompt_span(choice: _TextChoice, text: str, end: int) -> tuple[int, int] | None:
    """Tokens of an echoed text that end within its first `end` characters, and all of its tokens.

    None where the server doesn't say where tokens stand, or where they don't make up the text, as
    with tokens that are parts of a character.
    """
    try:
        echo = _EchoPlaces.model_validate(choice.logprobs)
    except ValidationError:
        return None
    ends = list(itertools.accumulate(map(len, echo.tokens)))
    count = bisect.bisect_left(ends, len(text)) + 1
    starts = [0, *ends[: count - 1]]
    if "".join(echo.tokens[:count]) != text or echo.text_offset[:count] != starts:
        return None
    return bisect.bisect_right(ends, end), count


def read_prompt_logprobs(choice: _TextChoice, count: int) -> list[tuple[float, bool]] | None:
    """(log-probability, most likely) of each prompt token; None if they aren't given.

    The first token, which nothing comes before, has 0. Not given are also those of an unknown
    shape, such as of generated tokens alone, and those that are no finite numbers.
    """
    tokens: list[tuple[float, bool]] = [(0.0, True)]
    if choice.prompt_logprobs is not None:
        try:
            given = _PromptLogprobs.model_validate({"prompt_logprobs": choice.prompt_logprobs})
        except ValidationError:
            return None
        for entry in given.prompt_logprobs[1:count]:
            # With more than the one that was asked for, there's no telling which is the prompt's.
            if entry is None or len(entry) != 1:
                return None
            (value,) = entry.values()
            tokens.append((value.logprob, value.rank == 1))
    else:
        try:
            echo = _EchoLogprobs.model_validate(choice.logprobs)
        except ValidationError:
            return None
        for logprob, top in zip(
            echo.token_logprobs[1:count], echo.top_logprobs[1:count], strict=False
        ):
            if logprob is None or not top:
                return None
            tokens.append((logprob, logprob >= max(top.values())))
    if len(tokens) != count or not all(math.isfinite(logprob) for logprob, _ in tokens):
        return None
    return tokens
