"""The Containerfile and the locks, without building anything."""

import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "containers"
LOCKS = FOLDER / "locks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(lock: str) -> dict[str, str]:
    """Version by package; every one has to have a hash."""
    text = (LOCKS / lock).read_text()
    blocks = re.findall(r"^([a-z0-9.-]+)==(\S+)(.*(?:\n {4}.*)*)", text, re.MULTILINE)
    assert len(blocks) == len(re.findall("==", re.sub(" ;.*|#.*", "", text)))
    for name, _, rest in blocks:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", rest), f"{lock}: {name} has no hash"
    return {name: version for name, version, _ in blocks}


def requirements(*names: str) -> list[str]:
    lines = [line for name in names for line in (LOCKS / name).read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


INPUTS = {
    "base.lock": PROJECT["dependencies"],
    "test.lock": PROJECT["dependencies"] + requirements("test.in"),
    "docs.lock": PROJECT["dependencies"] + requirements("docs.in"),
    "types.lock": PROJECT["dependencies"] + requirements("test.in", "types.in"),
    "cuda.lock": PROJECT["dependencies"] + PROJECT["optional-dependencies"]["cuda"],
    "tpu.lock": PROJECT["dependencies"] + PROJECT["optional-dependencies"]["tpu"],
    "container.lock": requirements("container.in"),
    "lint.lock": requirements("lint.in"),
    "build.lock": requirements("build.in"),
    "smollm2.lock": requirements("smollm2.in"),
}


def test_every_lock_has_its_inputs():
    assert {path.name for path in LOCKS.glob("*.lock")} == set(INPUTS)


@pytest.mark.parametrize("lock", INPUTS)
def test_lock_matches_its_inputs(lock):
    locked = pins(lock)
    for text in INPUTS[lock]:
        wanted = Requirement(text)
        name = canonicalize_name(wanted.name)
        assert name in locked, f"{lock} lacks {name}: run containers/lock.sh"
        assert wanted.specifier.contains(locked[name], prereleases=True), (
            f"{lock} has {name} {locked[name]}, {text} is asked for: run containers/lock.sh"
        )


@pytest.mark.parametrize("lock", ["test.lock", "docs.lock", "types.lock", "cuda.lock", "tpu.lock"])
def test_locks_agree(lock):
    base, other = pins("base.lock"), pins(lock)
    assert {name: other.get(name) for name in base} == base


def test_the_image_is_tested_with_the_same_packages():
    assert pins("container.lock").items() <= pins("test.lock").items()


def test_devices_have_their_plugin_and_tests_their_packages():
    base = pins("base.lock")
    assert "jax-cuda13-plugin" in pins("cuda.lock").keys() - base
    assert "libtpu" in pins("tpu.lock").keys() - base
    assert "pytest" in pins("test.lock").keys() - base


def test_images_lock_is_up_to_date():
    images = json.loads((FOLDER / "images.lock.json").read_text())
    refreshed = runpy.run_path(str(FOLDER / "images_lock.py"))["refreshed"]
    assert refreshed(images) == images, (
        "run containers/lock.sh, or python containers/images_lock.py"
    )


def test_no_from_is_unpinned():
    images = json.loads((FOLDER / "images.lock.json").read_text())
    text = (FOLDER / "Containerfile").read_text()
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE))
    assert arguments["BASE_IMAGE"] == images["base"]["image"]
    assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", images["base"]["image"])
    stages = set()
    for source, stage in re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE):
        assert source == "${BASE_IMAGE}" or source in stages, source
        stages.add(stage)
    assert len(re.findall(r"^FROM", text, re.MULTILINE)) == len(stages)
    assert set(images["targets"]) <= stages
    copied = re.findall(r"^COPY --from=(\S+)", text, re.MULTILINE)
    assert set(copied) <= stages
    assert "latest" not in text


def test_each_target_installs_its_own_lock():
    images = json.loads((FOLDER / "images.lock.json").read_text())
    text = (FOLDER / "Containerfile").read_text()
    for name, target in images["targets"].items():
        stage = re.search(rf"^FROM tools AS venv-{name}\n(RUN .*)$", text, re.MULTILINE)
        assert stage is not None
        assert stage[1].endswith(f"venv {Path(target['lock']).stem}")
        runtime = text.split(f"FROM runtime AS {name}\n")[1].split("FROM")[0]
        assert f"COPY --from=venv-{name} /opt/venv /opt/venv" in runtime


def test_nothing_is_installed_without_a_hash():
    text = (FOLDER / "install.sh").read_text().replace("\\\n", " ")
    commands = re.findall(r".*(?:pip (?:install|wheel)|\$install) .*", text)
    assert len(commands) == 6
    for command in commands:
        # What is built or installed from here needs none.
        assert "--require-hashes" in command or "--no-index" in command, command


def test_image_is_not_rooted():
    text = (FOLDER / "Containerfile").read_text()
    runtime = text.split("FROM ${BASE_IMAGE} AS runtime")[1]
    assert re.findall(r"^USER (.*)$", runtime, re.MULTILINE) == ["65534:65534"]
    assert not re.search(r"^RUN", runtime.split("\nFROM")[0], re.MULTILINE)
    assert not re.search(r"PASSWORD|TOKEN|API_KEY", text)
