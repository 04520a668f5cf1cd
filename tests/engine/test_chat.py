import pytest

from ioa_jax.engine.chat import answer_pair, prompt_tokens
from ioa_jax.errors import InputError
from ioa_jax.models.load import load_model
from ioa_jax.models.text import end_of_turn
from suite.tasks.seeds import load_seed_tasks
from tests.suite.world import write_model

TASKS = load_seed_tasks()[:5]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "model"
    write_model(folder)
    return load_model(str(folder), "float32")


def end(model):
    return model.tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_answers_follow_the_very_tokens_of_the_prompt(model):
    pair = answer_pair(model, TASKS[0].messages, "  Two.\n", ended=True)
    assert pair.prompt == prompt_tokens(model, TASKS[0].messages)
    text = model.tokenizer.decode(pair.prompt)
    assert text.endswith(f"{TASKS[0].prompt}<|im_end|>\n<|im_start|>assistant\n")
    assert model.tokenizer.decode(pair.completion) == "  Two.\n<|im_end|>"
    open_end = answer_pair(model, TASKS[0].messages, "  Two.\n", ended=False)
    assert open_end.completion == pair.completion[:-1]


def test_end_of_turn_is_what_the_template_writes(model):
    assert end_of_turn(model.tokenizer, (0, end(model))) == end(model)
    with pytest.raises(InputError, match="none of the tokens that end a text"):
        end_of_turn(model.tokenizer, (0,))
