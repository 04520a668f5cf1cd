"""A teacher that transformers runs on PyTorch: for models that the engine here doesn't know.

PyTorch is the extra [torch], and is imported when a teacher is opened.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from huggingface_hub.errors import HFValidationError
from pydantic import BaseModel, ConfigDict, Field
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ioa_jax.errors import InputError, MissingDependencyError
from ioa_jax.models.config import read_token_ids
from ioa_jax.models.text import (
    cut_at_stop,
    encode_prompt_completion,
    ending_tokens,
    render_chat,
    thought_opening,
)
from ioa_jax.streams import stream
from ioa_jax.teachers.base import (
    Capabilities,
    ChatRequest,
    Completion,
    OnCompletion,
    OnScores,
    Sampling,
    Teacher,
    TokenScores,
)


class TransformersSettings(BaseModel):
    """Settings of `transformers:`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="bfloat16", description="Of weights and arithmetic."
    )
    device: str = Field(
        default="auto", description="As PyTorch names it; auto: cuda if there is one, else cpu."
    )
    batch_size: int = Field(default=16, ge=1, description="Rows that are computed together.")


class TransformersTeacher(Teacher):
    """Generates and scores with a causal language model of transformers.

    Attributes:
        model: The PyTorch model.
        tokenizer: Its tokenizer.
        batch_size: Rows that are computed together.
    """

    def __init__(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, batch_size: int = 16
    ) -> None:
        """Prepare.

        Args:
            model: In evaluation mode, on its device. Its generation settings are cleared: some
                models come with penalties and filters that nobody asked for.
            tokenizer: With a chat template if chats are to be answered.
            batch_size: Rows that are computed together.

        Raises:
            MissingDependencyError: PyTorch isn't installed.
        """
        self._torch = _import_torch()
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self._fingerprint = _fingerprint(model, tokenizer)
        self._ends = _ending_tokens(model, tokenizer)
        model.generation_config = GenerationConfig()

    @classmethod
    def open(cls, name: str, settings: TransformersSettings) -> TransformersTeacher:
        """Load a model.

        Args:
            name: Directory or Hub id.
            settings: Settings.

        Raises:
            InputError: The model can't be found, fetched or loaded.
            MissingDependencyError: PyTorch isn't installed.
        """
        torch = _import_torch()
        transformers: Any = importlib.import_module("transformers")
        device = settings.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                name,
                dtype=getattr(torch, settings.precision),
                trust_remote_code=False,
                use_safetensors=True,
            )
            model = model.eval().to(device)
        # transformers and PyTorch report bad names, files and devices by these.
        except (OSError, ValueError, RuntimeError, HFValidationError) as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise InputError(
                f"transformers:{name}: can't be loaded on {device} ({type(error).__name__}: "
                f"{reason})"
            ) from error
        return cls(model, tokenizer, settings.batch_size)

    @property
    def fingerprint(self) -> str:
        """Of configuration, weights in their dtype, and tokenizer."""
        return self._fingerprint

    @property
    def capabilities(self) -> Capabilities:
        """Everything."""
        return Capabilities(score=True)

    def generate(
        self,
        requests: Sequence[ChatRequest],
        sampling: Sampling,
        on_completion: OnCompletion | None = None,
    ) -> list[Completion]:
        """As `Teacher.generate`, in batches of similar length.

        A request's sample depends on the batch that it falls in: the same list gives the same
        samples.
        """
        prompts = [self._prompt(index, request) for index, request in enumerate(requests)]
        self._check_lengths(prompts, "request")
        opening = thought_opening(self.tokenizer) if prompts else ""
        results: dict[int, Completion] = {}
        for batch in self._batches([len(prompt) for prompt in prompts]):
            seeds = [requests[index].seed for index in batch]
            rows = self._generate_batch([prompts[index] for index in batch], sampling, seeds)
            for index, row in zip(batch, rows, strict=True):
                completion = results[index] = dataclasses.replace(row, text=opening + row.text)
                if on_completion is not None:
                    on_completion(index, completion)
        return [results[index] for index in range(len(requests))]

    def score(
        self, pairs: Sequence[tuple[str, str]], on_scores: OnScores | None = None
    ) -> list[TokenScores]:
        """As `Teacher.score`, in batches of similar length."""
        encoded: list[tuple[list[int], list[int]]] = []
        for index, pair in enumerate(pairs):
            try:
                encoded.append(encode_prompt_completion(self.tokenizer, *pair, rendered=True))
            except InputError as error:
                raise InputError(f"pair {index}: {error}") from None
        texts = [prompt + completion for prompt, completion in encoded]
        self._check_lengths(texts, "pair", room=0)
        results: dict[int, TokenScores] = {}
        for batch in self._batches([len(text) for text in texts]):
            rows = self._score_batch([encoded[index] for index in batch])
            for index, scores in zip(batch, rows, strict=True):
                results[index] = scores
                if on_scores is not None:
                    on_scores(index, scores)
        return [results[index] for index in range(len(pairs))]

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        """Exact."""
        return len(self._prompt(0, request))

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """By the tokenizer's chat template."""
        return render_chat(self.tokenizer, messages)

    def close(self) -> None:
        """Nothing to do: the weights go with the model."""

    def _prompt(self, index: int, request: ChatRequest) -> list[int]:
        try:
            text = render_chat(self.tokenizer, request.messages)
        except InputError as error:
            raise InputError(f"request {index} for {request.purpose!r}: {error}") from None
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _check_lengths(self, texts: Sequence[Sequence[int]], what: str, room: int = 1) -> None:
        context = getattr(self.model.config, "max_position_embeddings", None)
        for index, text in enumerate(texts):
            if context is not None and len(text) + room > context:
                raise InputError(
                    f"{what} {index} has {len(text)} tokens; the model's context is {context}"
                )

    def _batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Indices by falling length, so that too large a batch fails at once."""
        order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
        """Token ids and mask, each [rows, longest], padded on the left."""
        longest = max(len(row) for row in rows)
        fill = self._ends[0] if self._ends else 0
        ids = [[fill] * (longest - len(row)) + list(row) for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        device = self.model.device
        return self._torch.tensor(ids, device=device), self._torch.tensor(mask, device=device)

    def _generate_batch(
        self, prompts: Sequence[list[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        torch = self._torch
        ids, mask = self._pad(prompts)
        context = getattr(self.model.config, "max_position_embeddings", None)
        limit = sampling.max_tokens
        if context is not None:
            # Of the longest prompt: all rows of a batch take the same number of steps.
            limit = min(limit, context - ids.shape[1])
        options: dict[str, Any] = {"do_sample": False}
        if sampling.temperature:
            options = {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
            }
        if sampling.stop:
            # Not stop_strings: transformers takes a vocabulary apart for it, and fails on some.
            options["stopping_criteria"] = [self._stopping(sampling.stop, ids.shape[1])]
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        # PyTorch's random state is one for the whole process: it's left as it was.
        with torch.random.fork_rng(devices), torch.inference_mode():
            content = json.dumps([list(prompts), list(seeds)])
            torch.manual_seed(int(stream(0, "transformers", content).integers(2**63)))
            output = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=limit,
                eos_token_id=list(self._ends) or None,
                pad_token_id=self._ends[0] if self._ends else 0,
                return_dict_in_generate=True,
                output_logits=sampling.logprobs,
                **options,
            )
        rows = output.sequences[:, ids.shape[1] :].tolist()
        logprobs: list[list[float] | None] = [None] * len(rows)
        if sampling.logprobs:
            chosen = output.sequences[:, ids.shape[1] :]
            values = torch.stack([logits.float() for logits in output.logits], dim=1)
            values = torch.log_softmax(values, dim=-1).gather(-1, chosen[..., None])[..., 0]
            logprobs = values.tolist()
        return [
            self._completion(len(prompt), row, own, sampling)
            for prompt, row, own in zip(prompts, rows, logprobs, strict=True)
        ]

    def _stopping(self, stops: tuple[str, ...], start: int) -> Callable[..., Any]:
        """Tells transformers which rows hold a stop string behind their first `start` tokens."""
        # A token is rarely less than a byte of text; a few more cover the seam at the first.
        width = max(len(stop.encode()) for stop in stops) + 8

        def ended(input_ids: Any, scores: Any, **_: Any) -> Any:
            rows = input_ids[:, start:][:, -width:].tolist()
            found = [cut_at_stop(self.tokenizer, row, stops) is not None for row in rows]
            return self._torch.tensor(found, device=input_ids.device)

        return ended

    def _completion(
        self, prompt_tokens: int, row: list[int], logprobs: list[float] | None, sampling: Sampling
    ) -> Completion:
        """A row up to its end; what follows is padding, since other rows went on."""
        ends = [place for place, token in enumerate(row) if token in self._ends]
        tokens = row[: ends[0] + 1] if ends else row
        cut = cut_at_stop(self.tokenizer, tokens, sampling.stop)
        if cut is None:
            text = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        else:
            text, tokens = cut[0], tokens[: cut[1]]
        return Completion(
            text,
            prompt_tokens,
            len(tokens),
            "stop" if ends or cut else "length",
            None if logprobs is None else tuple(logprobs[: len(tokens)]),
        )

    def _score_batch(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[TokenScores]:
        torch = self._torch
        ids, mask = self._pad([prompt + completion for prompt, completion in pairs])
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        with torch.inference_mode():
            logits = self.model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        scores: list[TokenScores] = []
        for row, (prompt, completion) in enumerate(pairs):
            # Row by row in float32: logits of a whole batch are too large to hold twice.
            own = logits[row, -len(completion) - 1 : -1].float()
            labels = ids[row, -len(completion) :]
            values = torch.log_softmax(own, dim=-1).gather(-1, labels[:, None])[:, 0]
            greedy = bool((own.argmax(-1) == labels).all())
            total = len(prompt) + len(completion)
            scores.append(TokenScores(tuple(values.tolist()), greedy, total))
        return scores


def _ending_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Tokens that end a text, as `ioa_jax.models.load.load_model` finds them."""
    field = "eos_token_id"
    named = [
        token
        for what in (model.generation_config, model.config)
        for token in read_token_ids({field: getattr(what, field, None)}, field, type(what).__name__)
    ]
    return ending_tokens(tokenizer, named, str(model.config.model_type))


def _fingerprint(model: Any, tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hex) of everything that answers depend on, with the dtype by name."""
    torch = _import_torch()
    hasher = hashlib.sha256()
    config = {k: v for k, v in model.config.to_dict().items() if not k.startswith("_")}
    about = [config, tokenizer.get_vocab(), tokenizer.chat_template]
    hasher.update(json.dumps(about, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        hasher.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        hasher.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"transformers:{hasher.hexdigest()}:{str(model.dtype).removeprefix('torch.')}"


def _import_torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError:
        raise MissingDependencyError(
            'teachers of transformers need PyTorch; get it with: pip install "ioa-jax[torch]"'
        ) from None
