"""`reproduce.sh` pulls by digest from a real registry, on loopback.

With the engine that `tox -e container` names; the image is an empty one. Debian's package
docker-registry has the registry.
"""

import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = os.environ.get("IOA_CONTAINER_ENGINE", "")
TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

pytestmark = pytest.mark.skipif(
    not ENGINE or shutil.which("docker-registry") is None,
    reason="needs an engine (tox -e container has one) and docker-registry",
)


@pytest.fixture
def registry(tmp_path):
    """Address of a registry that runs, and its process."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "store")}},
        "http": {"addr": address},
    }
    # JSON is YAML too.
    (folder / "config.yml").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log
        )
    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(f"http://{address}/v2/", timeout=5).close()
            break
        except OSError:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
    yield address, process
    process.kill()
    process.wait()


@pytest.fixture
def trust(registry, tmp_path):
    """Environment in which podman speaks plain HTTP with it, as docker does on loopback."""
    path = tmp_path / "registries.conf"
    path.write_text(f'[[registry]]\nlocation = "{registry[0]}"\ninsecure = true\n')
    return {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(path)}


def engine(*arguments: str, given: bytes | None = None, env: dict[str, str] | None = None) -> str:
    process = subprocess.run([ENGINE, *arguments], input=given, capture_output=True, env=env)
    assert process.returncode == 0, process.stderr.decode()
    return process.stdout.decode().strip()


def empty_image(name: str) -> str:
    """Make an image that has one file. Returns its ID."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("name")
        member.size = len(name)
        tar.addfile(member, io.BytesIO(name.encode()))
    engine("import", "-", name, given=archive.getvalue())
    return "sha256:" + engine("image", "inspect", "--format", "{{.Id}}", name).removeprefix(
        "sha256:"
    )


@pytest.fixture
def published(registry, trust):
    """Name by digest and ID of an image that is in the registry, and no longer here."""
    name = f"{registry[0]}/ioa-test:1"
    image = empty_image(name)
    engine("push", "--quiet", name, env=trust)
    request = urllib.request.Request(
        f"http://{registry[0]}/v2/ioa-test/manifests/1",
        method="HEAD",
        headers={"Accept": ", ".join(TYPES)},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        digest = answer.headers["Docker-Content-Digest"]
    engine("rmi", "--force", name)
    by_digest = f"{registry[0]}/ioa-test@{digest}"
    yield by_digest, image
    subprocess.run([ENGINE, "rmi", "--force", by_digest], capture_output=True)


def reproduce(folder: Path, digest: str, image_id: str, env: dict[str, str]):
    """Exit code, output and errors where `images.lock.json` names this image.

    Args:
        folder: For a copy of `containers/` beside the references, as in a checkout.
        digest: Name of the published image, with its digest.
        image_id: ID that it has to have.
        env: Of the script.
    """
    containers = folder / "containers"
    shutil.copytree(ROOT / "containers", containers)
    (folder / "results").symlink_to(ROOT / "results")
    lock = containers / "images.lock.json"
    images = json.loads(lock.read_text())
    images["targets"]["cpu"] |= {"image_id": image_id, "digest": digest}
    lock.write_text(json.dumps(images))
    process = subprocess.run(
        [
            *(containers / "reproduce.sh", "--engine", ENGINE),
            *("--profile", "micro-short", "--output", folder / "out"),
        ],
        capture_output=True,
        text=True,
        env=env,
    )
    return process.returncode, process.stdout, " ".join(process.stderr.split())


def test_pulled_by_digest(published, trust, tmp_path):
    digest, image = published
    code, out, error = reproduce(tmp_path, digest, image, trust)
    assert f"image {digest}, {image}, as expected" in out
    # The image has no program.
    assert code != 0
    assert "can't be reached" not in error


def test_another_image_than_the_lock_names(published, trust, tmp_path):
    digest, image = published
    code, out, error = reproduce(tmp_path, digest, "sha256:" + "0" * 64, trust)
    assert code == 4
    assert f"is {image}, not sha256:000" in error
    assert not out


def test_digest_that_is_not_there(published, trust, tmp_path):
    digest, image = published
    code, _, error = reproduce(tmp_path, digest[:-64] + "0" * 64, image, trust)
    assert code == 2
    assert "the registry has no such image; is the digest right?" in error


def test_registry_that_does_not_answer(registry, published, trust, tmp_path):
    digest, image = published
    registry[1].kill()
    registry[1].wait()
    code, _, error = reproduce(tmp_path, digest, image, trust)
    assert code == 3
    assert "can't be reached; --archive loads one from a file" in error
