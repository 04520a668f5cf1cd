"""What programs and tests get. Real processes run here; nothing is faked."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ioa_jax
from ioa_jax.errors import InputError, SandboxError
from ioa_jax.sandbox import Limits, Sandbox, backends, probe, processes, workers
from ioa_jax.sandbox.base import STRONG, WEAK


@pytest.fixture(scope="module")
def box():
    with Sandbox() as box:
        yield box


def test_a_program_alone(box):
    result = box.run("print('out')\nimport sys\nprint('err', file=sys.stderr)")
    assert (result.status, result.detail) == ("passed", "")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert 0 < result.cpu_seconds < 5
    failed = box.run("assert 1 == 2, 'one is not two'")
    assert (failed.status, failed.detail) == ("failed", "AssertionError: one is not two")
    assert "Traceback" in failed.stderr
    assert "SyntaxError" in box.run("x = (").detail
    assert "RecursionError" in box.run("def f(): return f()\nf()").detail


def test_input(box):
    source = "import sys\nprint(input().upper(), sys.stdin.read())"
    assert box.run(source, stdin="gruß\nrest").stdout == "GRUSS rest\n"
    assert box.run("import sys\nassert sys.stdin.read() == ''").passed


def test_a_program_is_not_main(box):
    assert box.run("if __name__ == '__main__': raise SystemExit('demonstration')").passed
    dataclass = (
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int\nassert A(1).x == 1"
    )
    assert box.run(dataclass).passed


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="annotations are evaluated on demand")
def test_annotations_are_evaluated(box):
    forgotten = "def f(x: List[int]) -> int: return 1"
    test = "assert f([1]) == 1"
    for source in (forgotten, "class A:\n    x: List[int]\ndef f(x): return 1"):
        for result in (box.check(source, test, ["f"]), box.run(source)):
            assert result.status == "failed"
            assert "name 'List' is not defined" in result.detail
    for first in ("from typing import List", "from __future__ import annotations"):
        assert box.check(f"{first}\n{forgotten}", test, ["f"]).detail == ""
    # Those of the tests' own too.
    known = "def check(g: int):\n    assert g([1]) == 1\ncheck(f)"
    assert box.check("def f(x): return 1", known, ["f"]).detail == ""
    unknown = box.check("def f(x): return 1", test, ["f"], context="def g(x: List): pass")
    assert (unknown.status, "List" in unknown.detail) == ("bad_test", True)


def test_an_event_loop_works(box):
    source = "import asyncio\nasync def f(): await asyncio.sleep(0.01)\nasyncio.run(f())"
    assert box.run(source).passed


def test_programs_repeat(box):
    source = "import random\nprint(hash('a'), list({str(i) for i in range(20)}), random.random())"
    assert box.run(source).stdout == box.run(source).stdout
    test = "import random\nassert random.random() == f()"
    known = float(box.run("import random\nrandom.seed(0)\nprint(random.random())").stdout)
    assert box.check(f"def f(): return {known!r}", test, ["f"]).passed


def test_right_and_wrong(box):
    test = "def check(g):\n    assert g(2, y=3) == 5\n    assert g(0) == 1, 'default'\ncheck(f)"
    assert box.check("def f(x, y=1): return x + y", test, ["f"]).passed
    wrong = box.check("def f(x, y=0): return x + y", test, ["f"])
    assert wrong.status == "failed"
    assert wrong.detail.startswith("AssertionError: default in ")
    assert "assert g(0) == 1" in wrong.detail
    assert "name 'f' is not defined" in box.check("def g(): pass", test, ["f"]).detail
    assert "SyntaxError" in box.check("def f(:", test, ["f"]).detail


def test_output_of_a_tested_program(box):
    result = box.check("def f():\n    print('x')\n    return 1", "assert f() == 1", ["f"])
    assert result.passed
    assert result.stdout == "x\n"


VALUES = [
    None, True, 0, -1, 10**30, -(2**63), 2**63, 1.5, float("inf"), -0.0, 1 + 2j, "", "ü\ud800\n",
    b"\x00\xff", [], [1, [2]], (), (1, (2,)), {}, {1: "a", (2, 3): [4]}, set(), {1, (2,)},
    frozenset({1}), int, str,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_cross(box, value):
    name = value.__name__ if isinstance(value, type) else repr(value)
    name = name.replace("inf", "float('inf')")
    test = f"value = {name}\nfound = f(value)\nassert repr(found) == repr(value)"
    assert box.check("def f(x): return x", test, ["f"]).detail == ""
    if not isinstance(value, type):
        typed = f"assert type(f(value)) is {type(value).__name__}"
        typed = typed.replace("NoneType", "type(None)")
        assert box.check("def f(x): return x", f"value = {name}\n{typed}", ["f"]).passed


def test_subclasses_arrive_as_their_plain_type(box):
    source = (
        "import collections, enum\n"
        "class Colour(enum.IntEnum):\n    RED = 1\n"
        "Point = collections.namedtuple('Point', 'x y')\n"
        "def f(): return [collections.Counter('aab'), Colour.RED, Point(1, 2)]"
    )
    test = "assert f() == [{'a': 2, 'b': 1}, 1, (1, 2)]\nassert [type(v) for v in f()][0] is dict"
    assert box.check(source, test, ["f"]).detail == ""


def test_exceptions_cross(box):
    source = (
        "class Odd(KeyError): pass\n"
        "def f(kind):\n"
        "    if kind == 'value': raise ValueError('no such')\n"
        "    if kind == 'own': raise Odd('mine')\n"
        "    if kind == 'unicode': b'\\xff'.decode()\n"
        "    raise SystemExit(0)\n"
    )
    test = (
        "try: f('value')\nexcept ValueError as error: assert str(error) == 'no such'\n"
        "try: f('own')\nexcept KeyError as error: assert 'mine' in str(error)\n"
        "try: f('unicode')\nexcept ValueError as error: assert 'decode' in str(error)\n"
    )
    assert box.check(source, test, ["f"]).detail == ""
    uncaught = box.check(source, "f('value')", ["f"])
    assert uncaught.detail == "ValueError: no such in \"f('value')\""
    # What isn't an Exception can't be caught by tests that catch everything.
    swallowing = "try: f('exit')\nexcept Exception: pass"
    assert "SystemExit" in box.check(source, swallowing, ["f"]).detail


def test_arguments_go_by_value(box):
    source = "def f(x):\n    x.clear()\n    return x"
    assert box.check(source, "a = [3]\nassert f(a) == []\nassert a == [3]", ["f"]).passed


def test_objects_stay_with_the_program(box):
    source = (
        "class Node:\n"
        "    def __init__(self, value): self.value, self.left = value, None\n"
        "    def depth(self): return 1 + (self.left.depth() if self.left else 0)\n"
        "def depth(node): return node.depth()\n"
        "def numbers():\n    yield from range(3)\n"
        "def find(text):\n    import re\n    return re.search('a', text)\n"
    )
    test = (
        "root = Node(5)\nroot.left = Node(6)\nroot.left.left = Node(7)\n"
        "assert depth(root) == 3\nassert root.left.value == 6 and root.depth() == 3\n"
        "assert list(numbers()) == [0, 1, 2] and sum(numbers()) == 3\n"
        "assert find('ab') and not find('b')\n"
    )
    assert box.check(source, test, ["depth", "numbers"]).detail == ""
    compared = box.check(source, "assert Node(1) != Node(2)", ["Node"])
    assert "isn't plain data" in compared.detail


def test_context_and_names(box):
    source = "import sys\ndef sum(x): return 7\ndef help(x): return x"
    test = "assert sum([1]) == help(7) and sys.getsizeof(()) > 0 and twice(2) == 4"
    context = "def twice(x): return 2 * x\ndef sum(x): return 0"
    assert box.check(source, test, ["sum", "help"], context=context).detail == ""


@pytest.mark.parametrize(
    ("test", "context", "word"),
    [
        ("assert f(", "", "SyntaxError"),
        ("f(1)", "raise ValueError('x')", "ValueError: x"),
        ("f(lambda x: x)", "", "a function"),
        ("f('x' * (17 << 20))", "", "a message of"),
    ],
)
def test_tests_at_fault(box, test, context, word):
    result = box.check("def f(x): return 1", test, ["f"], context=context)
    assert (result.status, word in result.detail) == ("bad_test", True)


def test_tests_have_a_budget_too(box):
    limits = Limits(wall_seconds=1.0, cpu_seconds=1)
    for test in ("while True: pass", "import time\ntime.sleep(60)"):
        result = box.check("def f(): pass", test, ["f"], limits)
        assert result.status == "timeout", result
    assert box.check("def f(): return 1", "assert f() == 1", ["f"]).passed


def test_from_several_threads(box):
    def run(number):
        source = f"import time\ndef f(x):\n    time.sleep(0.05)\n    return x + {number}"
        good = box.check(source, f"assert f(1) == {number + 1}", ["f"])
        bad = box.check(source, f"assert f(1) == {number}", ["f"])
        return good.status, bad.status, box.run(f"print({number})").stdout

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(run, range(24)))
    assert results == [("passed", "failed", f"{number}\n") for number in range(24)]


def test_no_descriptors_are_left_open(box):
    box.check("def f(): pass", "f()", ["f"])
    box.run("pass")
    before = len(os.listdir("/proc/self/fd"))
    for source in ("def f(): pass", "def f(:", "def f(): import os; os._exit(0)"):
        box.check(source, "f()", ["f"])
        box.run(source)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_files_of_one_program_are_no_concern_of_the_next(box):
    # Nearly all there is room for; much memory, since files are removed after it.
    write = "with open('a', 'wb') as file: file.write(bytes({} << 20))\ndef f(): return 1\n"
    first, second = write.format(60) + "x = b'x' * (256 << 20)", write.format(6)
    limits = Limits(file_bytes=64 << 20, memory_bytes=1 << 30)
    for _ in range(3):
        for source in (first, second):
            assert box.check(source, "assert f() == 1", ["f"], limits).detail == ""
        for source in (first, second):
            assert box.run(source, limits).detail == ""


def test_a_program_has_no_descriptors_of_others(box):
    # So many at a time that the server's own go past those that a process begins with.
    source = (
        "import os, time\ntime.sleep({})\ndef is_open(n):\n    try: os.fstat(n)\n"
        "    except OSError: return False\n    return True\n"
        "print([n for n in range(1024) if is_open(n)])"
    )
    with ThreadPoolExecutor(60) as pool:
        found = pool.map(lambda i: box.run(source.format(0.2 + i * 7 % 13 / 13)).stdout, range(180))
        # Standard streams, the channel and the pipe of `program`.
        assert set(found) == {"[0, 1, 2, 3, 5]\n"}


def kill(worker, number: int = signal.SIGKILL):
    os.kill(worker.process.pid, number)
    return worker.process.pid


def test_servers_that_die_are_started_again():
    source, test = "def f(): return 1", "assert f() == 1"
    with Sandbox() as box:
        assert box.check(source, test, ["f"]).passed
        kill(box._server)
        assert box.check(source, test, ["f"]).passed


def test_what_dies_with_its_server_is_run_once_more():
    # Without a jail, the process that was started is the server itself.
    with Sandbox(backend="landlock+seccomp") as box:
        assert box.run("pass").passed
        server, found = box._server, []
        assert server is not None
        source = "import time; time.sleep(1)"
        thread = threading.Thread(target=lambda: found.append(box.run(source)))
        thread.start()
        while not server._running:
            pass
        kill(server)
        thread.join()
        assert found[0].passed
        assert box._server is not server


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("isolation", "            self._filter.restrict(self._libc)\n"),
        ("server", "                    resource.setrlimit(kind, values)\n"),
    ],
)
def test_a_sandbox_that_cannot_confine_says_nothing_about_the_program(
    tmp_path, monkeypatch, name, call
):
    folder = tmp_path / "workers"
    shutil.copytree(Path(workers.__file__).parent, folder)
    module = folder / f"{name}.py"
    assert module.read_text().count(call) == 1
    indent = call[: len(call) - len(call.lstrip())]
    module.write_text(module.read_text().replace(call, f"{indent}raise OSError('broken')\n"))
    monkeypatch.setattr(workers, "__file__", str(folder / "__init__.py"))
    with Sandbox() as box:
        for result in (box.run("pass"), box.check("def f(): pass", "f()", ["f"])):
            assert result.status == "infra_error"
            assert "broken" in result.detail


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("server", "        os.mkdir(directory, 0o700)\n"),
        ("server", "        ruleset = self._isolation.ruleset(directory)\n"),
        (
            "landlock",
            "        with contextlib.ExitStack() as opened:\n            return self._made(\n",
        ),
        ("server", "        leaving, last = os.pipe()\n"),
        ("isolation", "        pid: int = self._python.fork()\n"),
        ("server", "        self.pidfd = os.pidfd_open(pid)\n"),
    ],
)
def test_a_server_outlives_what_it_cannot_have(tmp_path, monkeypatch, name, call):
    folder = tmp_path / "workers"
    shutil.copytree(Path(workers.__file__).parent, folder)
    module = folder / f"{name}.py"
    assert module.read_text().count(call) == 1
    indent = call[: len(call) - len(call.lstrip())]
    # The processes of these numbers fail, one right after another among them.
    failing = (
        f"{indent}import builtins\n"
        f"{indent}builtins.number = getattr(builtins, 'number', 0) + 1\n"
        f"{indent}if builtins.number in (4, 6, 7, 9): raise OSError('broken')\n"
    )
    module.write_text(module.read_text().replace(call, failing + call))
    monkeypatch.setattr(workers, "__file__", str(folder / "__init__.py"))

    # Without a jail, the process that was started is the server itself.
    with Sandbox(backend="landlock+seccomp") as box, ThreadPoolExecutor(1) as pool:
        assert box.run("pass").passed
        server = box._server
        assert server is not None
        process = server.process
        assert process is not None

        def descriptors():
            # Beside three for each process that waits. Only root can see into the server.
            if os.geteuid() != 0:
                return 0
            return len(os.listdir(f"/proc/{process.pid}/fd")) - 3 * len(server._spare)

        def settled():
            # A program's descriptors are given back after its report.
            found = [-1, descriptors()]
            while found[-1] != found[-2]:
                time.sleep(0.5)
                found.append(descriptors())
            return found[-1]

        before = settled()
        long = pool.submit(box.run, "import time; time.sleep(2)")
        while server._running == 0:
            pass
        results = [box.run("pass") for _ in range(8)]
        # What fails once is tried once more.
        assert [result.status for result in results].count("infra_error") == 1
        assert [result.status for result in results].count("passed") == 7
        assert all("broken" in r.detail for r in results if not r.passed)
        assert long.result().passed
        assert box._server is server
        assert server.alive
        assert settled() == before


def test_closing_ends_everything_and_leaves_nothing(monkeypatch):
    # Tests that run beside this one have sandboxes too.
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    monkeypatch.setattr(tempfile, "tempdir", folder)
    box = Sandbox()
    source = "import time\ndef f(): time.sleep(60)"
    found = []
    thread = threading.Thread(target=lambda: found.append(box.check(source, "f()", ["f"])))
    thread.start()
    while not (box._server and box._server._spare):
        pass
    assert os.listdir(folder)
    pid = kill(box._server, 0)
    box.close()
    thread.join(30)
    assert found[0].status == "infra_error"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    os.rmdir(folder)
    assert box.run("pass").detail == "the sandbox is closed"


def test_the_probe_says_what_is_in_force(box):
    info = probe()
    assert info == box.info
    assert info.backend in STRONG
    assert info.landlock_abi >= 1
    assert {f"landlock:{info.landlock_abi}", "seccomp", "no_new_privileges"} <= set(info.isolation)
    assert info.python.startswith("3.")
    assert Path(info.interpreter).is_absolute()


def test_weak_isolation_has_to_be_named(monkeypatch):
    with pytest.raises(SandboxError, match="allow_weak=True"):
        Sandbox(backend=WEAK)

    def refuse(backend):
        if backend in STRONG:
            raise processes.BackendError("no such thing here")
        return found

    found = backends.find(WEAK)
    monkeypatch.setattr(backends, "find", refuse)
    with pytest.raises(SandboxError, match=r"no such thing here.*allow_weak=True"):
        Sandbox()
    with Sandbox(allow_weak=True) as box:
        assert box.info.backend == WEAK
        assert box.run("pass").passed


def test_other_systems(monkeypatch):
    monkeypatch.setattr(backends.sys, "platform", "darwin")
    backends.find.cache_clear()
    with pytest.raises(SandboxError, match="Linux is needed, this is darwin"):
        probe()


def test_no_usable_interpreter(monkeypatch):
    monkeypatch.setattr(backends.sys, "executable", "/bin/false")
    monkeypatch.setattr(backends.shutil, "which", lambda *args, **options: "/bin/true")
    backends.find.cache_clear()
    try:
        with pytest.raises(SandboxError, match=r"/bin/false: .*/bin/true: "):
            Sandbox(backend="landlock+seccomp")
    finally:
        backends.find.cache_clear()


@pytest.mark.parametrize("name", ["wall_seconds", "cpu_seconds", "memory_bytes", "processes"])
def test_limits_are_positive(name):
    with pytest.raises(InputError, match=f"{name}=0"):
        Limits(**{name: type(getattr(Limits(), name))(0)})


@pytest.mark.skipif(os.geteuid() != 0, reason="this is an ordinary user already")
@pytest.mark.parametrize("backend", STRONG)
def test_as_an_ordinary_user(backend):
    script = (
        "from ioa_jax.sandbox import Sandbox\n"
        "import os\n"
        f"with Sandbox(backend={backend!r}) as box:\n"
        "    assert 'uid:12345' in box.info.isolation\n"
        "    assert box.check('def f(x): return x', 'assert f(1) == 1', ['f']).passed\n"
        "    assert box.check('def f(x): return x', 'assert f(1) == 2', ['f']).status == 'failed'\n"
        "    secret = os.path.join(os.getcwd(), 'secret')\n"
        "    open(secret, 'w').close()\n"
        "    for source in (f'open({secret!r})', f'import os; os.chmod({secret!r}, 0)',\n"
        "                   f'import os; os.kill({os.getpid()}, 9)', 'import os; os.fork()'):\n"
        "        result = box.run(source)\n"
        "        assert result.status == 'failed' and 'Error' in result.detail, result\n"
        "    thread = 'import threading\\nthreading.Thread(target=print).start()'\n"
        "    assert box.run(thread).passed\n"
        "print('done')\n"
    )
    interpreter = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
    if interpreter is None:
        pytest.skip("no interpreter that every user can read")
    folder = Path(tempfile.mkdtemp(prefix="ioa-test-"))
    try:
        # The package may lie where that user can't read it. The sandbox imports little of it.
        package = Path(ioa_jax.__file__).parent
        shutil.copytree(package / "sandbox", folder / "ioa_jax" / "sandbox")
        shutil.copy(package / "__init__.py", folder / "ioa_jax")
        shutil.copy(package / "errors.py", folder / "ioa_jax")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 12345, 12345)
        done = subprocess.run(
            [interpreter, "-c", script],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
            user=12345,
            group=12345,
            extra_groups=(),
            capture_output=True,
            text=True,
        )
        if "bwrap isn't installed" in done.stderr:
            pytest.skip("bwrap isn't installed")
        assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
    finally:
        shutil.rmtree(folder)


def test_jax_is_not_loaded_by_the_sandbox():
    script = "import sys\nimport ioa_jax.sandbox\nprint('jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def _needs_numpy(sandbox):
    """Skips where only another Python than this one can be read by every user."""
    version = ".".join(map(str, sys.version_info[:2]))
    if not sandbox.info.python.startswith(f"{version}."):
        assert not sandbox.info.packages
        pytest.skip(f"programs run with Python {sandbox.info.python}, numpy is there for {version}")


def test_numpy_is_there(sandbox):
    _needs_numpy(sandbox)
    source = "import numpy as np\ndef f(n): return int(np.linalg.det(np.eye(n) * 2).round())"
    assert sandbox.check(source, "assert f(3) == 8", ["f"]).passed
    assert any(one.startswith("numpy ") for one in sandbox.info.packages)


def test_exact_numbers_of_other_types_cross(sandbox):
    _needs_numpy(sandbox)
    source = (
        "from decimal import Decimal\nfrom fractions import Fraction\nimport numpy as np\n"
        "def f(): return [Fraction(3, 4), Decimal('1.50'), np.int64(7), np.bool_(True)]"
    )
    assert sandbox.check(source, "assert f() == [.75, 1.5, 7, True]", ["f"]).passed
    # An array is compared element by element, which is no verdict.
    array = "import numpy as np\ndef f(): return np.array([1, 2])"
    assert sandbox.check(array, "assert f() == [1, 2]", ["f"]).status == "failed"
    fake = (
        "class Fraction:\n    pass\nFraction.__module__ = 'fractions'\ndef f(): return Fraction()"
    )
    assert not sandbox.check(fake, "assert f() == 1", ["f"]).passed


def test_answers_of_several_megabytes_cross(sandbox):
    source = "def f(n): return [str(i) for i in range(n)]"
    assert sandbox.check(source, "assert len(f(400_000)) == 400_000", ["f"]).passed
