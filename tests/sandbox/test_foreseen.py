"""What is asked of a program before its tests run."""

import ast

import pytest

from ioa_jax.sandbox import Limits, Sandbox
from ioa_jax.sandbox.workers.foreseen import foresee

END = ("end", None, None)


def calls(*arguments):
    return [("call", "f", [one, {}]) for one in arguments]


@pytest.mark.parametrize(
    ("test", "foreseen"),
    [
        ("assert f(1, 'a') == f([2.5, (-3, None)])", [*calls((1, "a"), ([2.5, (-3, None)],)), END]),
        ("assert f({'a': {1, 2}})[0] + 1, 'why'", [*calls(({"a": {1, 2}},)), END]),
        ("A = {'b': 1}\nassert not abs(f() - 0.5) < 1e-6", [*calls(()), END]),
        ("def check(g):\n  'why'\n  assert g(1)\n  pass\ncheck(f)", [*calls((1,)), END]),
        ("def check(g):\n  assert g(1)\ncheck(f)\nassert f(2)", [*calls((1,), (2,)), END]),
        ("def check(g):\n  assert g(1)\n", [END]),
        # Something else comes after these.
        ("assert f(1)\nassert f(x=2)", calls((1,))),
        (f"assert f(1)\nassert f(1{'0' * 400} + 1j)", calls((1,))),
        (f"assert f(1)\nassert f({'-' * 1500}2)", calls((1,))),
        (f"def check(g):\n  assert g(1)\n  assert {'-' * 1500}g(2)\ncheck(f)", calls((1,))),
        ("assert f(1)\nassert isinstance(f(2), int)", calls((1,))),
        ("assert f(1)\nassert f(y)", calls((1,))),
        ("assert f(1)\nassert f(f(2))", calls((1,))),
        ("assert f(1)\nassert h(f(2))", calls((1,))),
        ("assert f(1), f(2)", calls((1,))),
        ("assert f(1)\nassert f(2) and f(3)", calls((1,))),
        ("assert f(1)\nassert 0 < f(2) < f(3)", calls((1,))),
        ("assert f(1)\nassert [f(i) for i in (1, 2)]", calls((1,))),
        ("assert f(1)\nassert f.count", calls((1,))),
        ("assert f(1)\nfor i in (2, 3):\n  assert f(2)", calls((1,))),
        ("assert f(1)\ntry:\n  assert f(2)\nexcept ValueError:\n  pass", calls((1,))),
        ("assert f(1)\nif True:\n  assert f(2)", calls((1,))),
        ("assert f(1)\nimport math\nassert f(2)", calls((1,))),
        ("def check(g):\n  assert g(1)\n  return\n  assert g(2)\ncheck(f)", calls((1,))),
        ("def check(g):\n  assert g(1)\n  g = 1\n  assert g(2)\ncheck(f)", calls((1,))),
        ("def check(g):\n  assert g(1)\n  assert f(2)\ncheck(f)", calls((1,))),
        # What looks like these isn't what it looks like.
        ("f = 1\nassert f(1)", []),
        ("def f(x):\n  pass\nassert f(1)", []),
        ("abs = f\nassert abs(f(1))", []),
        ("def abs(x):\n  pass\nassert abs(f(1))", []),
        ("@f\ndef check(g):\n  assert g(1)\ncheck(f)", []),
        ("def check(g=f(2)):\n  assert g(1)\ncheck(f)", []),
        ("def check(g, *h):\n  assert g(1)\ncheck(f)", []),
        ("def check(g: f(2)):\n  assert g(1)\ncheck(f)", []),
        ("def check(g) -> f(2):\n  assert g(1)\ncheck(f)", []),
        ("def h(*x: f(2)): pass\nassert f(1)", []),
        ("def h(**x: f(2)): pass\nassert f(1)", []),
        ("def h(*, x: f(2)): pass\nassert f(1)", []),
        ("def check(g):\n  assert g(1)\n  yield\ncheck(f)", []),
        ("async def check(g):\n  assert g(1)\ncheck(f)", []),
        ("class f:\n  pass\nassert f(1)", []),
    ],
)
def test_only_what_is_certain_is_foreseen(test, foreseen):
    assert foresee(ast.parse(test), ["f"]) == foreseen


def test_a_builtin_of_another_meaning_is_not_harmless():
    test = "def check(g):\n  assert g(1)\n  assert sum(g(2)) == max(g(3))\ncheck(f)"
    assert foresee(ast.parse(test), ["f"]) == [*calls((1,), (2,), (3,)), END]
    for names, known in ((["f", "sum"], []), (["f"], ["sum"])):
        assert foresee(ast.parse(test), names, known) == calls((1,))
    assert foresee(ast.parse(test), ["f"], ["max"]) == calls((1,), (2,))


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


def test_a_program_sees_the_same_as_if_nothing_were_foreseen(box):
    test = (
        "assert f(1) == 1\nassert sorted(f('object')) == [1, 2]\nassert f(2) == 2\n"
        "assert f('object')\nassert f(3) == 3\n"
        "assert seen() == [1, 'object', 'items', 2, 'object', 'bool', 3]"
    )
    asked = [do for do, _, _ in foresee(ast.parse(test), ["f", "seen"])]
    assert asked == ["call"] * 6 + ["end"]
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
    # Of few bytes, more than is asked ahead, and answers that fill the channel both ways.
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
