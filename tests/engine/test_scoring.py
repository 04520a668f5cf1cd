import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.engine.batching import TokenPair, build_rows, group_by_prefix, row_bucket
from ioa_jax.engine.scoring import Scorer
from ioa_jax.errors import InputError
from tests.tiny import random_pairs, tiny_model


def reference(decoder, pair):
    """One pair alone, unpacked, through the whole [T, V] log-softmax."""
    tokens = jnp.array([pair.prompt + pair.completion], jnp.int32)
    logits = decoder.logits(decoder.hidden(tokens))
    logprobs = np.asarray(jax.nn.log_softmax(logits, axis=-1))[0]
    start = len(pair.prompt)
    values = [logprobs[start + i - 1, t] for i, t in enumerate(pair.completion)]
    greedy = [int(logprobs[start + i - 1].argmax()) == t for i, t in enumerate(pair.completion)]
    return values, all(greedy)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_packed_scores_equal_one_pair_at_a_time(family):
    model = tiny_model(family)
    decoder = model.decoder
    pairs = random_pairs(12)
    # Make one completion greedy on purpose.
    first = pairs[0]
    logits = decoder.logits(decoder.hidden(jnp.array([first.prompt], jnp.int32)))
    pairs.append(TokenPair(first.prompt, (int(logits[0, -1].argmax()),)))
    scores = Scorer(model).score_tokens(pairs)
    for pair, score in zip(pairs, scores, strict=True):
        values, greedy = reference(decoder, pair)
        np.testing.assert_allclose(score.token_logprobs, values, atol=2e-5)
        assert score.logprob == pytest.approx(sum(values), abs=1e-4)
        assert score.is_greedy == greedy
        assert score.tokens == pair.completion
    assert scores[-1].is_greedy


def test_a_completion_is_greedy_where_all_of_its_tokens_are():
    model = tiny_model()
    prompt = (2, 3, 4)

    def likeliest(tokens):
        logits = model.decoder.logits(model.decoder.hidden(jnp.array([tokens], jnp.int32)))
        return int(logits[0, -1].argmax())

    first = likeliest(prompt)
    other = first - 1 if first > 2 else first + 1
    completions = [(one, likeliest((*prompt, one))) for one in (first, other)]
    scores = Scorer(model).score_tokens([TokenPair(prompt, one) for one in completions])
    assert [score.is_greedy for score in scores] == [True, False]


def nested_pairs():
    """Prompts that share more and less of one text: neighbours often lose a part of a prefix."""
    rng = np.random.default_rng(0)
    text = [int(t) for t in rng.integers(2, 97, 60)]
    return [
        TokenPair(
            (*text[: rng.integers(4, 60)], *(int(t) for t in rng.integers(2, 97, 3))),
            tuple(int(t) for t in rng.integers(2, 97, rng.integers(1, 12))),
        )
        for _ in range(40)
    ]


@pytest.mark.parametrize("longest", [80, 120, 512])
def test_a_group_is_as_large_as_its_layout_and_fits_a_row(longest):
    pairs = nested_pairs()
    groups = group_by_prefix(pairs, longest)
    assert sorted(i for group in groups for i in group.members) == list(range(len(pairs)))
    assert max(len(group.members) for group in groups) > 2
    for group in groups:
        prefixes = {pairs[i].prompt[: group.shared] for i in group.members}
        assert len(prefixes) == 1
        own = sum(len(pairs[i]) - group.shared for i in group.members)
        assert group.size == group.shared + own <= longest
        packed = build_rows(pairs, [[group]], longest)
        assert int((packed.segments > 0).sum()) == group.size


def test_a_pair_joins_a_group_with_half_of_it_shared():
    first = TokenPair(tuple(range(2, 12)), (20,))
    half = TokenPair((*range(2, 7), 50, 51, 52), (53, 54))
    less = TokenPair((*range(2, 7), 60, 61, 62), (63, 64, 65))
    assert [len(g.members) for g in group_by_prefix([first, half], 512)] == [2]
    assert [len(g.members) for g in group_by_prefix([first, less], 512)] == [1, 1]


def test_shared_prefix_is_laid_out_once_and_changes_nothing():
    model = tiny_model()
    header = tuple(range(2, 42))
    pairs = [
        TokenPair((*header, *own.prompt[:5]), own.completion) for own in random_pairs(6, seed=1)
    ]
    pairs += [TokenPair(pairs[0].prompt, (7, 8)), TokenPair(pairs[0].prompt, (9,))]
    groups = group_by_prefix(pairs, 512)
    assert len(groups) == 1
    assert groups[0].size < sum(len(p) for p in pairs) - 6 * len(header)
    for pair, score in zip(pairs, Scorer(model).score_tokens(pairs), strict=True):
        np.testing.assert_allclose(
            score.token_logprobs, reference(model.decoder, pair)[0], atol=2e-5
        )


def test_answers_to_one_prompt_share_it_whole():
    model = tiny_model()
    prompt = tuple(range(2, 22))
    pairs = [TokenPair(prompt, one.completion) for one in random_pairs(5)]
    (group,) = group_by_prefix(pairs, 512)
    assert group.shared == len(prompt)
    for pair, score in zip(pairs, Scorer(model).score_tokens(pairs), strict=True):
        np.testing.assert_allclose(
            score.token_logprobs, reference(model.decoder, pair)[0], atol=2e-5
        )


def test_scores_are_told_batch_by_batch():
    class Interrupted(Exception):
        pass

    pairs = random_pairs(12)
    scorer = Scorer(tiny_model(), tokens_per_batch=128)
    whole = scorer.score_tokens(pairs)
    told = {}

    def stop(index, score):
        told[index] = score
        if len(told) == 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        scorer.score_tokens(pairs, on_score=stop)
    assert len(told) == 4
    assert all(whole[index] == score for index, score in told.items())


def test_number_of_compiled_shapes_is_bounded():
    one = Scorer(tiny_model(), tokens_per_batch=256)
    for seed in range(6):
        one.score_tokens(random_pairs(5 + seed, seed=seed))
    assert len(one._shapes) <= 6


def test_bad_pairs_are_named():
    with pytest.raises(InputError, match="pair 1"):
        Scorer(tiny_model()).score_tokens([TokenPair((2,), (3,)), TokenPair((2,), ())])
    with pytest.raises(InputError, match="600 tokens"):
        Scorer(tiny_model()).score_tokens([TokenPair((2,) * 599, (3,))])


def test_a_pair_may_be_a_token_longer_than_the_context():
    """Nothing is predicted from the last token, so that it needs no place."""
    model = tiny_model()
    context = model.decoder.config.max_position
    tokens = tuple(int(t) for t in np.random.default_rng(0).integers(2, 97, context + 2))
    pair = TokenPair(tokens[:9], tokens[9 : context + 1])
    (score,) = Scorer(model).score_tokens([pair])
    np.testing.assert_allclose(score.token_logprobs, reference(model.decoder, pair)[0], atol=2e-5)
    with pytest.raises(InputError, match=f"pair 0 has {context + 2} tokens"):
        Scorer(model).score_tokens([TokenPair(tokens[:9], tokens[9:])])


def test_row_buckets():
    assert [row_bucket(n) for n in (1, 128, 129, 192, 193, 257, 400)] == [
        128,
        128,
        192,
        192,
        256,
        384,
        512,
    ]
