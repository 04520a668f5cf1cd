import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.engine.generation import Generator
from ioa_jax.engine.sampling import SamplingParams, sample
from ioa_jax.errors import InputError
from tests.tiny import random_pairs, tiny_decoder, tiny_model


@jax.jit
def full_logits(decoder, tokens):
    return decoder.logits(decoder.hidden(tokens))


def greedy_reference(decoder, prompt, count):
    """Token by token through the full forward pass, no cache."""
    tokens, logprobs = list(prompt), []
    width = 64  # one program for every length; what follows a token cannot change it
    for _ in range(count):
        padded = jnp.array([tokens + [0] * (width - len(tokens))], jnp.int32)
        row = np.asarray(full_logits(decoder, padded)[0, len(tokens) - 1])
        token = int(row.argmax())
        logprobs.append(float(row[token] - np.logaddexp.reduce(row)))
        tokens.append(token)
        if token in decoder.config.eos_token_ids:
            break
    return tokens[len(prompt) :], logprobs


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("stacked", [True, False])
def test_cached_logits_equal_the_full_forward_at_every_step(family, stacked):
    decoder = tiny_decoder(family)
    cached = decoder if stacked else decoder.unstacked()
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(2, 97, (2, 12)), jnp.int32)
    full = decoder.logits(decoder.hidden(tokens))
    cache = cached.init_cache(2, 16)
    start = jnp.zeros((2,), jnp.int32)
    hidden, cache = cached.hidden_cached(tokens[:, :5], start, cache)
    np.testing.assert_allclose(cached.logits(hidden), full[:, :5], atol=2e-5)
    for t in range(5, 12):
        hidden, cache = cached.hidden_cached(tokens[:, t : t + 1], start + t, cache)
        np.testing.assert_allclose(cached.logits(hidden)[:, 0], full[:, t], atol=2e-5)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_greedy_with_refill_equals_one_by_one_without_cache(family):
    model = tiny_model(family)
    decoder = model.decoder
    prompts = [pair.prompt for pair in random_pairs(11)]
    # Fewer slots than prompts, so that rows are refilled in mid-flight.
    generator = Generator(model, batch_size=8)
    finished = []
    results = generator.generate(
        prompts, SamplingParams(max_tokens=13), on_completion=lambda i, c: finished.append(i)
    )
    assert sorted(finished) == list(range(11))
    for prompt, result in zip(prompts, results, strict=True):
        tokens, logprobs = greedy_reference(decoder, prompt, 13)
        assert list(result.tokens) == tokens
        np.testing.assert_allclose(result.logprobs, logprobs, atol=1e-4)
        assert result.finish_reason == ("stop" if tokens[-1] == 1 else "length")


def test_shared_prefix_changes_nothing():
    model = tiny_model()
    header = tuple(int(t) for t in np.random.default_rng(3).integers(2, 97, 40))
    prompts = [(*header, *pair.prompt) for pair in random_pairs(3)]
    generator = Generator(model, batch_size=8)
    for prompt, result in zip(
        prompts, generator.generate(prompts, SamplingParams(max_tokens=6)), strict=True
    ):
        assert list(result.tokens) == greedy_reference(model.decoder, prompt, 6)[0]
    assert any(shape[0] == "prefix" for shape in generator._shapes)


def test_stop_string_cuts_the_text():
    generator = Generator(tiny_model())
    prompts = [pair.prompt for pair in random_pairs(8)]
    lengths = [len(c.tokens) for c in generator.generate(prompts, SamplingParams(max_tokens=12))]
    prompt = prompts[lengths.index(12)]
    free = generator.generate([prompt], SamplingParams(max_tokens=12))[0]
    word = free.text.split()[2]
    stopped = generator.generate([prompt], SamplingParams(max_tokens=12, stop=(word,)))[0]
    assert stopped.finish_reason == "stop"
    assert stopped.text == free.text[: free.text.index(word)]
    assert len(stopped.tokens) < len(free.tokens)


def test_samples_depend_on_seed_and_request_alone():
    model = tiny_model()
    prompts = [pair.prompt for pair in random_pairs(10)]
    params = SamplingParams(max_tokens=8, temperature=1.0, seed=5)
    small = Generator(model, batch_size=8).generate(prompts, params)
    large = Generator(model, batch_size=16).generate(prompts, params)
    assert [r.tokens for r in small] == [r.tokens for r in large]
    other = SamplingParams(max_tokens=8, temperature=1.0, seed=6)
    assert [r.tokens for r in small] != [
        r.tokens for r in Generator(model, batch_size=8).generate(prompts, other)
    ]


def support(logits, params, draws=400):
    keys = jax.random.split(jax.random.key(0), draws)
    rows = jnp.broadcast_to(jnp.asarray(logits)[None], (draws, len(logits)))
    tokens = sample(rows, keys, jnp.float32(params.temperature), params)
    return np.bincount(np.asarray(tokens), minlength=len(logits)) / draws


def test_top_k_and_top_p_keep_exactly_the_right_tokens():
    probabilities = np.array([0.4, 0.3, 0.15, 0.1, 0.05], np.float32)
    logits = np.log(probabilities)
    assert set(np.flatnonzero(support(logits, SamplingParams(temperature=1.0, top_k=2)))) == {0, 1}
    # 0.4 + 0.3 < 0.8 <= 0.4 + 0.3 + 0.15
    frequencies = support(logits, SamplingParams(temperature=1.0, top_p=0.8))
    assert set(np.flatnonzero(frequencies)) == {0, 1, 2}
    np.testing.assert_allclose(frequencies[:3], probabilities[:3] / 0.85, atol=0.08)
    np.testing.assert_allclose(
        support(logits, SamplingParams(temperature=1.0), 4000), probabilities, atol=0.03
    )


@pytest.mark.parametrize(
    "options", [{"top_p": 0.0}, {"top_k": -1}, {"temperature": -1.0}, {"max_tokens": 0}]
)
def test_bad_parameters(options):
    with pytest.raises(InputError, match=next(iter(options))):
        SamplingParams(**options)


def test_prompt_that_fills_the_context_is_an_error():
    with pytest.raises(InputError, match="context is 512"):
        Generator(tiny_model()).generate([(2,) * 512])


def test_a_prompt_with_a_stream_of_its_own_draws_the_same_whatever_is_beside_it():
    generator = Generator(tiny_model(), batch_size=8)
    prompts = [pair.prompt for pair in random_pairs(6)]
    params = SamplingParams(max_tokens=10, temperature=1.0, seed=4)
    together = generator.generate(prompts, params, streams=[10, 11, 12, 13, 14, 15])
    some = generator.generate([prompts[4], prompts[1]], params, streams=[14, 11])
    assert [c.tokens for c in some] == [together[4].tokens, together[1].tokens]
    swapped = generator.generate([prompts[4], prompts[1]], params, streams=[11, 14])
    assert [c.tokens for c in swapped] != [c.tokens for c in some]
