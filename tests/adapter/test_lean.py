"""Lessons in plain text: the protocols `lean` and `few_shot`."""

import collections
import logging
import re

import pytest

from ioa_jax.adapter.duplicates import BenchmarkIndex
from ioa_jax.adapter.novelty import Novelty
from ioa_jax.adapter.schema import Level
from ioa_jax.adapter.settings import AdapterSettings, NllZone
from ioa_jax.adapter.stage import StageMaterial, StageRequest, StageSeed
from ioa_jax.adapter.synthesize import Adapter
from ioa_jax.adapter.verification import Checkers, Undecided, VerificationSettings
from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from ioa_jax.graders.registry import make_grader
from ioa_jax.sandbox import Sandbox
from ioa_jax.seeds import SeedItem
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.replay import LedgeredTeacher
from ioa_jax.teachers.spend import Budget
from tests.teachers.recorded import ScriptedTeacher

SECRET = "Who was it that came into the garden late one night and took every single red apple?"
BENCHMARK = BenchmarkIndex({"garden": [Item("g-1", SECRET)]})
OWN: dict[Level, float] = {"intermediate": 1.0}


def seeds(count=1, module="sums/two", stage=1, kind="number", **fields):
    return tuple(
        StageSeed(
            SeedItem(
                f"{module}-{number}",
                f"Seed {number} of {module}: how many are {number} and 1?",
                f"{number} + 1 = {number + 1}\n{number + 1}",
                {"kind": kind},
                "arithmetic",
            ),
            module,
            stage,
            **fields,
        )
        for number in range(count)
    )


def said(request):
    return request.messages[-1]["content"]


def is_asked_to_write(request):
    return said(request).startswith(("Write", "Make"))


def count(text):
    """Right answers of problems that ask how many two numbers are."""
    one, other = map(int, re.findall(r"are (\d+) and (\d+)", text)[-1])
    return f"{one} + {other} = {one + other}\n{one + other}"


def new_problem(request):
    return f"Box {request.seed} of shop {request.seed % 89}: how many are {request.seed} and 7?"


def knows(request, number):
    return new_problem(request) if is_asked_to_write(request) else count(said(request))


def writes_plain(request, number):
    if not is_asked_to_write(request):
        return count(said(request))
    problem = new_problem(request)
    return f"Problem: {problem}\nSolution: {count(problem)}"


@pytest.fixture(scope="module")
def graders():
    made = {kind: make_grader(kind) for kind in ("number", "exact", "instruction")}
    yield made
    for grader in made.values():
        grader.close()


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as box:
        yield box


@pytest.fixture
def adapter(graders, sandbox):
    def make(teacher=None, script=knows, known=None, scorer=None, **changes):
        defaults = {
            "pack": "micro",
            "examples_per_seed": 1,
            "max_retries": 0,
            "verification": {"undecided": "accept"},
        }
        teacher = teacher or ScriptedTeacher(script)
        settings = AdapterSettings(**defaults | changes)  # type: ignore
        made = Adapter(
            teacher,
            settings,
            Novelty(BENCHMARK, known or {}, settings.duplicate_similarity),
            Checkers(graders, sandbox),
            scorer,
        )
        return made, teacher

    return make


def test_a_lesson_of_two_calls_is_the_record_that_json_would_give(adapter):
    made, teacher = adapter()
    request = StageRequest(
        "stage", seeds(stage=4, prerequisites=("sums/one",)), OWN, forms={"sums/two": "as_written"}
    )
    material = made.synthesize(request)
    problem, answer = teacher.asked
    assert said(problem) == f"Write a new problem like this:\n{request.seeds[0].seed.prompt}"
    assert answer.messages == ({"role": "user", "content": new_problem(problem)},)
    assert {one.purpose for one in teacher.asked} == {"synthesis"}
    (lesson,) = material.lessons
    assert (lesson.stage, lesson.prompt, lesson.answer) == (
        4,
        new_problem(problem),
        count(new_problem(problem)),
    )
    total = problem.seed + 7
    assert lesson.example == {
        "module": "sums/two",
        "prereq": ["sums/one"],
        "difficulty_tag": "intermediate",
        "problem": lesson.prompt,
        "solution": {
            "steps": [f"{problem.seed} + 7 = {total}"],
            "final_answer": str(total),
            "verification": "",
        },
        "adapter_flags": {
            "concretization": False,
            "decomposition": False,
            "cognitive_load": {"scale": "any", "notes": ""},
            "format_template": "lines",
            "simplified_language": False,
        },
        "metadata": {"stage_id": "4", "seed_style_ref": "sums/two-0"},
    }
    assert lesson.verified_by == "not verified"
    assert (material.figures["tokens"], material.figures["level.intermediate"]) == (10, 1)
    assert StageMaterial.from_json(material.to_json(), "material.json") == material


@pytest.mark.parametrize(
    ("form", "first"),
    [("as_written", ""), ("lines", ""), ("numbered", "1. "), ("labelled", "Solve: ")],
)
def test_answers_have_the_form_of_their_module(adapter, form, first):
    made, teacher = adapter()
    request = StageRequest("stage", seeds(), OWN, forms={"sums/two": form})
    (lesson,) = made.synthesize(request).lessons
    assert lesson.answer == first + count(new_problem(teacher.asked[0]))
    # Without a form it is the settings' template.
    made, _ = adapter()
    (lesson,) = made.synthesize(StageRequest("stage", seeds(), OWN)).lessons
    assert lesson.answer.startswith("1. ")


def test_levels_are_relative_to_the_seeds(adapter):
    made, teacher = adapter(examples_per_seed=4)
    material = made.synthesize(StageRequest("stage", seeds(2)))
    assert {name: value for name, value in material.figures.items() if "level" in name} == {
        "level.introductory": 2,
        "level.intermediate": 4,
        "level.advanced": 2,
    }
    harder = [one for one in teacher.asked if said(one).startswith("Make this problem harder")]
    assert len(harder) == 2
    # A request's own shares hold in place of the settings'.
    made, teacher = adapter(examples_per_seed=4)
    material = made.synthesize(StageRequest("remedial", seeds(2), {"introductory": 1.0}))
    assert material.figures["level.introductory"] == 8


def test_a_request_spans_stages_and_a_budget_that_ends_leaves_modules_equal(adapter, tmp_path):
    own = (*seeds(6, "sums/two", 1), *seeds(2, "sums/more", 2), *seeds(3, "sums/most", 2))
    teacher = LedgeredTeacher(ScriptedTeacher(knows), Ledger(tmp_path), Budget(max_tokens=333))
    made, _ = adapter(
        teacher, examples_per_seed=50, max_tokens=5, max_problem_tokens=5, lesson_tokens=10
    )
    material = made.synthesize(StageRequest("stage", own, tokens=333))
    assert material.exhausted
    counts = collections.Counter(lesson.module for lesson in material.lessons)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert {(lesson.module, lesson.stage) for lesson in material.lessons} == {
        ("sums/two", 1),
        ("sums/more", 2),
        ("sums/most", 2),
    }
    # No problem was paid for whose answer couldn't be.
    assert material.rejects == ()
    assert len(material.lessons) == 32
    assert teacher.used.completion_tokens <= 333


def test_batches_are_as_large_as_the_tokens_left_will_pay_for(adapter):
    def sizes(tokens, **changes):
        made, teacher = adapter(
            examples_per_seed=200, max_tokens=64, max_problem_tokens=64, **changes
        )
        made.synthesize(StageRequest("stage", seeds(), OWN, tokens=tokens))
        return teacher.batches

    # Ten tokens a lesson, whatever the first guess was, of which half is trusted.
    assert sizes(64 + 100, lesson_tokens=10) == [5, 5, 5, 5]
    assert sizes(64 + 100, lesson_tokens=25) == [2, 2, 8, 8]
    assert sizes(100_000, lesson_tokens=10, calls_per_round=60)[:4] == [60] * 4
    assert sizes(70, lesson_tokens=200) == [1, 1]
    assert sizes(64, lesson_tokens=10) == []


def test_only_new_problems_are_answered(adapter):
    def script(request, number):
        if not is_asked_to_write(request):
            return count(said(request))
        return ("", f"Tell me. {SECRET}", "How many are 1 and 2?", "How many are 3 and 4?")[number]

    made, teacher = adapter(script=script, known={"probe-1": "how many are 1 and  2?"})
    material = made.synthesize(StageRequest("stage", seeds(4), OWN))
    assert teacher.batches == [4, 1]
    assert [one.reason for one in material.rejects] == ["unparsed", "contaminated", "duplicate"]
    made, _ = adapter(script=script)
    made.novelty.know({"late": "How many are 3 and 4?"})
    material = made.synthesize(StageRequest("stage", seeds(4), OWN))
    assert "like late" in material.rejects[-1].detail


@pytest.mark.parametrize(
    ("answer", "reason"), [("nobody knows", "unparsed"), (SECRET + " 5", "contaminated")]
)
def test_answers_that_are_not_taught(adapter, answer, reason):
    made, _ = adapter(script=lambda r, n: new_problem(r) if is_asked_to_write(r) else answer)
    material = made.synthesize(
        StageRequest("stage", seeds(), OWN, forms={"sums/two": "as_written"})
    )
    (reject,) = material.rejects
    assert reject.reason == reason
    assert answer in reject.raw


def test_rewrites_and_the_zone(adapter):
    asked = []

    def scorer(pairs):
        asked.extend(pairs)
        return [0.01, 0.4, 9.0, 0.3][: len(pairs)]

    zone = NllZone(low=0.1, high=3.0)
    made, teacher = adapter(scorer=scorer, rewrites=4, zone=zone)
    material = made.synthesize(
        StageRequest("stage", seeds(), OWN, forms={"sums/two": "as_written"})
    )
    assert teacher.batches == [4, 4]
    (lesson,) = material.lessons
    assert (lesson.nll, lesson.prompt) == (0.3, new_problem(teacher.asked[3]))
    assert asked[3] == (lesson.prompt, lesson.answer)
    reasons = collections.Counter(one.reason for one in material.rejects)
    assert reasons == {"too_easy": 1, "too_hard": 1, "not_chosen": 1}


@pytest.mark.parametrize("undecided", ["solve", "accept", "reject"])
def test_what_nothing_decides(adapter, undecided):
    made, teacher = adapter(verification={"undecided": undecided, "max_tokens": 9})
    material = made.synthesize(StageRequest("stage", seeds(), OWN))
    purposes = [one.purpose for one in teacher.asked]
    assert purposes == ["synthesis"] * 2 + ["verification"] * (undecided == "solve")
    assert material.figures["tokens"] == 5 * len(purposes)
    if undecided == "reject":
        assert [one.reason for one in material.rejects] == ["unverified"]
    else:
        (lesson,) = material.lessons
        expected = {"solve": "number agreement with 1 of 1", "accept": "not verified"}
        assert lesson.verified_by.startswith(expected[undecided])


def test_another_instruction_may_have_other_values(adapter):
    check = {
        "kind": "instruction",
        "instruction_id_list": ["keywords:existence"],
        "kwargs": [{"keywords": ["sun"]}],
    }
    item = SeedItem("s", "Use the word sun.", "the sun is up", check, "instruction")
    request = StageRequest("stage", (StageSeed(item, "words/use"),), OWN)

    def judged(answer, undecided):
        def script(request, number):
            return f"Use it: {answer.split()[-1]}." if is_asked_to_write(request) else answer

        made, _ = adapter(script=script, verification={"undecided": undecided})
        material = made.synthesize(request)
        return [one.verified_by[:18] for one in material.lessons] or material.rejects[0].reason

    assert judged("I see a sunny sun", "reject") == ["instruction checks"]
    assert judged("I see the moon", "accept") == ["not verified"]
    assert judged("I see the moon", "solve") == "unverified"


HALF = SeedItem(
    "c",
    'def half(x):\n    """Return half of x."""',
    "```python\ndef half(x):\n    return x / 2\n```",
    {"kind": "code", "entry_point": "half", "tests": "assert half(4) == 2\nassert half(6) == 3"},
    "code",
)
DOUBLE = "```python\ndef double(n):\n    return 2 * n\n```"
WRONG = "```python\ndef double(n):\n    return 2 + n\n```"
CONSTANT = "```python\ndef double(n):\n    return 7\n```"


def programs(adapter, answers, undecided: Undecided = "solve", solutions=2):
    """What becomes of a program and of its further solutions."""

    def script(request, number):
        if is_asked_to_write(request):
            return 'def double(n):\n    """Return n twice."""'
        return answers[number - 1]

    verification = VerificationSettings(
        undecided=undecided, num_solutions=solutions, temperature=0.7
    )
    made, _ = adapter(script=script, verification=verification)
    material = made.synthesize(StageRequest("stage", (StageSeed(HALF, "numbers/scale"),), OWN))
    return material.lessons[0] if material.lessons else material.rejects[0]


def test_expected_values_are_found_by_running_on_the_seeds_inputs(adapter):
    renamed = DOUBLE.replace("double", "twice")
    lesson = programs(adapter, [DOUBLE, WRONG, renamed])
    assert lesson.verified_by == "agreement of programs: 2 of 3 return the same"
    tests = "assert double(4) == 8\nassert double(6) == 12"
    assert lesson.example["solution"]["verification"] == tests
    reject = programs(adapter, [DOUBLE, WRONG, "no program"])
    assert (reject.reason, "1 of 3" in reject.detail) == ("check_failed", True)
    assert programs(adapter, [CONSTANT] * 3).reason == "vacuous_tests"


@pytest.mark.parametrize("undecided", ["solve", "accept", "reject"])
@pytest.mark.parametrize("answer", ["def double(n) return", "x = 1"])
def test_what_is_no_program_is_always_rejected(adapter, undecided, answer):
    assert programs(adapter, [answer] * 3, undecided).reason == "check_failed"


def test_a_program_may_be_accepted_as_it_is_written(adapter):
    lesson = programs(adapter, [DOUBLE], "accept")
    assert lesson.verified_by == "not verified"
    assert lesson.example["solution"]["verification"] == ""


def test_few_shot_goes_on_after_seeds_of_the_module(adapter):
    made, teacher = adapter(script=writes_plain, protocol="few_shot", pack="paper")
    request = StageRequest("stage", (*seeds(5), *seeds(1, "sums/more")), OWN)
    material = made.synthesize(request)
    assert len(material.lessons) == 6
    by_seed = {
        lesson.seed: one for lesson, one in zip(material.lessons, teacher.asked, strict=True)
    }
    shown = [one["content"] for one in by_seed["sums/two-2"].messages[1::2]]
    assert len(set(shown)) == 3
    assert all("of sums/two" in text for text in shown)
    # The unit's own seed is nearest to what is written.
    assert "Seed 2" in shown[-1]
    assert len(by_seed["sums/more-0"].messages) == 3


def test_few_shot_tests_get_the_values_that_solutions_agree_on(adapter):
    text = (
        "Problem: Write double(n).\nSolution:\n"
        f"{DOUBLE}\nTests:\nassert double(3) == 7\nassert double(4) == 8"
    )

    def become(answers, undecided: Undecided):
        def script(request, number):
            return text if is_asked_to_write(request) else answers[number - 1]

        verification = VerificationSettings(undecided=undecided)
        made, teacher = adapter(
            script=script, protocol="few_shot", pack="paper", verification=verification
        )
        # The prompt for a solution begins otherwise.
        teacher.script = lambda r, n: text if r.purpose == "synthesis" else answers[n - 1]
        return made.synthesize(StageRequest("stage", (StageSeed(HALF, "numbers/scale"),), OWN))

    (lesson,) = become([DOUBLE], "solve").lessons
    tests = "assert double(3) == 6\nassert double(4) == 8"
    assert lesson.example["solution"]["verification"] == tests
    assert become([WRONG], "solve").rejects[0].reason == "check_failed"
    # Nobody takes a program that fails what it is said to pass.
    assert become([], "accept").rejects[0].reason == "check_failed"


def test_lean_prompts_of_the_paper_pack(adapter):
    made, teacher = adapter(
        script=writes_plain, pack="paper", examples_per_seed=50, styled_share=0.2
    )
    material = made.synthesize(StageRequest("stage", seeds(), OWN))
    assert len(material.lessons) == 50
    prompts = [said(one) for one in teacher.asked]
    assert all("at most 1 steps" in prompt for prompt in prompts)
    styled = ["everyday life" in prompt for prompt in prompts]
    assert styled == ["Short sentences" in prompt for prompt in prompts]
    assert 3 <= sum(styled) <= 20
    flags = [lesson.example["adapter_flags"]["concretization"] for lesson in material.lessons]
    assert sum(flags) == sum(styled)
    # A student that fails at the references gets smaller steps.
    made, teacher = adapter(script=writes_plain, pack="paper")
    made.synthesize(StageRequest("stage", seeds(mastery=0.0), OWN))
    assert "Small explicit steps" in said(teacher.asked[0])


def test_it_stops_paying_for_a_module_that_never_passes(adapter, caplog):
    def script(request, number):
        if is_asked_to_write(request):
            return new_problem(request) + " sums/more" * ("of sums/more" in said(request))
        return "nobody knows" if "sums/more" in said(request) else count(said(request))

    made, _ = adapter(script=script, calls_per_round=4, give_up_after=3, examples_per_seed=8)
    request = StageRequest("stage", (*seeds(2), *seeds(2, "sums/more")), OWN)
    with caplog.at_level(logging.WARNING):
        material = made.synthesize(request)
    (excluded,) = material.excluded
    assert (excluded.module, excluded.reason) == ("sums/more", "unparsed")
    assert "nobody knows" in excluded.example
    assert material.figures["unfilled"] == 16
    paid = [one for one in material.rejects if one.module == "sums/more"]
    assert excluded.calls == 2 * len(paid) < 32
    assert caplog.text.count("no lesson in this batch") == 3
    assert "unparsed (no number in the answer)" in caplog.text
    # A lesson in between begins the count anew.
    times = collections.Counter()

    def now_and_then(request, number):
        if is_asked_to_write(request):
            return new_problem(request)
        times["asked"] += 1
        return count(said(request)) if times["asked"] % 3 == 0 else "nobody knows"

    made, _ = adapter(script=now_and_then, calls_per_round=1, examples_per_seed=12)
    assert made.synthesize(StageRequest("stage", seeds(), OWN)).excluded == ()


def test_problems_alone(adapter, tmp_path):
    own = (*seeds(3), *seeds(1, "sums/more"))
    made, teacher = adapter(calls_per_round=4)
    problems = made.write_problems(own, 7, "retention")
    assert collections.Counter(one.module for one in problems) == {"sums/two": 4, "sums/more": 3}
    assert len({one.id for one in problems}) == len({one.prompt for one in problems}) == 7
    assert {one.purpose for one in teacher.asked} == {"retention"}
    assert teacher.batches == [4, 3]
    assert problems[0].messages == ({"role": "user", "content": problems[0].prompt},)
    assert made.write_problems(own, 7, "retention") == problems
    other = made.write_problems(own, 7, "retention", round=1)
    assert not {one.prompt for one in other} & {one.prompt for one in problems}
    made.novelty.know({one.id: one.prompt for one in problems})
    assert not {one.prompt for one in made.write_problems(own, 7, "retention")} & {
        one.prompt for one in problems
    }
    teacher = LedgeredTeacher(ScriptedTeacher(knows), Ledger(tmp_path), Budget(max_tokens=12))
    made, _ = adapter(teacher, max_problem_tokens=5)
    assert len(made.write_problems(own, 7, "retention")) == 2
    made, _ = adapter(script=lambda request, number: "How many are 1 and 1?")
    assert len(made.write_problems(own, 7, "retention")) == 1


def test_probes_are_verified_and_can_be_checked(adapter, graders):
    made, teacher = adapter()
    own = (*seeds(2), *seeds(1, "sums/more"))
    probes = made.write_probes(own, {"sums/two": 3, "sums/more": 0})
    assert set(probes) == {"sums/two"}
    assert len(probes["sums/two"]) == 3
    assert {one.purpose for one in teacher.asked} == {"probes"}
    for probe in probes["sums/two"]:
        assert probe.module == "sums/two"
        assert probe.fields["verified_by"].startswith("number agreement")
        assert graders["number"].grade(probe.item(), probe.reference).correct
        assert not graders["number"].grade(probe.item(), "1").correct
    assert len({probe.id for probe in probes["sums/two"]}) == 3
    # What the teacher can't solve alike is none.
    made, _ = adapter(
        script=lambda r, n: new_problem(r) if is_asked_to_write(r) else str(r.seed % 1000 + n)
    )
    assert made.write_probes(own, {"sums/two": 3})["sums/two"] == ()
    with pytest.raises(InputError, match="'sums/none': there are no seeds"):
        made.write_probes(own, {"sums/none": 1})
    made, _ = adapter(verification={"on": False})
    with pytest.raises(InputError, match="probes have to be verified"):
        made.write_probes(own, {"sums/two": 1})


def test_probes_of_programs_have_the_tests_that_were_found(adapter):
    made, _ = adapter(
        script=lambda r, n: "def double(n):" if is_asked_to_write(r) else DOUBLE,
        verification={"undecided": "accept"},
    )
    (probe,) = made.write_probes((StageSeed(HALF, "numbers/scale"),), {"numbers/scale": 1})[
        "numbers/scale"
    ]
    assert probe.check == {
        "kind": "code",
        "entry_point": "double",
        "tests": "assert double(4) == 8\nassert double(6) == 12",
    }
    assert probe.item().data["test_list"] == [probe.check["tests"]]


def test_a_ledger_gives_the_same_material_again(adapter, tmp_path):
    request = StageRequest("stage", (*seeds(3), *seeds(2, "sums/more")), tokens=400)
    options = {"examples_per_seed": 9, "max_tokens": 5, "max_problem_tokens": 5}
    with LedgeredTeacher(ScriptedTeacher(knows), Ledger(tmp_path)) as teacher:
        first = adapter(teacher, **options)[0].synthesize(request)
    with LedgeredTeacher(None, Ledger(tmp_path)) as replay:
        assert adapter(replay, **options)[0].synthesize(request) == first
    assert len(first.lessons) > 30
