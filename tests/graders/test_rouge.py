import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from ioa_jax.graders.rouge import RougeGrader


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
