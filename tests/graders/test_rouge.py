import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from ioa_jax.graders.rouge import RougeGrader, longest_common, rouge_l


def test_the_score_is_f1_of_the_longest_common_subsequence_of_stems():
    # Stems: the cat jump | a cat was jump quick. In common: cat, jump. P = 2/5, R = 2/3.
    verdict = RougeGrader().grade(Item("1", "?", ("The cat jumps",)), "A cat was jumping quickly")
    assert verdict.score == pytest.approx(2 * (2 / 5) * (2 / 3) / (2 / 5 + 2 / 3))
    assert verdict.correct
    assert verdict.source.startswith("rouge-score ")


def test_the_best_reference_counts():
    item = Item("1", "?", ("nothing alike", "one two three"))
    assert RougeGrader().grade(item, "one two three").score == 1.0


def test_the_threshold_decides_what_is_correct():
    item = Item("1", "?", ("one two three four",))
    half = "one two five six"
    assert RougeGrader().grade(item, half).score == 0.5
    assert RougeGrader().grade(item, half).correct
    assert not RougeGrader(threshold=0.51).grade(item, half).correct


def test_an_empty_answer_has_score_0():
    assert RougeGrader().grade(Item("1", "?", ("word",)), "").score == 0.0


def test_bad_items_and_settings():
    with pytest.raises(InputError, match=r"'1'.*'references'"):
        RougeGrader().grade(Item("1", "?"), "text")
    with pytest.raises(InputError, match="threshold=2"):
        RougeGrader(threshold=2.0)


ASCII = st.text(alphabet="abcy XY12_-.'\n", max_size=40)


@given(ASCII, ASCII)
def test_of_ascii_texts_the_score_is_that_of_rouge_score(one, other):
    expected = RougeScorer(["rougeL"], use_stemmer=True).score(one, other)["rougeL"].fmeasure
    assert rouge_l(one, other) == expected


def test_words_of_four_letters_are_stemmed_and_shorter_ones_are_not():
    for one, other in (("The cats", "the cat"), ("The gas", "the ga")):
        expected = RougeScorer(["rougeL"], use_stemmer=True).score(one, other)["rougeL"].fmeasure
        assert rouge_l(one, other) == expected
    assert rouge_l("The cats", "the cat") == 1 != rouge_l("The gas", "the ga")


def test_the_longest_common_subsequence():
    assert longest_common("abcbdab", "bdcaba") == 4
    assert longest_common("", "a") == longest_common("a", "") == 0


def test_texts_in_other_scripts_are_compared_by_their_own_letters():
    def score(reference, text):
        return RougeGrader().grade(Item("1", "?", (reference,)), text).score

    chinese, greek = "\u6cb3\u8fb9\u6709\u4e00\u5ea7\u57ce", "\u03b7 \u03c0\u03cc\u03bb\u03b7 5"
    assert score(chinese, chinese) == score(greek, greek) == 1.0
    # Half of the characters; and no more than the digit.
    assert score(chinese, chinese[:3]) == pytest.approx(2 / 3)
    assert score(greek, "\u03ac\u03bb\u03bb\u03bf 5") == pytest.approx(
        2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)
    )


def test_the_answer_alone_is_judged():
    item = Item("1", "?", ("the cat sat",))
    assert RougeGrader().grade(item, "<think>which animal?</think>the cat sat").score == 1.0
    assert RougeGrader().grade(item, "<think>the cat sat").score == 0.0


def test_long_answers_take_no_long_time():
    item = Item("1", "?", ("the cat sat " * 100,))
    words = " ".join(random.Random(0).choices(["cat", "the", "dogs", "yyy"], k=45_000))
    start = time.process_time()
    for text in ("y" * 190_000, "a " * 95_000, words, "the cat " * 24_000):
        RougeGrader().grade(item, text)
    assert time.process_time() - start < 10
