"""What a reasoning model thinks, cut off from what it answers.

The markup is that of the models' own chat templates: `<think>...</think>` (Qwen3, DeepSeek-R1 and
their like) and its relatives, and the channels of gpt-oss's "harmony" format. What stands in a
thought is no answer, whatever it looks like: a draft that is boxed there, a function that is tried
and given up.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Opening and closing tag of each way to mark a thought.
_PAIRS = (
    *(
        (f"<{name}>", f"</{name}>")
        for name in ("think", "thinking", "thought", "reasoning", "seed:think")
    ),
    ("[THINK]", "[/THINK]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
_CLOSING = {closing: opening for opening, closing in _PAIRS}
_TAG = re.compile("|".join(re.escape(tag) for pair in _PAIRS for tag in pair))
_QUOTES = ("`", '"', "'")

_CHANNEL_START = "<|channel|>"
# Possessive, so that markup that isn't whole takes no longer.
_CHANNEL = re.compile(r"<\|channel\|>\s*+(\w*+)[^<]*+(?:<\|constrain\|>[^<]*+)?<\|message\|>")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
# The same where the decoder left the special tokens out.
_BARE_CHANNELS = re.compile(r"\s*analysis(.*)assistantfinal(.*)", re.DOTALL)


class Cut(NamedTuple):
    """A response without its thoughts, and these.

    Attributes:
        answer: What is left; None if a thought never ended, so that there is no answer. A response
            without thoughts is the answer as it is.
        thought: What was cut, several thoughts one after another; empty if there are none.
    """

    answer: str | None
    thought: str


def cut_thoughts(text: str, inside: bool = False) -> Cut:
    """Take a response apart.

    A closing tag without an opening one means that the template wrote the opening one: everything
    before it is thought. Outside of a thought, a tag between quotation marks or backticks is only
    talked about. Of channels, the last `final` one is the answer. Takes time in proportion to the
    length.

    Args:
        text: What a model wrote.
        inside: Whether the prompt ended inside a thought, as templates have it that write the
            opening tag themselves. A text that never leaves it is a thought without end; without
            being told, nobody can tell it from an answer.
    """
    if _CHANNEL.search(text):
        return _cut_channels(text)
    bare = _BARE_CHANNELS.fullmatch(text)
    if bare:
        return Cut(bare[2], bare[1])
    return _cut_tags(text, inside)


def opened_thought(prompt: str) -> str:
    """The tag by which a prompt ends inside a thought; empty if it doesn't.

    Args:
        prompt: Up to where the model goes on, such as a rendered chat.
    """
    end = prompt.rstrip()
    return next((opening for opening, _ in _PAIRS if end.endswith(opening)), "")


def closing_tag(text: str) -> str:
    """The tag that ends the thought that a text opens first.

    Raises:
        ValueError: It opens none.
    """
    found = [tag[0] for tag in _TAG.finditer(text) if tag[0] not in _CLOSING]
    if not found:
        raise ValueError(f"{text!r} opens no thought")
    return next(closing for closing, opening in _CLOSING.items() if opening == found[0])


def marks_thoughts(template: str) -> bool:
    """Whether a chat template has the markup of thoughts, so that its model may think first.

    A template that only takes earlier turns' thoughts away has it too.
    """
    return bool(_TAG.search(template) or _CHANNEL_START in template)


def _cut_channels(text: str) -> Cut:
    answer: str | None = None
    thoughts: list[str] = []
    for match in _CHANNEL.finditer(text):
        end = _CHANNEL_END.search(text, match.end())
        body = text[match.end() : end.start() if end else len(text)]
        if match[1] == "final":
            answer = body
        else:
            thoughts.append(body)
    return Cut(answer, "\n".join(thoughts))


def _cut_tags(text: str, inside: bool) -> Cut:
    kept: list[str] = []
    thoughts: list[str] = []
    # The opening tag of the thought that is being read; "" if the template wrote it.
    opening: str | None = "" if inside else None
    begin = 0
    for match in _TAG.finditer(text):
        if opening is None and _is_quoted(text, match):
            continue
        tag, piece = match[0], text[begin : match.start()]
        if opening is None and tag not in _CLOSING:
            kept.append(piece)
            opening, begin = tag, match.end()
        elif tag in _CLOSING and opening in ("", _CLOSING[tag]):
            thoughts.append(piece)
            opening, begin = None, match.end()
        elif tag in _CLOSING and opening is None:
            # It began before the text, or before an earlier tag that only looked like its end.
            thoughts += [*kept, piece]
            kept, begin = [], match.end()
    rest = text[begin:]
    thought = "\n".join(one for one in thoughts if one.strip())
    if opening is not None:
        return Cut(None, "\n".join(filter(None, [thought, rest])))
    if begin == 0:
        return Cut(text, "")
    kept = [one for one in kept if one.strip()]
    # Indentation stays: it may be that of a function's body.
    return Cut("".join(kept) + (rest if kept else re.sub(r"\A\s*\n", "", rest)), thought)


def _is_quoted(text: str, tag: re.Match[str]) -> bool:
    before, after = text[max(0, tag.start() - 1) : tag.start()], text[tag.end() : tag.end() + 1]
    return before == after and before in _QUOTES
