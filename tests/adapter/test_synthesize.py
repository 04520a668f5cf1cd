import collections
import dataclasses
import json
import re

import pytest
from pydantic import ValidationError

from ioa_jax.adapter.dimensions import PLAIN
from ioa_jax.adapter.duplicates import BenchmarkIndex
from ioa_jax.adapter.novelty import Novelty
from ioa_jax.adapter.schema import StageKind
from ioa_jax.adapter.settings import AdapterSettings, NllZone
from ioa_jax.adapter.stage import StageMaterial, StageRequest, StageSeed
from ioa_jax.adapter.synthesize import Adapter
from ioa_jax.adapter.verification import Checkers, VerificationSettings
from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from ioa_jax.graders.registry import make_grader
from ioa_jax.sandbox import Sandbox
from ioa_jax.seeds import SeedItem
from ioa_jax.teachers.base import Completion
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.replay import LedgeredTeacher
from ioa_jax.teachers.spend import Budget
from tests.adapter.examples import example
from tests.teachers.recorded import ScriptedTeacher

MODULE = "algebra/linear"
SECRET = "Who was it that came into the garden late one night and took every single red apple?"
BENCHMARK = BenchmarkIndex({"garden": [Item("g-1", SECRET)]})


def seeds(*ids, kind="exact", prompt="The task {} of {}", stage=1):
    return tuple(
        StageSeed(
            SeedItem(name, prompt.format(name, name), "5", {"kind": kind}, "math"),
            MODULE,
            stage,
            0.5,
            ("arithmetic/division",),
        )
        for name in ids
    )


def settings(**changes):
    defaults = {
        "protocol": "schema",
        "pack": "micro",
        "form": "none",
        "examples_per_seed": 1,
        "max_retries": 0,
        "level_order": "easy_first",
        "styled_share": 1.0,
    }
    return AdapterSettings(**defaults | changes)  # type: ignore


def problem(request):
    """Another one for each seed of a call."""
    return f"Number {request.seed % 17} of box {request.seed} in a shop {request.seed % 29}?"


def rows(request, **changes):
    level = re.search(r"Level: (\w+)", request.messages[0]["content"])
    assert level is not None
    prepared = {"problem": problem(request), "difficulty_tag": level[1]} | changes
    return json.dumps([example(**prepared)])


def writer(**changes):
    """A teacher that writes well, and solves each problem with 5."""

    def script(request, number):
        return "5" if request.purpose == "verification" else rows(request, **changes)

    return script


def adapter(
    script=None, *, teacher=None, scorer=None, known=None, seed=0, graders=("exact",), **changes
):
    teacher = teacher or ScriptedTeacher(script or writer())
    options = settings(**changes)
    made = Adapter(
        teacher,
        options,
        Novelty(BENCHMARK, known or {}, options.duplicate_similarity),
        Checkers({kind: make_grader(kind) for kind in graders}),
        scorer,
        seed,
    )
    return made, teacher


NO_CAPS = {"introductory": None, "intermediate": None, "advanced": None}


def synthesize(script=None, request=None, accepted=(), **options):
    options.setdefault("size_caps", NO_CAPS)
    made, teacher = adapter(script, **options)
    material = made.synthesize(request or StageRequest("stage", seeds("a", stage=3)), accepted)
    return material, teacher


def test_a_lesson_has_what_is_taught_and_where_it_comes_from():
    material, teacher = synthesize()
    (lesson,) = material.lessons
    assert (lesson.seed, lesson.module, lesson.stage, lesson.kind) == ("a", MODULE, 3, "stage")
    assert lesson.prompt == problem(teacher.asked[0])
    # An exact answer stands alone, whatever the domain is called.
    assert lesson.answer == "5"
    assert lesson.example["prereq"] == ["arithmetic/division"]
    assert lesson.measures["steps"] == 2
    assert lesson.verified_by == "exact agreement with 1 of 1 solutions (string)"
    assert lesson.nll is None
    assert material.rejects == ()
    assert not material.exhausted
    assert material.figures["asked"] == material.figures["accepted"] == 1
    assert material.figures["mean.steps"] == 2
    assert StageMaterial.from_json(material.to_json(), "stage.json") == material


def test_the_prompt_carries_the_seed_and_what_is_known_of_the_student():
    request = StageRequest("remedial", seeds("a", stage=3), {"advanced": 1.0})
    _, teacher = synthesize(request=request)
    prompt = teacher.asked[0].messages[0]["content"]
    for part in ("stage 3", "advanced", MODULE, "arithmetic/division", "0.5", "The task a of a"):
        assert part in prompt
    assert "Smaller than the seed" in prompt


def test_calls_of_a_round_go_as_one_batch_each_seed_first_before_any_second():
    request = StageRequest("stage", seeds("a", "b", "c"), {"introductory": 1.0, "advanced": 1.0})
    material, teacher = synthesize(request=request, examples_per_seed=3)
    assert teacher.batches == [9, 9]
    asked = [call.messages[0]["content"] for call in teacher.asked[:9]]
    assert [text[-6:-4] for text in asked] == [asked[i][-6:-4] for i in (0, 1, 2)] * 3
    assert ["advanced" in text for text in asked] == [False] * 3 + [True] * 3 + [False] * 3
    assert len(material.lessons) == 9
    assert len({lesson.id for lesson in material.lessons}) == 9
    _, teacher = synthesize(request=request, examples_per_seed=3, calls_per_round=4)
    assert teacher.batches == [4, 4, 4, 4, 1, 1]


def test_several_examples_of_a_call():
    def script(request, number):
        if request.purpose == "verification":
            return "5"
        count = int(re.findall(r"Write (\d+)", request.messages[0]["content"])[0])
        texts = [f"Box {i} of {problem(request)}" for i in range(count + 1)]
        return json.dumps([example(problem=text) for text in texts])

    request = StageRequest("stage", seeds("a"), {"introductory": 1.0})
    material, teacher = synthesize(script, request, examples_per_seed=5, examples_per_call=3)
    assert teacher.batches == [2, 5]
    assert [text.messages[0]["content"][:18] for text in teacher.asked[:2]] == [
        "Write 3 math examp",
        "Write 2 math examp",
    ]
    assert len(material.lessons) == 5
    assert [reject.reason for reject in material.rejects] == ["surplus"] * 2


def once(text, finish="stop", **options):
    """What becomes of one answer."""

    class Answers(ScriptedTeacher):
        def generate(self, requests, sampling, on_completion=None):
            answers = super().generate(requests, sampling)
            answers = [dataclasses.replace(one, finish_reason=finish) for one in answers]
            for index, answer in enumerate(answers):
                assert on_completion is not None
                on_completion(index, answer)
            return answers

    teacher = Answers(lambda request, number: "5" if number else text)
    material, _ = synthesize(teacher=teacher, **options)
    assert material.lessons == ()
    (reject,) = material.rejects
    assert (reject.seed, reject.module, reject.stage, reject.attempt) == ("a", MODULE, 3, 1)
    assert material.figures[f"rejected.{reject.reason}"] == 1
    assert material.figures["unfilled"] == 1
    return reject


def written(**changes):
    return json.dumps([example(**changes)])


@pytest.mark.parametrize(
    ("text", "finish", "reason", "detail"),
    [
        ("I can't.", "stop", "no_json", "no JSON"),
        ("[1]", "stop", "schema", "dict"),
        (written(solution="none"), "stop", "schema", "field 'solution'"),
        (written(problem="\ud800"), "stop", "schema", "field 'problem'"),
        (written()[:50], "length", "length", "cut off"),
        (written(), "filtered", "filtered", "refused"),
        (written(difficulty_tag="advanced"), "stop", "off_request", "difficulty advanced"),
        (written(problem=f"Tell me. {SECRET}"), "stop", "contaminated", "whole of garden, item g"),
        (
            written(solution={"steps": ["a"], "final_answer": SECRET, "verification": ""}),
            "stop",
            "contaminated",
            "g-1, prompt",
        ),
        (
            written(solution={"steps": ["a"], "final_answer": "6", "verification": ""}),
            "stop",
            "check_failed",
            "6, but solved independently 5",
        ),
    ],
)
def test_reasons_to_reject(text, finish, reason, detail):
    reject = once(text, finish)
    assert reject.reason == reason
    assert detail in reject.detail
    # The benchmark's words aren't told to the teacher.
    assert "garden late" not in reject.detail
    expected = text if reason in ("no_json", "length", "filtered") or text == "[1]" else None
    if expected is not None:
        assert reject.raw == expected
    else:
        assert json.loads(reject.raw)["prereq"] == []


def test_what_the_program_knows_is_not_the_teachers_to_say():
    flags = {"concretization": False, "cognitive_load": {"scale": "tiny", "notes": "few"}}
    answer = written(
        module="algebra/other", prereq="none", adapter_flags=flags, metadata={"stage_id": "9"}
    )
    teacher = ScriptedTeacher(lambda r, n: "5" if n else answer)
    material, _ = synthesize(teacher=teacher)
    (lesson,) = material.lessons
    assert lesson.module == lesson.example["module"] == MODULE
    assert lesson.example["prereq"] == ["arithmetic/division"]
    assert lesson.example["metadata"] == {"stage_id": "3", "seed_style_ref": "a"}
    assert lesson.example["adapter_flags"]["concretization"]
    # How large the instance is only the teacher can say.
    assert lesson.example["adapter_flags"]["cognitive_load"] == flags["cognitive_load"]


def test_in_maths_a_solution_needs_steps():
    solution = {"steps": [], "final_answer": "5", "verification": ""}
    reject = once(
        written(solution=solution),
        request=StageRequest("stage", seeds("a", stage=3, kind="number")),
        graders=("number",),
    )
    assert (reject.reason, "no step" in reject.detail) == ("schema", True)


def test_no_answer_to_compare_with_is_told_apart():
    script = writer()
    teacher = ScriptedTeacher(lambda r, n: "?" if r.purpose == "verification" else script(r, n))
    made = Adapter(
        teacher,
        settings(size_caps=NO_CAPS),
        Novelty(BENCHMARK, {}, settings().duplicate_similarity),
        Checkers({"number": make_grader("number")}),
    )
    material = made.synthesize(StageRequest("stage", seeds("a", kind="number")))
    assert [reject.reason for reject in material.rejects] == ["unverified"]


def test_caps_follow_level_and_seed():
    plain = settings(size_caps={"introductory": 20, "intermediate": 100, "advanced": None})
    small, large = (seeds("a", prompt=text, kind="number")[0].seed for text in ("3 + 4", "30 + 40"))
    assert plain.size_cap(small, "introductory", "stage") == 20
    assert plain.size_cap(large, "introductory", "stage") == 40
    assert plain.size_cap(large, "introductory", "remedial") == 20
    assert plain.size_cap(large, "advanced", "stage") is None
    kitchen = dataclasses.replace(small, domain="kitchen")
    assert plain.size_cap(kitchen, "introductory", "stage") == 20
    text = dataclasses.replace(small, check={"kind": "exact"})
    assert plain.size_cap(text, "introductory", "stage") is None
    unadapted = settings(dimensions=PLAIN)
    assert unadapted.size_cap(small, "introductory", "stage") is None
    assert unadapted.step_cap("introductory") is None
    assert unadapted.answer_template == "lines"


def test_what_is_over_a_cap_is_too_large():
    request = StageRequest("stage", seeds("a", kind="number"), {"introductory": 1.0})
    for text, count in (("An apple costs 21.", 1), ("An apple costs 20.", 0)):
        material, _ = synthesize(
            writer(problem=text),
            request,
            graders=("number",),
            size_caps={"introductory": 20, "intermediate": 100, "advanced": None},
        )
        assert [reject.reason for reject in material.rejects] == ["too_large"] * count
    steps = {"steps": ["a"] * 9, "final_answer": "5", "verification": ""}
    material, teacher = synthesize(writer(solution=steps), request, graders=("number",))
    assert material.rejects[0].detail == "9 steps are more than 8"
    eight = steps | {"steps": ["a"] * 8}
    assert synthesize(writer(solution=eight), request, graders=("number",))[0].rejects == ()
    # What is too large isn't solved again.
    assert teacher.batches == [1]


def test_duplicates_of_seeds_lessons_and_each_other():
    first, _ = synthesize(writer(problem="The same old problem"))
    material, _ = synthesize(writer(problem="The same old problem"), accepted=first.lessons)
    (reject,) = material.rejects
    assert (reject.reason, first.lessons[0].id in reject.detail) == ("duplicate", True)
    material, _ = synthesize(
        writer(problem="the SAME old problem"), known={"probe-7": "The same old problem"}
    )
    assert "probe-7" in material.rejects[0].detail
    request = StageRequest("stage", seeds("a", "b"))
    material, teacher = synthesize(writer(problem="The same old problem"), request)
    assert len(material.lessons) == 1
    assert [reject.reason for reject in material.rejects] == ["duplicate"]
    # Each could have been the one that verifies.
    assert teacher.batches == [2, 2]


def test_only_what_failed_is_asked_again_with_another_seed_and_the_reason():
    def script(request, number):
        text = request.messages[0]["content"]
        if "task b" in text and "rejected" not in text:
            return "no"
        return "5" if request.purpose == "verification" else rows_of_paper(request)

    def rows_of_paper(request):
        return json.dumps([example(problem=problem(request))])

    request = StageRequest("stage", seeds("a", "b", "c"), {"introductory": 1.0})
    material, teacher = synthesize(script, request, pack="paper", max_retries=2)
    assert teacher.batches == [3, 2, 1, 1]
    assert {lesson.seed for lesson in material.lessons} == {"a", "b", "c"}
    assert [(one.seed, one.attempt, one.reason) for one in material.rejects] == [
        ("b", 1, "no_json")
    ]
    again = teacher.asked[5]
    assert "rejected: no_json: no JSON" in again.messages[0]["content"]
    assert again.seed not in {call.seed for call in teacher.asked[:5]}


def test_attempts_end():
    material, teacher = synthesize(lambda request, number: "no", max_retries=2)
    assert len(teacher.asked) == 3
    assert len({call.seed for call in teacher.asked}) == 3
    assert [reject.attempt for reject in material.rejects] == [1, 2, 3]
    assert (material.figures["unfilled"], material.figures["calls"]) == (1, 3)
    assert not material.exhausted


def test_of_the_rewrites_the_least_surprising_inside_the_zone_is_kept():
    wanted = [0.01, 2.0, 0.4, 9.0, float("nan"), 1.0]

    def scorer(pairs):
        assert {answer for _, answer in pairs} == {"5"}
        return wanted[: len(pairs)]

    material, teacher = synthesize(rewrites=6, zone=NllZone(low=0.1, high=3.0), scorer=scorer)
    assert teacher.batches == [6, 6]
    (lesson,) = material.lessons
    assert (lesson.nll, lesson.prompt) == (0.4, problem(teacher.asked[2]))
    reasons = collections.Counter(reject.reason for reject in material.rejects)
    assert reasons == {"too_easy": 1, "too_hard": 2, "not_chosen": 2}


def test_the_ends_of_the_zone_are_inside():
    for nll, reasons in ((0.1, []), (3.0, []), (0.0999, ["too_easy"]), (3.001, ["too_hard"])):
        zone = NllZone(low=0.1, high=3.0)
        material, _ = synthesize(zone=zone, scorer=lambda pairs, nll=nll: [nll] * len(pairs))
        assert [reject.reason for reject in material.rejects] == reasons


def test_equal_rewrites_are_verified_once():
    material, teacher = synthesize(writer(problem="An apple"), rewrites=3)
    assert teacher.batches == [3, 1]
    assert [reject.detail for reject in material.rejects] == ["another rewrite is the same"] * 2


def test_without_a_zone_the_first_that_verifies_is_kept():
    def script(request, number):
        return "5" if request.purpose == "verification" else "" if number == 0 else rows(request)

    material, teacher = synthesize(script, rewrites=3)
    assert [one.prompt for one in material.lessons] == [problem(teacher.asked[1])]
    assert [one.reason for one in material.rejects] == ["no_json", "not_chosen"]


def limited(folder, tokens, script=None):
    teacher = ScriptedTeacher(script or writer(), tokens=10)
    return LedgeredTeacher(teacher, Ledger(folder), Budget(max_tokens=tokens)), teacher


def test_what_was_accepted_before_the_budget_ended_is_kept(tmp_path):
    request = StageRequest("stage", seeds("a", "b", "c", "d"))
    small = {"max_tokens": 10, "verification": VerificationSettings(max_tokens=10)}
    teacher, _ = limited(tmp_path / "a", 65)
    material, _ = synthesize(request=request, teacher=teacher, calls_per_round=2, **small)
    # Two are written and solved for 40 tokens; then two are written, and nothing is left.
    assert [lesson.seed for lesson in material.lessons] == ["a", "b"]
    assert material.exhausted
    assert [(one.seed, one.reason) for one in material.rejects] == [
        ("c", "unverified"),
        ("d", "unverified"),
    ]
    assert "budget" in material.rejects[0].detail
    # With a batch that the budget cuts off: three are written, and one is solved.
    teacher, _ = limited(tmp_path / "b", 35)
    material, _ = synthesize(
        request=request,
        teacher=teacher,
        **small | {"verification": VerificationSettings(max_tokens=5)},
    )
    assert material.exhausted
    assert material.figures["calls"] == 3
    assert [lesson.seed for lesson in material.lessons] == ["a"]
    assert [one.reason for one in material.rejects] == ["unverified"] * 2


def test_a_ledger_gives_the_same_material_again(tmp_path):
    request = StageRequest("bridge", seeds("a", "b"))

    def script(request, number):
        refused = request.purpose == "synthesis" and request.seed % 3 == 0
        return "no" if refused else writer()(request, number)

    teacher, _ = limited(tmp_path, None, script)
    options = {"request": request, "examples_per_seed": 4, "max_retries": 3}
    first, _ = synthesize(teacher=teacher, **options)
    assert len(first.lessons) == 8
    assert first.rejects
    replay = LedgeredTeacher(None, Ledger(tmp_path))
    again, _ = synthesize(teacher=replay, **options)
    assert again == first


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"round": 1}, {"stage": 2}, {"kind": "remedial"}, {"id": "b"}]
)
def test_calls_differ_by_run_and_by_what_is_asked(change):
    def seeds_of_calls(seed=0, round=0, stage=1, kind: StageKind = "stage", id="a"):
        request = StageRequest(kind, seeds(id, stage=stage), round=round)
        _, teacher = synthesize(request=request, seed=seed)
        return [call.seed for call in teacher.asked]

    assert seeds_of_calls() == seeds_of_calls()
    assert not set(seeds_of_calls()) & set(seeds_of_calls(**change))


def test_without_verification_and_steps():
    material, teacher = synthesize(verification=VerificationSettings(on=False), steps=False)
    assert teacher.batches == [1]
    assert (material.lessons[0].verified_by, material.lessons[0].answer) == ("none", "5")


def test_programs_are_verified_by_their_own_tests_and_shown_with_the_seeds():
    check = {"kind": "code", "entry_point": "half", "tests": "assert half(4) == 2"}
    task = SeedItem("c", "Write half(x).", "def half(x):\n    return x / 2", check, "code")
    request = StageRequest("stage", (StageSeed(task, MODULE),), {"introductory": 1.0})
    program = "def double(x):\n    return 2 * x"
    solution = {
        "steps": ["Twice x is 2 * x."],
        "final_answer": program,
        "verification": "assert double(3) == 6",
    }
    teacher = ScriptedTeacher(writer(problem="Write double(x).", solution=solution))
    options = settings(form="json")
    with Sandbox() as sandbox:
        novelty = Novelty(BENCHMARK, {}, options.duplicate_similarity)
        made = Adapter(teacher, options, novelty, Checkers({}, sandbox))
        material = made.synthesize(request)
    assert teacher.batches == [1]
    assert "assert half(4) == 2" in teacher.asked[0].messages[1]["content"]
    (lesson,) = material.lessons
    assert lesson.answer == f"1. Twice x is 2 * x.\n```python\n{program}\n```"
    assert lesson.verified_by.startswith("tests in the sandbox")


def test_requests_and_settings_that_make_no_sense():
    for request, message in (
        ({"seeds": ()}, "'stage': there are no seeds"),
        ({"seeds": seeds("a", "a")}, "seed 'a' is there 2 times"),
        ({"levels": {}}, "no difficulty level"),
        ({"levels": {"advanced": -1.0}}, "'advanced': -1.0: at least 0"),
        ({"examples_per_seed": 0}, "examples_per_seed=0"),
    ):
        with pytest.raises(InputError, match=message):
            StageRequest(**{"kind": "stage", "seeds": seeds("a")} | request)  # type: ignore
    with pytest.raises(InputError, match="zone needs a student"):
        synthesize(zone=NllZone())
    with pytest.raises(InputError, match="grader 'rouge' is needed"):
        synthesize(request=StageRequest("stage", seeds("a", kind="rouge")))
    with pytest.raises(ValidationError, match="less than high"):
        NllZone(low=3, high=1)
    with pytest.raises(ValidationError, match="size_caps has no 'advanced'"):
        settings(size_caps={"introductory": 1, "intermediate": 1})
    with pytest.raises(ValidationError, match="one example a call"):
        settings(protocol="lean", examples_per_call=2)
    with pytest.raises(ValidationError, match="no difficulty level has a share"):
        settings(levels={"advanced": 0})
    with pytest.raises(ValidationError, match="check_module"):
        settings(check_module=False)
    with pytest.raises(ValidationError, match="'advanced': 0: at least 1"):
        settings(step_caps={"introductory": 1, "intermediate": 1, "advanced": 0})


def test_a_whole_example_in_an_answer_that_was_cut_off_counts():
    class Cut(ScriptedTeacher):
        def generate(self, requests, sampling, on_completion=None):
            done = []
            for index, request in enumerate(requests):
                text = self.script(request, 0)
                text = text if text == "5" else text[:-1] + ', {"module": "al'
                done.append(Completion(text, 1, 7, "length"))
                assert on_completion is not None
                on_completion(index, done[-1])
            return done

    material, _ = synthesize(teacher=Cut(writer()))
    assert len(material.lessons) == 1


def without(**changes):
    """An example that lacks what the request fixes."""
    row = example(**changes)
    del row["module"], row["difficulty_tag"], row["adapter_flags"]["cognitive_load"]["notes"]
    return row | {"metadata": {}}


def test_json_that_lacks_only_what_the_request_fixes_is_completed():
    request = StageRequest("stage", seeds("a", stage=3), {"advanced": 1.0})
    answer = json.dumps([without()])
    material, _ = synthesize(lambda call, number: "5" if number else answer, request)
    (lesson,) = material.lessons
    assert (lesson.example["module"], lesson.example["difficulty_tag"]) == (MODULE, "advanced")
    assert material.figures["repaired"] == 1
    reject = once(json.dumps([without(problem=" ")]))
    assert reject.reason == "schema"
    reject = once(json.dumps([without(solution={"steps": ["a"], "final_answer": "5"})]))
    assert (reject.reason, "solution.verification" in reject.detail) == ("schema", True)
