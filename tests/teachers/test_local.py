import dataclasses

import numpy as np
import pytest

from ioa_jax.engine.generation import Generator
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.engine.scoring import Scorer
from ioa_jax.errors import InputError
from ioa_jax.models.text import render_chat
from ioa_jax.teachers.base import ChatRequest, Sampling
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.local import LocalTeacher
from ioa_jax.teachers.replay import LedgeredTeacher
from tests.teachers.recorded import ask
from tests.tiny import tiny_model

TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"


@pytest.fixture(scope="module")
def teacher():
    model = tiny_model()
    model.tokenizer.chat_template = TEMPLATE
    return LocalTeacher(model, batch_size=2)


REQUESTS = [ask("5 6 7"), ask("11 12 13 14 15"), ask("21"), ask("5 6 7", seed=1)]


def test_greedy_answers_are_those_of_the_engine_in_input_order(teacher):
    sampling = Sampling(max_tokens=6, temperature=0.0, logprobs=True)
    seen = {}
    answers = teacher.generate(REQUESTS, sampling, lambda i, c: seen.update({i: c}))
    assert seen == dict(enumerate(answers))
    prompts = [render_chat(teacher.model.tokenizer, r.messages) for r in REQUESTS]
    expected = Generator(teacher.model, 2).generate(prompts, SamplingParams(max_tokens=6))
    assert len({answer.text for answer in answers}) > 1
    for ours, theirs, prompt in zip(answers, expected, prompts, strict=True):
        assert ours.text == theirs.text
        assert ours.completion_tokens == len(theirs.tokens)
        assert ours.prompt_tokens == len(prompt.split())
        assert ours.finish_reason == theirs.finish_reason
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)


def test_samples_depend_on_the_requests_and_their_seeds(teacher):
    sampling = Sampling(max_tokens=12, temperature=2.0)

    def texts(requests):
        return [c.text for c in teacher.generate(requests, sampling)]

    assert texts(REQUESTS) == texts(REQUESTS)
    first, *_, fourth = texts(REQUESTS)
    assert first != fourth
    reseeded = [dataclasses.replace(request, seed=7) for request in REQUESTS]
    assert texts(REQUESTS) != texts(reseeded)
    assert teacher.generate(REQUESTS[:1], sampling)[0].logprobs is None


def test_scores_are_those_of_the_engine(teacher):
    pairs = [("5 6 7", " 8 9"), ("", "3 4"), ("11 ", "12")]
    seen = {}
    scores = teacher.score(pairs, lambda i, s: seen.update({i: s}))
    assert seen == dict(enumerate(scores))
    for ours, theirs in zip(scores, Scorer(teacher.model).score(pairs), strict=True):
        assert ours.logprobs == theirs.token_logprobs
        assert ours.is_greedy == theirs.is_greedy
    assert [score.prompt_tokens for score in scores] == [5, 3, 2]
    with pytest.raises(InputError, match="pair 1: the completion is empty"):
        teacher.score([("5", " 6"), ("5", "")])


def test_a_ledger_replays_it(teacher, tmp_path):
    sampling = Sampling(max_tokens=5)
    ledgered = LedgeredTeacher(teacher, Ledger(tmp_path))
    answers = ledgered.generate(REQUESTS, sampling)
    assert ledgered.count_prompt_tokens(REQUESTS[1]) == 5
    assert LedgeredTeacher(None, Ledger(tmp_path)).generate(REQUESTS, sampling) == answers


def test_errors_name_the_request(teacher):
    bad = ChatRequest(({"role": "wizard", "content": "5"},), "synthesis")
    with pytest.raises(InputError, match="request 1 for 'synthesis': message 1: role 'wizard'"):
        teacher.generate([REQUESTS[0], bad], Sampling())
    with pytest.raises(InputError, match="prompt 0 has 600 tokens"):
        teacher.generate([ask("5 " * 600)], Sampling())


def test_the_fingerprint_names_the_arithmetic():
    assert LocalTeacher(tiny_model()).fingerprint == "jax:" + "0" * 64 + ":float32"
    assert LocalTeacher(tiny_model(precision="bfloat16")).fingerprint.endswith(":bfloat16")


def test_it_renders_and_embeds(teacher):
    assert teacher.capabilities.embed
    assert teacher.render(ask("5 6").messages) == "5 6 "
    # Under a causal mask the first token's state doesn't know of the second.
    one, two = teacher.embed(["5", "5 6"])
    assert one.shape == two.shape == (32,)
    assert not np.allclose(one, two)
