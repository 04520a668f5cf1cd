import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from ioa_jax.engine.generation import Completion
from ioa_jax.errors import InputError
from ioa_jax.identifier.diagnosis import Diagnosis, diagnose
from ioa_jax.identifier.interventions import intervene
from ioa_jax.identifier.probes import ProbeGraders, draw_probes, measure_student
from ioa_jax.identifier.seeds import Role
from ioa_jax.identifier.settings import DiagnoseSettings
from ioa_jax.models.decoder import init_decoder
from ioa_jax.models.load import LanguageModel
from ioa_jax.models.precision import Precision
from ioa_jax.seeds import SeedItem
from ioa_jax.student import Student
from ioa_jax.teachers.base import Capabilities, TokenScores
from tests.suite.world import chat_config, chat_tokenizer
from tests.teachers.recorded import ScriptedTeacher

MODULES = ("maths/add", "maths/divide", "maths/multiply")


def item(number, module):
    verb = module.split("/")[1]
    return SeedItem(
        id=f"{verb}-{number:02d}",
        prompt=f"{verb.title()} {number} and 2.",
        reference=f"The result is {number}.",
        check={"kind": "exact"},
        domain="math",
        module=module,
    )


SEEDS = tuple(item(n, module) for module in MODULES for n in range(12))
ANSWERS = {seed.prompt: seed.reference for seed in SEEDS}


class KnowingTeacher(ScriptedTeacher):
    """Gives the reference answers, but never divides."""

    def __init__(self, score=True):
        super().__init__(self.answer_it, tokens=4)
        self.can_score = score
        self.scored = 0

    def answer_it(self, request, number):
        prompt = request.messages[-1]["content"]
        return "I don't know." if prompt.startswith("Divide") else ANSWERS[prompt]

    @property
    def capabilities(self):
        return Capabilities(score=self.can_score)

    def render(self, messages):
        return f"<{messages[-1]['content']}>"

    def score(self, pairs, on_scores=None):
        self.scored += len(pairs)
        return [TokenScores((-0.01,) * 3, True, 9) for _ in pairs]


class PartlyKnowingStudent(Student):
    """Computes with the tiny model, and says what the test gives it to say."""

    def generate(self, chats, params=None, streams=None, on_completion=None):
        texts = []
        for chat in chats:
            prompt = chat[-1]["content"]
            # Half of what it is asked to multiply, all that it is asked to add.
            knows = prompt.startswith("Add") or (prompt.startswith("Mult") and "1" in prompt[:11])
            texts.append(ANSWERS[prompt] if knows else "?")
        return [Completion(text, (1,), (0.0,), "stop", 5) for text in texts]


@pytest.fixture(scope="module")
def student():
    tokenizer = chat_tokenizer()
    config = chat_config(
        tokenizer,
        hidden_size=16,
        intermediate_size=24,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        max_position=512,
    )
    decoder = init_decoder(config, jax.random.key(0), Precision.named("float32"), jnp.float32)
    return PartlyKnowingStudent(LanguageModel(decoder, tokenizer, "tiny", "1" * 64))


def settings(**dependencies):
    options = {"steps": 4, "snapshots": 2, "batch_rows": 2, "row_length": 128, "lora_rank": 2}
    options |= {"warm_up_steps": 6, "warm_up_snapshots": 3, "min_probes": 4}
    options |= {"estimator": "interventions"}
    return DiagnoseSettings.model_validate(
        {
            "decompose": {"min_seeds": 4, "min_probes": 2},
            "dependencies": options | dependencies,
            "probe_fraction": 0.33,
            "target_fraction": 0.5,
            "resamples": 50,
        }
    )


@pytest.fixture(scope="module")
def found(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("diagnosis")
    steps = []
    value = diagnose(
        student,
        KnowingTeacher(),
        SEEDS,
        settings(),
        folder,
        seed=1,
        progress=lambda *step: steps.append(step),
    )
    return folder, value, steps


def test_what_is_found(found):
    _, diagnosis, steps = found
    by_module = {gap.module: gap for gap in diagnosis.gaps}
    assert (by_module["maths/add"].teacher, by_module["maths/add"].student) == (1.0, 1.0)
    assert by_module["maths/divide"].relative is None
    assert diagnosis.set_aside == ("maths/divide",)
    multiply = by_module["maths/multiply"]
    assert 0 < multiply.student < 1
    assert multiply.relative == pytest.approx(1 - multiply.student)
    assert multiply.interval is not None
    # Log-probabilities are measured as well: the teacher's tokens are another number, so in bytes.
    assert multiply.unit == "byte"
    assert multiply.logprob is not None
    assert multiply.logprob > 0
    assert diagnosis.measurement.rank_correlation.keys() == {"teacher", "student"}
    assert diagnosis.deficient == ("maths/multiply",)
    assert diagnosis.targets.modules == ("maths/multiply",)
    assert diagnosis.mastered() == ("maths/add",)
    population = diagnosis.dependencies.population
    assert population is not None
    assert population.modules == ("maths/add", "maths/multiply")
    assert len(population.states) == 1 + 2 * 2
    assert diagnosis.dependencies.student_tokens > 0
    assert steps[-1] == ("dependencies", 4, 4)


def test_items_by_role(found):
    _, diagnosis, _ = found
    probes, seeds = diagnosis.select(SEEDS, "probe"), diagnosis.select(SEEDS, "seed")
    assert probes.keys() == seeds.keys() == {"maths/add", "maths/multiply"}
    assert {len(probes[m]) for m in probes} == {4}
    assert not {s.id for own in probes.values() for s in own} & {
        s.id for own in seeds.values() for s in own
    }
    with pytest.raises(InputError, match="isn't among the seeds"):
        diagnosis.select(SEEDS[1:], "seed" if SEEDS[0] in seeds["maths/add"] else "probe")


def test_the_folder_has_the_value_and_the_answers(found):
    folder, diagnosis, _ = found
    text = (folder / "diagnosis.json").read_text()
    assert Diagnosis.from_json(text, "x") == diagnosis
    rows = [
        json.loads(line)
        for line in (folder / "diagnosis" / "answers.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 2 * 12
    wrong = {(row["model"], row["module"]) for row in rows if not row["score"]}
    assert wrong == {
        ("teacher", "maths/divide"),
        ("student", "maths/divide"),
        ("student", "maths/multiply"),
    }


def test_it_goes_on_from_the_parts_that_are_there(found, student, tmp_path):
    folder, diagnosis, _ = found
    teacher = KnowingTeacher()
    (folder / "diagnosis" / "dependencies.json").unlink()
    assert diagnose(student, teacher, SEEDS, settings(), folder, seed=1) == diagnosis
    assert teacher.asked == []
    assert teacher.scored == 0
    with pytest.raises(InputError, match="another seed; name a new"):
        diagnose(student, teacher, SEEDS, settings(), folder, seed=2)
    with pytest.raises(InputError, match="another seeds_sha256, settings"):
        diagnose(student, teacher, SEEDS[1:], settings(tau_dep=0.5), folder, seed=1)


def test_dependencies_are_shared_by_diagnoses_that_agree_on_them(student, tmp_path, monkeypatch):
    trained = []

    def counted(*arguments):
        trained.append(intervene(*arguments))
        return trained[-1]

    monkeypatch.setattr("ioa_jax.identifier.estimate.intervene", counted)

    def found(name, seed=1, **changes):
        own = settings().model_copy(update=changes)
        folder = tmp_path / name
        return diagnose(
            student, KnowingTeacher(), SEEDS, own, folder, seed, shared=tmp_path / "shared"
        )

    first, second = found("a"), found("b", tau_gap=0.6, alpha=0.1)
    assert len(trained) == 1
    assert first.dependencies == second.dependencies
    assert (tmp_path / "b/diagnosis/dependencies.json").is_file()
    found("c", seed=2)
    assert len(trained) == 2


def test_a_gate_measures_what_the_diagnosis_measured(found, student):
    _, diagnosis, _ = found
    probes = diagnosis.select(SEEDS, "probe")
    with ProbeGraders() as graders:
        again = measure_student(student, probes, "accuracy", graders=graders)
    assert {m: p.mean for m, p in again.items()} == diagnosis.student_performance()
    unit = diagnosis.measurement.unit
    assert unit is not None
    by_logprob = measure_student(student, probes, "logprob", unit=unit)
    before = diagnosis.measurement.student["logprob"]
    assert all(by_logprob[m].values == pytest.approx(before[m].values) for m in probes)


@pytest.mark.slow
def test_snapshots_of_a_warm_up(student, tmp_path):
    diagnosis = diagnose(
        student, KnowingTeacher(), SEEDS, settings(estimator="snapshots"), tmp_path
    )
    population = diagnosis.dependencies.population
    assert population is not None
    assert population.states == ("base", "warm-up@2", "warm-up@4", "warm-up@6")


def test_a_teacher_that_cant_score(student, tmp_path):
    teacher = KnowingTeacher(score=False)
    with pytest.raises(InputError, match="estimator to auto or teacher_prior"):
        diagnose(student, teacher, SEEDS, settings(), tmp_path / "a")
    assert teacher.asked == []
    # What is chosen by itself needs no log-probabilities.
    diagnosis = diagnose(
        student,
        teacher,
        SEEDS,
        settings(estimator="auto"),
        tmp_path / "b",
        student_tokens=10**9,
    )
    assert diagnosis.dependencies.estimator == "teacher_prior"
    assert "no log-probabilities" in diagnosis.dependencies.reason
    assert diagnosis.measurement.teacher.keys() == {"accuracy"}
    assert diagnosis.measurement.rank_correlation == {}
    assert diagnosis.dependencies.population is None
    assert diagnosis.gaps[0].logprob is None
    assert diagnosis.targets.modules == ("maths/multiply",)


def test_the_estimator_follows_the_student_s_budget(student, tmp_path):
    options = settings(estimator="auto", interventions_from=1000)

    def chosen(name, tokens):
        folder = tmp_path / name
        found = diagnose(
            student, KnowingTeacher(), SEEDS, options, folder, student_tokens=tokens
        ).dependencies
        return found.estimator, found.reason, found.student_tokens > 0

    prior = (
        "teacher_prior",
        "the student's budget of 999 tokens is under interventions_from=1,000",
    )
    assert chosen("a", 999) == (*prior, False)
    estimator, reason, trained = chosen("b", 1000)
    assert (estimator, trained) == ("interventions", True)
    assert "at least" in reason
    assert chosen("c", None)[0] == "teacher_prior"
    with pytest.raises(InputError, match="another estimator"):
        chosen("b", 999)
    assert DiagnoseSettings().dependencies.choose(True, 19_999_999)[0] == "teacher_prior"
    assert DiagnoseSettings().dependencies.choose(True, 20_000_000)[0] == "interventions"


def test_an_empty_graph_is_said_to_be_empty(student, tmp_path):
    empty = diagnose(
        student, KnowingTeacher(), SEEDS, settings(estimator="teacher_prior"), tmp_path / "a"
    )
    assert empty.graph.edges == ()
    assert (
        empty.dependencies.note == "no dependency found: stages begin with the best known modules"
    )
    assert '"note": "no dependency found' in (tmp_path / "a/diagnosis.json").read_text()
    # With four probes a module nothing is claimed that five are needed for.
    few = diagnose(student, KnowingTeacher(), SEEDS, settings(min_probes=5), tmp_path / "b")
    assert {one.estimator for one in few.dependencies.dependencies} == {"prior"}
    assert few.dependencies.note is not None


def test_the_teacher_answers_some_probes_and_the_student_all(student, tmp_path):
    teacher = KnowingTeacher()
    options = settings(estimator="teacher_prior").model_dump()
    options["measure"]["teacher_probes"] = 2
    diagnosis = diagnose(
        student, teacher, SEEDS, DiagnoseSettings.model_validate(options), tmp_path
    )
    assert len(teacher.asked) == 2 * 3
    for gap in diagnosis.gaps:
        assert (gap.num_probes, gap.num_teacher_probes) == (4, 2)
    probes = diagnosis.select(SEEDS, "probe", all_modules=True)
    drawn = draw_probes(probes, 2)
    answered = diagnosis.measurement.teacher["accuracy"]
    assert {m: answered[m].probes for m in answered} == {
        m: tuple(item.id for item in own) for m, own in drawn.items()
    }
    assert drawn == draw_probes(dict(reversed(probes.items())), 2)
    assert draw_probes(probes, None) == draw_probes(probes, 99) == probes


def test_what_the_teacher_seldom_does_is_not_taught_but_has_its_items(student, tmp_path):
    class Weak(KnowingTeacher):
        def answer_it(self, request, number):
            prompt = request.messages[-1]["content"]
            known = not prompt.startswith("Divide") or "1 " in prompt
            return ANSWERS[prompt] if known else "I don't know."

    diagnosis = diagnose(student, Weak(), SEEDS, settings(estimator="teacher_prior"), tmp_path)
    by_module = {gap.module: gap for gap in diagnosis.gaps}
    assert 0 < by_module["maths/divide"].teacher < 0.3
    assert diagnosis.set_aside == ("maths/divide",)
    assert diagnosis.modules == MODULES
    counts: tuple[tuple[Role, int], ...] = (("seed", 8), ("probe", 4))
    for role, count in counts:
        found = diagnosis.select(SEEDS, role, all_modules=True)
        assert {module: len(own) for module, own in found.items()} == dict.fromkeys(MODULES, count)
    assert "maths/multiply" in diagnosis.uncertain


def test_a_teacher_that_can_do_nothing(student, tmp_path):
    teacher = KnowingTeacher()
    teacher.script = lambda request, number: "?"
    with pytest.raises(InputError, match=r"can't do any of the 3 modules"):
        diagnose(student, teacher, SEEDS, settings(), tmp_path)
    assert (tmp_path / "diagnosis" / "answers.jsonl").is_file()


def test_by_logprob_alone_nothing_is_generated(student, tmp_path):
    teacher = KnowingTeacher()
    options = settings(estimator="teacher_prior").model_dump()
    options["measure"]["scorer"] = "logprob"
    diagnosis = diagnose(
        student, teacher, SEEDS, DiagnoseSettings.model_validate(options), tmp_path
    )
    assert teacher.asked == []
    assert diagnosis.set_aside == ()
    assert {gap.scorer for gap in diagnosis.gaps} == {"logprob"}


def long_item(words, number=0):
    prompt = " ".join(["Multiply"] + ["1"] * words)
    seed = item(90 + number, "maths/multiply")
    ANSWERS[prompt] = seed.reference
    return dataclasses.replace(seed, prompt=prompt)


@pytest.mark.slow
def test_seeds_that_are_too_long_for_adapters_are_left_out_and_named(student, tmp_path):
    # As many as fit the context and not a row of 128 tokens; at least one of them is no probe.
    long = [long_item(150 + n, n) for n in range(2)]
    diagnosis = diagnose(student, KnowingTeacher(), [*SEEDS, *long], settings(), tmp_path)
    seeds = {seed.id for seed in diagnosis.select([*SEEDS, *long], "seed")["maths/multiply"]}
    assert diagnosis.dependencies.left_out == tuple(sorted(seeds & {s.id for s in long}))
    assert diagnosis.dependencies.left_out
    with pytest.raises(InputError, match=r"'maths/add'.*dependencies\.row_length=4"):
        diagnose(student, KnowingTeacher(), SEEDS, settings(row_length=4), tmp_path / "short")


def test_items_beyond_the_context_stop_it_before_the_teacher_is_asked(student, tmp_path):
    teacher = KnowingTeacher()
    with pytest.raises(InputError, match=r"seed 'multiply-90': .* context \(512\)"):
        diagnose(student, teacher, [*SEEDS, long_item(600)], settings(), tmp_path)
    assert teacher.asked == []
