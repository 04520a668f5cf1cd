"""The student: a model that is trained, and measured as it stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.chat import Messages, answer_pair, prompt_tokens
from ioa_jax.engine.generation import Completion, Generator
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.engine.scoring import Score, Scorer
from ioa_jax.errors import InputError
from ioa_jax.models.decoder import Decoder
from ioa_jax.models.huggingface import write_decoder
from ioa_jax.models.load import LanguageModel, load_model
from ioa_jax.models.precision import PrecisionName
from ioa_jax.models.prune import prune_model
from ioa_jax.models.text import thought_opening


class Student:
    """A language model with float32 weights, measured in the precision that it computes in.

    A student doesn't change: training gives another one (`with_decoder`).

    Attributes:
        model: The model.
        batch_size: Rows that decode together.
    """

    def __init__(self, model: LanguageModel, batch_size: int = 32) -> None:
        """Prepare; nothing is computed yet.

        Args:
            model: Stacked, with float32 weights.
            batch_size: Rows that decode together.

        Raises:
            InputError: The weights aren't float32, so that they can't be trained.
        """
        if model.decoder.embedding.dtype != jnp.float32:
            raise InputError(
                f"student {model.spec!r}: weights in {model.decoder.embedding.dtype}; load it with "
                "dtype float32 (precision bfloat16 still computes in bfloat16)"
            )
        self.model = model
        self.batch_size = batch_size
        self._measured: LanguageModel | None = None
        self._generator: Generator | None = None
        self._scorer: Scorer | None = None

    @classmethod
    def open(
        cls,
        spec: str,
        precision: PrecisionName = "bfloat16",
        keep_layers: int | None = None,
        batch_size: int = 32,
    ) -> Student:
        """Load a student.

        Args:
            spec: As `ioa_jax.models.load.load_model`, whose errors it raises.
            precision: Operands of matrix products; in bfloat16, measuring rounds the weights too.
            keep_layers: Keep as many of its layers, evenly spaced; None keeps all.
            batch_size: Rows that decode together.
        """
        model = load_model(spec, precision, dtype=jnp.float32)
        if keep_layers is not None:
            model = prune_model(model, keep_count=keep_layers)
        return cls(model, batch_size)

    def with_decoder(self, decoder: Decoder) -> Student:
        """The same student with other weights, such as trained ones."""
        return Student(dataclasses.replace(self.model, decoder=decoder), self.batch_size)

    def prompt_tokens(self, messages: Messages) -> tuple[int, ...]:
        """As `ioa_jax.engine.chat.prompt_tokens`."""
        return prompt_tokens(self.model, messages)

    def answer_pair(self, messages: Messages, answer: str, *, ended: bool = True) -> TokenPair:
        """As `ioa_jax.engine.chat.answer_pair`."""
        return answer_pair(self.model, messages, answer, ended=ended)

    def score(self, pairs: Sequence[TokenPair]) -> list[Score]:
        """Log-probabilities of completions in nats, in input order; one packed, jitted pass."""
        if self._scorer is None:
            self._scorer = Scorer(self._for_measuring())
        return self._scorer.score_tokens(list(pairs))

    def generate(
        self,
        chats: Sequence[Messages],
        params: SamplingParams | None = None,
        streams: Sequence[int] | None = None,
        on_completion: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        """Answer chats; results in input order.

        A text begins with the tag of a thought where the chat template begins answers with one.

        Args:
            chats: Any number.
            params: None is greedy.
            streams: Number of each chat's random stream, int32; None is its index.
            on_completion: Called with (chat index, completion) as each finishes.
        """
        prompts = [self.prompt_tokens(messages) for messages in chats]
        opening = thought_opening(self.model.tokenizer) if prompts else ""

        def whole(completion: Completion) -> Completion:
            return dataclasses.replace(completion, text=opening + completion.text)

        def finish(index: int, completion: Completion) -> None:
            if on_completion is not None:
                on_completion(index, whole(completion))

        found = self.generator.generate(prompts, params, None, finish, streams)
        return [whole(completion) for completion in found]

    @property
    def generator(self) -> Generator:
        """Generates with the weights as they are measured."""
        if self._generator is None:
            self._generator = Generator(self._for_measuring(), self.batch_size)
        return self._generator

    def save(self, directory: Path, card: str, dtype: Any = jnp.bfloat16) -> None:
        """Write a directory that transformers and vLLM load as it is.

        Args:
            directory: Replaced whole if it exists.
            card: Text of its README.md.
            dtype: Of the tensors in the files.

        Raises:
            InputError: The directory can't be written.
        """
        directory.parent.mkdir(parents=True, exist_ok=True)
        write_decoder(self.model.decoder, self.model.tokenizer, directory, dtype, overwrite=True)
        (directory / "README.md").write_text(card, encoding="utf-8")

    def _for_measuring(self) -> LanguageModel:
        if self._measured is None:
            decoder = self.model.decoder
            dtype = jnp.dtype(decoder.precision.operand)
            self._measured = dataclasses.replace(self.model, decoder=decoder.astype(dtype))
        return self._measured
