"""Build the models of the world: `python -m suite.micro.build`.

Tokenizer, teacher, its gates, students; each part is skipped where its files are there already, and
training goes on from its newest checkpoint. The same code makes the same models on one kind of
machine.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import typer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ioa_jax.cli import run_app
from ioa_jax.engine.trainer import Trainer
from ioa_jax.files import read_text, write_text
from ioa_jax.models.load import LanguageModel
from ioa_jax.streams import stream
from ioa_jax.student import Student
from suite.micro.draft import pick
from suite.micro.lessons import SKILLS
from suite.micro.measure import Graders, accuracies
from suite.micro.recipe import (
    SEED,
    TOKENIZER_TASKS,
    Batches,
    Recipe,
    new_model,
    teacher_recipe,
    weights,
)
from suite.micro.tokens import train_tokenizer
from suite.micro.world import MODULES, distinct_problems

log = logging.getLogger(__name__)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

FOLDER = Path(__file__).parent
_LOG_EVERY = 50
_BATCH = 64


def tokenizer_texts() -> Iterator[str]:
    """Prompts and answers of every skill and module."""
    for number in range(TOKENIZER_TASKS):
        rng = stream(SEED, "micro", "tokenizer", number)
        task = SKILLS[pick(rng, list(SKILLS))](rng, pick(rng, list(MODULES)), "train")
        yield str(task.messages[0]["content"])
        yield task.answer


def make_tokenizer(work: Path) -> PreTrainedTokenizerBase:
    """Train it, or read what was trained."""
    folder = work / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        tokenizer = train_tokenizer(tokenizer_texts())
        tokenizer.save_pretrained(str(folder))
        log.info("tokenizer: %d tokens", len(tokenizer))
    return AutoTokenizer.from_pretrained(str(folder))


def train_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, work: Path) -> Student:
    """Train a model to the end of its budget.

    Args:
        recipe: What and how.
        tokenizer: Of the world.
        work: For checkpoints and `watch.jsonl`, what was measured on the way.
    """
    model = new_model(recipe, tokenizer)
    batches = Batches(recipe, tokenizer)
    problems = [
        problem
        for module in recipe.targets
        for problem in distinct_problems(module, recipe.watched, "probe")
    ]
    watched = _read_watch(work / "watch.jsonl")
    directory = work / "checkpoints"
    with (
        Trainer(model.decoder, recipe.train, recipe.tokens, directory=directory) as trainer,
        Graders() as graders,
    ):
        log.info("%s: %d parameters", recipe.name, model.decoder.config.parameter_count())
        while True:
            step = trainer.steps
            if step and step % recipe.watch_every == 0:
                if step not in watched:
                    student = _student(model, trainer)
                    watched[step] = accuracies(student, problems, graders)
                    _append_watch(work / "watch.jsonl", step, watched[step])
                _log_watch(recipe.name, step, watched[step])
            last = max((known for known in watched if known <= step), default=None)
            measured = None if last is None else watched[last]
            metrics = trainer.step(batches.batch(step, weights(recipe.targets, measured)))
            if metrics is None:
                break
            if metrics.step % _LOG_EVERY == 0:
                log.info(
                    "%s: step %d, %.1f %% of the tokens, loss %.3f, %.0f tokens/s",
                    recipe.name,
                    metrics.step,
                    100 * trainer.progress,
                    metrics.loss,
                    metrics.tokens / metrics.seconds,
                )
        trainer.save()
        return _student(model, trainer)


def _student(model: LanguageModel, trainer: Trainer) -> Student:
    return Student(dataclasses.replace(model, decoder=trainer.decoder), _BATCH)


def _read_watch(path: Path) -> dict[int, dict[str, float]]:
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in read_text(path).splitlines()]
    return {row["step"]: row["accuracy"] for row in rows}


def _append_watch(path: Path, step: int, accuracy: dict[str, float]) -> None:
    rows = read_text(path) if path.is_file() else ""
    write_text(path, rows + json.dumps({"step": step, "accuracy": accuracy}) + "\n")


def _log_watch(name: str, step: int, accuracy: dict[str, float]) -> None:
    mean = sum(accuracy.values()) / len(accuracy)
    weak = sorted((value, module) for module, value in accuracy.items() if value < 0.9)
    shown = ", ".join(f"{module} {value:.2f}" for value, module in weak)
    log.info("%s: step %d, mean %.3f on probes; under 0.9: %s", name, step, mean, shown or "none")


@app.command()
def build(
    output: Annotated[Path, typer.Option(help="Where the finished models go.")] = FOLDER,
    work: Annotated[Path, typer.Option(help="For what is needed to go on.")] = Path("micro-build"),
) -> None:
    """Build tokenizer, teacher and students."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    tokenizer = make_tokenizer(work)
    teacher = train_model(teacher_recipe(), tokenizer, work / "teacher")
    teacher.save(output / "teacher", "", jnp.bfloat16)


def main() -> None:
    """`python -m suite.micro.build`."""
    run_app(app)


if __name__ == "__main__":
    main()
