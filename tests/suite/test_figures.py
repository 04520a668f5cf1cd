import dataclasses

import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item, Verdict
from ioa_jax.graders.registry import make_grader
from suite.figures import choose_k, group_answers, majority_share, parse_k, sampled_metrics
from suite.tasks import load_task
from suite.tasks.base import Graded


def graded(*items):
    """Of each item, whether each sample is right."""
    return [
        Graded(
            Item(id=f"i{n}", prompt=""),
            tuple(Verdict(right, float(right), "x", "test", "test") for right in own),
        )
        for n, own in enumerate(items)
    ]


def means(metrics):
    return {name: values.mean for name, values in metrics.items()}


def groups_of(kind, reference, *texts):
    item = Item(id="i", prompt="", references=(reference,))
    with make_grader(kind) as grader:
        return group_answers(grader, item, [(text, grader.grade(item, text)) for text in texts])


def test_pass_average_and_majority():
    one = graded([True, True, False, False], [False, False, False, True])
    groups = {"i0": [0, 0, 1, 2], "i1": [0, 0, 1, 2]}
    found = means(sampled_metrics(load_task("gsm8k"), one, (2, 4), groups))
    assert found == {
        # 1 - C(2, 2) / C(4, 2) and 1 - C(3, 2) / C(4, 2)
        "pass@2": pytest.approx((5 / 6 + 1 / 2) / 2),
        "pass@4": 1.0,
        "avg@4": pytest.approx(3 / 8),
        # i0: right, then the first of two different wrong ones; i1: wrong, wrong.
        "maj@2": pytest.approx(1 / 4),
        "maj@4": pytest.approx(1 / 2),
    }


def test_a_majority_counts_what_was_answered():
    right = [False, True, True, False, False]
    assert majority_share([None, 0, 0, 1, 1], right, 5) == 1.0
    assert majority_share([1, 0, 0, 1, 1], right, 5) == 0.0
    assert majority_share([None] * 5, right, 5) == 0.0
    # Of blocks of two, the last sample belongs to none.
    assert majority_share([None, 0, 0, 1, 1], right, 2) == 1.0


@pytest.mark.parametrize("task", ["humaneval", "ifeval"])
def test_no_majority_of_programs_and_instructions(task):
    from suite.figures import has_votes

    assert not has_votes(load_task(task))
    assert has_votes(load_task("math"))


def test_likeness_is_neither_right_nor_wrong():
    assert sampled_metrics(load_task("dolly"), graded([True, False]), None, {}) == {}


def test_maths_answers_are_grouped_as_the_grader_compares_them():
    texts = [r"\boxed{\frac{1}{2}}", r"\boxed{0.5}", r"\boxed{\frac{3}{4}}", r"\boxed{0.75}",
             r"\boxed{7}", "I give up.", r"<think>\boxed{7}"]  # fmt: skip
    assert groups_of("math", r"\frac{1}{2}", *texts) == [0, 0, 1, 1, 2, None, None]


def test_numbers_are_grouped_by_value():
    texts = ["#### 18", "so $18.00", "1,000 in all", "#### 1000.0", "1.2.3", "nothing"]
    assert groups_of("number", "18", *texts) == [0, 0, 1, 1, None, None]


def test_the_k_to_report():
    task = load_task("math")
    assert parse_k("10, 1,5,1") == (1, 5, 10)
    assert choose_k(task, 64, None) == (1, 10, 64)
    assert choose_k(task, 4, None) == (1, 4)
    with pytest.raises(InputError, match=r"--k 8: task 'math' has 4 samples"):
        choose_k(task, 4, (1, 8))
    for wrong in ("", "0", "1,x", "-1"):
        with pytest.raises(InputError, match="whole numbers from 1"):
            parse_k(wrong)


def test_one_sample_has_only_the_tasks_own_figures():
    assert sampled_metrics(load_task("math"), graded([True]), None, {}) == {}
    assert means(sampled_metrics(load_task("math"), graded([True]), (1,), {})) == {
        "pass@1": 1.0,
        "avg@1": 1.0,
    }


def test_a_comparison_that_was_killed_gives_no_vote():
    item = Item(id="i", prompt="", references=("1",))
    killed = Verdict(False, 0.0, "9^{9^{9^9}}", "boxed", "timeout")
    fine = dataclasses.replace(killed, extracted="2", source="string")
    with make_grader("math") as grader:
        answers = [(r"\boxed{9^{9^{9^9}}}", killed), (r"\boxed{2}", fine)]
        assert group_answers(grader, item, answers) == [None, 0]
