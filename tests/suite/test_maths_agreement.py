"""Others' rules on answers whose outcome by them is published or plain, and the comparison."""

from fractions import Fraction

import pytest

from suite.data import DataSource
from suite.maths_agreement import minerva, qwen
from suite.maths_agreement.compare import judge, load_references, make_cases
from suite.maths_agreement.forms import FORMS, Case, exact_value, has_end
from suite.maths_agreement.page import Summary
from tests.graders.data import rows


def sentence(answer):
    return f"Final Answer: The final answer is ${answer}$. I hope it is correct."


@pytest.mark.parametrize(
    ("gold", "text", "correct"),
    [
        # Two that are equal by SymPy, and the examples of the paper's comments.
        (r"\frac{1}{2}", sentence("0.5"), True),
        ("x^2+2x+1", sentence("(x+1)^2"), True),
        (r"\frac{1}{2}", sentence(r"\frac12"), True),
        (r"\sqrt{2}", sentence(r"\sqrt2"), True),
        ("100000", sentence("100,000"), True),
        ("12", sentence("1,2"), False),
        ("5", sentence(r"x = 5\text{ cm}"), True),
        ("[2,5)", sentence("[2,5)"), True),
        ("[2,5)", sentence(r"[2,\,5)"), False),
        ("5", r"$\boxed{4}$, no, $\boxed{5}$", True),
        ("5", "The answer is $5$.", False),
    ],
)
def test_minerva(gold, text, correct):
    assert minerva.judge(gold, text)[0] is correct


@pytest.mark.parametrize(
    ("gold", "text", "correct"),
    [
        (r"\frac{1}{2}", r"$\boxed{\dfrac12}$", True),
        (r"\frac{1}{2}", r"$\boxed{1/2}$", True),
        ("10", r"$\boxed{0.1}$", True),
        ("10", r"$\boxed{10.0009}$", True),
        ("10", r"$\boxed{10.01}$", False),
        (r"\text{(C)}", r"$\boxed{C}$", True),
        ("(1,2)", r"$\boxed{(1, 2.0)}$", True),
        ("(1,2)", r"$\boxed{[1,2]}$", True),
        ("(1,2)", r"$\boxed{(2,1)}$", False),
        (
            r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
            r"\boxed{\begin{bmatrix}1\\2\end{bmatrix}}",
            True,
        ),
        ("u+v=3", r"$\boxed{u+v-3=0}$", True),
        ("5", "So the answer is $5$.", True),
        ("5", sentence("5"), True),
        ("5", "At last there are 5", True),
        (r"5\text{ cm}", r"$\boxed{5}$", True),
    ],
)
def test_qwen(gold, text, correct):
    assert qwen.judge(gold, text)[0] is correct


def made(name, reference, neighbour="8", similar="9"):
    (form,) = [form for form in FORMS if form.name == name]
    return form.make(Case(reference, neighbour, similar))


@pytest.mark.parametrize(
    ("name", "reference", "box"),
    [
        ("full stop in the box", "7", "7."),
        (r"`\text{}`", "(7,8)", r"\text{(7,8)}"),
        (r"`\text{}`", r"\frac{1}{2}", None),
        ("thin spaces", "(1,2)", r"\,(1\,,\,2)\,"),
        ("plain spaces", "15,600", " 15,600 "),
        ("thousands, thin space", "15600", r"15\,600"),
        ("thousands, thin space", "560", None),
        (r"`\dfrac`", r"\frac{1}{2}", r"\dfrac{1}{2}"),
        ("10 digits of an endless value", r"\frac{1}{3}", "0.3333333333"),
        ("10 digits of an endless value", r"\frac{1}{4}", None),
        ("similar reference", "7", "9"),
        ("first number + 1", r"x^{2}+9", "x^{3}+9"),
        ("relative error 1e-6", r"-\frac{1}{4}", "-0.25000025"),
        ("relative error 1e-6", "0", None),
        ("relative error 1e-5, endless value", r"\frac13", "0.333336666666667"),
    ],
)
def test_forms(name, reference, box):
    assert made(name, reference) == (None if box is None else rf"So we get $\boxed{{{box}}}$.")


def test_exact_values():
    assert exact_value("-2.50") == Fraction(-5, 2)
    assert exact_value(r"\dfrac34") == Fraction(3, 4)
    assert exact_value(r"\frac{1}{0}") is None
    assert exact_value(r"\sqrt{2}") is None
    assert [has_end(Fraction(1, n)) for n in (1, 8, 250, 3, 6, 7)] == [True] * 3 + [False] * 3


def test_summary():
    summary = Summary()
    for one in judge([Case("2", "3", "4"), Case(r"\frac{1}{3}", "7", "0.3")]):
        summary.add(one)
    assert not summary.unexpected
    assert not summary.singles
    counts = summary.counts["full stop in the box"]
    assert (counts.answers, counts.ours) == (2, 2)
    assert counts.others == {"math-verify": 0, "Minerva": 1, "Qwen": 2}
    assert counts.differ == {"math-verify": 2, "Minerva": 1}
    assert summary.counts["relative error 1e-6"].others["Qwen"] == 1
    page = summary.page(2, 4, 2, ["a half"])
    assert "| full stop in the box | yes | 2 | 2 | 0 (2) | 1 (1) | 2 |" in page
    assert "| Qwen | takes 0.01 % of the value for no difference | 2 | `2` |" in page
    assert "No difference is left that no rule tells." in page
    assert "stopped" in summary.figures()["forms"][0]


def test_cases():
    assert make_cases(["7", "2", "5"], 1) == [
        Case("7", "2", "2"),
        Case("2", "5", "5"),
        Case("5", "7", "7"),
    ]
    assert make_cases(["7", "2", "5"], 2) == [Case("7", "2", "2"), Case("5", "7", "7")]


def test_references_are_distinct():
    rows("math/train.jsonl")
    references = load_references(DataSource.open())
    assert "" not in references
    assert len({"".join(reference.split()) for reference in references}) == len(references)
    # MATH's 7,500 train problems alone have more.
    assert len(references) > 2500
