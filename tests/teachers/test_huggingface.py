"""The teacher on PyTorch answers and scores as the one on our engine."""

import dataclasses
import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from ioa_jax.errors import InputError, MissingDependencyError
from ioa_jax.models.huggingface import write_decoder
from ioa_jax.teachers.base import Sampling
from ioa_jax.teachers.huggingface import TransformersSettings, TransformersTeacher
from ioa_jax.teachers.local import LocalTeacher
from ioa_jax.teachers.spec import open_teacher
from tests.teachers.recorded import ask
from tests.tiny import tiny_decoder, tiny_tokenizer

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")]

REQUESTS = [
    ask("5 6 7"),
    ask("11 12 13 14 15 16 17"),
    ask("21"),
    ask("5 6 7", seed=1),
    ask("40 41"),
]
GREEDY = Sampling(max_tokens=9, temperature=0.0, logprobs=True)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "model"
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    write_decoder(tiny_decoder(), tokenizer, path)
    return str(path)


@pytest.fixture(scope="module")
def teacher(directory):
    pytest.importorskip("torch")
    settings = {"precision": "float32", "batch_size": 2, "device": "cpu"}
    return open_teacher(f"transformers:{directory}", **settings)


@pytest.fixture(scope="module")
def ours(directory):
    return open_teacher(f"jax:{directory}", precision="float32", batch_size=2)


def test_greedy_answers_are_those_of_our_engine(teacher, ours):
    assert isinstance(ours, LocalTeacher)
    seen = {}
    theirs = teacher.generate(REQUESTS, GREEDY, lambda i, c: seen.update({i: c}))
    assert seen == dict(enumerate(theirs))
    for a, b in zip(theirs, ours.generate(REQUESTS, GREEDY), strict=True):
        assert dataclasses.replace(a, logprobs=None) == dataclasses.replace(b, logprobs=None)
        assert a.logprobs is not None
        assert b.logprobs is not None
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)
    assert len({a.text for a in theirs}) > 2


def test_stop_strings_and_ends_are_those_of_our_engine(teacher, ours):
    texts = [c.text.split() for c in ours.generate(REQUESTS, GREEDY)]
    # Words of the answers, so that rows of a batch stop at different steps.
    sampling = dataclasses.replace(GREEDY, stop=(texts[0][3], f"{texts[1][5]} {texts[1][6]}"))
    theirs = teacher.generate(REQUESTS, sampling)
    for a, b in zip(theirs, ours.generate(REQUESTS, sampling), strict=True):
        assert (a.text, a.finish_reason) == (b.text, b.finish_reason)
        assert a.completion_tokens <= b.completion_tokens
        assert a.logprobs is not None
        assert len(a.logprobs) == a.completion_tokens
    assert theirs[0].finish_reason == theirs[1].finish_reason == "stop"


def test_scores_are_those_of_our_engine(teacher, ours):
    answer = ours.generate(REQUESTS[:1], GREEDY)[0].text
    pairs = [("5 6 7", " 8 9"), ("", "3 4"), ("11 ", "12"), ("5 6 7 ", answer), ("9 9", " 9 9 9 9")]
    seen = {}
    theirs = teacher.score(pairs, lambda i, s: seen.update({i: s}))
    assert seen == dict(enumerate(theirs))
    for a, b in zip(theirs, ours.score(pairs), strict=True):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)
        assert (a.is_greedy, a.prompt_tokens) == (b.is_greedy, b.prompt_tokens)
    assert theirs[3].is_greedy
    assert not theirs[0].is_greedy


def test_samples_depend_on_the_requests_and_their_seeds(teacher):
    torch = pytest.importorskip("torch")
    sampling = Sampling(max_tokens=12, temperature=2.0, top_k=50, top_p=0.95)
    state = torch.random.get_rng_state()

    def texts(requests):
        return [c.text for c in teacher.generate(requests, sampling)]

    assert texts(REQUESTS) == texts(REQUESTS)
    reseeded = [dataclasses.replace(request, seed=7) for request in REQUESTS]
    assert texts(REQUESTS) != texts(reseeded)
    assert torch.equal(state, torch.random.get_rng_state())


def test_errors_name_the_request(teacher):
    with pytest.raises(InputError, match="request 1 has 600 tokens"):
        teacher.generate([REQUESTS[0], ask("5 " * 600)], GREEDY)
    with pytest.raises(InputError, match="pair 1: the completion is empty"):
        teacher.score([("5", " 6"), ("5", "")])
    assert teacher.count_prompt_tokens(REQUESTS[1]) == 7


def test_the_fingerprint_is_of_the_weights(teacher, directory, tmp_path):
    settings = TransformersSettings(precision="float32", device="cpu")
    assert TransformersTeacher.open(directory, settings).fingerprint == teacher.fingerprint
    other = tiny_decoder()
    other.embedding[...] = other.embedding[...] + jnp.float32(1e-3)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = teacher.tokenizer.chat_template
    write_decoder(other, tokenizer, tmp_path / "other")
    changed = TransformersTeacher.open(str(tmp_path / "other"), settings).fingerprint
    assert changed != teacher.fingerprint
    assert changed.startswith("transformers:")
    assert changed.endswith(":float32")


def test_a_model_that_is_not_there(tmp_path):
    pytest.importorskip("torch")
    with pytest.raises(InputError, match=r"transformers:.*can't be loaded on cpu"):
        open_teacher(f"transformers:{tmp_path}", device="cpu")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"pip install .ioa-jax\[torch\]"):
        open_teacher("transformers:some/model")


def test_both_local_teachers_end_where_a_turn_ends(tmp_path):
    """The template names the token, the configuration another; and a stop string may hold one."""
    pytest.importorskip("torch")
    tokenizer = tiny_tokenizer()
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    answers = open_answers(write(tmp_path / "plain", tokenizer), GREEDY)
    token = answers[0].split()[3]
    core["model"]["vocab"] = {
        "<|im_end|>" if word == token else word: number
        for word, number in core["model"]["vocab"].items()
    }
    ended = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(core)), unk_token="<unk>", eos_token="<eos>"
    )
    ended.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    ended.chat_template = "{{ messages[-1].content }}{# <|im_end|> #}"
    expected = " ".join(answers[0].split()[: answers[0].split().index(token)])
    assert open_answers(write(tmp_path / "ended", ended), GREEDY) == [expected] * 2
    ended.chat_template = "{{ messages[-1].content }}"
    stops = dataclasses.replace(GREEDY, stop=("<|im_end|>",))
    found = open_answers(write(tmp_path / "stopped", ended), stops)
    assert [text.strip() for text in found] == [expected] * 2


def write(directory, tokenizer):
    tokenizer.chat_template = tokenizer.chat_template or "{{ messages[-1].content }}"
    write_decoder(tiny_decoder(), tokenizer, directory)
    return str(directory)


def open_answers(directory, sampling):
    found = []
    for kind, settings in (("jax", {}), ("transformers", {"device": "cpu"})):
        opened = open_teacher(f"{kind}:{directory}", precision="float32", **settings)
        found.append(opened.generate(REQUESTS[:1], sampling)[0].text)
    return found
