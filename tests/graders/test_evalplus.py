import pytest

from ioa_jax.graders.base import Item
from ioa_jax.graders.code import CodeGrader
from ioa_jax.graders.evalplus import compare_with_reference, evalplus_test


def is_right(found, expected, entry_point="f", tolerance=0.0, given=(0,)):
    try:
        compare_with_reference(
            lambda *_: found, lambda *_: expected, entry_point, [given], tolerance
        )
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize(
    ("found", "expected", "right"),
    [
        ([1, 2], [1, 2], True),
        ([1, 2], (1, 2), False),
        (1, True, True),
        (0.1 + 0.2, 0.3, True),
        (1 + 5e-7, 1.0, True),
        (1 + 5e-6, 1.0, False),
        (1, 1.0000001, False),  # of another type
        ([0.1 + 0.2, 1.0], [0.3, 1.0], True),
        ([0.3], [0.3, 1.0], False),
        # Not floats alone, which have to be equal then.
        ([0.1 + 0.2, "a"], [0.3, "a"], False),
        (float("inf"), float("inf"), True),
        (float("nan"), float("nan"), False),
    ],
)
def test_answers_are_equal_or_close(found, expected, right):
    assert is_right(found, expected) == right


def test_a_problems_own_tolerance():
    assert is_right([1.00005, 2], [1.0, 2], tolerance=1e-4)
    assert not is_right([1.0005, 2], [1.0, 2], tolerance=1e-4)
    assert not is_right("b", "a", tolerance=1e-4)


@pytest.mark.parametrize(
    ("entry_point", "given", "found", "expected", "right"),
    [
        ("similar_elements", ([], []), [2, 1, 1], (1, 2), True),
        ("similar_elements", ([], []), [1], (1, 2), False),
        ("text_match_three", ("a",), True, object(), True),
        ("text_match_three", ("a",), "a match", object(), True),
        ("text_match_three", ("a",), None, object(), False),
        ("text_match_three", ("a",), False, None, True),
        ("sum_div", (8,), 0, 7, True),
        ("sum_div", (8,), 15, 7, False),
        # A pyramid of side 6 whose own height is 4: 36 + 4 * 6 * 5 / 2.
        ("surface_Area", (6, 4), 96, 84, True),
        ("surface_Area", (6, 4), 95, 84, False),
        ("digit_distance_nums", (1, 23), 4, 5, True),
        ("digit_distance_nums", (1, 23), 6, 5, False),
    ],
)
def test_other_right_answers(entry_point, given, found, expected, right):
    assert is_right(found, expected, entry_point, given=given) == right


def test_a_root_is_any_root():
    # x^2 - 3x + 2.
    for root, right in ((1.0, True), (2.0, True), (1.5, False)):
        assert is_right(root, 1.0, "find_zero", 1e-4, ([2, -3, 1],)) == right


def test_from_the_first_floats_on_numbers_may_differ():
    found, expected = iter([1.0, [1, 0.1 + 0.2]]), iter([1.0, [1, 0.3]])
    compare_with_reference(
        lambda *_: next(found), lambda *_: next(expected), "f", [(0,), (0,)], 0.0
    )


REFERENCE = "def firsts(rows):\n    return sorted(row[0] for row in rows)\n"
BASE = [[[(1, 2), (0, 3)]]]
PLUS = [[[]], [[(2.5, 1), (float("inf"), 0)]], [[(True, 1)]]]
ITEM = Item(
    "mbpp/x",
    "Write a function.",
    (REFERENCE,),
    {
        "kind": "mbpp",
        "entry_point": "firsts",
        "test_list": [evalplus_test(REFERENCE, "firsts", BASE, 0.0), "check(firsts)"],
        "plus_test": evalplus_test(REFERENCE, "firsts", PLUS, 0.0),
        "stops": ["\nassert"],
    },
)


def test_programs_are_tested_in_the_sandbox():
    with CodeGrader() as grader, CodeGrader(style="base") as base:
        gold = grader.grade_gold(ITEM)
        assert (gold.correct, dict(gold.parts)) == (True, {"base": True, "plus": True})
        # Right but for the empty list.
        code = "def firsts(rows):\n    return sorted([row[0] for row in rows]) or None\n"
        half = grader.grade(ITEM, f"```python\n{code}```")
        assert (half.correct, half.score) == (False, 0.0)
        assert dict(half.parts) == {"base": True, "plus": False}
        assert "input 0" in half.detail
        for text in ("```python\ndef firsts(rows):\n    return rows\n```", ""):
            assert dict(grader.grade(ITEM, text).parts) == {"base": False, "plus": False}
        assert base.grade(ITEM, REFERENCE + "\nassert firsts([]) == 1").correct
        # What is called in place of it isn't asked whether it is equal.
        liar = "class Same:\n    def __eq__(self, other):\n        return True\n\n"
        lie = grader.grade(ITEM, f"```python\n{liar}def firsts(rows):\n    return Same()\n```")
        assert dict(lie.parts) == {"base": False, "plus": False}
