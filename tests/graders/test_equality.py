import pytest

from ioa_jax.graders.equality import equal

RIGHT = {
    "punctuation": [
        ("37", "37."),
        ("37", "37,"),
        (r"x^2-y.", "x^2-y"),
        ("37", r"37\\"),
        ("37", "37\u3002"),
    ],
    "fonts": [
        ("2.75", r"\text{2.75}"),
        ("-6", r"\textbf{-6}"),
        (r"5\pi", r"\mathbf{5\pi}"),
        ("8", r"\Large 8"),
        ("8", r"{\bf 8}"),
        ("ab+c", r"\mathbf{ab+c}"),
        ("8", r"\textcolor{red}{8}"),
        (r"\frac{2}{7}", r"\dfrac27"),
    ],
    "leading zeros": [("41", "041"), ("41", r"\textbf{041}")],
    "thousands": [
        (r"71,\!402", r"71\,402"),
        (r"71,\!402", "71 402"),
        (r"71,\!402", "71,402"),
        (r"71,\!402", "71{,}402"),
        ("1500000", r"1\,500\,000"),
        (r"12{,}345\text{ m}", "12,345 meters"),
        (r"\$1,234.50", "1234.5"),
        ("1234.5", r"\$1,234.50"),
    ],
    "mixed numbers": [
        (r"\frac{17}{5}", "3 2/5"),
        (r"\frac{17}{5}", r"3\frac25"),
        (r"-\frac{17}{5}", r"-3\frac{2}{5}"),
    ],
    "repeating decimals": [
        (r"\frac{7}{3}", r"2.\overline{3}"),
        (r"\frac{7}{30}", r"0.2\overline{3}"),
        (r"0.\overline{27}", r"\frac{3}{11}"),
        (r"\frac{4}{3}", "1.(3)"),
    ],
    "plain signs": [(r"7\pi+2", "7*pi+2"), (r"3\sqrt{2}", "3\u221a2"), ("-9", "\u22129")],
    "degrees": [
        (r"35^\circ, 145^\circ", "35,145"),
        (r"35^\circ", "35\u00b0"),
        (r"35^\circ", r"35\text{ degrees}"),
        (r"\cos 35^\circ", r"\sin 55^\circ"),
    ],
    "units": [
        (r"6\text{ feet}", "6"),
        ("6", r"6\text{ feet}"),
        (r"6\text{ feet}", r"6\text{ ft}"),
        (r"18\mbox{ cm}^2", "18 cm^2"),
        (r"18\text{ square centimeters}", r"18~\mathrm{cm^2}"),
        (r"18\text{ m}", "18m"),
        (r"18\text{ m}", "18"),
        (r"18\text{ m}", "18 meters"),
        ("18", r"18\text{ m}"),
        (r"\$7.20", r"\text{\$}7.20"),
        (r"7.20\text{ dollars}", r"\$7.2"),
        (r"3\text{ million}", "3000000"),
    ],
    "choice letters": [
        (r"\text{(C)}", "C"),
        (r"\text{(C)}", r"\textbf{(C)}\ 19"),
        ("C", "C."),
        (r"\text{A,D}", r"\text{A}, \text{D}"),
        (r"\text{A,D}", "D and A"),
        (r"\text{(C)}", r"\text{Option C}"),
        (r"\text{(C)}", "Choice C: 19"),
    ],
    "words": [
        (r"\text{May 4}", r"\text{May }4"),
        (r"\text{Thursday}", "Thursday"),
        (r"\text{odd}", r"\text{Odd.}"),
        (r"\text{May 4}", r"\text{May 4th}"),
        (r"\text{May 4}", r"\text{4 May}"),
        ("5", r"5^{\text{th}}"),
        ("5", r"5\text{th}"),
    ],
    "bases": [
        ("312_{4}", r"312_{\text{four}}"),
        ("312_4", "(312)_4"),
        ("312_4", r"312\text{ base }4"),
        ("312_4", r"312\text{ (base 4)}"),
        ("312_4", r"312\text{ in base four}"),
        ("312_4", "312"),
    ],
    "intervals": [
        ("(-7,2)", "-7<x<2"),
        ("(-7,2]", r"2\ge t>-7"),
        (r"[3,\infty)", r"x\ge3"),
        (r"(-\infty,1)\cup(1,\infty)", r"x\neq1"),
        (r"(-\infty,1)\cup(1,\infty)", r"\mathbb{R}\setminus\{1\}"),
        (r"(-\infty,0]\cup[6,\infty)", r"x\le0 \text{ or } x\ge6"),
        (r"(-\infty,0]\cup[6,\infty)", r"[6,\infty)\cup(-\infty,0]"),
        ("(-7,2]", r"x>-7\text{ and }x\le2"),
        ("(-7,2]", r"x\le2 \land x>-7"),
        ("(-7,2]", r"\{x \mid -7<x\le2\}"),
        ("(-7,2]", r"\left\{ t\in\mathbb{R} : -7<t\le2 \right\}"),
        ("(-7,2]", "]-7,2]"),
        (r"(-\infty,0)\cup[6,8)", r"]-\infty,0[\,\cup\,[6,8["),
        (r"(-\infty,\infty)", r"\text{all real numbers}"),
    ],
    "matrices": [
        (
            r"\begin{pmatrix} 3/4 \\ -5/4 \end{pmatrix}",
            r"\frac14\begin{bmatrix}3\\-5\end{bmatrix}",
        ),
        (
            r"\begin{pmatrix}2&-4\\0&6\end{pmatrix}",
            r"2\begin{pmatrix}1&-2\\0&3\end{pmatrix}",
        ),
        (
            r"\begin{pmatrix}1\\2\end{pmatrix}",
            r"\left(\begin{smallmatrix}1\\2\end{smallmatrix}\right)",
        ),
    ],
    "powers of ten": [("602000", "6.02e5"), ("0.0031", "3.1E-3"), ("602000", r"6.02\times10^5")],
    "ratios": [("3:4", r"3\text{ to }4")],
    "lists and sets": [
        ("3, 8, 5", "5,8,3"),
        (r"\{3,8\}", "8, 3"),
        (r"2\pm\sqrt{3}", r"2-\sqrt3, 2+\sqrt3"),
        ("4,-4", "x=-4, x=4"),
        (r"6 \text{ or } 9", "6, 9"),
        ("(1,2);(3,4)", "(3,4), (1,2)"),
        ("(1,2],[3,4)", "[3,4), (1,2]"),
    ],
    "names before": [
        ("11", "n = 11"),
        ("11", r"\text{Area} = 11"),
        ("11", r"\text{The answer is }11"),
        ("(2,9)", "(x,y)=(2,9)"),
    ],
    "precision": [
        (r"\frac{2}{3}", "0.666667"),
        (r"\frac{1}{7000}", "0.00014285714"),
        (r"\sqrt{5}", "2.236068"),
        (r"\frac{3}{8}", "0.375"),
    ],
    "times of day": [
        (r"7\!:\!05 \text{ p.m.}", "7:05 PM"),
        (r"7:05 \text{ p.m.}", "07:05"),
    ],
    "approximations": [
        (r"\approx 8.5 \text{ mph}", "8.5"),
        (r"\$\frac23 \approx \$0.67", r"\frac{2}{3}"),
    ],
    "other forms": [("(x-3)(x+1)", "x^2-2x-3"), ("2^9", "512"), ("5!", "120")],
}

WRONG = {
    "other values": [("37", "37.5"), ("37", "38"), (r"\text{Monday}", r"\text{Friday}")],
    "precision": [
        (r"\frac{1}{7000}", "0.000143"),
        (r"\frac{2}{3}", "0.6667"),
        (r"\frac{2}{3}", "0.66667"),
        (r"\sqrt{5}", "2.236"),
        (r"\frac{3}{8}", "0.3750001"),
        ("2000000", "2000001"),
        ("0", "0.00000001"),
        (r"\pi", "3.14"),
    ],
    "brackets": [
        ("3, 8, 5", "(3,5,8)"),
        ("(4,9)", "[4,9]"),
        ("(4,9)", "(4,9]"),
        ("(4,9)", "4,9"),
        ("(4,9)", "(9,4)"),
        (r"[3,\infty)", r"[3,\infty]"),
        (r"[3,\infty)", "x>3"),
        ("(-7,2)", r"-7\le x<2"),
        ("(-7,2)", "[-7,2["),
        ("(-7,2)", r"x>-7\text{ and }x\le2"),
        ("(-7,2)", r"x<-7\text{ and }x>2"),
        ("(-7,2)", r"x>-7\text{ and }y<2"),
        ("(-7,2)", r"\{x \mid -7<x\le2\}"),
        (r"(-\infty,5)", r"\text{all real numbers}"),
    ],
    "thousands": [("12345", "12,346 meters"), ("1, 345", "1345"), ("12345", "(12,345)")],
    "powers of ten": [("602000", "6.02e4")],
    "ratios": [("3:4", r"4\text{ to }3")],
    "dates": [(r"\text{May 4}", r"\text{5 May}"), (r"\text{May 4}", r"\text{May 5th}")],
    "repeating decimals": [(r"\frac{4}{3}", "1.(4)"), (r"\frac{4}{3}", "1.333")],
    "lists": [("3, 8", "3"), ("3, 8", "3, 8, 8"), ("1,1,2", "1,2"), ("4", "4, -4")],
    "units": [
        (r"6\text{ inches}", r"6\text{ feet}"),
        (r"18\text{ cm}^2", r"18\text{ cm}^3"),
        (r"18\text{ m}", r"18\text{ s}"),
        (r"\$7", r"7\text{ cents}"),
        ("3", r"3\text{ million}"),
        (r"10\%", "0.1"),
    ],
    "degrees": [(r"\cos 35^\circ", r"\cos 35"), (r"45^\circ", r"\frac{\pi}{4}")],
    "bases": [
        ("7_8", "7_{10}"),
        ("312_4", "54"),
        ("312_4", r"312_{\text{five}}"),
        ("312_4", r"312\text{ (base 5)}"),
    ],
    "letters": [
        (r"\text{(C)}", "D"),
        (r"\text{A,D}", "A"),
        (r"\text{(C)}", r"\textbf{(D)}\ 19"),
        (r"\text{(C)}", r"\text{Option D}"),
        ("a-b", "A-B"),
        ("x", "X"),
        ("x+1", "y+1"),
    ],
    "matrices": [
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\frac12\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
    "times of day": [
        (r"7:05 \text{ p.m.}", r"7:05 \text{ a.m.}"),
        (r"7:05 \text{ p.m.}", r"7:50 \text{ p.m.}"),
    ],
    # No unit is a variable: a ton, here.
    "variables": [("2t", "2"), ("a+b", "a+b+c")],
    "nothing": [("5", ""), ("5", "."), ("5", r"\text{}")],
}


@pytest.mark.parametrize(
    ("gold", "answer"), [pair for of_kind in RIGHT.values() for pair in of_kind]
)
def test_the_same_in_another_form(gold, answer):
    assert equal(gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"), [pair for of_kind in WRONG.values() for pair in of_kind]
)
def test_not_the_same(gold, answer):
    assert not equal(gold, answer)


def test_equal_texts_need_not_be_enough():
    assert equal(r"\heartsuit", r"\heartsuit \ ")
    assert not equal(r"x \heartsuit +", r"x \heartsuit +", by_text=False)
    assert equal(r"\sin^2 t", r"\sin^2 t", by_text=False)


def test_a_reference_may_say_more_than_an_answer_and_not_the_reverse():
    assert equal("312_4", "312")
    assert equal("x=2", "2")
    assert equal("2", "x=2")
    # The reference's inequality and its interval; another variable's inequality isn't the same.
    assert equal("x>3", r"(3,\infty)")
    assert not equal("x>3", "y>3")
