"""What is restored is what was saved, whatever became of the files."""

import logging
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.engine.checkpoint import Checkpoints
from ioa_jax.errors import InputError

# Of arrays that it fails to read, Orbax leaves coroutines that nobody awaits.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

STATE = {"weights": jnp.zeros((64, 48)), "count": jnp.int32(0)}


def state_at(step):
    weights = np.random.default_rng(step).normal(size=(64, 48)).astype(np.float32)
    return {"weights": jnp.asarray(weights), "count": jnp.int32(step)}


def open_at(directory, run="this run"):
    return Checkpoints(directory, run)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of steps 4 and 6."""
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = open_at(folder)
    for step in (2, 4, 6):
        checkpoints.save(step, state_at(step), {"step": step, "tokens": 10 * step})
    checkpoints.close()
    return folder


def files(folder):
    return sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path, *places):
    data = bytearray(path.read_bytes())
    for place in places:
        data[int(place * len(data))] ^= 0x10
    path.write_bytes(bytes(data))


def restored_step(folder):
    checkpoints = open_at(folder)
    state, data = checkpoints.restore(STATE)
    checkpoints.close()
    for name, value in state_at(data["step"]).items():
        np.testing.assert_array_equal(state[name], value)
    assert data["tokens"] == 10 * data["step"]
    return data["step"]


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "two flipped bytes": lambda folder: flip(files(folder)[-1], 0.4, 0.6),
    "a truncated file": lambda folder: cut(files(folder)[-1]),
    "an empty file": lambda folder: files(folder)[-1].write_bytes(b""),
    "arrays without their description": lambda folder: cut(folder / "state" / "_METADATA"),
    "another text": lambda folder: flip(folder / "data" / "_strings.json", 0.5),
    "no data": lambda folder: shutil.rmtree(folder / "data"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_the_newest_whole_checkpoint_is_restored(saved, tmp_path, caplog, damage):
    folder = shutil.copytree(saved, tmp_path / "a")
    assert restored_step(folder) == 6
    damage(folder / "6")
    with caplog.at_level(logging.WARNING, logger="ioa_jax"):
        assert restored_step(folder) == 4
    (told,) = [record.getMessage() for record in caplog.records if record.name.startswith("ioa")]
    assert told.startswith(f"{folder / '6'}: the checkpoint is damaged (")
    assert told.endswith("training goes on from that of step 4")
    # The step comes once more.
    checkpoints = open_at(folder)
    assert checkpoints.latest == 4
    checkpoints.save(6, state_at(6), {"step": 6, "tokens": 60})
    checkpoints.close()
    assert restored_step(folder) == 6


def test_any_flipped_bit_is_found_or_changes_nothing(saved, tmp_path):
    random = np.random.default_rng(0)
    for number in range(8):
        folder = shutil.copytree(saved, tmp_path / str(number))
        path = random.choice(np.array(files(folder / "6"), object))
        flip(path, random.random())
        # Compares the arrays.
        assert restored_step(folder) in (4, 6)


def test_without_a_whole_checkpoint_nothing_is_made_up(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "a")
    for step in ("4", "6"):
        flip(files(folder / step)[-1], 0.4, 0.6)
    with pytest.raises(InputError, match=r"no checkpoint is whole \(6: .*; 4: .*delete this dir"):
        restored_step(folder)
    # They may be of use to somebody.
    assert {path.name for path in folder.iterdir()} >= {"4", "6"}


def test_a_checkpoint_of_another_run_is_no_damaged_one(saved):
    checkpoints = open_at(saved, "another run")
    with pytest.raises(InputError, match="of a run with other data or settings"):
        checkpoints.restore(STATE)
    checkpoints.close()
