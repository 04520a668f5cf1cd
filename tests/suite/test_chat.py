import pytest

from ioa_jax.engine.generation import Generator
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.errors import InputError
from ioa_jax.models.load import load_model
from ioa_jax.models.text import end_of_turn
from suite.chat import answer_pair, balanced_chunks, generate_in_chunks, prompt_tokens
from suite.journal import Journal
from suite.methods.base import examples_from_answers
from suite.profile import AnswerSettings
from suite.tasks.seeds import load_seed_tasks
from suite.teacher import Teacher, TeacherAnswer
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


def test_an_unfinished_answer_teaches_no_end(model):
    answers = [
        TeacherAnswer(TASKS[0].id, "yes", 2, "stop"),
        TeacherAnswer(TASKS[1].id, "and so", 3, "length"),
        TeacherAnswer(TASKS[2].id, "", 1, "stop"),
        TeacherAnswer(TASKS[3].id, "", 3, "length"),
    ]
    examples = examples_from_answers(model, TASKS[:4], answers)
    assert len(examples) == 3
    endings = [example.completion[-1] == end(model) for example in examples]
    assert endings == [True, False, True]
    assert examples[2].completion == (end(model),)


@pytest.mark.parametrize(
    ("count", "size", "lengths"),
    [(0, 4, []), (3, 4, [3]), (4, 4, [4]), (5, 4, [2, 3]), (9, 4, [3, 3, 3])],
)
def test_chunks_are_balanced_and_cover_everything(count, size, lengths):
    chunks = balanced_chunks(count, size)
    assert [len(chunk) for chunk in chunks] == lengths
    assert [i for chunk in chunks for i in chunk] == list(range(count))


def test_an_unfinished_chunk_is_generated_whole_and_a_finished_one_not_at_all(model):
    prompts = [prompt_tokens(model, task.messages) for task in TASKS]
    params = SamplingParams(max_tokens=5, temperature=1.0, seed=1)
    generator = Generator(model, 8)

    def generate(done):
        found, begun = dict(done), []

        class Chunk:
            def __init__(self, number):
                begun.append(number)

            def __enter__(self):
                return None

            def __exit__(self, *error):
                return None

        generate_in_chunks(
            generator, prompts, params, 3, "test", found.__contains__, found.__setitem__, Chunk
        )
        return found, begun

    whole, begun = generate({})
    assert begun == [0, 1]
    assert sorted(whole) == [0, 1, 2, 3, 4]
    assert len({completion.tokens for completion in whole.values()}) > 1
    # Chunks of 2 and 3, the shorter prompts first; the second lacks one.
    order = sorted(range(5), key=lambda i: len(prompts[i]))
    assert order != sorted(order)
    resumed, begun = generate({i: whole[i] for i in order[:4]})
    assert begun == [1]
    assert resumed == whole


def test_teacher_answers_are_generated_once(model, tmp_path):
    settings = AnswerSettings(max_tokens=6, temperature=0.5)

    def teacher(cache, settings=settings):
        return Teacher(model, Generator(model, 8), settings, cache, 3)

    path = tmp_path / "teacher.jsonl"
    with Journal(path, ("key",)) as cache:
        first = teacher(cache)
        answers = first.answer(TASKS)
        assert [answer.task_id for answer in answers] == [task.id for task in TASKS]
        assert first.generated_tokens == sum(answer.tokens for answer in answers) > 0
    with Journal(path, ("key",)) as cache:
        second = teacher(cache)
        assert second.answer(TASKS[::-1]) == answers[::-1]
        assert second.generated_tokens == 0
        # Other settings are other requests.
        other = teacher(cache, AnswerSettings(max_tokens=6, temperature=0.0))
        other.answer(TASKS[:1])
        assert other.generated_tokens > 0
        assert len(cache) == 6
