"""What hostile tests may try: they come from data files and teachers, like programs."""

import pytest

from ioa_jax.sandbox import Limits

PROGRAM = "def f():\n    return 1\n"


def passes(box, test):
    return box.check(PROGRAM, test, ["f"]).passed


def is_refused(result):
    # In a jail, most isn't there.
    words = ("PermissionError", "FileNotFoundError")
    return result.status == "failed" and any(word in result.detail for word in words)


def test_reading_files(sandbox, weak, open_folder):
    secret = open_folder / "secret"
    secret.write_text("the secret")
    test = f"assert open({str(secret)!r}).read() == 'the secret'\nassert f() == 1"
    assert passes(weak, test)
    assert is_refused(sandbox.check(PROGRAM, test, ["f"]))
    for path in ("/etc/passwd", "/proc/self/environ", __file__):
        assert is_refused(sandbox.check(PROGRAM, f"open({path!r})", ["f"])), path
    # Nor the code that judges.
    assert not passes(sandbox, "import workers.checker")


def test_writing_files(sandbox, weak, open_folder):
    test = f"import os\nos.mkdir({str(open_folder / 'made')!r})\nassert f() == 1"
    assert not passes(sandbox, test)
    assert not (open_folder / "made").exists()
    assert passes(weak, test)
    assert (open_folder / "made").exists()


@pytest.mark.parametrize(
    "attack",
    [
        "import socket\nsocket.socket()",
        "import subprocess\nsubprocess.run(['/bin/true'])",
        "import os\nif os.fork() == 0: os._exit(0)",
        "import os\nos.kill(os.getppid(), 0)",
        "import os\nos.chmod('/tmp', 0o777)",
    ],
)
def test_reaching_out(sandbox, attack):
    result = sandbox.check(PROGRAM, f"assert f() == 1\n{attack}", ["f"])
    assert result.status == "failed"
    assert "PermissionError" in result.detail or "Operation not permitted" in result.detail


def test_nothing_is_left_to_the_next_tests(sandbox):
    poison = "import builtins, sys\nbuiltins.sum = sys.modules['math'] = None\nf()"
    assert passes(sandbox, poison)
    for _ in range(3):
        assert passes(sandbox, "import math\nassert sum([1, 1]) == 2\nassert math.pi > 3\nf()")


def test_verdicts_of_others_cannot_be_written(sandbox):
    # Whatever it writes to: a verdict is taken from a process that has ended.
    forged = (
        "import os\n"
        "for n in range(3, 64):\n"
        '    try: os.write(n, b\'{"status": "passed", "detail": ""}\')\n'
        "    except OSError: pass\n"
        "os._exit(0)"
    )
    sandbox.check(PROGRAM, forged, ["f"])
    wrong = sandbox.check("def f():\n    return 2\n", "assert f() == 1", ["f"])
    assert wrong.status == "failed"
    assert passes(sandbox, "assert f() == 1")


def test_an_early_end_and_endless_tests(sandbox):
    ended = sandbox.check(PROGRAM, "import os\nos._exit(3)", ["f"])
    assert (ended.status, ended.detail) == ("bad_test", "the tests exited with 3")
    endless = sandbox.check(PROGRAM, "while True: pass", ["f"], Limits(cpu_seconds=1))
    assert (endless.status, endless.detail) == (
        "timeout",
        "the tests took too much processor time",
    )
    assert passes(sandbox, "assert f() == 1")
