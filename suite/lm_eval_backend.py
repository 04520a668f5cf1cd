"""The engine as a model of lm-evaluation-harness, by the name `ioa` (extra `[lm-eval]`).

`python -m suite.lm_eval_backend run --model ioa --model_args pretrained=SPEC …` is lm-eval's own
command line with the model registered; elsewhere, importing this module registers it. Give
--batch_size too: lm-eval's own default is 1. Written against lm-eval 0.4.13.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ioa_jax.errors import InputError, MissingDependencyError

try:
    from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]
    from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
    from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
    from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text  # pyright: ignore[reportMissingImports]
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # pyright: ignore[reportMissingImports]
except ImportError:
    raise MissingDependencyError(
        "lm-evaluation-harness is missing; install it: pip install 'ioa-jax[lm-eval]'"
    ) from None

import jax.numpy as jnp

from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.generation import Generator
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.engine.scoring import Scorer
from ioa_jax.models.load import load_model
from ioa_jax.models.text import dated_template, encode_prompt, render_chat
from ioa_jax.progress import progress_bar
from ioa_jax.thoughts import cut_thoughts, opened_thought

DEFAULT_MAX_TOKENS = 256
_KNOWN = ("do_sample", "temperature", "top_p", "top_k", "until", "max_gen_toks")


@register_model("ioa")
class IoaLM(TemplateLM):
    """Log-likelihoods and greedy or sampled generations by the JAX engine."""

    backend = "causal"

    def __init__(
        self,
        pretrained: str,
        precision: str = "bfloat16",
        batch_size: int | str = 32,
        seed: int = 0,
        max_length: int | None = None,
        **_: Any,
    ) -> None:
        """Load the model.

        Args:
            pretrained: Spec, as for `ioa score`.
            precision: `float32` or `bfloat16`.
            batch_size: Rows that decode together.
            seed: Of sampled generations.
            max_length: Tokens of context that are used; default: the model's.
            _: What lm-eval passes to every model, such as `device`.

        Raises:
            InputError: As `load_model`; or `batch_size` isn't a number.
        """
        super().__init__()
        if not str(batch_size).isdigit():
            raise InputError(f"batch_size={batch_size!r}: a number is needed")
        self.model = load_model(pretrained, precision, dtype=jnp.dtype(precision))
        self.tokenizer: Any = self.model.tokenizer
        self.max_length = max_length or self.model.decoder.config.max_position
        self.seed = seed
        self._scorer = Scorer(self.model)
        self._generator = Generator(self.model, int(batch_size))

    @property
    def eot_token_id(self) -> int:
        """The tokenizer's end-of-text token."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """Stands before a text without context: beginning-of-text, or else end-of-text."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        """For lm-eval's cache of requests: tokens are the same where weights and tokenizer are."""
        return self.model.fingerprint

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """As `ioa_jax.models.text.encode_prompt`, unless lm-eval asks otherwise."""
        if add_special_tokens is None:
            return encode_prompt(self.tokenizer, string)
        return list(self.tokenizer(string, add_special_tokens=add_special_tokens)["input_ids"])

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as text; without a generation prompt its last message stays open."""
        if add_generation_prompt:
            return render_chat(self.tokenizer, chat_history)
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=False,
            continue_final_message=True,
            chat_template=dated_template(self.tokenizer),
        )

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        found = self._score([(context, target) for _, context, target in requests])
        for (texts, _, _), answer in zip(requests, found, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return found

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Of whole documents, each token once, in windows of the model's context."""
        windows: list[tuple[list[int], list[int]]] = []
        owners: list[int] = []
        for i, request in enumerate(requests):
            (text,) = request.args
            tokens = self.tok_encode(text)
            for window in get_rolling_token_windows(
                token_list=tokens,
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            ):
                windows.append(cast(Any, make_disjoint_window(window)))
                owners.append(i)
        totals = [0.0] * len(requests)
        for i, (logprob, _) in zip(owners, self._score(windows), strict=True):
            totals[i] += logprob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Complete contexts; those with the same settings together.

        lm-eval's tasks read what comes back as the answer, so thoughts are cut from it, also one
        that the chat template began; of a thought without an end nothing is left. [ours] `hf` cuts
        only what stands before a `think_end_token` that the user names.

        Raises:
            InputError: A setting that the engine doesn't have.
        """
        groups: dict[SamplingParams, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(self._params(request.args[1]), []).append(i)
        texts = [""] * len(requests)
        for params, members in groups.items():
            room = self.max_length - params.max_tokens
            if room < 1:
                raise InputError(
                    f"max_gen_toks={params.max_tokens} leaves no room for a context in "
                    f"{self.max_length} tokens"
                )
            prompts = [self.tok_encode(requests[i].args[0])[-room:] for i in members]

            with progress_bar("generate_until", len(members)) as progress:
                done = self._generator.generate(prompts, params, progress, streams=members)
            for i, completion in zip(members, done, strict=True):
                inside = bool(opened_thought(requests[i].args[0]))
                answer = cut_thoughts(completion.text, inside).answer or ""
                texts[i] = cast(str, postprocess_generated_text(answer, list(params.stop), None))
                self.cache_hook.add_partial("generate_until", requests[i].args, texts[i])
        return texts

    def _params(self, gen_kwargs: dict[str, Any]) -> SamplingParams:
        settings = normalize_gen_kwargs(gen_kwargs, DEFAULT_MAX_TOKENS)
        unknown = sorted(set(settings) - set(_KNOWN))
        if unknown:
            raise InputError(
                f"generation setting {unknown[0]!r} is unknown; there are {', '.join(_KNOWN)}"
            )
        # Ending tokens end a text anyway; as a text they are never seen.
        stop = tuple(text for text in settings["until"] if text)
        return SamplingParams(
            max_tokens=settings["max_gen_toks"],
            temperature=settings["temperature"],
            top_k=int(settings.get("top_k") or 0),
            top_p=float(settings.get("top_p") or 1.0),
            stop=stop,
            seed=self.seed,
        )

    def _score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Sum of log-probabilities and greedy match; a context that is too long loses its start.

        As lm-eval's `hf`, a text may have a token more than the model's context: nothing is
        predicted from the last one.
        """
        cut: list[TokenPair] = []
        for context, target in pairs:
            room = self.max_length + 1 - len(target)
            if room < 1:
                raise InputError(
                    f"a continuation of {len(target)} tokens doesn't fit in {self.max_length}"
                )
            cut.append(TokenPair(tuple(context[-room:]), tuple(target)))
        with progress_bar("loglikelihood", len(cut)) as progress:
            scores = self._scorer.score_tokens(cut, progress)
        return [(score.logprob, score.is_greedy) for score in scores]


def main() -> None:
    """lm-eval's command line."""
    from lm_eval.__main__ import cli_evaluate  # pyright: ignore[reportMissingImports]

    cli_evaluate()


if __name__ == "__main__":
    main()
