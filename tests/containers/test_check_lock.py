"""Looking a lock up in an index, here one that this process serves."""

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "containers" / "check_lock.py"
GOOD, BAD = "a" * 64, "b" * 64
WHEEL = "some_thing-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"
OTHER = "some_thing-1.0-cp312-cp312-manylinux_2_28_x86_64.whl"
SOURCE = "some_thing-1.0.tar.gz"


@pytest.fixture
def index():
    """Its address, and the files that it lists: name to hash and size."""
    files: dict[str, tuple[str, int]] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            listed = [
                {"filename": name, "url": f"../files/{name}", "hashes": {"sha256": sha}, "size": n}
                for name, (sha, n) in files.items()
            ]
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
            self.end_headers()
            self.wfile.write(json.dumps({"files": listed}).encode())

        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", "7")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple", files
        server.shutdown()


def check(index: str, lock: Path):
    process = subprocess.run(
        [sys.executable, SCRIPT, lock],
        env={"PIP_INDEX_URL": index, "no_proxy": "*"},
        capture_output=True,
        text=True,
    )
    return process.returncode, process.stdout, process.stderr


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({WHEEL: (GOOD, 7)}, None),
        ({OTHER: (BAD, 7), WHEEL: (GOOD, 7)}, None),
        ({WHEEL: (BAD, 7)}, "no file for this machine under a locked hash"),
        ({OTHER: (GOOD, 7)}, "no file for this machine under a locked hash"),
        ({SOURCE: (GOOD, 7)}, "no file for this machine under a locked hash"),
        ({}, "no file for this machine under a locked hash"),
        ({WHEEL: (GOOD, 8)}, "7 bytes, not 8"),
    ],
)
def test_package_in_the_index(index, tmp_path, files, message):
    address, listed = index
    listed.update(files)
    lock = tmp_path / "some.lock"
    lock.write_text(
        f"some-thing==1.0 \\\n    --hash=sha256:{GOOD}\n    # via other\n"
        f"else==2.0 ; sys_platform == 'win32' \\\n    --hash=sha256:{GOOD}\n"
    )
    code, out, error = check(address, lock)
    assert code == (0 if message is None else 1)
    # Windows' package isn't looked for.
    assert out == f"{0 if message else 1} of 1 packages are in the index\n"
    assert (message or "") in error


def test_no_index(tmp_path):
    lock = tmp_path / "some.lock"
    lock.write_text(f"some-thing==1.0 \\\n    --hash=sha256:{GOOD}\n")
    code, _, error = check("http://127.0.0.1:9/simple", lock)
    assert code == 1
    assert "some-thing 1.0: " in error
    assert "refused" in error
