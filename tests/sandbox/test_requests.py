"""What tests ask of a program, and in which order."""

import pytest

from ioa_jax.sandbox import Limits, Sandbox


@pytest.fixture(scope="module")
def box():
    with Sandbox() as box:
        yield box


LOGGED = """
log = []
class Items:
    def __iter__(self):
        log.append("items")
        return iter([1, 2])
    def __bool__(self):
        log.append("bool")
        return True
def f(x):
    log.append(x)
    return Items() if x == "object" else x
def seen():
    return log
"""


def test_a_program_is_asked_in_the_order_of_the_tests(box):
    test = (
        "assert f(1) == 1\nassert sorted(f('object')) == [1, 2]\nassert f(2) == 2\n"
        "assert f('object')\nassert f(3) == 3\n"
        "assert seen() == [1, 'object', 'items', 2, 'object', 'bool', 3]"
    )
    assert box.check(LOGGED, test, ["f", "seen"]).detail == ""
    # After an exception, nothing more.
    source = (
        "def f(x):\n    print(x, flush=True)\n    if x == 2: raise ValueError('two')\n    return x"
    )
    result = box.check(source, "assert f(1) == 1\nassert f(2) == 2\nassert f(3) == 3", ["f"])
    assert (result.status, result.stdout) == ("failed", "1\n2\n")
    assert "two" in result.detail


def test_builtins_of_another_meaning(box):
    source = "def sum(x): return [x]\ndef f(x): return x"
    test = "def check(g):\n  assert sum(g(1)) == [1]\n  assert g(2) == 2\ncheck(f)"
    assert box.check(source, test, ["f", "sum"]).detail == ""
    for context in (
        "def sum(x): return [f(x)]",
        "def bind():\n  global sum\n  sum = lambda x: [f(x)]\nbind()",
    ):
        assert box.check("def f(x): return x", test, ["f"], context=context).detail == ""


@pytest.mark.parametrize(
    "last", ["import os; os._exit(0)", "while True: pass", "x = bytearray(1 << 40)", "raise Exit"]
)
def test_a_wrong_answer_counts_before_what_comes_after_it(box, last):
    source = f"def f(x):\n    if x == 2:\n        {last}\n    return 0"
    result = box.check(source, "assert f(1) == 1\nassert f(2) == 0", ["f"])
    assert (result.status, result.detail) == ("failed", "AssertionError in 'assert f(1) == 1'")


def test_tests_of_any_length(box):
    # Of few bytes, and what fills the channel both ways.
    for length, count in ((10, 3), (4000, 50), (20_000, 5)):
        value = ", ".join(str(i) for i in range(length))
        test = f"assert f([{value}]) == [{value}]\n" * count
        assert box.check("def f(x): return x", test, ["f"]).detail == ""
    test = "".join(f"assert len(f({i})) == 50000\n" for i in range(40))
    assert box.check("def f(x): return 'a' * 50000", test, ["f"]).detail == ""


def test_a_program_that_says_that_it_has_ended_is_ended(box):
    source = "import os\nos.write(5, b'.')\nwhile True: pass\ndef f(): return 1"
    limits = Limits(wall_seconds=20.0, cpu_seconds=20)
    for result in (box.check(source, "assert f() == 1", ["f"], limits), box.run(source, limits)):
        assert result.status == "failed"
        assert "said that it had ended" in result.detail
        assert result.wall_seconds < 10
