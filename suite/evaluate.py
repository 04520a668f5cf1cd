"""How good a model is: probes by log-probability and ROUGE-L, HumanEval by pass@1."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ioa_jax.engine.generation import Completion, Generator
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.engine.scoring import Scorer
from ioa_jax.models.load import LanguageModel
from ioa_jax.progress import progress_bar
from ioa_jax.sandbox import Limits, Sandbox
from suite.chat import answer_pair, generate_in_chunks, prompt_tokens
from suite.journal import Journal
from suite.profile import Profile, SandboxSettings
from suite.tasks import humaneval
from suite.tasks.humaneval import Problem
from suite.tasks.rouge import rouge_l
from suite.tasks.seeds import SeedTask


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What every model of a run is measured with.

    Attributes:
        profile: Settings.
        probes: Held-out tasks.
        problems: Of HumanEval.
    """

    profile: Profile
    probes: tuple[SeedTask, ...]
    problems: tuple[Problem, ...]

    def run(self, model: LanguageModel, directory: Path, name: str) -> None:
        """Measure what `directory` doesn't hold yet: probes.jsonl, humaneval.jsonl, seconds.jsonl.

        Args:
            model: Weights in the dtype that they are measured in.
            directory: Of the cell.
            name: For progress bars.
        """
        generator = Generator(model, self.profile.generation.batch_size)
        with Journal(directory / "seconds.jsonl", ("part", "chunk")) as seconds:
            self._run_probes(model, generator, directory, name, seconds)
            self._run_humaneval(model, generator, directory, name, seconds)

    def is_complete(self, directory: Path) -> bool:
        """Whether a cell has everything."""
        with (
            Journal(directory / "probes.jsonl", ("id",)) as probes,
            Journal(directory / "humaneval.jsonl", ("task_id",)) as problems,
        ):
            return all((probe.id,) in probes for probe in self.probes) and all(
                (problem.task_id,) in problems for problem in self.problems
            )

    def _run_probes(
        self,
        model: LanguageModel,
        generator: Generator,
        directory: Path,
        name: str,
        seconds: Journal,
    ) -> None:
        with Journal(directory / "probes.jsonl", ("id",)) as journal:
            if all((probe.id,) in journal for probe in self.probes):
                return
            # All of them, also in a resumed run: what is packed with what stays the same.
            pairs = [
                answer_pair(model, probe.messages, probe.reference, ended=False)
                for probe in self.probes
            ]
            with (
                _timed(seconds, "probe scoring", 0),
                progress_bar(f"{name}: probe scoring", len(pairs)) as progress,
            ):
                scores = Scorer(model).score_tokens(pairs, progress)

            def record(index: int, completion: Completion) -> None:
                probe, score = self.probes[index], scores[index]
                journal.append(
                    {
                        "id": probe.id,
                        "module": probe.module,
                        "logprob": score.logprob,
                        "tokens": len(score.tokens),
                        "bytes": len(probe.reference.encode()),
                        "logprob_per_token": score.logprob / len(score.tokens),
                        "answer": completion.text,
                        "answer_tokens": len(completion.tokens),
                        "finish_reason": completion.finish_reason,
                        "rouge_l": rouge_l(probe.reference, completion.text),
                    }
                )

            generate_in_chunks(
                generator,
                [pair.prompt for pair in pairs],
                SamplingParams(max_tokens=self.profile.probes.max_tokens),
                self.profile.generation.chunk_size,
                f"{name}: probe answers",
                lambda index: (self.probes[index].id,) in journal,
                record,
                lambda number: _timed(seconds, "probe answers", number),
            )

    def _run_humaneval(
        self,
        model: LanguageModel,
        generator: Generator,
        directory: Path,
        name: str,
        seconds: Journal,
    ) -> None:
        with (
            make_sandbox(self.profile.sandbox) as sandbox,
            Journal(directory / "humaneval.jsonl", ("task_id",)) as journal,
        ):

            def record(index: int, completion: Completion) -> None:
                problem = self.problems[index]
                verdict = humaneval.grade(problem, completion.text, sandbox)
                journal.append(
                    {
                        "task_id": problem.task_id,
                        "passed": verdict.result.passed,
                        "status": verdict.result.status,
                        "detail": verdict.result.detail,
                        "rule": verdict.extraction.rule,
                        "answer": completion.text,
                        "code": verdict.extraction.code,
                        "answer_tokens": len(completion.tokens),
                        "finish_reason": completion.finish_reason,
                        "cpu_seconds": verdict.result.cpu_seconds,
                        "sandbox": sandbox.info.backend,
                        "python": sandbox.info.python,
                    }
                )

            generate_in_chunks(
                generator,
                [prompt_tokens(model, problem.messages) for problem in self.problems],
                SamplingParams(max_tokens=self.profile.humaneval.max_tokens),
                self.profile.generation.chunk_size,
                f"{name}: HumanEval",
                lambda index: (self.problems[index].task_id,) in journal,
                record,
                lambda number: _timed(seconds, "HumanEval", number),
            )


def make_sandbox(settings: SandboxSettings) -> Sandbox:
    """A sandbox with the profile's limits, to be closed by the caller."""
    limits = Limits(
        wall_seconds=settings.wall_seconds,
        cpu_seconds=settings.cpu_seconds,
        memory_bytes=settings.memory_bytes,
    )
    return Sandbox(limits, allow_weak=settings.allow_weak)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; there is at least one value."""
    return sum(values) / len(values)


@contextlib.contextmanager
def _timed(journal: Journal, part: str, chunk: int) -> Iterator[None]:
    """Record the wall time of a part that ran to its end; the first time counts."""
    began = time.monotonic()
    yield
    if (part, chunk) not in journal:
        journal.append({"part": part, "chunk": chunk, "seconds": time.monotonic() - began})
