"""The models of the world: they are what models.json says, and the recipe makes them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from ioa_jax.files import read_json
from ioa_jax.models.load import load_model
from ioa_jax.student import Student
from suite.micro import build
from suite.micro.gates import Examples, benchmark_accuracies, student_faults, teacher_faults
from suite.micro.recipe import VARIANTS, student_recipe
from suite.micro.tokens import train_tokenizer
from suite.models import find_spec
from suite.profile_files import load_profile, profile_names

ENTRIES = read_json(build.FOLDER / "models.json")
NAMES = tuple(ENTRIES)


@pytest.mark.parametrize("name", NAMES)
def test_files_are_the_recorded_ones(name):
    folder = Path(find_spec(f"micro:{name}"))
    weights = (folder / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == ENTRIES[name]["sha256"]
    model = load_model(str(folder))
    assert model.fingerprint == ENTRIES[name]["fingerprint"]
    assert model.decoder.config.parameter_count() == ENTRIES[name]["parameters"]


def test_gates_are_reached():
    teacher = ENTRIES["teacher"]
    assert not teacher_faults(teacher["accuracy"], Examples(**teacher["examples"]))
    for variant in VARIANTS:
        student = ENTRIES[f"student-{variant}"]
        assert not student_faults(variant, student["accuracy"], teacher["accuracy"])
        assert student["parameters"] <= teacher["parameters"] / 10


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "teacher"])
def test_recorded_accuracies_come_again(name):
    found = benchmark_accuracies(Student.open(find_spec(f"micro:{name}"), batch_size=64))
    recorded = ENTRIES[name]["accuracy"]
    assert found.keys() == recorded.keys()
    # Another processor rounds otherwise, which changes an answer here and there.
    assert np.mean([abs(found[module] - recorded[module]) for module in found]) < 0.02


@pytest.mark.parametrize("profile", [name for name in profile_names() if name.startswith("micro")])
def test_profiles_pin_them(profile):
    settings = load_profile(profile)[1]
    assert settings.teacher.fingerprint is not None
    assert ENTRIES["teacher"]["fingerprint"] in settings.teacher.fingerprint
    name = settings.student.spec.removeprefix("micro:")
    assert ENTRIES[name]["fingerprint"] == settings.student.fingerprint


@pytest.mark.slow
def test_the_tokenizer_is_made_again():
    made = json.loads(train_tokenizer(build.tokenizer_texts()).backend_tokenizer.to_str())
    for name in NAMES:
        kept = json.loads(Path(find_spec(f"micro:{name}"), "tokenizer.json").read_text())
        assert {key: kept[key] for key in ("model", "pre_tokenizer", "decoder")} == {
            key: made[key] for key in ("model", "pre_tokenizer", "decoder")
        }


@pytest.mark.rebuild
def test_the_recipe_makes_the_student_again(tmp_path):
    """By the whole recipe, in minutes; the teacher's takes most of an hour in the same way."""
    recipe = student_recipe("uneven")
    trained = build.train_model(recipe, build.make_tokenizer(tmp_path), tmp_path)
    entry = build.finish(trained, recipe.name, tmp_path / "out")
    recorded = ENTRIES[recipe.name]["accuracy"]
    means = [np.mean(list(accuracy.values())) for accuracy in (entry["accuracy"], recorded)]
    assert abs(means[0] - means[1]) < 0.05
