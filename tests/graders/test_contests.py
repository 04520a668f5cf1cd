import base64
import json
import pickle
import zlib

import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders import contests
from ioa_jax.graders.base import Item
from ioa_jax.graders.code import CodeGrader, find_script
from ioa_jax.graders.contests import decode_tests, same_output
from ioa_jax.sandbox import Limits


def packed(value):
    """As LiveCodeBench has private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def case(given, expected):
    return {"input": given, "output": expected, "testtype": "stdin"}


def item(public, private, function=""):
    data = {
        "kind": "contest",
        "entry_point": function,
        "public_tests": json.dumps(public),
        "private_tests": packed(json.dumps(private)),
        "stops": ["\n```"],
    }
    return Item("contest/1", "?", (), data)


SUM = item([case("1\n2\n", "3\n")], [case("5\n-7", "-2"), case("0\n10\n", "10\n")])
PAIRS = item(
    [case('[1, 2]\n"a"', '[1, 2, "a"]')], [case('[]\n"b"', '["b"]'), case("[0]\n1", "[0, 1]")], "f"
)


def fenced(code):
    return f"Like this:\n```python\n{code}\n```\n"


@pytest.fixture(scope="module")
def grader():
    with CodeGrader() as made:
        yield made


@pytest.mark.parametrize(
    "code",
    [
        "a = int(input())\nb = int(input())\nprint(a + b)",
        # Its way out is no failure; names of LiveCodeBench's modules are there.
        "import sys as s\nprint(sum(map(int, stdin)))\nsys.exit(3)",
        "from __future__ import annotations\n\ndef main() -> Unknown:\n"
        "    first, second = map(int, open(0).read().split())\n"
        "    print(f'{first + second:.2f}  ')\n"
        "    print('done', file=sys.stderr)\n\nif __name__ == '__main__':\n    main()",
    ],
)
def test_a_right_program_reads_and_writes(grader, code):
    verdict = grader.grade(SUM, fenced(code) + "It prints:\n```\n3\n```")
    assert (verdict.correct, verdict.status, verdict.rule) == (True, "passed", "fence")
    assert verdict.extracted == code + "\n"


@pytest.mark.parametrize(
    ("code", "status", "detail"),
    [
        ("print(3)", "failed", "test 2 of 3: not the expected output"),
        ("print(abs(int(input()) + int(input())))", "failed", "test 2 of 3: not"),
        ("print(3)\nraise ValueError('no')", "failed", "test 1 of 3: ValueError: no"),
        ("print(3)\nimport os\nos._exit(0)", "failed", "test 1 of 3: it exited"),
        ("print('x' * 200_000)", "output_limit", "test 1 of 3"),
        ("print(3", "failed", "test 1 of 3: SyntaxError"),
    ],
)
def test_a_wrong_program_says_at_which_test(grader, code, status, detail):
    verdict = grader.grade(SUM, fenced(code))
    assert (verdict.correct, verdict.status) == (False, status)
    assert verdict.detail.startswith(detail)


def test_each_test_has_the_time_limit_to_itself():
    tests = item([case(str(n), "") for n in range(3)], [])
    slow = "import time\nwhile time.process_time() < 0.5:\n    pass\nprint()"
    with CodeGrader(limits=Limits(cpu_seconds=1)) as grader:
        assert grader.grade(tests, fenced(slow)).correct
        verdict = grader.grade(tests, fenced("if input() == '1':\n    while True: pass\nprint()"))
    assert (verdict.correct, verdict.status) == (False, "timeout")
    assert verdict.detail.startswith("test 2 of 3: ")


def test_a_long_output_that_is_expected_is_within_the_limit(grader):
    lines = "1234567\n" * 50_000
    long = item([case("50000", lines)], [])
    assert grader.grade(long, fenced("for _ in range(int(input())):\n    print(1234567)")).correct


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("class Solution:\n    def f(self, a: List[int], b) -> list:\n        return a + [b]", ""),
        ("def f(a, b):\n    return (*a, b)", ""),
        (
            "def f(a, b):\n    return [1, 2, b]",
            "test 2 of 3: AssertionError: not the expected value",
        ),
        ("def f(a, b):\n    return a.shift()", "test 1 of 3: AttributeError"),
        ("def g(a, b):\n    return a + [b]", "test 1 of 3: NameError"),
    ],
)
def test_functions_and_methods(grader, code, detail):
    verdict = grader.grade(PAIRS, fenced(code))
    assert verdict.correct == (not detail)
    assert verdict.detail.startswith(detail)
    # What is expected isn't told.
    assert '"b"' not in verdict.detail


def test_a_program_has_nothing_but_the_input(grader):
    # Whatever of the tests' values can be found in its process would be printed.
    code = (
        "import gc\ngiven = input(), input()\n"
        "texts = [one for one in gc.get_objects() if isinstance(one, (list, dict))]\n"
        "print('secret' + '-answer' in repr(texts))"
    )
    secret = item([case("1\n2", "False")], [case("3\n4", "False"), case("5\n6", "secret-answer")])
    verdict = grader.grade(secret, fenced(code))
    assert verdict.detail == "test 3 of 3: not the expected output"


def test_base_models_continue_a_code_block():
    with CodeGrader(style="base") as base:
        assert base.grade(SUM, "print(int(input()) + int(input()))\n```\nThe end.").correct
        method = "class Solution:\n    def f(self, a, b):\n        return a + [b]\n```\n"
        assert base.grade(PAIRS, method).correct


def test_an_answer_without_a_program(grader):
    verdict = grader.grade(SUM, " \n")
    assert (verdict.correct, verdict.rule, verdict.extracted) == (False, "empty", None)


@pytest.mark.parametrize(
    ("answer", "code", "rule"),
    [
        (fenced("print(1)") + fenced("print(2)"), "print(2)\n", "fence"),
        (fenced("print(1)") + "Input:\n```\n3\n1 2 3\n```", "print(1)\n", "fence"),
        (fenced("print(1)") + "Output:\n```\n3\n```", "print(1)\n", "fence"),
        (fenced("print(1)") + "This is wrong:\n```\nprint(2)\n```", "print(1)\n", "fence"),
        (fenced("print(1)") + "Or:\n```python\nprint(2)", "print(1)\n", "fence"),
        ("```python\nprint(2)", "print(2)", "fence"),
        ("import sys\nprint(2)\n```\nThat is it.", "import sys\nprint(2)\n", "closing_fence"),
        ("print(2)", "print(2)", "whole"),
    ],
)
def test_the_last_complete_block_that_does_something_is_the_program(answer, code, rule):
    assert find_script(answer) == (code, rule)


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ("1 2\n3\n", " 1 2 \n3", True),
        ("1.50 2", "1.5 2.0", True),
        ("1e3", "1000", True),
        ("YES", "Yes", False),
        ("1  2", "1 2", True),
        ("a  b", "a b", False),
        ("1\n\n2", "1\n2", False),
        ("1 2", "1\n2", False),
        ("0.30000000000000004", "0.3", False),
        ("50000000000000001", "50000000000000000", False),
        ("sNaN", "1", False),
        ("nan", "NaN", False),
        ("", "", True),
        ("", "0", False),
    ],
)
def test_outputs_are_compared_line_by_line_and_as_decimals(found, expected, same):
    assert same_output(found, expected) is same


class Hostile:
    def __reduce__(self):
        return (print, ("it ran",))


def compressed(data):
    return base64.b64encode(zlib.compress(data)).decode()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_tests_are_read_packed_or_not(protocol):
    text = json.dumps([case("ü\n", "2")])
    data = pickle.dumps(text, protocol)
    assert decode_tests(text, False) == (("ü\n", "2"),)
    assert decode_tests(compressed(data), False) == (("ü\n", "2"),)


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        (packed(Hostile()), False, "a pickle of more than a text, with STACK_GLOBAL in it"),
        (packed([json.dumps([])]), False, "a pickle of more than a text, with EMPTY_LIST"),
        # One that would have the reader make a table of 16 GiB.
        (compressed(b"\x8c\x02[]r\xff\xff\xff\x7fN."), False, "with NONE in it"),
        (compressed(b"\x8c\x02[]\x8c\x02[]."), False, "a pickle of 2 texts"),
        (compressed(b"\x8c\x05[]"), False, "expected 5 bytes"),
        (packed("[")[:-8], False, "without an end"),
        ("%", False, "neither JSON nor base64 of zlib"),
        ("abcd", False, "neither JSON nor base64 of zlib"),
        (packed('{"input": ""}'), False, "a list of tests is needed"),
        ("[" * 100_000, False, "brackets nested too deep"),
        ('[{"input": "1"}]', False, "test 1: the texts 'input' and 'output' are needed"),
        (json.dumps([case("1", "2"), case("", "one")]), True, "test 2: not JSON"),
        (json.dumps([case("1\n'", "2")]), True, "test 1: not JSON"),
    ],
)
def test_what_no_tests_are_is_refused(text, values, message, capsys):
    with pytest.raises(ValueError, match=message):
        decode_tests(text, values)
    assert capsys.readouterr().out == ""


def test_decompression_is_bounded(monkeypatch):
    monkeypatch.setattr(contests, "MAX_TESTS_BYTES", 1000)
    assert decode_tests(packed(json.dumps([case("0" * 900, "")])), False)
    with pytest.raises(ValueError, match="of more than 1000 bytes"):
        decode_tests(packed(json.dumps([case("0" * 1000, "")])), False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"private_tests": packed(Hostile())}, "field 'private_tests': a pickle of more than"),
        ({"public_tests": "[1]"}, "field 'public_tests': test 1"),
        ({"public_tests": "[]", "private_tests": "[]"}, "it has no tests"),
        ({"entry_point": "f(); g"}, "field 'entry_point': 'f\\(\\); g': a function's name"),
        ({"entry_point": None}, "field 'entry_point'"),
        ({"private_tests": " "}, "field 'private_tests': a text is needed"),
    ],
)
def test_a_broken_item_is_named(grader, changed, message):
    with pytest.raises(InputError, match=rf"item 'contest/1': {message}"):
        grader.check_item(Item("contest/1", "?", (), {**SUM.data, **changed}))
