"""Teacher and student on the probes (method 1.2): answers and their grades, and log-probabilities.

`ioa_jax.identifier.measure` has what is made of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.errors import InputError, SandboxError
from ioa_jax.graders.base import Verdict
from ioa_jax.graders.by_kind import Graders
from ioa_jax.identifier.assignment import score_pairs
from ioa_jax.identifier.gap import BootstrapSettings, LogprobGap, Unit, logprob_gaps
from ioa_jax.identifier.measure import (
    ModulePerformance,
    ProbeGrade,
    ProbeScore,
    ScorerName,
    accuracy_performance,
    logprob_performance,
    rank_correlation,
)
from ioa_jax.identifier.settings import MeasureSettings
from ioa_jax.models.text import encode_prompt_completion, render_chat
from ioa_jax.sandbox import Limits
from ioa_jax.seeds import SeedItem
from ioa_jax.streams import stream
from ioa_jax.student import Student
from ioa_jax.teachers.base import ChatRequest, Sampling, Teacher
from ioa_jax.values import Value

PURPOSE = "measure"

Probes = Mapping[str, Sequence[SeedItem]]
Performances = dict[str, ModulePerformance]


class ProbeGraders(Graders):
    """Graders of probes, by the kinds of their checks.

    Attributes:
        threads: Answers that are graded at a time.
    """

    def __init__(
        self, threads: int = 4, allow_weak_sandbox: bool = False, limits: Limits | None = None
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            threads: Answers that are graded at a time.
            allow_weak_sandbox: Run programs where they can't be isolated fully.
            limits: Of one program with its tests; None are the sandbox's own.
        """
        super().__init__({"code": {"allow_weak": allow_weak_sandbox, "limits": limits}})
        self.threads = threads

    def grade(self, answers: Sequence[tuple[SeedItem, str]]) -> list[Verdict]:
        """Judge (item, text) each; verdicts in input order.

        Raises:
            InputError: An item lacks what its grader needs.
            SandboxError: Programs can't be run, or nothing can be known about one.
        """
        for seed, _ in answers:
            self.of(seed.kind).check_item(seed.item())

        def judge(answer: tuple[SeedItem, str]) -> Verdict:
            seed, text = answer
            verdict = self.of(seed.kind).grade(seed.item(), text)
            if verdict.status == "infra_error":
                raise SandboxError(f"item {seed.id!r}: the sandbox failed: {verdict.detail}")
            return verdict

        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(judge, answers))


@dataclasses.dataclass(frozen=True)
class GradedAnswer:
    """An answer to a probe.

    Attributes:
        seed: The probe.
        module: Its module.
        text: The answer.
        verdict: What the grader found.
    """

    seed: SeedItem
    module: str
    text: str
    verdict: Verdict

    @property
    def grade(self) -> ProbeGrade:
        """As `accuracy_performance` takes it."""
        return ProbeGrade(self.seed.id, self.module, self.verdict.score)


@dataclasses.dataclass(frozen=True)
class Measurement(Value):
    """Teacher and student on every module's probes, by every scorer that there was.

    Attributes:
        scorer: What gaps are made of; one of the keys below.
        teacher: P_T by scorer and module id; by accuracy over the probes that it answered.
        student: P_S likewise, over all probes.
        unit: What |y| counts in log-probabilities; None where they weren't measured.
        logprob: g(k) of every module; empty where they weren't measured.
        rank_correlation: Spearman's between the two scorers over modules, of `teacher` and
            `student`; None where it isn't defined, no entries with one scorer.
    """

    scorer: ScorerName
    teacher: dict[ScorerName, dict[str, ModulePerformance]]
    student: dict[ScorerName, dict[str, ModulePerformance]]
    unit: Unit | None
    logprob: tuple[LogprobGap, ...]
    rank_correlation: dict[str, float | None]


def measure(
    student: Student,
    teacher: Teacher,
    probes: Probes,
    settings: MeasureSettings,
    graders: ProbeGraders,
    bootstrap: BootstrapSettings,
) -> tuple[Measurement, dict[str, list[GradedAnswer]]]:
    """Both models on the probes (method 1.2).

    Args:
        student: The student.
        teacher: The teacher.
        probes: By module id.
        settings: Scorer, length of answers, and how many probes the teacher answers.
        graders: Of `accuracy`.
        bootstrap: Of the log-probability gaps' intervals; its seed also draws the probes that the
            teacher answers.

    Returns:
        The measurement, and the graded answers of `teacher` and `student` (none with `logprob`
        alone).

    Raises:
        InputError: No probes; the scorer is `logprob` and the teacher can't score.
    """
    can_score = teacher.capabilities.score
    if settings.scorer == "logprob" and not can_score:
        raise InputError(
            f"{teacher.fingerprint}: it gives no log-probabilities of texts; set measure.scorer to "
            "accuracy and dependencies.estimator to teacher_prior"
        )
    of_teacher: dict[ScorerName, Performances] = {}
    of_student: dict[ScorerName, Performances] = {}
    answers: dict[str, list[GradedAnswer]] = {}
    if settings.scorer == "accuracy":
        asked = draw_probes(probes, settings.teacher_probes, bootstrap.seed)
        answers["teacher"] = answer_by_teacher(teacher, asked, settings.max_tokens, graders)
        answers["student"] = answer_by_student(student, probes, settings.max_tokens, graders)
        of_teacher["accuracy"] = accuracy_performance([a.grade for a in answers["teacher"]])
        of_student["accuracy"] = accuracy_performance([a.grade for a in answers["student"]])
    unit: Unit | None = None
    gaps: dict[str, LogprobGap] = {}
    if can_score and (settings.report_logprob or settings.scorer == "logprob"):
        unit, by_teacher, by_student = score_references(student, teacher, probes)
        of_teacher["logprob"] = logprob_performance(by_teacher)
        of_student["logprob"] = logprob_performance(by_student)
        gaps = logprob_gaps(by_teacher, by_student, unit, bootstrap)
    correlation: dict[str, float | None] = {}
    for name, measured in (("teacher", of_teacher), ("student", of_student)):
        if len(measured) == 2:
            correlation[name] = rank_correlation(*(means(one) for one in measured.values()))
    return (
        Measurement(
            settings.scorer, of_teacher, of_student, unit, tuple(gaps.values()), correlation
        ),
        answers,
    )


def draw_probes(probes: Probes, count: int | None, seed: int = 0) -> Probes:
    """At most so many probes of each module, drawn from a stream of its own, sorted by id [ours].

    Args:
        probes: By module id.
        count: Of each module; None keeps all.
        seed: Of the draws.
    """
    if count is None:
        return probes
    found: dict[str, tuple[SeedItem, ...]] = {}
    for module, own in probes.items():
        ordered = sorted(own, key=lambda item: item.id)
        order = stream(seed, "teacher probes", module).permutation(len(ordered))
        found[module] = tuple(ordered[i] for i in sorted(order[:count]))
    return found


def measure_student(
    student: Student,
    probes: Probes,
    scorer: ScorerName,
    *,
    graders: ProbeGraders | None = None,
    max_tokens: int = 512,
    unit: Unit = "token",
) -> Performances:
    """P_S now, such as at a gate, by the scorer of the diagnosis.

    Args:
        student: The student.
        probes: By module id; of the modules that matter now.
        scorer: What to measure by.
        graders: Of `accuracy`; None makes some and closes them.
        max_tokens: Of an answer.
        unit: Of `logprob`: the diagnosis' unit, so that figures can be compared.

    Raises:
        InputError: No probes.
    """
    if scorer == "logprob":
        scores = _student_logprobs(student, probes)
        return logprob_performance(_probe_scores(probes, scores, unit))
    if graders is None:
        with ProbeGraders() as own:
            answers = answer_by_student(student, probes, max_tokens, own)
    else:
        answers = answer_by_student(student, probes, max_tokens, graders)
    return accuracy_performance([answer.grade for answer in answers])


def means(performances: Mapping[str, ModulePerformance]) -> dict[str, float]:
    """P(k) by module id."""
    return {module: performance.mean for module, performance in performances.items()}


def answer_by_teacher(
    teacher: Teacher, probes: Probes, max_tokens: int, graders: ProbeGraders
) -> list[GradedAnswer]:
    """The teacher's greedy answers, graded."""
    seeds = _flat(probes)
    requests = [ChatRequest(seed.messages, PURPOSE) for _, seed in seeds]
    completions = teacher.generate(requests, Sampling(max_tokens, temperature=0.0))
    return _graded(seeds, [completion.text for completion in completions], graders)


def answer_by_student(
    student: Student, probes: Probes, max_tokens: int, graders: ProbeGraders
) -> list[GradedAnswer]:
    """The student's greedy answers, graded."""
    seeds = _flat(probes)
    completions = student.generate([seed.messages for _, seed in seeds], SamplingParams(max_tokens))
    return _graded(seeds, [completion.text for completion in completions], graders)


def _graded(
    seeds: Sequence[tuple[str, SeedItem]], texts: Sequence[str], graders: ProbeGraders
) -> list[GradedAnswer]:
    answers = [(seed, text) for (_, seed), text in zip(seeds, texts, strict=True)]
    return [
        GradedAnswer(seed, module, text, verdict)
        for (module, _), (seed, text), verdict in zip(
            seeds, answers, graders.grade(answers), strict=True
        )
    ]


def score_references(
    student: Student, teacher: Teacher, probes: Probes
) -> tuple[Unit, list[ProbeScore], list[ProbeScore]]:
    """Log-probabilities of the reference answers under both models.

    Returns:
        What |y| counts, the teacher's scores and the student's. |y| is the number of tokens where
        it is the same for both models in every probe, and of UTF-8 bytes otherwise [ours].
    """
    pairs = [(teacher.render(seed.messages), seed.reference) for _, seed in _flat(probes)]
    by_teacher = [
        (sum(score.logprobs), len(score.logprobs)) for score in score_pairs(teacher, pairs, PURPOSE)
    ]
    by_student = _student_logprobs(student, probes)
    same = all(t[1] == s[1] for t, s in zip(by_teacher, by_student, strict=True))
    unit: Unit = "token" if same else "byte"
    return (
        unit,
        _probe_scores(probes, by_teacher, unit),
        _probe_scores(probes, by_student, unit),
    )


def probe_pair(student: Student, seed: SeedItem) -> TokenPair:
    """A probe and its reference answer in the student's tokens, cut as `Teacher.score` does it.

    Raises:
        InputError: As `encode_prompt_completion`; names the probe.
    """
    tokenizer = student.model.tokenizer
    try:
        prompt, answer = encode_prompt_completion(
            tokenizer, render_chat(tokenizer, seed.messages), seed.reference, rendered=True
        )
    except InputError as error:
        raise InputError(f"probe {seed.id!r}: {error}") from None
    return TokenPair(tuple(prompt), tuple(answer))


def answer_length(seed: SeedItem, num_tokens: int, unit: Unit) -> int:
    """|y| of a reference answer."""
    return num_tokens if unit == "token" else len(seed.reference.encode())


def _student_logprobs(student: Student, probes: Probes) -> list[tuple[float, int]]:
    """(log-probability, tokens) of each reference answer."""
    pairs = [probe_pair(student, seed) for _, seed in _flat(probes)]
    return [(score.logprob, len(score.tokens)) for score in student.score(pairs)]


def _probe_scores(
    probes: Probes, scores: Sequence[tuple[float, int]], unit: Unit
) -> list[ProbeScore]:
    return [
        ProbeScore(seed.id, module, logprob, answer_length(seed, count, unit))
        for (module, seed), (logprob, count) in zip(_flat(probes), scores, strict=True)
    ]


def _flat(probes: Probes) -> list[tuple[str, SeedItem]]:
    found = [(module, seed) for module in sorted(probes) for seed in probes[module]]
    if not found:
        raise InputError("no probes to measure")
    return found
