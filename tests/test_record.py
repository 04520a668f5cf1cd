import json
import os
import platform
import shutil
import subprocess

import jax
import pytest

from ioa_jax import record
from ioa_jax.streams import stream


def test_environment_is_json_and_true(monkeypatch):
    monkeypatch.setenv("JAX_EXAMPLE", "1")
    monkeypatch.setenv("EXAMPLE_TOKEN", "secret")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/secret/place")
    found = record.environment()
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["jax"] == jax.__version__
    assert found["python"] == platform.python_version()
    assert found["devices"] == {"platform": "cpu", "kind": "cpu", "count": len(jax.devices())}
    assert found["variables"]["JAX_EXAMPLE"] == "1"
    assert found["variables"]["XLA_FLAGS"] == os.environ["XLA_FLAGS"]
    assert "secret" not in json.dumps(found)
    assert 1 <= found["cpu"]["cores"] <= os.cpu_count()


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder, *arguments):
    subprocess.run(
        ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments],
        check=True,
        capture_output=True,
    )


@needs_git
def test_checkout_is_dirty_after_a_change(tmp_path, monkeypatch):
    assert record._git(tmp_path) is None
    git(tmp_path, "init")
    # Before the first commit there is no revision to name.
    assert record._git(tmp_path) is None
    file = tmp_path / "file"
    file.write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    clean = record._git(tmp_path)
    assert clean is not None
    assert len(clean["revision"]) == 40
    assert clean["dirty"] is False
    file.write_text("2")
    assert record._git(tmp_path) == {**clean, "dirty": True}


def test_no_git_to_ask(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record._git(tmp_path) is None


def test_outside_an_image_there_is_none(monkeypatch):
    monkeypatch.delenv("IOA_IMAGE_TARGET", raising=False)
    monkeypatch.setenv("IOA_IMAGE_ID", "sha256:abc")
    assert record.environment()["image"] is None


def test_an_image_says_what_its_files_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "_ROOT", tmp_path)
    for name, value in {
        "IOA_IMAGE_TARGET": "cpu",
        "IOA_IMAGE_ID": "sha256:abc",
        "IOA_IMAGE_DIGEST": "",
        "IOA_REVISION": "f00-dirty",
        "IOA_LOCK_SHA256": "123",
    }.items():
        monkeypatch.setenv(name, value)
    found = record.environment()
    assert found["image"] == {"target": "cpu", "id": "sha256:abc", "digest": None}
    assert found["git"] == {"revision": "f00", "dirty": True}
    assert found["lock_sha256"] == "123"
    monkeypatch.setenv("IOA_REVISION", "f00")
    assert record.environment()["git"] == {"revision": "f00", "dirty": False}


def test_streams_depend_on_seed_and_purpose_alone():
    first = stream(3, "split", "a").integers(1 << 40, size=4).tolist()
    stream(3, "other").integers(5)
    assert stream(3, "split", "a").integers(1 << 40, size=4).tolist() == first
    for other in (stream(4, "split", "a"), stream(3, "split", "b"), stream(3, "splita")):
        assert other.integers(1 << 40, size=4).tolist() != first


@pytest.mark.parametrize("purpose", [("a", "b"), ("ab",), ("a", 1), ("a", "1")])
def test_purposes_are_told_apart(purpose):
    others = {("a", "b"), ("ab",), ("a", 1), ("a", "1")} - {purpose}
    own = int(stream(0, *purpose).integers(1 << 60))
    assert own not in {int(stream(0, *other).integers(1 << 60)) for other in others}
