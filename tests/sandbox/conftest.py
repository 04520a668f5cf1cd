"""Sandboxes to attack: one of every backend that works here, and the weak one to compare with."""

import shutil
from pathlib import Path

import pytest

from ioa_jax.errors import SandboxError
from ioa_jax.sandbox import Sandbox, processes, workers
from ioa_jax.sandbox.base import JAILED, STRONG, WEAK

# As in a container that allows no namespaces.
UNNAMED = "landlock+seccomp, no namespaces"


@pytest.fixture(scope="session", params=[*STRONG, UNNAMED])
def sandbox(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        backend = request.param
        if backend == UNNAMED:
            backend = "landlock+seccomp"
            folder = tmp_path_factory.mktemp("workers") / "workers"
            shutil.copytree(Path(workers.__file__).parent, folder)
            module = folder / "isolation.py"
            text = module.read_text()
            assert "self._libc.unshare(flags)" in text
            module.write_text(text.replace("self._libc.unshare(flags)", "-1"))
            patch.setattr(workers, "__file__", str(folder / "__init__.py"))
        try:
            box = Sandbox(backend=backend)
        except SandboxError as error:
            if backend == JAILED and "bwrap" in str(error):
                pytest.skip(str(error))
            raise
        with box:
            assert box.run("pass").passed
            yield box


@pytest.fixture(scope="session")
def weak():
    """Without the defences: only limits, and another user if this is root."""
    with Sandbox(backend=WEAK, allow_weak=True) as box:
        yield box


@pytest.fixture
def open_folder(tmp_path_factory):
    """A folder that every user may write to."""
    path = Path(processes.tempfile.mkdtemp(prefix="ioa-test-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)
