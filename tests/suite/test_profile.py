import re

import pytest

from ioa_jax.errors import InputError
from suite.methods import METHODS, load_method
from suite.profile import Profile, load_profile, profile_names
from suite.run import make_plan


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
def test_shipped_profiles_are_valid(name):
    assert load_profile(name)[0] == name


def test_the_main_profile_is_what_it_says():
    plan = make_plan(load_profile("smollm2")[1])
    assert (plan.seeds, plan.probes, plan.modules) == (120, 72, 12)
    assert plan.problems >= 40
    assert plan.cells == ("teacher", "undistilled-seed0", "sft-seed0", "staged-seed0")
    short = make_plan(load_profile("smollm2-short")[1])
    assert short.measuring_tokens < plan.measuring_tokens / 10


def test_plan_counts_upper_bounds():
    overrides = (
        "humaneval.problems=10", "humaneval.max_tokens=7", "probes.max_tokens=5",
        "answers.max_tokens=3", "train.epochs=2", "seeds=[1, 2]",
    )  # fmt: skip
    plan = make_plan(load_profile("smollm2", overrides)[1])
    assert plan.cells == (
        "teacher", "undistilled-seed1", "sft-seed1", "sft-seed2", "staged-seed1", "staged-seed2",
    )  # fmt: skip
    assert plan.measuring_tokens == 6 * (72 * 5 + 10 * 7)
    assert plan.teacher_answer_tokens == 120 * 3


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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr=1", "setting 'train.lr': Extra inputs"),
        ("train.epochs=0", "setting 'train.epochs'"),
        ("humaneval.problems=165", "setting 'humaneval.problems'"),
        ("precision=fp8", "setting 'precision'"),
        ("methods=[undistilled, magic]", "'magic' is unknown"),
        ("methods=[sft]", "'undistilled' has to be one"),
        ("methods=[undistilled, undistilled]", "occurs twice"),
        ("seeds=[1, 1]", "occurs twice"),
        ("seeds=[]", "setting 'seeds'"),
        ("train=3", "setting 'train'"),
        ("precision.x=3", "'precision' has no settings"),
        ("train.epochs", "write it as a.b=value"),
        ("train.epochs=[", "--set"),
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
def test_methods_are_there(name):
    assert callable(load_method(name).run)
