"""Build the models of the world: `python -m suite.micro.build`.

Tokenizer, teacher, its gates, students; each part is skipped where its files are there already, and
training goes on from its newest checkpoint. The same code makes the same models on one kind of
machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import typer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ioa_jax.cli import run_app
from ioa_jax.engine.training import Batch, Trainer
from ioa_jax.errors import InputError
from ioa_jax.files import read_json, read_text, write_json, write_text
from ioa_jax.graders.by_kind import Graders
from ioa_jax.models.load import LanguageModel, load_model
from ioa_jax.streams import stream
from ioa_jax.student import Student
from suite.micro.draft import pick
from suite.micro.gates import benchmark_accuracies, student_faults, teacher_faults, write_examples
from suite.micro.lessons import ASKED, SKILLS
from suite.micro.measure import accuracies
from suite.micro.recipe import (
    SEED,
    TOKENIZER_TASKS,
    VARIANTS,
    Batches,
    Recipe,
    Round,
    Variant,
    new_model,
    student_recipe,
    teacher_recipe,
    weights,
)
from suite.micro.tokens import train_tokenizer
from suite.micro.world import MODULES, VERSION, distinct_problems

# Not __name__, which is __main__ where this is run.
log = logging.getLogger("suite.micro.build")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

FOLDER = Path(__file__).parent
CARD = """# {name}

A model of the embedded world `micro`, trained from scratch by `python -m suite.micro.build`.
Licence: Apache-2.0.
"""
_LOG_EVERY = 50
_BATCH = 64


def tokenizer_texts() -> Iterator[str]:
    """Prompts and answers of every module, and of every skill that the suite asks for."""
    for number in range(TOKENIZER_TASKS):
        rng = stream(SEED, "micro", "tokenizer", number)
        task = SKILLS[pick(rng, ASKED)](rng, pick(rng, list(MODULES)), "train")
        yield str(task.messages[0]["content"])
        yield task.answer


def make_tokenizer(work: Path) -> PreTrainedTokenizerBase:
    """Train it, or read what was trained."""
    folder = work / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        tokenizer = train_tokenizer(tokenizer_texts())
        tokenizer.save_pretrained(str(folder))
        log.info("tokenizer: %d tokens", len(tokenizer))
    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)


def train_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, work: Path) -> Student:
    """Train a model to the end of its last round.

    Args:
        recipe: What and how.
        tokenizer: Of the world.
        work: For checkpoints and `watch.jsonl`, what was measured on the way.
    """
    model = new_model(recipe, tokenizer)
    log.info("%s: %d parameters", recipe.name, model.decoder.config.parameter_count())
    with Graders() as graders:
        course = _Course(recipe, tokenizer, graders, work / "watch.jsonl")
        for number, one in enumerate(recipe.rounds, start=1):
            config = dataclasses.replace(recipe.train, learning_rate=one.learning_rate)
            directory = work / f"checkpoints-{number}"
            with Trainer(model.decoder, config, one.tokens, directory=directory) as trainer:
                course.train(model, trainer, number, one)
                model = dataclasses.replace(model, decoder=trainer.decoder)
    return Student(model, _BATCH)


class _Course:
    """The steps of all rounds, counted on, and what is measured between them."""

    def __init__(
        self, recipe: Recipe, tokenizer: PreTrainedTokenizerBase, graders: Graders, watch: Path
    ) -> None:
        self._recipe = recipe
        self._batches = Batches(recipe, tokenizer)
        self._graders = graders
        self._watch = watch
        self._watched = _read_watch(watch)
        self._before = 0
        self._problems = [
            problem
            for module in recipe.targets
            for problem in distinct_problems(module, recipe.watched, "probe")
        ]

    def train(self, model: LanguageModel, trainer: Trainer, number: int, one: Round) -> None:
        """A round, from wherever the trainer is to its end."""
        name = self._recipe.name
        while True:
            step = self._before + trainer.steps
            if step and step % self._recipe.watch_every == 0:
                self._measure(model, trainer, step)
            last = max((known for known in self._watched if known <= step), default=None)
            measured = None if last is None else self._watched[last]
            shares = weights(self._recipe.targets, measured, one.focus)
            batch = self._batches.batch(step, shares, one.skills)
            metrics = trainer.step(Batch(tuple(batch)))
            if metrics is None:
                break
            if metrics.step % _LOG_EVERY == 0:
                log.info(
                    "%s: step %d, %.1f %% of round %d, loss %.3f, %.0f tokens/s",
                    name,
                    self._before + metrics.step,
                    100 * trainer.progress,
                    number,
                    metrics.loss,
                    metrics.tokens / metrics.seconds,
                )
        trainer.save()
        self._before += trainer.steps

    def _measure(self, model: LanguageModel, trainer: Trainer, step: int) -> None:
        if step not in self._watched:
            student = Student(dataclasses.replace(model, decoder=trainer.decoder), _BATCH)
            self._watched[step] = accuracies(student, self._problems, self._graders)
            _append_watch(self._watch, step, self._watched[step])
        _log_watch(self._recipe.name, step, self._watched[step])


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


def finish(student: Student, name: str, output: Path) -> dict[str, Any]:
    """Write a model, and measure what was written: in bfloat16 it isn't quite what was trained.

    Returns:
        Its entry for `models.json`: file, checksum, size and test accuracy by module.
    """
    folder = output / name
    student.save(folder, CARD.format(name=name), jnp.bfloat16)
    weights_file = folder / "model.safetensors"
    written = Student.open(str(folder), batch_size=_BATCH)
    accuracy = benchmark_accuracies(written)
    log.info("%s: mean test accuracy %.3f", name, sum(accuracy.values()) / len(accuracy))
    return {
        "sha256": hashlib.sha256(weights_file.read_bytes()).hexdigest(),
        "fingerprint": written.model.fingerprint,
        "parameters": written.model.decoder.config.parameter_count(),
        "world": VERSION,
        "accuracy": accuracy,
    }


def _faults(name: str, output: Path, entries: dict[str, Any]) -> list[str]:
    accuracy = entries[name]["accuracy"]
    if name == "teacher":
        examples = write_examples(load_model(str(output / name)))
        entries[name]["examples"] = dataclasses.asdict(examples)
        return teacher_faults(accuracy, examples)
    variant: Variant = next(one for one in VARIANTS if name == f"student-{one}")
    if "teacher" not in entries:
        return ["there is no teacher yet to compare it with"]
    return student_faults(variant, accuracy, entries["teacher"]["accuracy"])


@app.command()
def build(
    output: Annotated[Path, typer.Option(help="Where the finished models go.")] = FOLDER,
    work: Annotated[Path, typer.Option(help="For what is needed to go on.")] = Path("micro-build"),
    model: Annotated[
        list[str] | None,
        typer.Option(help="Build these alone: teacher, student-uneven, student-flat."),
    ] = None,
) -> None:
    """Build tokenizer, teacher and students, and say which gates they miss."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", force=True)
    log.setLevel(logging.INFO)
    recipes = [teacher_recipe(), *map(student_recipe, VARIANTS)]
    names = [recipe.name for recipe in recipes]
    unknown = [name for name in model or () if name not in names]
    if unknown:
        raise InputError(f"--model {unknown[0]}: there are {', '.join(names)}")
    tokenizer = make_tokenizer(work)
    missed = False
    for recipe in recipes:
        if recipe.name not in (model or names):
            continue
        path = output / "models.json"
        entries: dict[str, Any] = read_json(path) if path.is_file() else {}
        if recipe.name not in entries:
            trained = train_model(recipe, tokenizer, work / recipe.name)
            entries[recipe.name] = finish(trained, recipe.name, output)
            # What it reached on the way goes with it.
            shutil.copy(work / recipe.name / "watch.jsonl", output / recipe.name)
            write_json(path, entries)
        faults = _faults(recipe.name, output, entries)
        write_json(path, entries)
        for fault in faults:
            log.error("%s: %s", recipe.name, fault)
        missed = missed or bool(faults)
    if missed:
        raise typer.Exit(1)


def main() -> None:
    """`python -m suite.micro.build`."""
    run_app(app)


if __name__ == "__main__":
    main()
