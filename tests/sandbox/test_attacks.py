"""What a hostile program may try. Where it is safe to show, the same attack works without defence.

The weak sandbox has the limits alone; `run` has program and tests in one process.
"""

import os
import socket
import time
import uuid
from pathlib import Path

import pytest

from ioa_jax.sandbox import Limits, Sandbox

SHORT = Limits(wall_seconds=20.0, cpu_seconds=1)


def refused(result):
    return result.status == "failed" and any(
        word in result.detail
        for word in ("PermissionError", "FileNotFoundError", "Operation not permitted")
    )


def test_reading_a_file(sandbox, weak, open_folder):
    secret = open_folder / "secret"
    secret.write_text("the secret")
    source = f"print(open({str(secret)!r}).read())"
    assert weak.run(source).stdout == "the secret\n"
    result = sandbox.run(source)
    assert refused(result)
    assert "secret" not in result.stdout
    for path in ("/etc/passwd", "/proc/self/environ", "/proc/1/environ"):
        assert refused(sandbox.run(f"open({path!r})")), path
    for path in ("/", "..", "/root", "/home", "/proc", "/tmp"):
        assert refused(sandbox.run(f"import os; os.listdir({path!r})")), path


def test_reading_through_a_link(sandbox, weak, open_folder):
    (open_folder / "secret").write_text("the secret")
    source = f"import os; os.symlink({str(open_folder / 'secret')!r}, 'l'); print(open('l').read())"
    assert weak.run(source).stdout == "the secret\n"
    assert refused(sandbox.run(source))


def test_reading_the_environment(weak, monkeypatch):
    monkeypatch.setenv("EXAMPLE_TOKEN", "secret-token")
    source = (
        "import os\n"
        "print(dict(os.environ))\n"
        "for pid in ['self', '1', str(os.getppid())]:\n"
        "    try: print(open(f'/proc/{pid}/environ').read())\n"
        "    except OSError as error: print(type(error).__name__)\n"
    )
    with Sandbox(backend="landlock+seccomp") as box:
        result = box.run(source)
        assert result.stdout.count("PermissionError") == 3
        assert "secret-token" not in result.stdout
        names = {"PYTHONHASHSEED", "OPENBLAS_NUM_THREADS", "LC_CTYPE"}
        allowed = f"import os\nassert set(os.environ) <= {names}, os.environ"
        assert box.run(allowed).passed


def test_writing_and_deleting_outside(sandbox, weak, open_folder):
    victim, made = open_folder / "victim", open_folder / "made"
    victim.write_text("here")
    victim.chmod(0o666)
    attacks = {
        "write": f"open({str(victim)!r}, 'w').write('gone')",
        "delete": f"import os; os.unlink({str(victim)!r})",
        "rename": f"import os; os.rename({str(victim)!r}, {str(made)!r})",
        "truncate": f"import os; os.truncate({str(victim)!r}, 0)",
        "make": f"open({str(made)!r}, 'w').close()",
        "directory": f"import os; os.mkdir({str(made)!r})",
    }
    for name, source in attacks.items():
        assert refused(sandbox.run(source)), name
        assert os.listdir(open_folder) == ["victim"]
        assert victim.read_text() == "here"
    assert weak.run(attacks["write"]).passed
    assert victim.read_text() == "gone"
    assert weak.run(attacks["make"]).passed
    assert made.exists()
    assert weak.run(attacks["delete"]).passed
    assert not victim.exists()


def test_changing_what_landlock_does_not_govern(sandbox, weak):
    for call in ("os.chmod('f', 0o777)", "os.utime('f')", "os.setxattr('f', 'user.a', b'')"):
        source = f"import os\nopen('f', 'w').close()\n{call}"
        assert refused(sandbox.run(source)), call
    assert weak.run("import os\nopen('f', 'w').close()\nos.chmod('f', 0o777)").passed


def test_network(sandbox, weak):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        port = server.getsockname()[1]
        source = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 5).send(b'x')"
        assert refused(sandbox.run(source))
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
        server.settimeout(20)
        assert weak.run(source).passed
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1) == b"x"


def test_unix_sockets(sandbox, weak, open_folder):
    path = str(open_folder / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        os.chmod(path, 0o777)
        server.setblocking(False)
        for kind in ("SOCK_DGRAM", "SOCK_SEQPACKET", "SOCK_STREAM"):
            source = (
                f"import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.{kind})\n"
                f"a.sendto(b'x', {path!r})"
            )
            assert not sandbox.run(source).passed, kind
        with pytest.raises(BlockingIOError):
            server.recv(1)
        source = (
            "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            f"a.sendto(b'x', {path!r})"
        )
        assert weak.run(source).passed
        assert server.recv(1) == b"x"


def test_killing_the_parent(sandbox, weak):
    source = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"
    # Where it works, both attempts take the server with them; and the next finds a new one.
    assert weak.run(source).status == "infra_error"
    assert weak.run("pass").passed
    result = sandbox.run(source)
    assert refused(result), result
    for target in ("0", "-1", "1"):
        assert refused(sandbox.run(f"import os\nos.kill({target}, 9)")), target
    # By the owner of a descriptor, which gets its signals.
    assert refused(
        sandbox.run(
            "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())"
        )
    )
    own = "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)"
    assert "SIGTERM" in sandbox.run(own).detail


def test_tracing_the_parent(sandbox):
    attach = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "print(libc.ptrace(16, os.getppid(), 0, 0), ctypes.get_errno())\n"
        "print(libc.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0), ctypes.get_errno())"
    )
    assert sandbox.run(attach).stdout == "-1 1\n-1 1\n"


def test_other_calls_are_not_there(sandbox):
    # By number on x86_64 and aarch64: io_uring_setup, unshare, mount, keyctl, bpf, memfd_create.
    numbers = {
        "x86_64": (425, 272, 165, 250, 321, 319),
        "aarch64": (425, 97, 40, 219, 280, 279),
    }[os.uname().machine]
    source = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"for n in {numbers}: print(libc.syscall(n, 0, 0, 0, 0, 0), ctypes.get_errno())"
    )
    assert sandbox.run(source).stdout == "-1 1\n" * len(numbers)


def test_fork_bomb(sandbox, weak):
    source = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    for _ in range(200):\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(2)\n"
        "            os._exit(0)\n"
        "        made += 1\n"
        "finally:\n"
        "    print(made, flush=True)\n"
    )
    result = sandbox.run(source)
    assert refused(result)
    assert result.stdout == "0\n"
    assert int(weak.run(source).stdout) > 10
    for name in ("posix_spawn('/bin/true', ['true'], {})", "execv('/bin/true', ['true'])"):
        assert refused(sandbox.run(f"import os\nos.{name}")), name


def test_thread_bomb(sandbox):
    source = (
        "import threading\nstop = threading.Event()\nmade = 0\n"
        "try:\n    for _ in range(1000):\n"
        "        threading.Thread(target=stop.wait, daemon=True).start()\n        made += 1\n"
        "finally:\n    print(made, flush=True)\n"
    )
    limits = Limits(memory_bytes=64 << 30, processes=32)
    result = sandbox.run(source, limits)
    assert "can't start new thread" in result.detail
    assert 20 < int(result.stdout) < 900
    few = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool: print(sum(pool.map(abs, range(10))))"
    )
    assert sandbox.run(few).stdout == "45\n"


def test_memory_bomb(sandbox):
    source = "x = bytearray(300 << 20)"
    result = sandbox.run(source, Limits(memory_bytes=256 << 20))
    assert result.status == "memory"
    assert sandbox.run(source, Limits(memory_bytes=512 << 20)).passed
    called = "def f(): return len(bytearray(300 << 20))"
    test = "try: f()\nexcept Exception: pass"
    assert sandbox.check(called, test, ["f"], Limits(memory_bytes=256 << 20)).status == "memory"


def test_endless_loop(sandbox):
    result = sandbox.run("while True: pass", SHORT)
    assert result.status == "timeout"
    assert "processor time" in result.detail
    assert 0.4 < result.cpu_seconds < 3
    ignoring = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    assert sandbox.run(ignoring, SHORT).status == "timeout"
    assert sandbox.check("def f():\n  while True: pass", "f()", ["f"], SHORT).status == "timeout"


def test_endless_sleep(sandbox):
    limits = Limits(wall_seconds=1.0)
    for result in (
        sandbox.run("import time; time.sleep(60)", limits),
        sandbox.check("import time; time.sleep(60)", "f()", ["f"], limits),
        sandbox.check("import time\ndef f(): time.sleep(60)", "f()", ["f"], limits),
    ):
        assert result.status == "timeout"
        assert "wall time" in result.detail
        assert 1.0 <= result.wall_seconds < 20


def test_time_is_a_budget_for_all_calls(sandbox):
    source = "import time\ndef f(): time.sleep(0.3)"
    test = "for _ in range(50): f()"
    assert sandbox.check(source, test, ["f"], Limits(wall_seconds=1.5)).status == "timeout"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_endless_output(sandbox, stream):
    source = f"import sys\nwhile True: sys.{stream}.write('x' * 1000)"
    result = sandbox.run(source, Limits(output_bytes=5000))
    assert result.status == "output_limit"
    assert len(getattr(result, stream)) == 5000
    last = "import os\nos.write(1, b'x' * 6000)"
    assert sandbox.run(last, Limits(output_bytes=5000)).status == "output_limit"
    assert sandbox.run(last, Limits(output_bytes=7000)).passed
    called = "def f(): print('x' * 6000)"
    assert sandbox.check(called, "f()", ["f"], Limits(output_bytes=5000)).status == "output_limit"


def test_answers_that_cannot_be_shown(sandbox):
    test = "assert f() == 5, f()"
    for value in ("1 << 200000", "'\\ud800' * 5000", "[[[1 << 20000]]]"):
        result = sandbox.check(f"def f(): return {value}", test, ["f"])
        assert result.status == "failed", result
        assert result.detail.startswith("AssertionError")
    deep = "def f():\n    x = []\n    for _ in range(60): x = [x, x][:1]\n    return x"
    assert sandbox.check(deep, test, ["f"]).status == "failed"


def test_endless_answers(sandbox):
    result = sandbox.check("def f(): return 'x' * (17 << 20)", "f()", ["f"])
    assert result.status == "output_limit"
    assert "returned" in result.detail
    deep = "def f():\n    x = []\n    for _ in range(100000): x = [x]\n    return x"
    assert "nested deeper" in sandbox.check(deep, "f()", ["f"]).detail
    endless = "def f():\n    while True: yield 1"
    assert sandbox.check(endless, "list(f())", ["f"], SHORT).status == "output_limit"


def test_files_without_end(sandbox):
    assert "File too large" in sandbox.run("open('f', 'wb').write(b'x' * (9 << 20))").detail
    many = "for i in range(20000): open(str(i), 'w').close()\nimport time; time.sleep(5)"
    result = sandbox.run(many)
    assert "No space" in result.detail or result.status == "output_limit"
    large = (
        "for i in range(12): open(str(i), 'wb').write(b'x' * (8 << 20))\nimport time; time.sleep(5)"
    )
    result = sandbox.run(large)
    assert "No space" in result.detail or result.status == "output_limit"
    assert sandbox.run("open('f', 'wb').write(b'x' * (7 << 20))").passed


@pytest.mark.parametrize(
    ("early", "detail"),
    [
        ("import os; os._exit(0)", "exited with 0 before its end"),
        ("import os; os._exit(70)", "exited with 70 before its end"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("import sys; sys.exit()", "SystemExit"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import os; os.closerange(3, 200)", ""),
    ],
)
def test_early_end(sandbox, early, detail):
    at_once = sandbox.check(early, "f()", ["f"])
    called = sandbox.check(f"def f(): {early}", "try: f()\nexcept BaseException: raise", ["f"])
    for result in (at_once, called):
        assert result.status == "failed"
        assert detail in result.detail
    if "closerange" not in early:
        alone = sandbox.run(early)
        assert alone.status == "failed"
        assert detail in alone.detail


EQUAL = (
    "class Equal:\n"
    "    def __eq__(self, other): return True\n"
    "    def __ne__(self, other): return False\n"
    "    def __bool__(self): return True\n"
    "    def __hash__(self): return 0\n"
    "    def __lt__(self, other): return True\n"
    "    __gt__ = __le__ = __ge__ = __lt__\n"
)


@pytest.mark.parametrize("base", ["", "(int)", "(list)", "(str)", "(float)"])
@pytest.mark.parametrize(
    "test",
    [
        "assert f(2) == 5",
        "assert not f(2) != 5",
        "assert f(2) > 4 and f(2) < 6",
        "assert 5 == f(2)",
    ],
)
def test_objects_that_equal_everything(sandbox, base, test):
    source = EQUAL.replace("Equal:", f"Equal{base}:") + "def f(x): return Equal()"
    assert sandbox.run(f"{source}\n{test}").passed
    assert sandbox.check(source, test, ["f"]).status == "failed"
    nested = source.replace("return Equal()", "return [Equal()]")
    assert sandbox.check(nested, "assert f(2) == [5]", ["f"]).status == "failed"


def test_walking_frames(sandbox):
    source = (
        "import sys\n"
        "def f(x):\n"
        "    frame = sys._getframe()\n"
        "    while frame is not None:\n"
        "        for scope in (frame.f_locals, frame.f_globals):\n"
        "            if 'expected' in scope: return scope['expected']\n"
        "        frame = frame.f_back\n"
    )
    test = "expected = 31415\nassert f(2) == expected"
    assert sandbox.run(f"{source}\n{test}").passed
    result = sandbox.check(source, test, ["f"])
    assert result.status == "failed"
    assert "AssertionError" in result.detail


def test_replacing_what_the_tests_use(sandbox):
    source = (
        "import builtins, math\n"
        "builtins.abs = lambda x: 0\nmath.isclose = lambda *a: True\n"
        "def f(x): return 0"
    )
    test = "import math\nassert abs(f(2) - 5) < 1 and math.isclose(f(2), 5)"
    assert sandbox.run(f"{source}\n{test}").passed
    assert sandbox.check(source, test, ["f"]).status == "failed"


def answer(text):
    return f"import os\nd = {text!r}.encode()\nos.write(3, len(d).to_bytes(4, 'big') + d)\n"


@pytest.mark.parametrize(
    "attack",
    [
        "import os\nfor d in range(3, 60):\n"
        "    try: os.write(d, b'x' * 20)\n    except OSError: pass\n",
        answer('{"id": 1, "value": 5}'),
        answer('{"ready": true}') + answer('{"id": 1, "value": 5}'),
        answer('{"ready": true}') * 2,
        answer("[" * 100000),
        answer('{"ready": true, "passed": true}'),
        answer("null"),
        "import os\nos.write(3, b'\\xff' * 4)\n",
    ],
)
def test_writing_to_descriptors(sandbox, attack):
    result = sandbox.check(f"{attack}\ndef f(x): return 4", "assert f(2) == 5", ["f"])
    assert result.status == "forged", result
    body = attack.replace("\n", "\n    ")
    inside = sandbox.check(f"def f(x):\n    {body}\n    return 5", "assert f(2) == 5", ["f"])
    assert inside.status == "forged", inside
    assert sandbox.run(attack).status == "forged"


@pytest.mark.parametrize(
    "value",
    [
        '{"unknown": 1}', '{"object": "x"}', '{"int": 5}', '{"set": [[]]}', '{"dict": [[1]]}',
        '{"tuple": 5}', '{"bytes": "zz"}', '{"complex": ["a", "b"]}', "{}", '{"set": [], "int": 1}',
    ],
)  # fmt: skip
def test_answers_that_are_not_values(sandbox, value):
    body = answer('{"id": 1, "value": VALUE}'.replace("VALUE", value)).replace("\n", "\n    ")
    source = f"def f(x):\n    {body}\n    os._exit(0)"
    result = sandbox.check(source, "assert f(2) == 5", ["f"])
    assert result.status == "forged", result


def test_leaving_a_process(sandbox, weak):
    source = (
        "import os, time\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.setsid()\n"
        "    for d in range(64):\n"
        "        try: os.close(d)\n"
        "        except OSError: pass\n"
        "    time.sleep(5)\n"
        "    os._exit(0)\n"
        "time.sleep(0.3)\n"
        "print(pid)\n"
    )
    assert refused(sandbox.run(source))
    left = weak.run(source).stdout.strip()
    assert Path(f"/proc/{left}").exists()


def test_leaving_a_file(sandbox, weak):
    name = f"ioa-left-{uuid.uuid4().hex}"
    leave = (
        "made = []\n"
        f"for place in ('.', '..', '/tmp', '/var/tmp', '/dev/shm', '/run', '/'):\n"
        f"    try:\n        open(place + '/{name}', 'w').close()\n        made.append(place)\n"
        "    except OSError: pass\n"
        "print(made)\n"
    )
    find = (
        f"import os\nprint([p for p in ('.', '..', '/tmp', '/dev/shm') "
        f"if os.path.exists(p + '/{name}')])"
    )
    assert sandbox.run(leave).stdout == "['.']\n"
    assert sandbox.run(find).stdout == "[]\n"
    try:
        assert "/tmp" in weak.run(leave).stdout
        assert "/tmp" in weak.run(find).stdout
    finally:
        for place in ("/tmp", "/var/tmp", "/dev/shm"):
            # Not missing_ok: a place that is read-only as a whole has another error.
            if Path(place, name).exists():
                Path(place, name).unlink()


def test_what_a_program_locks_is_removed_all_the_same(sandbox):
    source = "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').close()\nos.mkdir('d', 0)"
    assert sandbox.run(source).passed
    assert sandbox.run("import os\nassert os.listdir('.') == []").passed


def test_deep_and_locked_folders(sandbox):
    deep = "import os\nfor _ in range(3000):\n    os.mkdir('d')\n    os.chdir('d')"
    for _ in range(2):
        assert sandbox.run(deep).status in ("passed", "output_limit")
    # Where nobody can look, files count all the same.
    locked = (
        "import os, time\nos.mkdir('d', 0o300)\nos.chdir('d')\n"
        "for i in range(12): open(str(i), 'wb').write(b'x' * (8 << 20))\ntime.sleep(5)"
    )
    result = sandbox.run(locked)
    assert "No space" in result.detail or result.status == "output_limit"
    assert sandbox.run("import os\nassert os.listdir('.') == []").passed


def test_a_program_changes_nothing_for_the_next(sandbox):
    assert sandbox.run("import builtins, math\nbuiltins.sum = math.pi = None").passed
    assert sandbox.run("import math\nassert sum([1, 2]) == 3 and math.pi > 3").passed


def test_nothing_runs_on(sandbox):
    marker = f"thread-{uuid.uuid4().hex}"
    source = (
        "import threading, time\n"
        f"threading.Thread(target=time.sleep, args=(60,), name={marker[:15]!r}).start()\n"
        "def f(): return 1"
    )
    assert sandbox.check(source, "assert f() == 1", ["f"]).passed
    time.sleep(0.2)
    assert sandbox.check(source, "assert f() == 1", ["f"]).wall_seconds < 20
