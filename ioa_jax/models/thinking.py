"""How a chat template writes the thoughts before an answer, for training on chats."""

from __future__ import annotations

import dataclasses

from transformers import PreTrainedTokenizerBase

from ioa_jax.errors import InputError
from ioa_jax.models.text import render_chat, thought_opening
from ioa_jax.thoughts import closing_tag, cut_thoughts

_ANSWER = "0123456789"


@dataclasses.dataclass(frozen=True)
class ThoughtForm:
    """What stands between a chat's prompt and the answer's own words.

    Attributes:
        before: Before what was thought; empty where the prompt ends with it.
        after: Behind it; empty if the template writes no thoughts.
        empty: Both where nothing was thought.
        told: In words, for records.
    """

    before: str
    after: str
    empty: str
    told: str

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> ThoughtForm:
        """Of a tokenizer's chat template.

        Raises:
            InputError: As `render_chat`.
        """
        user = {"role": "user", "content": "?"}
        prompt = render_chat(tokenizer, [user])
        chat = [user, {"role": "assistant", "content": _ANSWER}]
        whole = render_chat(tokenizer, chat, add_generation_prompt=False)
        # What the template puts before the last answer of a chat, where it keeps to its own prompt.
        head = whole[len(prompt) : whole.rindex(_ANSWER)] if whole.startswith(prompt) else ""
        opening = thought_opening(tokenizer)
        if opening and closing_tag(opening) not in head:
            # As of DeepSeek-R1: a prompt that begins a thought, which its chats then leave out.
            head = f"\n{closing_tag(opening)}\n\n"
        if cut_thoughts(opening + head + _ANSWER).answer == opening + head + _ANSWER:
            return cls("", "", "", "as they stand: the model's chat template writes no thoughts")
        closing = closing_tag(opening or head)
        before, _, after = head.partition(closing)
        # One line end between thought and tag belongs to the tag: thoughts are stripped of theirs.
        seam = before[-1:] if before.endswith("\n") else ""
        return cls(
            before.removesuffix(seam),
            seam + closing + after,
            head,
            "as the model's chat template writes them: with their thoughts, or behind an empty one",
        )

    def write(self, completion: str) -> str:
        """An answer, with its thoughts if it has any, as the model is to write it.

        Raises:
            InputError: A thought doesn't end, so that there is no answer.
        """
        answer, thought = cut_thoughts(completion)
        if answer is None:
            raise InputError("a thought has no end, so that there is no answer to learn")
        if not self.after:
            return completion
        if not thought.strip():
            return self.empty + answer
        return self.before + thought.strip("\n") + self.after + answer.lstrip("\n")
