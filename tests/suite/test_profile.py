import json
import re
import sys

import pytest

from ioa_jax.errors import InputError
from ioa_jax.models.load import load_model
from suite.data import DataSource
from suite.eval import EvalSettings, prepare
from suite.methods import METHODS
from suite.methods.ioa import IOA
from suite.methods.registry import load_method
from suite.plan import make_plan, print_plan
from suite.profile import Profile
from suite.profile_files import load_profile, profile_names
from suite.tasks import load_task
from suite.tasks.base import THOUGHT_TOKENS
from tests.suite.world import write_model


def fields(model):
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
            yield from ((f"{name}.{inner}", f) for inner, f in fields(field.annotation))
        else:
            yield name, field


def test_every_setting_is_documented():
    found = dict(fields(Profile))
    assert "train.learning_rate" in found
    assert not [name for name, field in found.items() if not field.description]


@pytest.mark.parametrize("name", profile_names())
def test_shipped_profiles_are_valid_and_configure_their_methods(name):
    found, profile = load_profile(name)
    assert found == name
    for method in ("ioa", *profile.methods):
        own = load_method(method)
        if isinstance(own, IOA):
            config = own.config(profile)
            assert config.budget.student_tokens == profile.budgets.student_tokens
            # Problems and answers are asked for as the suite's own methods ask for them.
            assert config.adapter.pack == profile.pack
    # What a method takes of another is made in the same run.
    missing = {need for name in profile.methods for need in load_method(name).needs}
    missing -= set(profile.methods)
    assert missing <= ({"ioa"} if "sft_matched" in profile.methods else set())


def test_the_worlds_profiles_differ_in_what_they_say():
    micro, short, large, full, flat, power = (
        load_profile(f"micro{name}")[1]
        for name in ("", "-short", "-large", "-full", "-full-flat", "-power")
    )
    settings = {"description", "methods", "seeds"}

    def changes(profile):
        own, usual = profile.model_dump(), micro.model_dump()
        return {name for name in own if own[name] != usual[name]} - settings

    assert changes(short) == {"budgets"}
    assert changes(large) == {"budgets", "options"}
    assert changes(full) == changes(power) == set()
    assert changes(flat) == {"student"}
    # Everything but the reference points of the world, which are measured on other seeds.
    assert set(METHODS) - set(full.methods) == {"uniform_right", "oracle"}
    assert (full.seeds, power.seeds) == ((0, 1, 2, 3, 4), (90, 91, 92, 93, 94))
    assert set(power.methods) == {"undistilled", "uniform_right", "oracle"}
    swept = {name.partition("@")[2].partition("=")[0] for name in full.methods if "@" in name}
    assert swept >= {
        "diagnose.tau_gap",
        "diagnose.alpha",
        "organizer.tau_zpd",
        "organizer.tau_mastery",
        "organizer.retention.weight",
        "adapter.examples_per_seed",
        "seeds",
    }


def test_the_main_profile_is_what_it_says():
    plan = make_plan(load_profile("smollm2")[1])
    assert (plan.seeds, plan.probes) == (120, 72)
    assert plan.items == {"humaneval": 41}
    assert [cell.name for cell in plan.cells] == [
        "teacher",
        "undistilled",
        "sft-seed0",
        "ioa-seed0",
        "sft_matched-seed0",
        "ioa_shuffled-seed0",
    ]
    assert plan.missing == ()
    short = make_plan(load_profile("smollm2-short")[1])
    assert short.measuring_tokens < plan.measuring_tokens / 10


def test_gsm8k_is_measured_too_where_a_data_folder_is_given(tmp_path, monkeypatch):
    _, profile = load_profile("smollm2-gsm8k")
    usual = load_profile("smollm2")[1]
    assert (
        profile.model_copy(update={"tasks": usual.tasks, "description": usual.description}) == usual
    )
    monkeypatch.delenv("IOA_DATA_DIR", raising=False)
    (missing,) = make_plan(profile).missing
    assert "gsm8k/test: not found here" in missing
    (tmp_path / "gsm8k").mkdir()
    rows = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(1319)]
    (tmp_path / "gsm8k" / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    monkeypatch.setenv("IOA_DATA_DIR", str(tmp_path))
    plan = make_plan(profile)
    assert (plan.items, plan.missing) == ({"humaneval": 41, "gsm8k": 48}, ())


def test_plan_counts_upper_bounds():
    overrides = (
        "tasks=[{name: humaneval, limit: 10, max_tokens: 7}]", "probes.max_tokens=5",
        "budgets.teacher_tokens=3", "budgets.student_tokens=4", "seeds=[1, 2]",
        "methods=[undistilled, sft]",
    )  # fmt: skip
    plan = make_plan(load_profile("smollm2", overrides)[1])
    assert [cell.name for cell in plan.cells] == [
        "teacher",
        "undistilled",
        "sft-seed1",
        "sft-seed2",
    ]
    assert plan.measuring_tokens == 4 * (72 * 5 + 10 * 7)
    assert (plan.teacher_tokens, plan.student_tokens) == (6, 8)
    # Two cells are trained; a point of a curve has at most so many items of each task.
    curve = (*overrides, "curve={points: 3, items: 4}")
    points = make_plan(load_profile("smollm2", curve)[1]).measuring_tokens - plan.measuring_tokens
    assert points == 2 * 3 * (4 * 5 + 4 * 7)


def test_plan_counts_what_a_student_may_think(tmp_path, capsys):
    write_model(tmp_path)
    overrides = (
        "tasks=[{name: humaneval, limit: 10}, {name: micro-math, limit: 3, max_tokens: 7}]",
        "probes.max_tokens=null", "seeds=[1]", "methods=[undistilled, sft]",
        f"student.spec={tmp_path}",
    )  # fmt: skip

    def planned(*more):
        profile = load_profile("smollm2", (*overrides, *more))[1]
        print_plan("smollm2", profile, None)
        plan = make_plan(profile)
        # A cell's own answers; a limit that is set holds for thoughts too.
        return (plan.measuring_tokens / len(plan.cells) - 3 * 7) / 10, plan, capsys.readouterr().out

    own = load_task("humaneval").settings.max_tokens
    limit, plan, printed = planned()
    assert (limit, plan.thinks) == (own, False)
    assert "think" not in printed
    template = tmp_path / "chat_template.jinja"
    plain = template.read_text()
    template.write_text(plain + "{# <think> #}")
    limit, plan, printed = planned()
    assert (limit, plan.thinks) == (own + THOUGHT_TOKENS, True)
    assert f"at most {plan.measuring_tokens:,}, thoughts included" in printed
    # The run takes the same.
    chosen = EvalSettings(model="", tasks=("humaneval",))
    ready = prepare(load_task("humaneval"), chosen, load_model(str(tmp_path)), DataSource.open())
    assert ready.max_tokens == limit
    limit, plan, printed = planned("student.spec=nobody/nothing")
    assert (limit, plan.thinks) == (own, None)
    assert "; more if the student thinks" in printed


def test_plan_names_what_is_missing():
    overrides = (
        "teacher.spec=openai:o1@https://api.openai.com/v1",
        "teacher.settings={api_key_variable: NO_SUCH_KEY}",
        "student.spec=nobody/nothing",
        "seed_items.source=no/such.jsonl",
    )
    plan = make_plan(load_profile("smollm2", overrides)[1])
    # A teacher elsewhere isn't measured.
    assert "teacher" not in [cell.name for cell in plan.cells]
    assert plan.seeds is None
    assert plan.memory is None
    text = "\n".join(plan.missing)
    for part in ("no/such.jsonl", "NO_SUCH_KEY", "nobody/nothing", "measure.scorer to accuracy"):
        assert part in text
    # By itself it does without them.
    assert "estimator" not in text
    fixed = (*overrides, "options.diagnose.measure.scorer=accuracy")
    scored = (*fixed, "options.diagnose.dependencies.estimator=snapshots")
    assert "log-probabilities" not in "\n".join(
        make_plan(load_profile("smollm2", fixed)[1]).missing
    )
    assert "estimator to auto" in "\n".join(make_plan(load_profile("smollm2", scored)[1]).missing)


@pytest.mark.parametrize("name", [name for name in profile_names() if name.startswith("paper-")])
def test_the_papers_profiles_can_run_where_their_models_and_data_are(name, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    plan = make_plan(load_profile(name)[1])
    assert "ioa-seed2" in [cell.name for cell in plan.cells]
    assert plan.memory is not None
    assert plan.memory.total > 30 << 30
    for line in plan.missing:
        assert line.startswith(("seed items", "task ", "student", "memory", "teacher: the package"))


def test_memory_counts_what_training_holds():
    _, profile = load_profile("smollm2")
    student = make_plan(profile).memory
    whole = make_plan(load_profile("smollm2", ["student.keep_layers=null"])[1]).memory
    adapters = make_plan(load_profile("smollm2", ["train.lora={rank: 8}"])[1]).memory
    # SmolLM2-135M has 134,515,008 parameters: float32 and a bfloat16 copy.
    assert student is not None
    assert whole is not None
    assert adapters is not None
    assert whole.parameters == 134_515_008 * 6
    assert whole.optimizer == 134_515_008 * 12
    assert whole.teacher == 134_515_008 * 2
    assert student.optimizer < whole.optimizer
    assert adapters.optimizer < student.optimizer / 50


def test_overrides_are_yaml():
    _, profile = load_profile(
        "smollm2", ["train.learning_rate=1e-3", "seeds=[3]", "student.keep_layers=null"]
    )
    assert (profile.train.learning_rate, profile.seeds, profile.student.keep_layers) == (
        0.001,
        (3,),
        None,
    )
    assert profile.digest() != load_profile("smollm2")[1].digest()


def test_a_method_may_have_its_own_learning_rate():
    rates = "learning_rates={sft: 0.002, lamini: 0.003}"
    _, profile = load_profile("micro-short", [rates, "train.learning_rate=0.001"])
    assert profile.train_of("sft").learning_rate == 0.002
    assert profile.train_of("sft@seeds=200") == profile.train_of("sft")
    assert profile.train_of("ioa") == profile.train
    assert profile.train_of("sft").model_copy(update={"learning_rate": 0.001}) == profile.train


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learning_rates={sfd: 0.1}", "'sfd' is unknown; choose from undistilled,"),
        ("learning_rates={sft: 0}", "setting 'learning_rates.sft'"),
        ("train.lr=1", "setting 'train.lr': there is none"),
        ("train.batch_rows=0", "setting 'train.batch_rows'"),
        ("tasks=[{name: riddles}]", "'riddles' is unknown"),
        ("tasks=[{name: humaneval}, {name: humaneval}]", "a task occurs twice"),
        ("tasks=[{name: humaneval@release=v5}]", "humaneval has no settings"),
        ("tasks=[{name: livecodebench@end=soon}]", "end='soon': a day is needed"),
        ("budgets.teacher_tokens=0", "setting 'budgets.teacher_tokens'"),
        ("pack=tiny", "setting 'pack'"),
        ("precision=fp8", "setting 'precision'"),
        ("methods=[undistilled, magic]", "'magic' is unknown"),
        ("methods=[undistilled, undistilled]", "occurs twice"),
        ("seeds=[1, 1]", "occurs twice"),
        ("seeds=[]", "setting 'seeds'"),
        ("train=3", "setting 'train'"),
        ("precision.x=3", "'precision' has no settings"),
        ("train.clip", "write it as a.b=value"),
        ("train.clip=[", "--set"),
    ],
)
def test_a_wrong_setting_is_named(override, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load_profile("smollm2", [override])


def test_unknown_profiles_and_bad_files(tmp_path):
    with pytest.raises(InputError, match="smollm2-short"):
        load_profile("nothing")
    path = tmp_path / "mine.yaml"
    with pytest.raises(InputError, match=r"mine\.yaml"):
        load_profile(str(path))
    path.write_text("- 1")
    with pytest.raises(InputError, match="a mapping"):
        load_profile(str(path))
    path.write_text("description: x")
    with pytest.raises(InputError, match="Field required"):
        load_profile(str(path))


@pytest.mark.parametrize("name", METHODS)
def test_methods_say_what_they_are(name):
    method = load_method(name)
    assert method.summary
    assert set(method.needs) <= {*METHODS, "ioa"}
    text = sys.modules[type(method).__module__].__doc__
    assert text is not None
    assert "\nLoop" in text
    if name != "undistilled":
        assert "Paper: " in text
        assert "Departures: " in text
