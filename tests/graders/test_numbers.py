import time
from decimal import Decimal

import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from ioa_jax.graders.numbers import NumberGrader, extract_flexible, extract_strict, number
from ioa_jax.graders.registry import check_golds
from tests.graders import data


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("so 3 + 4 = 7\n#### 7", "7", "7"),
        ("#### 7\nQuestion: and 8?\n#### 9", "7", "9"),
        ("It costs $1,234.50.", None, "$1,234.50."),
        ("#### -3", "-3", "-3"),
        ("####7", None, "7"),
        ("in all 5 apples", None, "5"),
        ("#### \u22127", "-7", "-7"),
        ("it fell by \u20137 degrees", None, "-7"),
        ("pages 3\u20137", None, "7"),
        ("#### 2.5e2", "2.5e2", "2.5e2"),
        ("\uff11\uff12 apples", None, "12"),
        ("1\u202f200 and 1{,}300", None, "1300"),
        (r"\boxed{42} on 7 days", None, "42"),
        (r"\boxed{x = \$1{,}250} in 3 years", None, "$1250"),
        (r"\boxed{\frac{84}{2}}", None, "42"),
        (r"\boxed{5}, then\n#### 6", "6", "6"),
        (r"\boxed{six} of 7", None, "7"),
        (r"\boxed{12 - 5 = 7} of 9", None, "7"),
        (r"\boxed{1/2}", None, "0.5"),
        (r"\boxed{-2\frac{1}{2}}", None, "-2.5"),
        (r"\boxed{2 1/2}", None, "2.5"),
        (r"\boxed{4.2 \times 10^{3}}", None, "4.2e3"),
        (r"\boxed{4.2 x 10^3}", None, "4.2e3"),
        (r"\boxed{4.2e3}", None, "4.2e3"),
        (r"\boxed{15\text{ cm}^2}", None, "15"),
        ("\\boxed{15 cm^2}", None, "15"),
        (r"\boxed{42\text{ apples in 3 days}}", None, "42"),
        (r"\boxed{\text{42 apples}}", None, "42"),
        (r"\boxed{\text{After 3 days: } 42}", None, "42"),
        ("#### - 7", "-7", "-7"),
        ("- 7 apples", None, "7"),
        ("1'234 and 5\u2019678'000", None, "5678000"),
        ("#### \u0664\u0662", "42", "42"),
        ("so 18...", None, "18..."),
        ("nothing", None, None),
        ("", None, None),
    ],
)
def test_extraction(text, strict, flexible):
    assert extract_strict(text) == strict
    assert extract_flexible(text) == flexible


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$29.00", Decimal(29)),
        ("1,234.50.", Decimal("1234.5")),
        ("-3", Decimal(-3)),
        ("\u22123", Decimal(-3)),
        ("2.5e2", Decimal(250)),
        ("18...", Decimal(18)),
        ("1.2.3", None),
        ("..", None),
        ("$", None),
        ("", None),
        ("nan", None),
        ("Infinity", None),
    ],
)
def test_number(text, value):
    assert number(text) == value


def test_the_chosen_rule_decides_and_both_are_told():
    item = Item("1", "?", ("29",))
    text = "He pays $29.00 in all."
    flexible = NumberGrader().grade(item, text)
    assert flexible.correct
    assert (flexible.rule, flexible.extracted) == ("flexible", "$29.00")
    assert flexible.parts == {"strict": False, "flexible": True}
    strict = NumberGrader("strict").grade(item, text)
    assert not strict.correct
    assert (strict.rule, strict.extracted, strict.detail) == ("strict", None, "no number found")
    assert strict.parts == flexible.parts


def test_any_reference_will_do():
    item = Item("1", "?", ("29", "30"))
    assert [NumberGrader().grade(item, text).correct for text in ("29", "30.0", "31")] == [
        True,
        True,
        False,
    ]


def test_a_sign_is_part_of_the_number():
    text = "#### \u221229"
    assert not NumberGrader("strict").grade(Item("1", "?", ("29",)), text).correct
    assert NumberGrader("strict").grade(Item("1", "?", ("-29",)), text).correct


def test_the_answer_alone_is_judged():
    item = Item("1", "?", ("29",))
    assert NumberGrader().grade(item, "<think>30</think>29").correct
    unfinished = NumberGrader().grade(item, "<think>so it is 29")
    assert (unfinished.correct, unfinished.rule) == (False, "unfinished_thought")
    assert unfinished.parts == {"strict": False, "flexible": False}


def test_long_texts_take_no_long_time():
    item = Item("1", "?", ("29",))
    start = time.process_time()
    for piece in ("9", "$", ".", "-", "9,", r"\boxed{9}", "1e"):
        NumberGrader().grade(item, piece * (190_000 // len(piece)))
    assert time.process_time() - start < 10


def test_what_is_no_number_is_told():
    verdict = NumberGrader().grade(Item("1", "?", ("1.2",)), "version 1.2.3")
    assert not verdict.correct
    assert (verdict.extracted, verdict.detail) == ("1.2.3", "not a number")


@pytest.mark.parametrize("references", [(), ("eighteen",), ("18", "")])
def test_bad_items(references):
    with pytest.raises(InputError, match=r"'7'.*'references'"):
        NumberGrader().grade(Item("7", "?", references), "18")


def test_an_unknown_rule():
    with pytest.raises(InputError, match="rule='loose'"):
        NumberGrader("loose")


@pytest.mark.parametrize("name", ["train", "test_even"])
@pytest.mark.parametrize("rule", ["strict", "flexible"])
def test_all_solutions_of_gsm8k_pass(name, rule):
    items = [
        Item(
            str(i), row["question"], (row["answer"].split("#### ")[1],), {"solution": row["answer"]}
        )
        for i, row in enumerate(data.rows(f"gsm8k/{name}.jsonl"))
    ]
    assert check_golds(NumberGrader(rule), items) == []
    # The check can fail.
    wrong = [Item("w", "?", ("-1",), items[0].data)]
    assert [found for found, _ in check_golds(NumberGrader(rule), wrong)] == ["w"]
