"""Tasks as chats: what a model is asked, and what it is scored and trained on."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.generation import Completion, Generator
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.models.load import LanguageModel
from ioa_jax.models.text import end_of_turn, render_chat
from ioa_jax.progress import progress_bar
from ioa_jax.streams import stream

Messages = Sequence[Mapping[str, str]]


def prompt_tokens(model: LanguageModel, messages: Messages) -> tuple[int, ...]:
    """The chat up to where the model's answer begins."""
    return _encode(model, render_chat(model.tokenizer, list(messages)))


def answer_pair(model: LanguageModel, messages: Messages, answer: str, *, ended: bool) -> TokenPair:
    """A chat and an answer to it, with the end of the turn where the answer has one.

    The two are tokenised apart, since the template's header stands between them: the prompt is
    token for token what the model gets when it generates.

    Raises:
        InputError: The answer should end and the model has no token for that.
    """
    completion = _encode(model, answer)
    if ended:
        endings = model.decoder.config.eos_token_ids
        completion = (*completion, end_of_turn(model.tokenizer, endings))
    return TokenPair(prompt_tokens(model, messages), completion)


def generate_in_chunks(
    generator: Generator,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    chunk_size: int,
    label: str,
    is_done: Callable[[int], bool],
    on_completion: Callable[[int, Completion], None],
    on_chunk: Callable[[int], Any],
) -> None:
    """Generate what isn't done yet, in chunks that are the same in every run.

    What a row is batched with changes the last bits of its logits, and with them now and then a
    token. So an unfinished chunk is generated again as a whole, and only what is missing is kept.
    Prompts of similar length share a chunk: all rows of a batch pay for the longest one's cache.

    Args:
        generator: Of the model.
        prompts: Token ids.
        params: Each chunk gets a seed of its own, derived from `params.seed`.
        chunk_size: Prompts of a chunk at most; chunks are of nearly equal size.
        label: For the progress bar.
        is_done: Whether the prompt of this index needs no completion.
        on_completion: Called with (index, completion) for each that wasn't done.
        on_chunk: Called with the chunk's number before it begins; whatever it returns is entered
            as a context.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    with progress_bar(label, len(prompts)) as progress:
        for number, places in enumerate(balanced_chunks(len(prompts), chunk_size)):
            chunk = [order[place] for place in places]
            if all(is_done(i) for i in chunk):
                continue

            def finish(position: int, completion: Completion, chunk: list[int] = chunk) -> None:
                index = chunk[position]
                if not is_done(index):
                    on_completion(index, completion)

            seed = int(stream(params.seed, "chunk", number).integers(2**31))
            with on_chunk(number):
                generator.generate(
                    [prompts[i] for i in chunk],
                    dataclasses.replace(params, seed=seed),
                    lambda done, _, start=places.start: progress(start + done, len(prompts)),
                    finish,
                )


def balanced_chunks(count: int, size: int) -> list[range]:
    """0..count-1 in as few ranges of at most `size` as there can be, equal but for one.

    Equal sizes, because a small last chunk would compile programs of its own.
    """
    if count == 0:
        return []
    number = -(-count // size)
    bounds = [i * count // number for i in range(number + 1)]
    return [range(a, b) for a, b in itertools.pairwise(bounds)]


def _encode(model: LanguageModel, text: str) -> tuple[int, ...]:
    return tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])
