"""The sandbox runs real processes here; nothing is faked."""

import os
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest

from ioa_jax.errors import SandboxError
from ioa_jax.sandbox import launcher, subprocess
from ioa_jax.sandbox.subprocess import Limits, run_program

QUICK = Limits(wall_seconds=10.0, cpu_seconds=1)


def test_passed():
    result = run_program("print('out')\nimport sys\nprint('err', file=sys.stderr)")
    assert (result.status, result.detail, result.exit_code) == ("passed", "", 0)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert 0 < result.cpu_seconds < 5
    assert "no_network" in result.isolation
    assert ("uid:65534" in result.isolation) == (os.geteuid() == 0)


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ("assert 1 == 2, 'one is not two'", "AssertionError: one is not two"),
        ("x = (", "SyntaxError"),
        ("import os; os._exit(0)", "exited with 0 before its end"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "killed by SIGTERM"),
        # Whoever fills the verdict's pipe hasn't shown the nonce.
        (
            "import os\nfor fd in range(3, 60):\n  try: os.write(fd, b'x')\n  except OSError: pass",
            "",
        ),
        ("def f(): return f()\nf()", "RecursionError"),
    ],
)
def test_failed(source, detail):
    result = run_program(source, QUICK)
    assert result.status == "failed"
    assert detail in result.detail
    assert not result.passed


def test_processor_time_ends_a_loop_before_the_wall_does():
    result = run_program("while True: pass", QUICK)
    assert result.status == "timeout"
    assert "processor time" in result.detail
    assert 0.9 < result.cpu_seconds < 3


def test_ignoring_the_signal_does_not_help():
    source = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    assert run_program(source, QUICK).status == "timeout"


def test_wall_time_ends_a_sleep_with_all_its_processes(tmp_path):
    marker = f"sleeper-{os.getpid()}"
    source = (
        "import os, time\n"
        f"if os.fork() == 0: os.execv('/bin/sleep', ['{marker}', '60'])\n"
        "time.sleep(60)"
    )
    result = run_program(source, Limits(wall_seconds=1.5))
    assert result.status == "timeout"
    assert "wall time" in result.detail
    assert 1.4 < result.wall_seconds < 10
    time.sleep(0.2)
    commands = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert not any(marker.encode() in command for command in commands)


def test_a_child_that_holds_the_pipes_does_not_hold_the_verdict():
    source = "import os, time\nif os.fork() == 0: os.execv('/bin/sleep', ['sleep', '60'])\n"
    result = run_program(source, Limits(wall_seconds=20.0))
    assert result.passed
    assert result.wall_seconds < 10


def test_memory():
    source = "x = bytearray(300 << 20)"
    assert run_program(source, Limits(memory_bytes=256 << 20)).status == "memory"
    assert run_program(source, Limits(memory_bytes=512 << 20)).passed


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_limit(stream):
    source = f"import sys\nwhile True: sys.{stream}.write('x' * 1000)"
    result = run_program(source, Limits(output_bytes=5000))
    assert result.status == "output_limit"
    assert len(getattr(result, stream)) == 5000


def test_output_limit_counts_what_came_just_before_the_end():
    source = "import os\nos.write(1, b'x' * 6000)"
    assert run_program(source, Limits(output_bytes=5000)).status == "output_limit"
    assert run_program(source, Limits(output_bytes=7000)).passed


def test_files_are_limited_and_gone_afterwards():
    assert "File too large" in run_program("open('f', 'wb').write(b'x' * (9 << 20))").detail
    before = set(os.listdir(tempfile.gettempdir()))
    source = "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').close()\nos.chmod('a', 0)"
    assert run_program(source).passed
    assert run_program("import os\nassert os.listdir('.') == []").passed
    left = set(os.listdir(tempfile.gettempdir())) - before
    assert not [name for name in left if name.startswith("ioa-program-")]


def test_processes_are_limited():
    source = (
        "import os, time\nfor _ in range(100):\n    if os.fork() == 0: time.sleep(5); os._exit(0)"
    )
    assert "Resource temporarily unavailable" in run_program(source).detail


def test_environment_is_empty(monkeypatch):
    monkeypatch.setenv("EXAMPLE_TOKEN", "secret")
    # The C locale's coercion to UTF-8 is Python's own.
    source = "import os\nassert set(os.environ) <= {'PYTHONHASHSEED', 'LC_CTYPE'}, os.environ"
    assert run_program(source).passed
    parent = "import os\nprint(open(f'/proc/{os.getppid()}/environ').read())"
    result = run_program(parent)
    assert "secret" not in result.stdout
    if os.geteuid() == 0:
        assert "PermissionError" in result.detail


def test_input_is_empty():
    assert run_program("import sys\nassert sys.stdin.read() == ''").passed


def test_hashes_are_the_same_each_time():
    source = "print(hash('a'), list({str(i) for i in range(20)}))"
    assert run_program(source).stdout == run_program(source).stdout


def test_network_is_cut_off():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        port = server.getsockname()[1]
        source = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 5).send(b'x')"
        refused = run_program(source)
        assert refused.status == "failed"
        assert "unreachable" in refused.detail
        assert "no_network" in refused.isolation
        allowed = run_program(source, allow_network=True)
        assert allowed.passed
        assert "no_network" not in allowed.isolation
        connection, _ = server.accept()
        assert connection.recv(1) == b"x"
        connection.close()


def test_refuses_where_the_network_cannot_be_cut_off(monkeypatch, tmp_path):
    # A launcher on a system that has no such call.
    text = Path(launcher.__file__).read_text()
    assert "libc.unshare(" in text
    broken = tmp_path / "launcher.py"
    broken.write_text(text.replace("libc.unshare(", "libc.setns(-1, "))
    monkeypatch.setattr(launcher, "__file__", str(broken))
    subprocess._interpreter()
    with pytest.raises(SandboxError, match="allow_network=True"):
        run_program("pass")
    assert run_program("pass", allow_network=True).passed


def test_a_launcher_that_breaks_says_nothing_about_the_program(monkeypatch, tmp_path):
    subprocess._interpreter()
    broken = tmp_path / "launcher.py"
    broken.write_text("raise ImportError('half installed')")
    monkeypatch.setattr(launcher, "__file__", str(broken))
    result = run_program("pass")
    assert result.status == "infra_error"
    assert "half installed" in result.detail


def test_no_usable_interpreter(monkeypatch):
    monkeypatch.setattr(subprocess.sys, "executable", "/bin/false")
    monkeypatch.setattr(subprocess.shutil, "which", lambda *args, **options: "/bin/true")
    subprocess._interpreter.cache_clear()
    try:
        with pytest.raises(SandboxError, match="tried /bin/false, /bin/true"):
            run_program("pass")
    finally:
        subprocess._interpreter.cache_clear()


def test_program_is_not_main():
    source = "if __name__ == '__main__': raise SystemExit('demonstration')"
    assert run_program(source).passed
    dataclass = (
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int\nassert A(1).x == 1"
    )
    assert run_program(dataclass).passed


def test_privileges_are_gone():
    source = (
        "import os\n"
        "status = dict(l.split(':', 1) for l in open('/proc/self/status'))\n"
        "assert int(status['CapEff'], 16) == 0, status['CapEff']\n"
        "assert status['NoNewPrivs'].strip() == '1'\n"
        "assert os.getuid() != 0"
    )
    assert run_program(source).detail == ""


def test_programs_run_side_by_side():
    results = {}

    def run(number):
        results[number] = run_program(f"print({number})")

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {n: r.stdout for n, r in results.items()} == {n: f"{n}\n" for n in range(4)}
    assert all(result.passed for result in results.values())


def test_no_descriptors_are_left_open():
    run_program("pass")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        run_program("pass")
    assert len(os.listdir("/proc/self/fd")) == before
