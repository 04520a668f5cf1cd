import dataclasses

import numpy as np
import pytest

from ioa_jax.engine.batching import pack_in_order
from suite.micro.build import train_model
from suite.micro.gates import MASTERED, Examples, student_faults, teacher_faults
from suite.micro.lessons import SKILLS
from suite.micro.recipe import (
    FLAT,
    STUDENT_SKILLS,
    VARIANTS,
    WEAKEST,
    Batches,
    Round,
    new_model,
    student_recipe,
    student_targets,
    teacher_recipe,
    weights,
)
from suite.micro.tokens import END, JSON_PIECES, train_tokenizer
from suite.micro.world import MODULES, true_edges


@pytest.fixture(scope="module")
def tokenizer():
    from ioa_jax.streams import stream

    def texts():
        for number in range(400):
            module = list(MODULES)[number % len(MODULES)]
            skill = list(SKILLS)[number % len(SKILLS)]
            task = SKILLS[skill](stream(number, "test"), module, "train")
            yield task.messages[0]["content"]
            yield task.answer

    return train_tokenizer(texts())


def test_tokens_give_back_every_text(tokenizer):
    from ioa_jax.streams import stream

    for name, skill in SKILLS.items():
        for module in MODULES:
            text = skill(stream(0, name, module), module, "train").answer
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    odd = 'Zürich "\\n" \n\n  x\t{}<|'
    assert tokenizer.decode(tokenizer(odd)["input_ids"]) == odd


def test_digits_are_tokens_of_their_own(tokenizer):
    for text in ("What is 47 + 138?", "4*7=28", "[12, 3]"):
        tokens = [tokenizer.decode([i]) for i in tokenizer(text)["input_ids"]]
        for token in tokens:
            assert not any(c.isdigit() for c in token) or len(token) == 1


def test_the_frame_of_the_json_is_cheap(tokenizer):
    piece = JSON_PIECES[4]
    assert len(tokenizer(piece)["input_ids"]) == 1


def test_a_chat_ends_with_the_end_and_system_turns_are_refused(tokenizer):
    from ioa_jax.errors import InputError
    from ioa_jax.models.text import end_of_turn, render_chat

    end = tokenizer.convert_tokens_to_ids(END)
    assert end_of_turn(tokenizer, [end]) == end
    with pytest.raises(InputError, match="only turns of user and assistant"):
        render_chat(tokenizer, [{"role": "system", "content": "x"}])


def test_batches_fill_the_rows_and_are_functions_of_the_step(tokenizer):
    recipe = student_recipe("uneven")
    batches = Batches(recipe, tokenizer)
    shares = weights(recipe.targets, None, 3.0)
    skills = recipe.rounds[-1].skills
    batch = batches.batch(3, shares, skills)
    assert batch == batches.batch(3, shares, skills)
    assert batch != batches.batch(4, shares, skills)
    assert batch != batches.batch(3, shares, {"copy": 1.0})
    sizes = [len(pair) for pair in batch]
    assert len(pack_in_order(sizes, recipe.train.row_length)) == recipe.train.batch_rows
    assert sum(sizes) > 0.7 * recipe.train.batch_rows * recipe.train.row_length


def test_poor_modules_get_more_and_those_past_their_target_hardly_any():
    targets = {"a/strong": 1.0, "a/poor": 1.0, "a/weak": 0.4, "a/past": 0.4}
    found = weights(targets, {"a/strong": 1.0, "a/poor": 0.0, "a/weak": 0.1, "a/past": 0.6}, 3.0)
    assert found["a/poor"] == 4 * found["a/strong"]
    assert 0 < found["a/past"] < 0.01 < found["a/weak"] < found["a/strong"]
    assert weights(targets, None, 3.0)["a/weak"] == pytest.approx(0.1)


def test_a_third_of_each_domain_is_weak_and_prerequisites_are_among_them():
    targets = student_targets("uneven")
    weak = {module for module, target in targets.items() if target < 1}
    assert targets == student_targets("uneven")
    for domain, count in (("math", 5), ("code", 4), ("instruction", 3)):
        assert sum(MODULES[module].domain == domain for module in weak) == count
    assert any(need in weak and dependent in weak for need, dependent in true_edges())
    values = sorted(targets[module] for module in weak)
    assert values[0] == 0
    assert values[-1] == pytest.approx(WEAKEST)
    flat = student_targets("flat")
    assert flat.keys() == MODULES.keys()
    assert all(flat[name] == FLAT[module.domain] for name, module in MODULES.items())


def test_students_have_at_most_a_tenth_of_the_teacher(tokenizer):
    # The vocabulary of the real tokenizer, which is larger than this one's.
    def size(recipe):
        config = new_model(recipe, tokenizer).decoder.config
        return dataclasses.replace(config, vocab_size=1280).parameter_count()

    teacher = size(teacher_recipe())
    assert 2_000_000 <= teacher <= 6_000_000
    for variant in VARIANTS:
        assert size(student_recipe(variant)) <= teacher / 10


def test_gates_name_what_is_missed():
    good, poor = dict.fromkeys(MODULES, 1.0), dict.fromkeys(MODULES, 1.0)
    poor["lists/map"] = 0.5
    assert teacher_faults(good, Examples(1.0, 0.9, {})) == []
    faults = teacher_faults(poor, Examples(0.9, 0.8, {}))
    assert [fault.split(":")[0] for fault in faults] == [
        "lists/map",
        "0.900 of the examples fit the schema, under 0.95",
        "0.800 of the examples verify, under 0.85",
    ]


def test_variants_are_told_by_their_mastery():
    teacher = dict.fromkeys(MODULES, 1.0)
    uneven = {module: min(target, 0.9) for module, target in student_targets("uneven").items()}
    flat = dict.fromkeys(MODULES, 0.5)
    assert student_faults("uneven", uneven, teacher) == []
    assert student_faults("flat", flat, teacher) == []
    assert student_faults("uneven", flat, teacher)
    assert student_faults("flat", uneven, teacher)
    assert all(
        uneven[module] < MASTERED for module, t in student_targets("uneven").items() if t < 1
    )


def embedding(student):
    return np.asarray(student.model.decoder.embedding[...])


@pytest.mark.slow
def test_training_goes_on_where_it_was_and_ends_the_same(tokenizer, tmp_path):
    whole = student_recipe("flat")
    train = dataclasses.replace(whole.train, batch_rows=4, save_every=2)
    recipe = dataclasses.replace(
        whole,
        hidden_size=32,
        num_layers=1,
        train=train,
        rounds=(
            Round(2000, 4e-3, 3.0, STUDENT_SKILLS),
            Round(1500, 1e-3, 3.0, {"answer": 0.5, "copy": 0.5}),
        ),
        watch_every=4,
        watched=1,
        targets={"arithmetic/addition": 0.5, "format/title": 1.0},
    )
    once = train_model(recipe, tokenizer, tmp_path / "once")
    again = train_model(recipe, tokenizer, tmp_path / "once")
    assert (tmp_path / "once/watch.jsonl").read_text().count("\n") >= 1
    assert np.array_equal(embedding(once), embedding(again))
    other = train_model(recipe, tokenizer, tmp_path / "other")
    assert np.array_equal(embedding(once), embedding(other))
