"""`ioa`: score, generate, train and export from JSONL files.

JAX and transformers are imported by the commands, so that `--help` and bad arguments answer at
once. A command's parameters are its options, as many as there are.
"""

from __future__ import annotations

import errno
import importlib.metadata
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ioa_jax.commands.distill import distill, print_settings
from ioa_jax.commands.identify import curriculum, diagnose, validate
from ioa_jax.compile_cache import use_compile_cache
from ioa_jax.errors import InputError, IOAError
from ioa_jax.files import check_writable, write_json
from ioa_jax.jsonl import read_rows, write_rows
from ioa_jax.progress import progress_bar
from ioa_jax.terminal import shown
from ioa_jax.thoughts import cut_thoughts, opened_thought

if TYPE_CHECKING:
    from ioa_jax.engine.batching import TokenPair
    from ioa_jax.engine.training import TrainResult
    from ioa_jax.models.load import LanguageModel
    from ioa_jax.models.thinking import ThoughtForm

app = typer.Typer(
    help="Score, generate, train and export language models in JAX.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        print(f"ioa-jax {importlib.metadata.version('ioa-jax')}")
        raise typer.Exit()
    return wanted


@app.callback()
def options(
    compile_cache: Annotated[
        bool,
        typer.Option(
            help="Keep compiled programs for the next time, in the user's cache directory."
        ),
    ] = True,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Options of every command."""
    use_compile_cache(compile_cache)


for command in (validate, diagnose, curriculum, distill):
    app.command()(command)
app.command("settings")(print_settings)


class PrecisionOption(StrEnum):
    """Operand dtype of matrix products."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(extra="forbid")
    role: str
    content: str


class PromptRow(BaseModel):
    """A line of `ioa generate`'s input: `prompt` (as it stands) or `messages` (rendered).

    Other fields are copied to the output.
    """

    model_config = ConfigDict(extra="allow")
    prompt: str | None = Field(default=None, min_length=1)
    messages: list[Message] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> PromptRow:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("exactly one of 'prompt' and 'messages' is needed")
        return self


class CompletionRow(PromptRow):
    """A line of `ioa train`'s input: as `PromptRow`, with the completion to learn."""

    completion: str = Field(min_length=1)


class PairRow(BaseModel):
    """A line of `ioa score`'s input. Other fields are copied to the output."""

    model_config = ConfigDict(extra="allow")
    prompt: str
    completion: str = Field(min_length=1)


Model = Annotated[
    str,
    typer.Option(
        help="smollm2, gguf:FILE, jax:DIRECTORY, a Hugging Face directory or hub id.",
        show_default=False,
    ),
]
Input = Annotated[Path, typer.Option("--input", help="JSONL file.", show_default=False)]
Output = Annotated[Path, typer.Option("--output", help="JSONL file.", show_default=False)]
Precision = Annotated[PrecisionOption, typer.Option(help="Operands of matrix products.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Log what is compiled.")]


@app.command()
def score(
    model: Model,
    input: Input,
    output: Output,
    precision: Precision = PrecisionOption.bfloat16,
    verbose: Verbose = False,
) -> None:
    """Log-probabilities of completions.

    Input lines: {"prompt", "completion"}. Prompt and completion are tokenised as one text, which
    begins as the tokenizer begins texts. White space at the prompt's end counts with the
    completion, and so does a token that covers both.
    Output lines add {"logprob", "token_logprobs", "tokens", "is_greedy"}; natural logarithms.
    """
    _log(verbose)
    rows = read_rows(input, PairRow)
    check_writable(output)
    loaded = _load(model, precision)
    from ioa_jax.engine.batching import TokenPair
    from ioa_jax.engine.scoring import Scorer

    with progress_bar("scoring", len(rows)) as progress:
        pairs = [
            TokenPair(*_encode(loaded, row.prompt, row.completion, input, line))
            for line, row in rows.items()
        ]
        scores = Scorer(loaded).score_tokens(pairs, progress)
    write_rows(
        output,
        [
            {
                **row.model_dump(),
                "logprob": score.logprob,
                "token_logprobs": list(score.token_logprobs),
                "tokens": list(score.tokens),
                "is_greedy": score.is_greedy,
            }
            for row, score in zip(rows.values(), scores, strict=True)
        ],
    )


@app.command()
def generate(
    model: Model,
    input: Input,
    output: Output,
    precision: Precision = PrecisionOption.bfloat16,
    max_tokens: Annotated[int, typer.Option(help="New tokens at most.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="0 is no limit.")] = 0,
    top_p: Annotated[float, typer.Option(help="1 is no limit.")] = 1.0,
    stop: Annotated[list[str] | None, typer.Option(help="Stop text; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampling.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows that decode together.")] = 32,
    verbose: Verbose = False,
) -> None:
    """Complete prompts or answer chats.

    Input lines: {"prompt"}, continued as it stands, or {"messages": [{"role", "content"}, …]},
    rendered by the model's chat template. Output lines add {"completion", "answer", "thought",
    "tokens", "logprobs", "finish_reason"}: the completion as it was generated, and taken apart into
    what the model answers and what it thinks before. The answer is null where a thought never ends.
    """
    _log(verbose)
    from ioa_jax.engine.sampling import SamplingParams

    params = SamplingParams(max_tokens, temperature, top_k, top_p, tuple(stop or ()), seed)
    rows = read_rows(input, PromptRow)
    check_writable(output)
    loaded = _load(model, precision)
    from ioa_jax.engine.generation import Generator

    prompts = [_prompt(row, loaded, input, line) for line, row in rows.items()]
    openings = _openings(rows.values(), loaded)
    with progress_bar("generating", len(rows)) as progress:
        completions = Generator(loaded, batch_size).generate(prompts, params, progress)
    write_rows(
        output,
        [
            {
                **row.model_dump(exclude_none=True),
                "completion": completion.text,
                **cut_thoughts(completion.text, bool(opening))._asdict(),
                "tokens": list(completion.tokens),
                "logprobs": list(completion.logprobs),
                "finish_reason": completion.finish_reason,
            }
            for row, opening, completion in zip(rows.values(), openings, completions, strict=True)
        ],
    )


@app.command()
def train(
    student: Model,
    data: Annotated[Path, typer.Option(help="JSONL file.", show_default=False)],
    output: Annotated[Path, typer.Option(help="New directory.", show_default=False)],
    precision: Precision = PrecisionOption.bfloat16,
    learning_rate: Annotated[float, typer.Option(help="Peak of the cosine.")] = 2e-5,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 3,
    batch_rows: Annotated[int, typer.Option(help="Packed rows of one step.")] = 8,
    row_length: Annotated[int, typer.Option(help="Tokens of a packed row.")] = 512,
    accumulation: Annotated[int, typer.Option(help="Parts that a step is split into.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of order and adapters.")] = 0,
    lora_rank: Annotated[int, typer.Option(min=0, help="0 trains every weight.")] = 0,
    lora_alpha: Annotated[float, typer.Option(help="Scale times rank.")] = 32.0,
    lora_targets: Annotated[str, typer.Option(help="Regular expression.")] = "q|k|v|o",
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 50,
    verbose: Verbose = False,
) -> None:
    """Supervised fine-tuning on completions.

    Input lines: {"prompt", "completion"}, or {"messages", "completion"} for a chat. The output is a
    Hugging Face directory, with `train.jsonl` (one line a step), `train.json` (what was trained,
    and how) and, for LoRA, `adapter/` in PEFT's layout beside the merged weights. Where the model's
    chat template writes thoughts, answers to chats are trained as it writes them: with their
    thoughts if they have any, else behind an empty one. A killed run goes on from
    OUTPUT.checkpoints when the same command is given again.
    """
    _log(verbose)
    from ioa_jax.engine.training import LoRAConfig, TrainConfig

    config = TrainConfig(
        learning_rate=learning_rate,
        epochs=epochs,
        batch_rows=batch_rows,
        row_length=row_length,
        accumulation=accumulation,
        seed=seed,
        lora=LoRAConfig(lora_rank, lora_alpha, lora_targets) if lora_rank else None,
        save_every=save_every,
    )
    rows = read_rows(data, CompletionRow)
    if output.exists():
        raise InputError(f"{output} exists; name a new directory")
    check_writable(output)
    loaded = _load(student, precision, store_float32=True)
    import dataclasses
    import shutil

    from ioa_jax.engine.training import StepMetrics
    from ioa_jax.engine.training import train as run_training
    from ioa_jax.models.thinking import ThoughtForm

    form = ThoughtForm.of(loaded.tokenizer) if any(r.messages for r in rows.values()) else None
    examples, counts = _examples(rows, loaded, form, data)
    if form is not None:
        logging.getLogger(__name__).info("chats are trained %s", form.told)
    checkpoints = output.with_name(output.name + ".checkpoints")
    lines: list[dict[str, Any]] = []
    with progress_bar("training", 0) as progress:

        def on_step(metrics: StepMetrics) -> None:
            lines.append(dataclasses.asdict(metrics))
            progress(metrics.step, metrics.steps)

        result = run_training(
            loaded.decoder, examples, config, directory=checkpoints, on_step=on_step
        )
    _write_trained(result, loaded, student, output)
    write_rows(output / "train.jsonl", lines)
    record = {
        "student": student,
        "fingerprint": loaded.fingerprint,
        "data": str(data),
        "config": dataclasses.asdict(config),
        "examples": counts,
    }
    write_json(output / "train.json", record | _circumstances(loaded, form))
    shutil.rmtree(checkpoints)


def _write_trained(
    result: TrainResult, model: LanguageModel, base_model: str, output: Path
) -> None:
    from ioa_jax.models.huggingface import write_decoder
    from ioa_jax.models.peft import write_lora

    write_decoder(result.decoder, model.tokenizer, output)
    if result.lora is not None:
        write_lora(result.lora, output / "adapter", base_model=base_model)


def _circumstances(model: LanguageModel, form: ThoughtForm | None) -> dict[str, Any]:
    from ioa_jax.models.text import template_date
    from ioa_jax.record import environment

    return {
        "thoughts": None if form is None else form.told,
        "template_date": template_date(model.tokenizer) if form else None,
        "environment": environment(),
    }


def _examples(
    rows: Mapping[int, CompletionRow], model: LanguageModel, form: ThoughtForm | None, path: Path
) -> tuple[list[TokenPair], dict[str, int]]:
    """The rows of a file by line as tokens, and how many there are of each kind."""
    from ioa_jax.engine.batching import TokenPair
    from ioa_jax.models.text import encode_prompt

    counts: dict[str, int] = dict.fromkeys(("chats with thoughts", "chats without", "texts"), 0)
    examples: list[TokenPair] = []
    ending: dict[bool, int] = {}  # by whether the row is a chat
    for line, row in rows.items():
        is_chat = row.messages is not None
        if is_chat:
            # Apart, so that the prompt is token for token what generation sees.
            before = _prompt(row, model, path, line)
            assert form is not None
            try:
                answer = form.write(row.completion)
            except InputError as error:
                raise InputError(f"{path}:{line}: field 'completion': {error}") from None
            after = tuple(encode_prompt(model.tokenizer, answer, rendered=True))
            thinks = bool(cut_thoughts(row.completion).thought.strip())
            counts["chats with thoughts" if thinks else "chats without"] += 1
        else:
            counts["texts"] += 1
            before, after = _encode(model, row.prompt or "", row.completion, path, line)
        if is_chat not in ending:
            ending[is_chat] = _ending(model, is_chat)
        examples.append(TokenPair(before, (*after, ending[is_chat])))
    return examples, counts


@app.command()
def export(
    model: Model,
    output: Annotated[Path, typer.Option(help="New directory.", show_default=False)],
    dtype: Annotated[
        PrecisionOption, typer.Option(help="Dtype of the stored weights.")
    ] = PrecisionOption.bfloat16,
    keep_layers: Annotated[
        int, typer.Option(min=0, help="Keep this many layers, evenly spaced; 0 keeps all.")
    ] = 0,
    adapter: Annotated[
        Path | None, typer.Option(help="PEFT adapter directory to merge.", show_default=False)
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Write a model as a Hugging Face directory: from GGUF, pruned, or with an adapter merged."""
    _log(verbose)
    if output.exists():
        raise InputError(f"{output} exists; name a new directory")
    check_writable(output)
    loaded = _load(model, PrecisionOption.float32, store_float32=True)
    import jax.numpy as jnp

    from ioa_jax.models.huggingface import write_decoder
    from ioa_jax.models.lora import merge_lora
    from ioa_jax.models.peft import read_lora
    from ioa_jax.models.prune import prune_model

    decoder = loaded.decoder
    if adapter is not None:
        decoder = merge_lora(decoder, read_lora(adapter, decoder.config))
    if keep_layers:
        import dataclasses

        decoder = prune_model(
            dataclasses.replace(loaded, decoder=decoder), keep_count=keep_layers
        ).decoder
    write_decoder(decoder, loaded.tokenizer, output, dtype=jnp.dtype(dtype.value))


def _load(spec: str, precision: PrecisionOption, store_float32: bool = False) -> LanguageModel:
    import jax.numpy as jnp

    from ioa_jax.models.load import load_model

    dtype = jnp.float32 if store_float32 else jnp.dtype(precision.value)
    return load_model(spec, precision.value, dtype=dtype)


def _prompt(row: PromptRow, model: LanguageModel, path: Path, line: int) -> tuple[int, ...]:
    from ioa_jax.models.text import encode_prompt, render_chat

    if row.prompt is not None:
        return tuple(encode_prompt(model.tokenizer, row.prompt))
    assert row.messages is not None
    try:
        text = render_chat(model.tokenizer, [message.model_dump() for message in row.messages])
    except InputError as error:
        raise InputError(f"{path}:{line}: field 'messages': {error}") from None
    return tuple(encode_prompt(model.tokenizer, text, rendered=True))


def _openings(rows: Iterable[PromptRow], model: LanguageModel) -> list[str]:
    """Of each row, the tag by which its prompt ends inside a thought; empty if it doesn't."""
    from ioa_jax.models.text import thought_opening

    of_chats: str | None = None
    openings: list[str] = []
    for row in rows:
        if row.prompt is not None:
            openings.append(opened_thought(row.prompt))
            continue
        if of_chats is None:
            of_chats = thought_opening(model.tokenizer)
        openings.append(of_chats)
    return openings


def _encode(
    model: LanguageModel, prompt: str, completion: str, path: Path, line: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    from ioa_jax.models.text import encode_prompt_completion

    try:
        before, after = encode_prompt_completion(model.tokenizer, prompt, completion)
    except InputError as error:
        raise InputError(f"{path}:{line}: field 'completion': {error}") from None
    return tuple(before), tuple(after)


def _ending(model: LanguageModel, is_chat: bool) -> int:
    """The token that a completion is taught to end with."""
    from ioa_jax.models.text import end_of_turn

    endings = model.decoder.config.eos_token_ids
    if is_chat:
        return end_of_turn(model.tokenizer, endings)
    eos: Any = model.tokenizer.eos_token_id
    if eos in endings:
        return eos
    if not endings:
        raise InputError(f"{model.spec}: the model names no token that ends a text")
    return endings[0]


def _log(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("absl").setLevel(logging.WARNING)


def main() -> None:
    """Entry point: user errors become one line on stderr and an exit code."""
    run_app(app)


def run_app(app: typer.Typer) -> None:
    """Run a command line; an `IOAError` prints its message alone and exits with its code."""
    # transformers would say that PyTorch isn't there, which nothing here needs.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        app()
    except IOAError as error:
        print(f"error: {shown(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        # Wherever it is met, it is no defect.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}; make room and go on", file=sys.stderr)
        sys.exit(InputError.exit_code)
