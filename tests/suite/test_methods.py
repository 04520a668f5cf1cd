"""Every baseline against a scripted teacher, and what it makes of the answers."""

import dataclasses
import json
import re

import pytest

from ioa_jax.adapter.duplicates import BenchmarkIndex
from ioa_jax.engine.training import Trainer
from ioa_jax.errors import InputError
from ioa_jax.identifier.probes import ProbeGraders
from ioa_jax.seeds import SeedItem
from ioa_jax.student import Student
from ioa_jax.teachers.base import Sampling
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.replay import LedgeredTeacher
from ioa_jax.teachers.spend import Budget
from suite.methods import base
from suite.methods.base import MethodContext
from suite.methods.cascod import METHOD as CASCOD
from suite.methods.evol_instruct import is_answer, is_evolved
from suite.methods.lion import read_scores
from suite.methods.registry import load_method
from suite.methods.self_instruct import is_fit
from suite.profile import Budgets, SandboxSettings, TrainSettings
from tests.suite.world import write_model
from tests.teachers.recorded import ScriptedTeacher

SEEDS = tuple(
    SeedItem(f"s{n}", f"What is {n} plus {n + 3}?", f"Add.\nIt is {2 * n + 3}.",
             {"kind": "math", "answer": str(2 * n + 3)}, "math")
    for n in range(8)
)  # fmt: skip
BASELINES = (
    "sft", "sft_matched", "self_instruct", "evol_instruct", "lamini", "lion", "dss", "cascod",
    "llm2llm", "multi_agent",
)  # fmt: skip
STUDENT_TOKENS = 1200
GRADERS = ProbeGraders()


@pytest.fixture(scope="module", autouse=True)
def graders():
    with GRADERS:
        yield


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods") / "model"
    write_model(folder)
    return Student.open(str(folder), "float32", keep_layers=2, batch_size=8)


def teacher_script(request, calls):
    """Answers by purpose, another one each time."""
    asked = request.messages[-1]["content"]
    if request.purpose == "new tasks" and '"Task" and its number' in asked:
        return f"Task 1: Say {calls} words that rhyme.\nTask 2: Name {calls} old towns of Peru."
    if request.purpose in ("new tasks", "evolution", "analogy"):
        return f"What is {calls} minus one half of {calls + 7}?"
    if request.purpose == "topics":
        return f"Topic {calls}"
    if request.purpose == "rationale":
        return f"Add both numbers.\n\nAnswer: {calls}"
    if request.purpose == "referee":
        first = asked.index("Reply:") < asked.index("[Answer of assistant 2]")
        return "9 3" if first else "3 9"
    return f"Reply: {calls}"


def make_context(student, directory, script=teacher_script, **changes):
    """A context, the scripted teacher and the steps that were reported."""
    scripted = ScriptedTeacher(script)
    steps = []
    budgets = changes.pop("budgets", Budgets(teacher_tokens=2000, student_tokens=STUDENT_TOKENS))
    context = MethodContext(
        student=student,
        teacher=LedgeredTeacher(
            scripted, Ledger(directory / "ledger"), Budget(max_tokens=budgets.teacher_tokens)
        ),
        seeds=SEEDS,
        budgets=budgets,
        train=TrainSettings(learning_rate=1e-3, batch_rows=2, row_length=128),
        sampling=Sampling(max_tokens=10, temperature=0.7),
        pack="paper",
        sandbox=SandboxSettings(),
        graders=GRADERS,
        seed=0,
        directory=directory / "cell",
        on_step=lambda part, metrics, now: steps.append((part, metrics.tokens)),
        cell_of=lambda method: None,
        options={},
        benchmarks=lambda: BenchmarkIndex({}),
        shared=directory / "shared",
    )
    return dataclasses.replace(context, **changes), scripted, steps


@pytest.mark.parametrize("pack", ["paper", "micro"])
@pytest.mark.parametrize("name", BASELINES)
def test_a_method_keeps_both_budgets_and_trains(student, tmp_path, name, pack):
    context, scripted, steps = make_context(student, tmp_path, pack=pack)
    result = load_method(name).run(context)
    tokens = sum(count for _, count in steps)
    # Each part of a method may leave as much as an example that didn't fit.
    parts = len({part for part, _ in steps})
    assert STUDENT_TOKENS - parts * 128 < tokens <= STUDENT_TOKENS
    assert context.teacher.used.completion_tokens <= 2000
    assert scripted.asked
    before, after = (s.model.decoder.embedding[...] for s in (student, result.student))
    assert (before != after).any()
    assert json.loads(json.dumps(result.notes)) == result.notes


@pytest.mark.parametrize("name", BASELINES)
def test_a_method_makes_do_with_what_a_small_budget_bought(student, tmp_path, name):
    """Room for 8 answers of 5 tokens, and for no other."""
    budgets = Budgets(teacher_tokens=49, student_tokens=300)
    context, scripted, steps = make_context(student, tmp_path, budgets=budgets)
    load_method(name).run(context)
    assert context.teacher.used.completion_tokens <= 49
    assert 0 < len(scripted.asked) <= 9
    assert 0 < sum(count for _, count in steps) <= 300


def test_a_method_that_is_started_again_gives_the_same(student, tmp_path):
    context, _, steps = make_context(student, tmp_path)
    first = load_method("multi_agent").run(context)
    taken = list(steps)
    again = dataclasses.replace(
        context,
        teacher=LedgeredTeacher(None, Ledger(tmp_path / "ledger"), Budget(max_tokens=2000)),
    )
    second = load_method("multi_agent").run(again)
    # Every call is in the ledger, and every step is in a checkpoint.
    assert steps == taken
    assert second.notes == first.notes
    assert (
        first.student.model.decoder.embedding[...] == second.student.model.decoder.embedding[...]
    ).all()


def test_nothing_bought_is_an_error_that_says_what_to_do(student, tmp_path):
    budgets = Budgets(teacher_tokens=1, student_tokens=300)
    context, _, _ = make_context(student, tmp_path, budgets=budgets)
    with pytest.raises(InputError, match=r"raise budgets\.teacher_tokens"):
        load_method("sft").run(context)


def test_waves_shrink_with_what_the_budget_has_left(student, tmp_path):
    """A task and its answer take 10 tokens here, so that a third of what is left is asked for."""
    budgets = Budgets(teacher_tokens=9000, student_tokens=10**6)
    context, _, _ = make_context(student, tmp_path, budgets=budgets)
    # Nobody knows yet what a call takes: as much as it may.
    assert base.wave_size(context) == base.MAX_WAVE == 192
    small = dataclasses.replace(context, budgets=Budgets(teacher_tokens=900, student_tokens=1))
    assert base.wave_size(small) == 900 // (3 * 10)
    sizes = []
    for _ in range(3):
        sizes.append(base.wave_size(small))
        chats = [base.as_chat(f"{len(sizes)} {number}") for number in range(sizes[-1])]
        base.ask_texts(small, chats, "new tasks", small.sampling)
    used = [0, 30 * 5, 30 * 5 + 50 * 5]
    # What calls took is known now: five tokens each.
    assert sizes == [30, (900 - used[1]) // 15, (900 - used[2]) // 15]
    assert (small.meter.calls, small.meter.tokens) == (sum(sizes), 5 * sum(sizes))
    # It never ends at nothing.
    small.meter.tokens = 10_000
    assert base.wave_size(small) == 1


@pytest.mark.parametrize("name", ["lamini", "self_instruct"])
def test_waves_are_the_same_after_a_restart(student, tmp_path, name):
    budgets = Budgets(teacher_tokens=600, student_tokens=5000)
    config = {"budgets": budgets, "pack": "micro"}
    context, scripted, _ = make_context(student, tmp_path / "whole", **config)
    whole = load_method(name).run(context)
    waves = whole.notes["waves"]
    assert waves > 2

    class Stopped(Exception):
        pass

    def stop(request, calls):
        if calls == len(scripted.asked) // 2:
            raise Stopped
        return teacher_script(request, calls)

    stopped, first, _ = make_context(student, tmp_path / "stopped", stop, **config)
    with pytest.raises(Stopped):
        load_method(name).run(stopped)
    # A new process: its meter begins at nothing, and its teacher goes on in its script.
    answered = len(first.asked)
    again, rest, _ = make_context(
        student,
        tmp_path / "stopped",
        lambda request, calls: teacher_script(request, calls + answered),
        **config,
    )
    resumed = load_method(name).run(again)
    assert resumed.notes == whole.notes
    asked = [(r.purpose, r.seed, r.messages) for r in (*first.asked, *rest.asked)]
    assert asked == [(r.purpose, r.seed, r.messages) for r in scripted.asked]


def test_what_is_retained_is_in_every_step(student, tmp_path, monkeypatch):
    kept = tuple(
        student.answer_pair(base.as_chat(f"Keep {number}."), "Kept.") for number in range(5)
    )
    batches = []
    step = Trainer.step

    def keep(self, batch):
        metrics = step(self, batch)
        if metrics is not None:
            batches.append(batch)
        return metrics

    monkeypatch.setattr(Trainer, "step", keep)
    context, _, _ = make_context(student, tmp_path)
    context = dataclasses.replace(
        context, retention=base.Retention(kept, share=0.5, kind="replay", weight=2.0)
    )
    config = context.train_config()
    assert (config.retained_share, config.retention, config.retention_weight) == (0.5, "replay", 2)
    load_method("sft").run(context)
    assert batches
    assert all(batch.retained for batch in batches[:-1])
    assert {pair for batch in batches for pair in batch.retained} == set(kept)
    usual, _, _ = make_context(student, tmp_path / "usual")
    assert usual.train_config().retained_share == 0


def test_answers_to_tasks_have_their_own_temperature(student, tmp_path, monkeypatch):
    context, _, _ = make_context(student, tmp_path)
    assert context.answer_sampling == context.sampling
    cold = dataclasses.replace(context, answer_temperature=0.0)
    assert cold.answer_sampling == dataclasses.replace(context.sampling, temperature=0.0)
    seen = []

    def generate(requests, sampling, keep):
        seen.append((requests[0].purpose, sampling.temperature))
        return []

    monkeypatch.setattr(cold.teacher, "generate", generate)
    chats = [base.as_chat("Name a river.")]
    base.answer_tasks(cold, chats)
    base.answer_tasks(cold, chats, sample=1)
    base.ask_texts(cold, chats, "new tasks", cold.sampling)
    # Greedy, a second answer would be the first one again.
    assert seen == [("answer", 0.0), ("answer", 0.7), ("new tasks", 0.7)]


def test_matched_fine_tuning_spends_what_ioa_spent(student, tmp_path):
    cell = tmp_path / "ioa-seed0"
    cell.mkdir()
    spend = {"teacher_tokens": 100, "teacher_requests": 1, "by_purpose": {}, "student_tokens": 1}
    spend |= {"student_tokens_by_part": {"all": 1}, "steps": 1, "seconds": {}}
    record = {"method": "ioa", "seed": 0, "spend": spend, "notes": {}, "status": "complete"}
    (cell / "cell.json").write_text(json.dumps(record | {"error": None}))
    context, scripted, _ = make_context(
        student,
        tmp_path,
        cell_of=lambda method: cell,
        budgets=Budgets(teacher_tokens=2000, student_tokens=50_000),
        train=TrainSettings(learning_rate=1e-3, batch_rows=64, row_length=128),
    )
    result = load_method("sft_matched").run(context)
    # The last answer has to fit at its longest, 10 tokens, and took 5.
    assert 90 < context.teacher.used.completion_tokens <= 100
    assert result.notes["teacher_tokens_allowed"] == 100
    assert result.notes["rounds"] == 3
    assert len({(r.messages[0]["content"], r.seed) for r in scripted.asked}) == len(scripted.asked)


def test_greedy_answers_are_shared_by_all_seeds(student, tmp_path):
    sampling = Sampling(max_tokens=10, temperature=0.0)
    asked = []
    for seed in (0, 1):
        context, scripted, _ = make_context(
            student, tmp_path / str(seed), sampling=sampling, seed=seed
        )
        base.answer_tasks(context, [one.messages for one in SEEDS])
        asked.append([request.seed for request in scripted.asked])
    assert asked[0] == asked[1]
    context, scripted, _ = make_context(student, tmp_path / "2", sampling=sampling)
    base.answer_tasks(context, [one.messages for one in SEEDS], sample=1)
    assert {request.seed for request in scripted.asked} != set(asked[0])


def test_novelty_is_likeness_in_one_pack_and_equality_in_the_other():
    paper = base.Novelty("paper", ["Name three large rivers of Asia and where they end."])
    assert not paper.add("Name three large rivers of Europe and where they end.")
    assert paper.add("Explain tides to a child.")
    assert not paper.add("Explain  tides to a child.")
    micro = base.Novelty("micro", ["What is 3 plus 4?"])
    assert micro.add("What is 3 plus 5?")
    assert not micro.add("What is 3 plus  4?")


def test_self_instruct_drops_what_a_text_model_cannot_do():
    assert is_fit("paper", "Name three rivers of Asia.")
    for task in (
        "Name rivers.", "Draw a map of the rivers.", "Write a program that sorts rivers.",
        "Élan vital is what kind of term?", "- name three rivers of Asia", "word " * 151,
    ):  # fmt: skip
        assert not is_fit("paper", task), task


def test_evol_instruct_eliminates():
    assert is_evolved("Name a river.", "Name a river and its source.")
    assert not is_evolved("Name a river.", "Name a river")
    assert not is_evolved("Name a river.", "#Rewritten Prompt#: name two rivers")

    def says(text):
        return is_answer(base.Answered((), text, True))

    assert says("The Rhine.")
    assert not says("Sorry, I can't.")
    assert says("I am sorry to say: " + "rain " * 80)
    assert not says("It is of the.")


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("7 8.5\nBoth are fine.", (7.0, 8.5)),
        ("Scores: 7, 8", (7.0, 8.0)),
        ("7", None),
        ("0 11", None),
        ("", None),
        (None, None),
    ],
)
def test_referee_scores(text, scores):
    assert read_scores(text) == scores


def test_lion_asks_the_referee_in_both_orders(student, tmp_path):
    context, scripted, steps = make_context(
        student, tmp_path, budgets=Budgets(teacher_tokens=20_000, student_tokens=STUDENT_TOKENS)
    )
    result = load_method("lion").run(context)
    referee = [r.messages[0]["content"] for r in scripted.asked if r.purpose == "referee"]
    firsts = [text.index("Reply:") < text.index("[Answer of assistant 2]") for text in referee]
    assert firsts[::2] == [True] * (len(referee) // 2)
    assert firsts[1::2] == [False] * (len(referee) // 2)
    # The teacher wins by 6 in both orders, so that all tasks are hard.
    assert result.notes["hard"] == result.notes["pool"][:2]
    assert [part for part, _ in steps] == sorted(part for part, _ in steps)
    assert {part for part, _ in steps} == {"imitate1", "imitate2", "imitate3"}


def test_cascod_never_shows_the_answer_to_the_rationale(student, tmp_path, monkeypatch):
    context, _, _ = make_context(student, tmp_path)
    seen = []

    def keep(context, pairs, **options):
        seen.extend(pairs)
        return context.student

    monkeypatch.setattr("suite.methods.cascod.fine_tune", keep)
    CASCOD.run(context)
    decode = student.model.tokenizer.decode
    assert len(seen) == 16
    for rationale, answer in zip(seen[::2], seen[1::2], strict=True):
        assert decode(rationale.completion) == "Add both numbers.\n"
        assert answer.prompt == rationale.prompt + rationale.completion
        assert re.fullmatch(r"\d<\|im_end\|>", decode(answer.completion))


def test_llm2llm_augments_wrong_seeds_alone(student, tmp_path, monkeypatch):
    right = {SEEDS[0].id, SEEDS[3].id}

    def answers(context, student, chats):
        return [s.check["answer"] if s.id in right else "?" for s in SEEDS]

    monkeypatch.setattr("suite.methods.llm2llm.answers_of", answers)
    context, scripted, _ = make_context(student, tmp_path)
    result = load_method("llm2llm").run(context)
    assert result.notes["wrong_seeds"] == [6, 6]
    asked = [r.messages[0]["content"] for r in scripted.asked if r.purpose == "new tasks"]
    for seed in SEEDS:
        assert sum(seed.prompt in text for text in asked) == (0 if seed.id in right else 2)
    # Twice six new ones at most join the eight seeds.
    assert 8 < result.notes["examples"] <= 20
