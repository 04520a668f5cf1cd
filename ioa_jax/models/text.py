"""Text to tokens: prompts, prompt and completion pairs, chat templates, and where texts end."""

from __future__ import annotations

import datetime
import functools
import json
import string
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from ioa_jax.errors import InputError
from ioa_jax.models.templates import within_limits
from ioa_jax.thoughts import opened_thought

ROLES = ("system", "user", "assistant", "tool")
# Tokens by which chat models end their turn, whatever their configuration calls the end of a text.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>")
# Qwen's chat models end raw text by this one, which most of their files don't name.
QWEN_TEXT_END = "<|endoftext|>"
# What templates that write today's date get: the day that Llama 3.2's falls back on. With another
# each day, the same chat would be other tokens tomorrow.
TEMPLATE_DATE = datetime.date(2024, 7, 26)


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, text: str, *, rendered: bool = False
) -> list[int]:
    """Tokens of a text that a model is to continue.

    The one rule of `ioa score`, `generate` and `train`, of `suite eval` and of lm-eval's backend: a
    text gets what the tokenizer begins texts with (Llama's beginning-of-text token, say), unless it
    begins with that already.

    Args:
        tokenizer: Fast tokenizer.
        text: As it stands.
        rendered: It comes from a chat template, which writes all special tokens itself.
    """
    tokens = _encode(tokenizer, text)
    start = [] if rendered else _start(tokenizer)
    return tokens if tokens[: len(start)] == start else start + tokens


def encode_prompt_completion(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, *, rendered: bool = False
) -> tuple[list[int], list[int]]:
    """Tokens of a prompt and of the completion that is scored or trained on.

    Both are tokenised as one text, none of whose tokens is lost, and cut where the prompt ends
    without the white space at its end. That white space counts with the completion, since most
    tokenizers join it to the next word; and so does a token that covers both, such as Qwen's for
    a docstring's closing quotes and the line end behind them. [ours] lm-evaluation-harness
    (`TemplateLM._encode_pair`) takes the prompt's own tokens instead, and leaves out as many of
    the whole text's: the same wherever no token covers both.

    Args:
        tokenizer: Fast tokenizer.
        prompt: Begins as `encode_prompt` says. Where that leaves no token before the completion,
            one stands in for it: the beginning-of-text token, or the end-of-text token when there
            is none. A completion that starts with that token gives it away instead of having it
            twice.
        completion: Not empty.
        rendered: The prompt comes from a chat template, which writes all special tokens itself.

    Returns:
        The prompt's tokens and the completion's, each at least one.

    Raises:
        InputError: The completion is empty; or an empty prompt meets a tokenizer without bos and
            eos.
    """
    if not completion:
        raise InputError("the completion is empty")
    text, end = prompt + completion, len(prompt.rstrip())
    whole = _encode(tokenizer, text)
    own = _encode(tokenizer, text[:end])
    if whole[: len(own)] == own:
        cut = len(own)
    else:
        # Tokens don't break where the prompt ends: find the one that covers the place.
        spans = _untrimmed(tokenizer).encode(text, add_special_tokens=False).offsets
        cut = next((index for index, span in enumerate(spans) if span[1] > end), len(spans))
    before, after = whole[:cut], whole[cut:]
    start = [] if rendered else _start(tokenizer)
    if not before and not start:
        bos = cast("int | None", tokenizer.bos_token_id)
        stand_in = cast("int | None", tokenizer.eos_token_id) if bos is None else bos
        if stand_in is None:
            raise InputError(
                "the prompt is empty and the tokenizer has no bos or eos token to start from; "
                "give a prompt"
            )
        start = [stand_in]
    if start and whole[: len(start)] != start:
        before = start + before
    elif len(before) < len(start):
        before, after = start, whole[len(start) :]
    if not after:
        raise InputError(f"the completion {completion!r} has no token of its own")
    return before, after


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _start(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before a text, without what it may put behind."""
    # What stands before one text stands before each; tokenizers of every kind have a letter.
    plain, full = _encode(tokenizer, "a"), list(tokenizer("a")["input_ids"])
    return full[: next(i for i in range(len(full)) if full[i : i + len(plain)] == plain)]


@functools.lru_cache(maxsize=2)
def _untrimmed(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The tokenizer whose tokens span the white space in them: Llama 3's leaves that out."""
    core = json.loads(cast(Tokenizer, tokenizer.backend_tokenizer).to_str())
    return Tokenizer.from_str(json.dumps({**core, "post_processor": None}))


def dated_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's chat template, to which every day is `TEMPLATE_DATE`.

    transformers gives templates a function that tells today, and lets nobody put another in its
    place: so the template defines its own.
    """
    template = str(tokenizer.get_chat_template())
    if template_date(tokenizer) is None:
        return template
    codes = [f"%{flag}{letter}" for flag in ("", "-") for letter in string.ascii_letters]
    known = {code: TEMPLATE_DATE.strftime(code) for code in codes}
    said = "".join(f"|replace({code!r}, {text!r})" for code, text in known.items() if text != code)
    # Behind a block, Jinja passes over a line end.
    newline = "\n" if template.startswith("\n") else ""
    macro = f"{{%- macro strftime_now(format) -%}}{{{{ format{said} }}}}{{%- endmacro %}}"
    return macro + newline + template


def template_date(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The day that the tokenizer's chat template writes as today's; None if it writes none."""
    template = str(tokenizer.chat_template or "")
    return TEMPLATE_DATE.isoformat() if "strftime_now" in template else None


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    add_generation_prompt: bool = True,
) -> str:
    """A conversation as the text that the model's chat template makes of it.

    Tokenise the text with `add_special_tokens=False`: the template writes them all. One that writes
    today's date writes `TEMPLATE_DATE`.

    Args:
        tokenizer: Has a chat template.
        messages: `role` (system, user, assistant or tool) and `content` of each turn.
        add_generation_prompt: End with the header of the assistant's next turn.

    Raises:
        InputError: The tokenizer has no chat template, there are no messages, a message is
            malformed, or the template refuses the conversation or leaves a message out.
    """
    if not tokenizer.chat_template:
        raise InputError(
            "the tokenizer has no chat template; give plain prompts, or use an instruction-tuned "
            "model"
        )
    if not messages:
        raise InputError("messages is empty")
    for number, message in enumerate(messages, start=1):
        role = message.get("role")
        if role not in ROLES:
            raise InputError(
                f"message {number}: role {role!r} is unknown; choose from {', '.join(ROLES)}"
            )
        if not isinstance(message.get("content"), str):
            raise InputError(f"message {number}: field 'content' has to be text")
    template = dated_template(tokenizer)
    try:
        with within_limits(template):
            text = tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                chat_template=template,
            )
    except InputError:
        raise
    # A template is a program: it may fail in any way.
    except Exception as error:
        raise InputError(f"the chat template refuses these messages: {error}") from None
    assert isinstance(text, str)
    # Templates drop what they don't expect, without a word: a second system turn, for one. Equal
    # messages have to stand there as often as they were given.
    contents = [_shown(message) for message in messages]
    for number, content in enumerate(contents, start=1):
        if text.count(content) < contents.count(content):
            raise InputError(
                f"message {number}: the chat template leaves out or changes what the "
                f"{messages[number - 1]['role']} says ({content[:40]!r}), so that the model "
                "wouldn't see it"
            )
    return text


def thought_opening(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tag of the thought that the chat template begins each answer with; empty if it doesn't.

    It belongs to the answer, although the model doesn't write it.

    Raises:
        InputError: As `render_chat`.
    """
    return opened_thought(render_chat(tokenizer, [{"role": "user", "content": "?"}]))


def _shown(message: Mapping[str, str]) -> str:
    """What of a message has to stand in the rendered chat.

    Templates strip white space, and those of reasoning models leave out the thoughts of earlier
    turns.
    """
    content = message["content"]
    if message["role"] == "assistant":
        content = content.rpartition("</think>")[2]
    return content.strip()


def end_of_turn(tokenizer: PreTrainedTokenizerBase, eos_token_ids: Sequence[int]) -> int:
    """The token by which the chat template ends an answer.

    Of several tokens that end a text, this is the one that generation has to see: Llama 3's list,
    for one, begins with a token that no chat ever holds.

    Args:
        tokenizer: Has a chat template.
        eos_token_ids: The tokens that end a text of the model.

    Raises:
        InputError: The template ends answers with none of them; or as `render_chat`.
    """
    answer = "0123456789"
    turn = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
    try:
        text = render_chat(tokenizer, turn, add_generation_prompt=False)
    except InputError as error:
        raise InputError(f"there is no telling how the model ends an answer: {error}") from None
    for token in _encode(tokenizer, text[text.rindex(answer) + len(answer) :]):
        if token in eos_token_ids:
            return token
    raise InputError(
        "the chat template ends an answer with none of the tokens that end a text "
        f"({', '.join(map(str, eos_token_ids)) or 'the model names none'})"
    )


def ending_tokens(
    tokenizer: PreTrainedTokenizerBase, named: Sequence[int], family: str
) -> tuple[int, ...]:
    """Tokens that end a text: of the configuration, then the tokenizer and the chat template.

    Args:
        tokenizer: The model's.
        named: What the model's files name.
        family: The model's type, such as `qwen3`.
    """
    ids = list(named)
    end = cast("int | None", tokenizer.eos_token_id)
    if end is not None:
        ids.append(end)
    vocab = tokenizer.get_vocab()
    template = json.dumps(tokenizer.chat_template or "")
    ids += [vocab[token] for token in TURN_ENDS if token in template and token in vocab]
    if family.startswith("qwen") and QWEN_TEXT_END in vocab:
        ids.append(vocab[QWEN_TEXT_END])
    return tuple(dict.fromkeys(ids))


def cut_at_stop(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], stops: Sequence[str]
) -> tuple[str, int] | None:
    """The text before the first stop string in an answer, and the number of tokens up to it.

    A stop string that holds special tokens is looked for in the text with them; others in the text
    that is returned, which has none.

    Args:
        tokenizer: The model's.
        tokens: Of the answer.
        stops: Stop strings; none is empty.

    Returns:
        None if there is none. The tokens are those up to the one that completes a stop string.
    """

    def plain(count: int) -> str:
        return str(tokenizer.decode(list(tokens[:count]), skip_special_tokens=True))

    def raw(count: int) -> str:
        return str(tokenizer.decode(list(tokens[:count]), skip_special_tokens=False))

    special = tuple(str(token) for token in tokenizer.all_special_tokens)
    in_raw = [stop for stop in stops if any(token in stop for token in special)]
    in_plain = [stop for stop in stops if stop not in in_raw]

    def found(text: Callable[[int], str], wanted: Sequence[str], count: int) -> list[int]:
        if not wanted:
            return []
        whole = text(count)
        return [at for at in (whole.find(stop) for stop in wanted) if at >= 0]

    def ended(count: int) -> bool:
        return bool(found(plain, in_plain, count) or found(raw, in_raw, count))

    if not ended(len(tokens)):
        return None
    # Back to the token that completes one. The text is decoded whole each time: a character may
    # span tokens, and a tokenizer may treat a token by what stands before it.
    count = len(tokens)
    while count and ended(count - 1):
        count -= 1
    texts = [plain(count)[:at] for at in found(plain, in_plain, count)]
    for at in found(raw, in_raw, count):
        # Whole tokens before the stop string, and the part before it of the one that it begins in.
        kept = next(n for n in range(count, -1, -1) if len(raw(n)) <= at)
        texts.append(plain(kept) + raw(count)[len(raw(kept)) : at])
    return min(texts, key=len), count
