"""Chats as tokens: what a model is asked, and the answer that it is scored or trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ioa_jax.engine.batching import TokenPair
from ioa_jax.models.load import LanguageModel
from ioa_jax.models.text import end_of_turn, render_chat

Messages = Sequence[Mapping[str, str]]


def prompt_tokens(model: LanguageModel, messages: Messages) -> tuple[int, ...]:
    """A chat up to where the model's answer begins, as token ids.

    Raises:
        InputError: The tokenizer has no chat template, or one that refuses the chat.
    """
    return _encode(model, render_chat(model.tokenizer, list(messages)))


def answer_pair(model: LanguageModel, messages: Messages, answer: str, *, ended: bool) -> TokenPair:
    """A chat and an answer to it, with the end of the turn where the answer has one.

    The two are tokenised apart, since the template's header stands between them: the prompt is
    token for token what the model gets when it generates.

    Args:
        model: Whose tokenizer and template are used.
        messages: The chat.
        answer: May be empty if it is ended.
        ended: Whether the model should learn to stop after it.

    Raises:
        InputError: As `prompt_tokens`; or the answer should end and the model has no token for
            that.
    """
    # An end that isn't the model's own (cut by a limit) must not be learnt as one.
    completion = _encode(model, answer)
    if ended:
        endings = model.decoder.config.eos_token_ids
        completion = (*completion, end_of_turn(model.tokenizer, endings))
    return TokenPair(prompt_tokens(model, messages), completion)


def _encode(model: LanguageModel, text: str) -> tuple[int, ...]:
    return tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])
