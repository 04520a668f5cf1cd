import pytest

from ioa_jax.adapter.programs import (
    calls_under_test,
    main_function,
    renamed,
    same_values,
    values_of,
    write_tests,
)
from ioa_jax.errors import InputError
from ioa_jax.sandbox import Sandbox


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as box:
        yield box


@pytest.mark.parametrize(
    ("tests", "calls"),
    [
        ("assert f(1) == 2\nassert f([1]) == [2]", ("f(1)", "f([1])")),
        ("assert sorted(f('a')) == ['a'], 'no'", ("sorted(f('a'))",)),
        ("assert not f(1)\nassert f(2)", ("not f(1)", "f(2)")),
        ("assert 2 == f(1)", ("2 == f(1)",)),
        ("assert abs(f(1) - 2) < 0.1", ("abs(f(1) - 2) < 0.1",)),
        ("f(1)\nprint(f(2))\nf(1)", ("f(1)", "f(2)")),
        ("Examples:\nassert f(1) == 2\nassert f(", ("f(1)",)),
        ("x = 1\nassert x == 1", ()),
        ("", ()),
    ],
)
def test_what_tests_are_about(tests, calls):
    assert calls_under_test(tests) == calls


def test_a_function_under_another_name():
    assert renamed(("f(1) + ff(f)", "not f(2)"), "f", "g") == ("g(1) + ff(g)", "not g(2)")
    program = "def help_f(x):\n    return x\n\ndef f(x):\n    return x\n"
    assert main_function(program) == "f"
    assert main_function(program, "assert help_f(1) == 1") == "help_f"
    for wrong in ("x = 1", "def f(:"):
        with pytest.raises(InputError):
            main_function(wrong)


def test_values_are_found_by_running(sandbox):
    program = "print('hello')\ndef f(x):\n    return {1, 2} if x == 0 else [1 / x, 'a\\nb']"
    calls = ("f(2)", "f(0)", "f('a')", "f", "object()")
    values = values_of(program, calls, sandbox)
    assert values == ("[0.5, 'a\\nb']", "{1, 2}", None, None, None)
    assert values_of("def f(x): return 1 +", ("f(1)",), sandbox) is None
    assert values_of("raise SystemExit(0)\ndef f(): return 1", ("f()",), sandbox) in (None, (None,))
    assert write_tests(("f(1)", "f(2)"), ("2", None)) == "assert f(1) == 2"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2", "2.0", True),
        ("{1, 2}", "{2, 1}", True),
        ("'a'", "'b'", False),
        (None, None, True),
        (None, "1", False),
    ],
)
def test_equal_data_are_the_same(one, other, same):
    assert same_values(one, other) == same
