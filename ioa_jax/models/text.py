"""Text to tokens: prompt and completion pairs, and chat templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from ioa_jax.errors import InputError

ROLES = ("system", "user", "assistant", "tool")


def encode_prompt_completion(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str
) -> tuple[list[int], list[int]]:
    """Tokens of a prompt and of the completion that is scored or trained on.

    As lm-evaluation-harness does it (`TemplateLM._encode_pair`): white space at the prompt's end
    moves to the completion, since most tokenizers join it to the next word; then prompt and
    completion are tokenised as one text, and the completion is what follows the first n tokens, n
    being the number of tokens of the prompt alone. No special tokens are added.

    Args:
        tokenizer: Fast tokenizer.
        prompt: Without any text, one token stands in for it: the beginning-of-text token, or the
            end-of-text token when there is none. A completion that starts with that token gives it
            away instead of having it twice.
        completion: Not empty.

    Returns:
        The prompt's tokens and the completion's, each at least one.

    Raises:
        InputError: The completion is empty, or one token covers it together with the prompt's end;
            or an empty prompt meets a tokenizer without bos and eos.
    """
    if not completion:
        raise InputError("the completion is empty")
    stripped = prompt.rstrip()
    completion = prompt[len(stripped) :] + completion
    whole = _encode(tokenizer, stripped + completion)
    if stripped:
        before = _encode(tokenizer, stripped)
        after = whole[len(before) :]
    else:
        bos = cast("int | None", tokenizer.bos_token_id)
        start = cast("int | None", tokenizer.eos_token_id) if bos is None else bos
        if start is None:
            raise InputError(
                "the prompt is empty and the tokenizer has no bos or eos token to start from; "
                "give a prompt"
            )
        before = [start]
        after = whole[1:] if whole[:1] == before else whole
    if not after:
        raise InputError(
            f"the completion {completion!r} has no token of its own after the prompt "
            f"{stripped[-40:]!r}; start the completion where a token starts"
        )
    return before, after


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    add_generation_prompt: bool = True,
) -> str:
    """A conversation as the text that the model's chat template makes of it.

    Tokenise the text with `add_special_tokens=False`: the template writes them all.

    Args:
        tokenizer: Has a chat template.
        messages: `role` (system, user, assistant or tool) and `content` of each turn.
        add_generation_prompt: End with the header of the assistant's next turn.

    Raises:
        InputError: The tokenizer has no chat template, there are no messages, a message is
            malformed, or the template refuses the conversation.
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
    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    except TemplateError as error:
        raise InputError(f"the chat template refuses these messages: {error}") from None
    assert isinstance(text, str)
    return text


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
    text = render_chat(tokenizer, turn, add_generation_prompt=False)
    for token in _encode(tokenizer, text[text.rindex(answer) + len(answer) :]):
        if token in eos_token_ids:
            return token
    raise InputError(
        "the chat template ends an answer with none of the tokens that end a text "
        f"({', '.join(map(str, eos_token_ids)) or 'the model names none'})"
    )
