"""Thoughts in what our model of lm-evaluation-harness gives to its tasks."""

import pytest

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]

from ioa_jax.engine.generation import Completion, Generator
from suite.lm_eval_backend import IoaLM
from tests.suite.world import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thoughts") / "model"
    write_model(folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if add_generation_prompt %}<think>\n{% endif %}")
    return IoaLM(str(folder), precision="float32", batch_size=4)


def answer(model, context, written, monkeypatch, until=()):
    """What a task gets where the model writes this text."""

    def generate(self, prompts, *arguments, **options):
        return [Completion(written, (0,), (0.0,), "stop", len(prompts[0]))]

    monkeypatch.setattr(Generator, "generate", generate)
    settings = {"until": list(until), "do_sample": False, "max_gen_toks": 8}
    (text,) = model.generate_until([Instance("generate_until", {}, (context, settings), 0)])
    return text


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("The answer is 4", ""),
        ("It could be 4.</think>\nThe answer is 5", "The answer is 5"),
        ("4</think>The answer is 5\nQuestion: more", "The answer is 5\n"),
    ],
)
def test_a_thought_that_the_template_begins_is_no_answer(model, monkeypatch, written, left):
    chat = model.apply_chat_template([{"role": "user", "content": "What is 2 + 3?"}])
    assert chat.endswith("<think>\n")
    assert answer(model, chat, written, monkeypatch, ["Question:"]) == left


def test_other_contexts_give_what_the_model_wrote(model, monkeypatch):
    context = "Question: What is 2 + 3?\nAnswer:"
    assert answer(model, context, " The answer is 5", monkeypatch) == " The answer is 5"
    assert answer(model, context, "<think>It is 4", monkeypatch) == ""
