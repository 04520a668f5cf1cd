import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.engine import decoding, generation, scheduling
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


def limit_memory(monkeypatch, tokens):
    monkeypatch.setattr(scheduling, "PREFILL_TOKENS", tokens)
    monkeypatch.setattr(scheduling, "PREFILL_SCORES", tokens * 2 * tokens)
    monkeypatch.setattr(scheduling, "PREFILL_SLOTS", 8 * tokens)
    monkeypatch.setattr(generation, "ROW_SLOTS", 2 * tokens)


def test_prompts_in_parts_and_few_rows_change_nothing(monkeypatch):
    model = tiny_model("qwen3")
    rng = np.random.default_rng(5)
    shared = 150
    header = rng.integers(2, 97, shared)
    lengths = [300, 5, 290, 20, 60, 10]
    prompts = [tuple(int(t) for t in (*header, *rng.integers(2, 97, n))) for n in lengths]
    params = SamplingParams(max_tokens=5)
    limit_memory(monkeypatch, 8192)
    free = Generator(model, batch_size=16)
    expected = free.generate(prompts, params)
    # All at once.
    assert [shape[1:3] for shape in free._shapes if shape[0] == "prefill"] == [(8, 384)]

    limit_memory(monkeypatch, 64)
    bounded = Generator(model, batch_size=16, draft_tokens=0)
    finished = []
    found = bounded.generate(prompts, params, on_completion=lambda i, c: finished.append(i))
    assert sorted(finished) == list(range(len(prompts)))
    for one, other in zip(found, expected, strict=True):
        assert one.tokens == other.tokens
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
    prefills = [shape for shape in bounded._shapes if shape[0] in ("prefill", "prefix")]
    for _, rows, width, slots in prefills:
        assert rows * width <= 64
        assert rows * slots <= max(8 * 64, slots)
    # The longest were cut in parts.
    assert ("prefill", 1, 64, 512) in prefills
    assert ("prefix", 1, 64, 192) in prefills
    assert max(rows for _, rows, _, _ in prefills) == 2
    batches = {shape[1:3] for shape in bounded._shapes if shape[0] == "decode"}
    assert all(rows * slots <= 16 * 2 * 64 for rows, slots in batches)
    assert {rows for rows, _ in batches} == {4, 8}


@pytest.mark.parametrize("longest", [1, 33, 500, 2047, 2049, 6000, 8191, 131_000])
@pytest.mark.parametrize("shared", [0, 400])
def test_a_prefill_stays_within_its_memory(longest, shared):
    longest += shared
    width, slots, rows = scheduling.prefill_shape(longest, shared)
    assert rows >= 1
    assert longest <= slots < max(65, 1.5 * longest)
    assert rows * width <= scheduling.PREFILL_TOKENS
    assert rows * slots <= max(scheduling.PREFILL_SLOTS, slots)
    # A power of two, so up to twice the slots of the bound's own.
    assert rows * width * slots <= max(scheduling.PREFILL_SCORES, 64 * slots)
    # Less than a third is padding, but for the shortest.
    parts = -(-(longest - shared) // width)
    assert parts * width <= max(32, 1.5 * (longest - shared))


def test_a_cache_in_another_size_takes_the_place_of_the_old_one():
    for decoder in (tiny_decoder(), tiny_decoder().unstacked()):
        cache = decoder.init_cache(2, 8)
        tokens = jnp.asarray(np.arange(2, 14).reshape(2, 6), jnp.int32)
        _, cache = decoder.hidden_cached(tokens, jnp.zeros((2,), jnp.int32), cache)
        before = [np.array(x) for x in jax.tree.leaves(cache)]
        larger = decoding.resize(cache, 12)
        assert all(x.is_deleted() for x in jax.tree.leaves(cache))
        assert larger.num_slots == 12
        again = decoding.resize(larger, 8)
        for one, other in zip(jax.tree.leaves(again), before, strict=True):
            np.testing.assert_array_equal(one, other)


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


def test_a_stop_string_may_hold_special_tokens():
    model = tiny_model()
    prompts = [pair.prompt for pair in random_pairs(8)]
    free = Generator(model).generate(prompts, SamplingParams(max_tokens=12))
    longest = next(c for c in free if len(c.tokens) == 12)
    prompt = prompts[free.index(longest)]
    special = str(longest.tokens[3])
    model.tokenizer.add_special_tokens({"additional_special_tokens": [special]})
    (found,) = Generator(model).generate([prompt], SamplingParams(max_tokens=12, stop=(special,)))
    place = longest.tokens.index(int(special))
    assert (found.finish_reason, found.tokens) == ("stop", longest.tokens[: place + 1])
    assert found.text.split() == [str(token) for token in longest.tokens[:place]]


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


def test_a_temperature_divides_the_logits_before_tokens_are_left_out():
    probabilities = np.array([0.4, 0.3, 0.15, 0.1, 0.05], np.float32)
    logits = np.log(probabilities)
    # At 2, in proportion to the square roots: .3, .26, .18, .15 and .11.
    flat = np.sqrt(probabilities) / np.sqrt(probabilities).sum()
    np.testing.assert_allclose(
        support(logits, SamplingParams(temperature=2.0), 4000), flat, atol=0.03
    )
    # Three tokens have .74 of it, and four .89.
    params = SamplingParams(temperature=2.0, top_p=0.8)
    assert set(np.flatnonzero(support(logits, params))) == {0, 1, 2, 3}


def test_top_p_is_of_what_top_k_leaves():
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    # 0.4 of all is 0.57 of the first two.
    params = SamplingParams(temperature=1.0, top_k=2, top_p=0.5)
    assert set(np.flatnonzero(support(logits, params))) == {0}


def test_greedy_takes_the_first_of_the_likeliest():
    logits = np.array([0.0, 2.0, 1.0, 2.0], np.float32)
    assert support(logits, SamplingParams(), 1).tolist() == [0, 1, 0, 0]


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


def repetitive_prompts():
    """Greedy text of a tiny model soon repeats itself, so that drafts are often right."""
    return [pair.prompt for pair in random_pairs(11, seed=2)]


def steps_and_tokens(monkeypatch, generator, prompts, params):
    """Completions, and how many tokens each row got from each step that gave it any."""
    counts = []
    decode = generator._decode

    def counted(*args):
        state, tokens, logprobs = decode(*args)
        fresh = (tokens >= 0).sum(axis=2)
        counts.extend(int(n) for n in fresh[fresh > 0])
        return state, tokens, logprobs

    monkeypatch.setattr(generator, "_decode", counted)
    return generator.generate(prompts, params), counts


@pytest.mark.parametrize("count", [1, 3, 8, 11])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(max_tokens=45),
        SamplingParams(max_tokens=45, temperature=0.02, seed=3),
        SamplingParams(max_tokens=45, temperature=0.02, seed=3, top_p=0.9, top_k=5),
    ],
    ids=["greedy", "sampled", "filtered"],
)
def test_drafts_change_no_token(monkeypatch, count, params):
    model = tiny_model()
    prompts = repetitive_prompts()[:count]
    plain, one_each = steps_and_tokens(
        monkeypatch, Generator(model, batch_size=16, draft_tokens=0), prompts, params
    )
    drafting = Generator(model, batch_size=16)
    found, several = steps_and_tokens(monkeypatch, drafting, prompts, params)
    assert set(one_each) == {1}
    assert sum(several) == sum(one_each)
    assert max(several) > 1
    assert len(several) < len(one_each)
    for one, other in zip(found, plain, strict=True):
        assert one.tokens == other.tokens
        assert one.finish_reason == other.finish_reason
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
    # Ends inside of drafts: texts of every length, those that end by themselves included.
    for most in (1, 2, 44):
        short = drafting.generate(prompts, dataclasses.replace(params, max_tokens=most))
        assert [c.tokens for c in short] == [c.tokens[:most] for c in plain]
        assert all(c.finish_reason == "length" or c.tokens[-1] == 1 for c in short)


def test_an_ending_token_inside_a_draft_ends_the_text(monkeypatch):
    model = tiny_model()
    (prompt,) = repetitive_prompts()[:1]
    params = SamplingParams(max_tokens=45)
    plain = Generator(model, draft_tokens=0)
    # A prompt with what the model will say again.
    prompt = (*prompt, *plain.generate([prompt], params)[0].tokens[:6])
    (free,) = plain.generate([prompt], params)
    # A token that is first sampled where a draft was right becomes the one that ends texts.
    config = model.decoder.config
    (_,), counts = steps_and_tokens(monkeypatch, Generator(model), [prompt], params)
    ends = np.cumsum(counts)
    inside = [
        at
        for end, count in zip(ends, counts, strict=True)
        for at in range(end - count, end - 1)
        if free.tokens.index(free.tokens[at]) == at
    ]
    assert len(inside) > 1
    for at in inside:
        other = tiny_model()
        other.decoder.config = dataclasses.replace(config, eos_token_ids=(free.tokens[at],))
        (ended,) = Generator(other).generate([prompt], params)
        assert ended.tokens == free.tokens[: at + 1]
        assert ended.finish_reason == "stop"


def test_stop_strings_cut_the_same_tokens_with_and_without_drafts():
    model = tiny_model()
    prompts = repetitive_prompts()[:3]
    plain, drafting = Generator(model, draft_tokens=0), Generator(model)
    free = plain.generate(prompts, SamplingParams(max_tokens=40))
    for at in (0, 5, 13, 21):
        params = SamplingParams(max_tokens=40, stop=(str(free[0].tokens[at]),))
        expected, found = plain.generate(prompts, params), drafting.generate(prompts, params)
        assert [(c.text, c.tokens, c.finish_reason) for c in found] == [
            (c.text, c.tokens, c.finish_reason) for c in expected
        ]
        assert found[0].finish_reason == "stop"
        assert len(found[0].tokens) == len(found[0].logprobs) <= at + 1


def test_a_stop_string_counts_before_a_longer_one_around_it():
    model = tiny_model()
    (prompt,) = repetitive_prompts()[:1]
    plain, drafting = Generator(model, draft_tokens=0), Generator(model)
    (free,) = plain.generate([prompt], SamplingParams(max_tokens=40))
    numbers = [str(token) for token in free.tokens]
    # Each token's text is a number; one that no earlier text has in it.
    places = [
        at for at in range(1, 39) if numbers[at] not in " ".join(numbers[:at]) and at + 1 < 40
    ]
    assert places
    for at in places:
        inner, outer = numbers[at], " ".join(numbers[at - 1 : at + 2])
        params = SamplingParams(max_tokens=40, stop=(inner, outer))
        for generator in (plain, drafting):
            (found,) = generator.generate([prompt], params)
            assert found.tokens == free.tokens[: at + 1]
            assert found.text == free.text[: free.text.index(inner)]


@pytest.mark.parametrize("drafts", [0, 7])
def test_texts_end_with_the_context(drafts):
    model = tiny_model()
    room = 5
    length = model.decoder.config.max_position - room
    prompt = (tuple(repetitive_prompts()[0]) * length)[:length]
    (found,) = Generator(model, draft_tokens=drafts).generate(
        [prompt], SamplingParams(max_tokens=50)
    )
    (expected,) = Generator(model, draft_tokens=0).generate(
        [prompt], SamplingParams(max_tokens=room)
    )
    assert found.tokens == expected.tokens
    assert found.finish_reason == ("stop" if found.tokens[-1] == 1 else "length")
    assert len(found.tokens) == room or found.tokens[-1] == 1


def test_the_last_rows_go_on_with_drafts():
    model = tiny_model()
    # Three begin when others end, and so are alone at the end.
    prompts = [pair.prompt for pair in random_pairs(19)]
    params = SamplingParams(max_tokens=40)
    expected = Generator(model, batch_size=16, draft_tokens=0).generate(prompts, params)
    generator = Generator(model, batch_size=16)
    found = generator.generate(prompts, params)
    assert [c.tokens for c in found] == [c.tokens for c in expected]
    drafted = {shape[1]: shape[3] for shape in generator._shapes if shape[0] == "decode"}
    assert drafted == {16: 0, 8: 1}


def test_drafts_follow_the_longest_then_the_latest_match():
    text = jnp.array(
        [[5, 6, 7, 8, 6, 7, 9, 4, 7, 5, 6, 7, 0, 0], [3, 4, 3, 4, 3, 9, 9, 9, 9, 9, 9, 9, 9, 9]]
    )
    guess = decoding.draft(text, jnp.array([11, 4]), 3)
    # 5 6 7 was followed by 8 6 7; and 3 4 repeats.
    assert np.asarray(guess).tolist() == [[8, 6, 7], [4, 3, 4]]
    # Without the 5, the latest 6 7.
    guess = decoding.draft(text.at[0, 9].set(2), jnp.array([11, 4]), 3)
    assert np.asarray(guess)[0].tolist() == [9, 4, 7]


def test_negative_draft_tokens_are_an_error():
    with pytest.raises(InputError, match="draft_tokens=-1"):
        Generator(tiny_model(), draft_tokens=-1)
