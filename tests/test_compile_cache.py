"""Compiled programs are kept for the next process, in a folder of the user's, by default."""

import os
import subprocess
import sys

import pytest

from ioa_jax.compile_cache import use_compile_cache

VARIABLES = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_COMPILATION_CACHE_MAX_SIZE",
    "JAX_ENABLE_COMPILATION_CACHE",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache directory of a user's, and an environment that says nothing of caches."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that what is set below is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_next_process_reads_what_one_compiled(home):
    program = (
        "from ioa_jax.compile_cache import use_compile_cache\n"
        "use_compile_cache()\n"
        "import jax\n"
        "from jax._src import monitoring\n"
        "events = []\n"
        "monitoring.register_event_listener(lambda event, **_: events.append(event))\n"
        "jax.jit(lambda x: x * 3 + 1)(2.0)\n"
        "print(events.count('/jax/compilation_cache/cache_hits'))\n"
    )
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    hits = [
        int(subprocess.check_output([sys.executable, "-c", program], text=True, env=environment))
        for _ in range(2)
    ]
    assert hits[0] == 0 < hits[1]
    assert [*home.glob("ioa-jax/compiled/*/*-cache")]


def test_what_the_user_says_has_precedence(home, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    use_compile_cache()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"
    assert "JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ
    use_compile_cache(on=False)
    assert os.environ["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    assert not [*home.iterdir()]


def test_it_is_bounded_and_kept_apart_by_machine(home, monkeypatch):
    use_compile_cache()
    assert 0 < int(os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"]) <= 2 * 1024**3
    (first,) = home.glob("ioa-jax/compiled/*")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setattr("platform.machine", lambda: "another")
    use_compile_cache()
    assert len([*home.glob("ioa-jax/compiled/*")]) == 2
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] != str(first)


def test_there_is_none_where_no_folder_can_be_made(home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    use_compile_cache()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
