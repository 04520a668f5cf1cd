"""What programs and tests say gets a verdict, which isn't theirs to choose, and never an error."""

import dataclasses
import json
from pathlib import Path

import pytest

from ioa_jax.sandbox import Limits, Sandbox


@pytest.fixture(scope="module")
def box():
    with Sandbox() as box:
        yield box


SWALLOWING = {
    "StopIteration": "assert all(map(lambda x: f(x) == x, [1, 2]))",
    "IndexError": (
        "class Answers:\n    def __getitem__(self, i): return f(i)\nassert list(Answers()) == []"
    ),
    "AttributeError": (
        "class Answer:\n    @property\n    def value(self): return f(1)\n"
        "assert getattr(Answer(), 'value', 1) == 1"
    ),
}


@pytest.mark.parametrize("name", SWALLOWING)
def test_control_flow_is_no_answer(box, name):
    source, test = f"def f(x): raise {name}('cheat')", SWALLOWING[name]
    # In one process with its tests, it passes.
    assert box.run(f"{source}\n{test}").passed
    result = box.check(source, test, ["f"])
    assert (result.status, f"{name}: cheat" in result.detail) == ("failed", True)


def test_tests_may_ask_for_control_flow_by_name(box):
    source = (
        "def f(x):\n    return [1][x]\nclass Stack:\n    def pop(self): raise IndexError('empty')\n"
    )
    test = (
        "for kind in (IndexError, LookupError, (ValueError, IndexError), Exception):\n"
        "    try: f(3)\n    except kind as error: assert 'out of range' in str(error)\n"
        "    else: assert False\n"
        "try: Stack().pop()\nexcept IndexError: pass\nelse: assert False\n"
        "try: [][0]\nexcept IndexError: pass\n"
        "stack = Stack()\nassert hasattr(stack, 'pop') and not hasattr(stack, 'push')\n"
        "try:\n    try: f(3)\n    except KeyError: assert False\nexcept IndexError: pass\n"
    )
    assert box.check(source, test, ["f", "Stack"]).detail == ""


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("raise SystemExit(0)", "failed"),
        ("import os; os._exit(0)", "failed"),
        ("import os; os.write(3, b'xxxx')", "forged"),
    ],
)
def test_a_verdict_stays_whatever_tests_catch(box, body, status):
    test = "for _ in range(3):\n    try: assert f() == 5\n    except: pass\nassert True"
    assert box.check(f"def f(): {body}", test, ["f"]).status == status
    compared = "try: f() == 5\nexcept BaseException: pass"
    assert box.check("def f(): return object()", compared, ["f"]).status == "failed"


@pytest.mark.parametrize("number", [34, 40, 64])
def test_real_time_signals(sandbox, number):
    source = f"import os\nos.kill(os.getpid(), {number})"
    for result in (sandbox.run(source), sandbox.check(source, "f()", ["f"])):
        assert (result.status, "killed by" in result.detail) == ("failed", True)
    tests = sandbox.check("def f(): return 1", source, ["f"])
    assert (tests.status, "killed by" in tests.detail) == ("bad_test", True)


@pytest.mark.parametrize(
    "source",
    [
        "raise ValueError('\\ud800')",
        "raise type('\\ud800', (Exception,), {})('x')",
        "class E(Exception):\n    def __str__(self): return '\\udfff' * 5000\nraise E",
        "class E(Exception):\n    def __str__(self): raise KeyError('\\ud800')\nraise E",
    ],
)
def test_half_a_surrogate_pair(box, source):
    indented = source.replace("\n", "\n    ")
    for result in (
        box.run(source),
        box.check(source, "f()", ["f"]),
        box.check(f"def f():\n    {indented}", "f()", ["f"]),
        box.check("def f(): return 1", f"f()\n{source}", ["f"]),
    ):
        assert result.status == "failed"
        assert len(result.detail.encode()) <= 30_000
        assert json.dumps(dataclasses.asdict(result), ensure_ascii=False).encode()


def test_large_and_deep_values_passed_back(box):
    deep = "def f(x):\n    for _ in range(62): x = [x]\n    return x"
    result = box.check(deep, "f([f([f(1)])])", ["f"])
    assert (result.status, "nested deeper" in result.detail) == ("failed", True)
    large = "def f(x): return 'x' * 16_770_000"
    for test in ("f([f(1), f(1)])", "f([f(1)] * 2)"):
        result = box.check(large, test, ["f"], Limits(memory_bytes=2 << 30))
        assert (result.status, "a message of" in result.detail) == ("failed", True)


@pytest.mark.parametrize(
    "test",
    [
        "f(",
        "x = 1\n\x00",
        "'\ud800'",
        "(" * 5000,
        "x = " + "-" * 200_000 + "1",
        "f(f.__class__)",
        "f(lambda: 1)",
        "f(print)",
        "a = []\na.append(a)\nf(a)",
        "import os\nos._exit(0)",
        "import os\nos.kill(os.getpid(), 11)",
        'import os\nos.write(5, b\'{"status": "passed"}\')',
        "import os\nos.write(5, b'[' * 50_000)",
        'import os\nos.write(5, b\'{"status": "infra_error", "detail": ""}\')',
    ],
    ids=range(14),
)
def test_tests_that_cannot_be_run(box, test):
    result = box.check("def f(x): return 1", test, ["f"])
    assert result.status == "bad_test", result
    assert result.detail


@pytest.mark.parametrize(
    "context", ["raise SystemExit(0)", "class E(BaseException): pass\nraise E"]
)
def test_contexts_that_end(box, context):
    assert box.check("def f(): return 1", "f()", ["f"], context=context).status == "bad_test"


def test_comments_on_the_encoding_are_not_obeyed(box):
    # As UTF-7 it is another program than the one that was read before it ran.
    source = "# coding: utf-7\nx = '+AGE-'\ndef f(): return x"
    assert box.check(source, "assert f() == '+AGE-'", ["f"]).detail == ""
    assert box.check("# coding: unknown\ndef f(): return 1", "assert f() == 1", ["f"]).passed
    assert box.check("\ufeffdef f(): return 1", "assert f() == 1", ["f"]).passed


@pytest.fixture(scope="module")
def benchmark_folder():
    """A benchmark with its solutions, in the packages of the interpreter that runs programs."""
    with Sandbox() as box:
        prefix = Path(box.info.interpreter).parent.parent
        version = "python" + ".".join(box.info.python.split(".")[:2])
    beside = [
        prefix / "lib" / version / "site-packages",
        prefix / "lib" / "python3" / "dist-packages",
    ]
    found = [one for one in beside if one.is_dir() and any(one.glob("*.py"))]
    if not found:
        pytest.skip(f"nothing is installed in {prefix}")
    return found[0]


def test_installed_packages_cannot_be_read(sandbox, weak, benchmark_folder):
    file = str(next(benchmark_folder.glob("*.py")))
    source = f"open({file!r}).read()"
    assert weak.run(source).passed
    assert "PermissionError" in sandbox.run(source).detail
    assert "PermissionError" in sandbox.check("def f(): return 1", source, ["f"]).detail
    # What is beside them still can.
    modules = (
        "import asyncio, ctypes, decimal, email, json, sqlite3, ssl, unittest, xml.dom.minidom"
    )
    assert sandbox.run(modules).detail == ""
    assert sandbox.check("def f(): return 1", f"{modules}\nf()", ["f"]).detail == ""
