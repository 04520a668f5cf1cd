"""How good a model is: probes by log-probability and ROUGE-L, HumanEval by pass@1."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from ioa_jax.engine.generation import Completion, Generator
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.engine.scoring import Scorer
from ioa_jax.errors import SandboxError
from ioa_jax.graders.base import Grader, Item
from ioa_jax.graders.rouge import RougeGrader
from ioa_jax.models.load import LanguageModel
from ioa_jax.progress import progress_bar
from ioa_jax.sandbox import Limits, SandboxInfo
from suite.chat import answer_pair, generate_in_chunks, prompt_tokens
from suite.eval import as_json, open_grader
from suite.journal import Journal
from suite.profile import Profile, SandboxSettings
from suite.tasks.code import HUMANEVAL
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
    problems: tuple[Item, ...]

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

            rouge = RougeGrader()

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
                        "rouge_l": 100 * rouge.grade(_rouge_item(probe), completion.text).score,
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
            humaneval_grader(self.profile.sandbox) as (grader, _),
            Journal(directory / "humaneval.jsonl", ("id",)) as journal,
        ):

            def record(index: int, completion: Completion) -> None:
                problem = self.problems[index]
                verdict = grader.grade(problem, completion.text)
                if verdict.status == "infra_error":
                    # A figure without this problem would be a wrong one.
                    raise SandboxError(f"{problem.id}: the sandbox failed twice: {verdict.detail}")
                journal.append(
                    {
                        "id": problem.id,
                        "answer": completion.text,
                        "answer_tokens": len(completion.tokens),
                        "finish_reason": completion.finish_reason,
                        "verdict": as_json(dataclasses.asdict(verdict)),
                    }
                )

            generate_in_chunks(
                generator,
                [
                    prompt_tokens(model, HUMANEVAL.prompt(problem).messages)
                    for problem in self.problems
                ],
                SamplingParams(max_tokens=self.profile.humaneval.max_tokens),
                self.profile.generation.chunk_size,
                f"{name}: HumanEval",
                lambda index: (self.problems[index].id,) in journal,
                record,
                lambda number: _timed(seconds, "HumanEval", number),
            )


def humaneval_grader(
    settings: SandboxSettings,
) -> contextlib.AbstractContextManager[tuple[Grader, SandboxInfo | None]]:
    """HumanEval's grader under the profile's limits."""
    limits = Limits(
        wall_seconds=settings.wall_seconds,
        cpu_seconds=settings.cpu_seconds,
        memory_bytes=settings.memory_bytes,
    )
    return open_grader(HUMANEVAL, "chat", settings.allow_weak, limits)


def _rouge_item(probe: SeedTask) -> Item:
    return Item(probe.id, probe.prompt, (probe.reference,))


@contextlib.contextmanager
def _timed(journal: Journal, part: str, chunk: int) -> Iterator[None]:
    """Record the wall time of a part that ran to its end; the first time counts."""
    began = time.monotonic()
    yield
    if (part, chunk) not in journal:
        journal.append({"part": part, "chunk": chunk, "seconds": time.monotonic() - began})
