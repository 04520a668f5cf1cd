"""The reference points of the embedded world: their budgets, and where their problems come from."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ioa_jax.adapter.duplicates import BenchmarkIndex
from ioa_jax.engine.training import Batch, StepMetrics, Trainer
from ioa_jax.identifier.probes import ProbeGraders
from ioa_jax.student import Student
from ioa_jax.teachers.base import Sampling
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.replay import LedgeredTeacher
from ioa_jax.teachers.spend import Budget
from suite.methods import world as reference
from suite.methods.base import MethodContext, as_chat
from suite.methods.registry import load_method
from suite.methods.world import deficient, measure, problems, right_pairs
from suite.micro.world import MODULES, benchmark_problems, micro_seeds
from suite.models import find_spec
from suite.profile import Budgets, SandboxSettings
from suite.profile_files import load_profile
from tests.teachers.recorded import ScriptedTeacher

ROW = 128
BUDGETS = Budgets(teacher_tokens=1500, student_tokens=4000)


@pytest.fixture(scope="module")
def student() -> Student:
    return Student.open(find_spec("micro:student-uneven"), "float32", batch_size=32)


@pytest.fixture(scope="module")
def graders() -> Iterator[ProbeGraders]:
    with ProbeGraders() as found:
        yield found


@pytest.fixture(autouse=True)
def few_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of a few modules are quick; every figure is told by them."""
    chosen = [*itertools.islice(MODULES, 4), *itertools.islice(reversed(MODULES), 4)]
    monkeypatch.setattr(reference, "MODULES", {name: MODULES[name] for name in chosen})
    monkeypatch.setattr(reference, "MEASURED", 5)
    monkeypatch.setattr(reference, "RETAINED", 3)


@pytest.fixture
def context(student: Student, graders: ProbeGraders, tmp_path: Path) -> MethodContext:
    profile = load_profile("micro")[1]
    return MethodContext(
        student=student,
        teacher=LedgeredTeacher(
            ScriptedTeacher(), Ledger(tmp_path / "ledger"), Budget(max_tokens=1500)
        ),
        seeds=micro_seeds(20),
        budgets=BUDGETS,
        train=profile.train.model_copy(update={"batch_rows": 4}),
        sampling=Sampling(max_tokens=96, temperature=0.9),
        pack="micro",
        sandbox=SandboxSettings(),
        graders=graders,
        seed=90,
        directory=tmp_path / "cell",
        on_step=lambda part, metrics, now: None,
        cell_of=lambda method: None,
        options=profile.options,
        benchmarks=lambda: BenchmarkIndex({}),
        shared=tmp_path / "shared",
    )


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Batch, int]]:
    """What is trained on, and the tokens of each step."""
    found: list[tuple[Batch, int]] = []
    step = Trainer.step

    def keep(self: Trainer, batch: Batch) -> StepMetrics | None:
        metrics = step(self, batch)
        if metrics is not None:
            found.append((batch, metrics.tokens))
        return metrics

    monkeypatch.setattr(Trainer, "step", keep)
    return found


def prompts_of(context: MethodContext, batches: Sequence[tuple[Batch, int]]) -> set[str]:
    pairs = {pair for batch, _ in batches for pair in (*batch.examples, *batch.retained)}
    tokenizer = context.student.model.tokenizer
    return {str(tokenizer.decode(list(pair.prompt))) for pair in pairs}


def test_problems_are_of_the_split_train_and_of_no_seed_or_test_item() -> None:
    found = list(itertools.islice(problems(tuple(MODULES), 0), 3 * 5 * len(MODULES)))
    assert {problem.split for problem in found} == {"train"}
    # Every module and difficulty equally often.
    kinds = [(problem.module, problem.difficulty) for problem in found]
    assert {kinds.count(kind) for kind in set(kinds)} == {3}
    assert len(set(kinds)) == 5 * len(MODULES)
    tests = {
        problem.prompt
        for domain in {module.domain for module in MODULES.values()}
        for problem in benchmark_problems(domain, 50)
    }
    used = {problem.prompt for problem in found}
    assert not used & tests
    assert not used & {seed.prompt for seed in micro_seeds(780)}
    assert [p.prompt for p in itertools.islice(problems(tuple(MODULES), 0), 9)] == [
        p.prompt for p in found[:9]
    ]
    assert next(problems(tuple(MODULES), 1)).prompt != found[0].prompt


def test_right_answers_are_as_many_as_the_tokens_allow(context: MethodContext) -> None:
    pairs = right_pairs(context, tuple(MODULES), 1500)
    size = sum(map(len, pairs))
    assert 1500 - ROW < size <= 1500
    assert right_pairs(context, tuple(MODULES), 3000)[: len(pairs)] == pairs
    assert right_pairs(context, tuple(MODULES), 3) == []


def test_uniform_right_keeps_both_budgets(
    context: MethodContext, batches: list[tuple[Batch, int]]
) -> None:
    result = load_method("uniform_right").run(context)
    assert BUDGETS.student_tokens - ROW < sum(n for _, n in batches) <= BUDGETS.student_tokens
    pairs = {pair for batch, _ in batches for pair in batch.examples}
    given = right_pairs(context, tuple(reference.MODULES), BUDGETS.teacher_tokens)
    assert pairs == set(given)
    assert len(given) == result.notes["examples"]
    assert not any(batch.retained for batch, _ in batches)
    assert context.teacher.used.completion_tokens == 0
    # Right ones, of all modules.
    right = {
        context.student.answer_pair(as_chat(p.prompt), p.reference)
        for p in itertools.islice(problems(tuple(reference.MODULES), 90), len(given))
    }
    assert pairs == right


def test_the_oracle_teaches_what_is_lacking_and_retains_the_rest(
    context: MethodContext, batches: list[tuple[Batch, int]]
) -> None:
    before = measure(context, context.student)
    lacking = deficient(before, 0.28)
    # A perfect teacher's gap is what is missing to 1.
    assert lacking == tuple(name for name, own in before.items() if own.mean < 0.72)
    assert 0 < len(lacking) < len(reference.MODULES)
    result = load_method("oracle").run(context)
    assert result.notes["lacking"] == list(lacking)
    assert set(result.notes["gates"]["end"]) == set(lacking)
    assert BUDGETS.student_tokens - ROW < sum(n for _, n in batches) <= BUDGETS.student_tokens
    assert context.teacher.used.completion_tokens == 0
    taught = Counter(pair for batch, _ in batches for pair in batch.examples)
    # None twice but what the world gives twice: they have no end.
    given = right_pairs(context, lacking, BUDGETS.student_tokens)
    assert taught <= Counter(given)
    assert any(batch.retained for batch, _ in batches)
    tests = {
        problem.prompt
        for domain in {module.domain for module in MODULES.values()}
        for problem in benchmark_problems(domain, 50)
    }
    shown = prompts_of(context, batches)
    assert not any(test in prompt for prompt in shown for test in tests)


def test_the_oracle_leaves_a_student_that_lacks_nothing(
    context: MethodContext, batches: list[tuple[Batch, int]]
) -> None:
    options: dict[str, Any] = {"diagnose": {"tau_gap": 1.0}}
    result = load_method("oracle").run(dataclasses.replace(context, options=options))
    assert result.student is context.student
    assert result.notes == {"lacking": [], "gates": {"end": {}}}
    assert batches == []


def test_the_oracle_stands_before_ioas_gate(
    context: MethodContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every problem answered rightly it passes, and with none it doesn't."""
    monkeypatch.setattr(reference, "fine_tune", lambda context, pairs: "taught")
    before = measure(context, context.student)
    lacking = deficient(before, 0.28)
    for score, passed in ((1.0, True), (0.0, False)):

        def measured(_: MethodContext, student: Any, score: float = score) -> Any:
            if student != "taught":
                return before
            return {
                name: dataclasses.replace(own, values=(score,) * len(own.values))
                for name, own in before.items()
            }

        monkeypatch.setattr(reference, "measure", measured)
        options = {"organizer": {"gate": "literal"}}
        result = load_method("oracle").run(dataclasses.replace(context, options=options))
        assert result.notes["gates"]["end"] == dict.fromkeys(lacking, passed)
