"""The scripts' errors and options, with programs in place of engines: nothing is built or run."""

import hashlib
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = """
bash basename cat chmod chown cut date df dirname env find git grep head id ls mkdir mktemp nproc
python3 rm sed sha256sum sh sort stat tail tar timeout touch true tr wc
"""
ID = "sha256:" + "a" * 64

pytestmark = pytest.mark.skipif(
    "IOA_IMAGE_TARGET" in os.environ, reason="no program can be put into a container's /tmp"
)

# Answers as podman does, and notes how it was called.
ENGINE = f"""#!/bin/bash
printf '%s\\n' "$@" "--" >>"$CALLS"
case "$1 $2" in
    --version*) echo "podman version ${{VERSION:-4.9.4}}" ;;
    info*) [ -z "$INFO_ERROR" ] || {{ echo "$INFO_ERROR" >&2; exit 125; }} ;;
    "image inspect")
        [ -z "$NO_IMAGE" ] || exit 125
        case "$*" in *RepoDigests*) echo "$REPO_DIGEST" ;; *) echo {ID[7:]} ;; esac ;;
    pull*) [ -z "$PULL_ERROR" ] || {{ echo "$PULL_ERROR" >&2; exit 125; }} ;;
    load*) echo "${{LOADED:-not an archive}}"; [ -n "$LOADED" ] ;;
    run*) echo "$RUN_WARNING" >&2
        [ -z "$RUN_ERROR" ] || {{ echo "$RUN_ERROR" >&2; exit 125; }}
        case "${{@: -1}}" in true) ;; *) exit "${{CODE:-0}}" ;; esac ;;
esac
"""


class Machine:
    """A PATH with the usual programs and no engine but those that a test adds."""

    def __init__(self, folder: Path):
        self.bin = folder / "bin"
        self.calls = folder / "calls"
        self.bin.mkdir()
        for name in PROGRAMS.split():
            found = shutil.which(name)
            assert found is not None, name
            (self.bin / name).symlink_to(found)

    def add(self, name: str, text: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def call(self, script: str, *arguments: object, **variables: str):
        """Exit code, standard output, and errors with their line ends as spaces."""
        process = subprocess.run(
            [ROOT / "containers" / script, *map(str, arguments)],
            env={"PATH": str(self.bin), "CALLS": str(self.calls), "HOME": "/", **variables},
            capture_output=True,
            text=True,
        )
        return process.returncode, process.stdout, " ".join(process.stderr.split())

    def engine_calls(self) -> list[list[str]]:
        calls = self.calls.read_text().split("--\n")
        return [call.splitlines() for call in calls if call]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.fixture
def podman(machine):
    machine.add("podman", ENGINE)
    return machine


def test_no_engine(machine):
    for arguments in (("build.sh", "cpu"), ("run.sh", "shell")):
        code, _, error = machine.call(*arguments)
        assert code == 3
        assert "docker is not installed; podman is not installed" in error
        assert "apt-get install podman" in error


def test_old_engine(podman):
    code, _, error = podman.call("run.sh", "shell", VERSION="3.4.4")
    assert code == 3
    assert "podman 3.4.4 is too old: 4.3 or newer is needed" in error
    assert podman.call("run.sh", "shell", VERSION="4.3.1")[0] == 0
    assert podman.call("run.sh", "shell", VERSION="10.0")[0] == 0


def test_no_permission(machine):
    machine.add("docker", ENGINE)
    denied = "permission denied while trying to connect to the Docker daemon socket"
    code, _, error = machine.call("run.sh", "shell", VERSION="28.2.2", INFO_ERROR=denied)
    assert code == 3
    assert "docker may not be used by" in error
    assert "group docker" in error
    code, _, error = machine.call(
        "run.sh", "shell", VERSION="28.2.2", INFO_ERROR="Is the docker daemon running?"
    )
    assert code == 3
    assert "docker doesn't answer: Is the docker daemon running?" in error


def test_unusable_engine_is_passed_over(podman):
    podman.add("docker", ENGINE.replace('"$INFO_ERROR"', '"down"'))
    assert podman.call("run.sh", "shell")[0] == 0
    code, _, error = podman.call("run.sh", "--engine", "docker", "shell")
    assert code == 3
    assert "podman" not in error.split("Install")[0]


def test_no_disk(podman):
    podman.add("df", "#!/bin/bash\necho Avail\necho 2097152\n")
    code, _, error = podman.call("build.sh", "cpu")
    assert code == 3
    assert "2 GiB free" in error
    assert "6 are needed" in error


def test_base_cannot_be_reached(podman):
    podman.add("image", "")
    code, _, error = podman.call(
        "build.sh", "cpu", NO_IMAGE="1", PULL_ERROR="dial tcp: lookup docker.io: no such host"
    )
    assert code == 3
    assert "can't be reached" in error
    assert "--base local" in error
    assert "no such host" in error


# As podman and docker say it of a registry that lacks the image, and of one that sends another.
@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        ("reading manifest: manifest unknown", 2, "is the digest right?"),
        (f"Manifest does not match provided manifest digest {ID}", 4, "sent another image"),
        (f"manifest verification failed for digest {ID}", 4, "sent another image"),
    ],
)
def test_wrong_digest(podman, answer, code, message):
    base = f"docker.io/library/python:3.11@{ID}"
    got, _, error = podman.call("build.sh", "--base", base, NO_IMAGE="1", PULL_ERROR=answer)
    assert got == code
    assert message in error
    assert answer in error


@pytest.mark.parametrize("base", ["python:3.11", "python@sha256:12", "python:latest"])
def test_base_without_digest(podman, base):
    code, _, error = podman.call("build.sh", "--base", base)
    assert code == 2
    assert "an image with its digest" in error
    assert not any(call[0] in ("pull", "build") for call in podman.engine_calls())


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("build.sh", ["gpu"], "target 'gpu': one of cpu cuda tpu"),
        ("build.sh", ["cpu", "cuda"], "one target"),
        ("build.sh", ["--fast"], "option '--fast' is unknown"),
        ("build.sh", ["--base"], "--base needs a value"),
        ("build.sh", ["--engine", "lxc"], "engine 'lxc' can't build here"),
        ("run.sh", ["train"], "command 'train' is unknown"),
        ("run.sh", ["bench", "--profile", "micro"], "bench needs --output"),
        ("run.sh", ["--env", "IOA_ABSENT", "shell"], "--env IOA_ABSENT: it is not set"),
        ("run.sh", ["--time", "1h", "shell"], "--time 1h: whole seconds"),
        ("run.sh", ["--data-dir", "/nowhere", "shell"], "--data-dir /nowhere: no such folder"),
        ("reproduce.sh", ["--profile", "none"], "no run is there to compare with"),
    ],
)
def test_bad_arguments(podman, script, arguments, message):
    code, _, error = podman.call(script, *arguments)
    assert code == 2
    assert message in error


def test_output_that_cannot_be_written(podman, tmp_path):
    (tmp_path / "file").touch()
    code, _, error = podman.call("run.sh", "bench", "--output", tmp_path / "file" / "results")
    assert code == 2
    assert "can't be made" in error


def test_image_is_not_there(podman):
    code, _, error = podman.call("run.sh", "--target", "tpu", "shell", NO_IMAGE="1")
    assert code == 2
    assert "no image localhost/ioa-jax:tpu: build it with containers/build.sh tpu" in error


def test_no_device(podman):
    if any(Path("/dev").glob("accel*")) or Path("/dev/vfio").exists():
        pytest.skip("this machine has a TPU")
    code, _, error = podman.call("run.sh", "--target", "tpu", "shell")
    assert code == 3
    assert "no TPU" in error


def test_docker_passes_gpus_on(machine):
    machine.add("docker", ENGINE)
    code, _, _ = machine.call("run.sh", "--target", "cuda", "shell", VERSION="28.2.2")
    assert code == 0
    options = machine.engine_calls()[-1]
    assert ("--gpus", "all") in set(itertools.pairwise(options))
    # podman alone has it.
    assert "--read-only-tmpfs=false" not in options


def test_podman_needs_a_description_of_the_gpus(podman):
    if any(any(Path(folder).glob("*")) for folder in ("/etc/cdi", "/var/run/cdi")):
        pytest.skip("this machine has one")
    code, _, error = podman.call("run.sh", "--target", "cuda", "shell")
    assert code == 3
    assert "nvidia-ctk cdi generate" in error


def test_docker_builds_only_with_buildkit(machine):
    # As Debian's package does without its plugin.
    machine.add("docker", ENGINE.replace('case "$1 $2" in', 'case "$1 $2" in buildx*) exit 1 ;;'))
    code, _, error = machine.call("build.sh", "cpu", VERSION="28.2.2")
    assert code == 3
    assert "docker has no BuildKit: install its plugin buildx" in error


def test_docker_whose_images_hold_times(machine):
    machine.add("docker", ENGINE)
    code, _, error = machine.call("build.sh", "--twice", "cpu", VERSION="28.2.2")
    assert code == 3
    assert "containerd-snapshotter" in error


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_output_without_permission(podman, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir(mode=0o555)
    code, _, error = podman.call("run.sh", "bench", "--output", folder)
    assert code == 2
    assert "not writable by" in error


def test_container_that_does_not_start(podman):
    code, _, error = podman.call("run.sh", "shell", RUN_ERROR="setrlimit: not permitted")
    assert code == 3
    assert "setrlimit: not permitted" in error
    assert "apt-get install runc" in error


# As podman without root says it of version 1 of control groups, and docker of a kernel without any.
@pytest.mark.parametrize(
    "warning",
    [
        "Resource limits are not supported and ignored on cgroups V1 rootless systems",
        "Your kernel does not support memory limit capabilities or the cgroup is not mounted. "
        "Limitation discarded.",
    ],
)
def test_limits_that_an_engine_ignores(podman, warning):
    code, _, error = podman.call("run.sh", "shell", RUN_WARNING=warning)
    assert code == 3
    assert f"podman can't limit memory and processes here: {warning}" in error
    assert podman.call("run.sh", "--no-limits", "shell", RUN_WARNING=warning)[0] == 0
    call = podman.engine_calls()[-1]
    assert "--memory" not in call
    assert ("--pids-limit", "-1") in set(itertools.pairwise(call))


def test_runc_is_tried_where_the_default_fails(podman):
    podman.add("runc", "")
    podman.add("podman", ENGINE.replace("run*)", "--runtime=runc*) ;;\n    run*)"))
    code, _, error = podman.call("run.sh", "shell", RUN_ERROR="setrlimit: not permitted")
    assert (code, error) == (0, "")
    assert podman.engine_calls()[-1][:3] == ["--runtime=runc", "--cgroup-manager=cgroupfs", "run"]


def test_hardening(podman, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    output = tmp_path / "out"
    code, _, _ = podman.call(
        "run.sh", "--memory", "2g", "bench", "--profile", "micro", "--output", output,
        "--data-dir", data, "--set", f"a={data}/x", f"{output}/y", f"{output}z",
        REPO_DIGEST=f"example.org/ioa@{ID}",
    )  # fmt: skip
    assert code == 0
    call = podman.engine_calls()[-1]
    options, rest = call[: call.index("localhost/ioa-jax:cpu")], call[call.index("python") :]
    pairs = set(itertools.pairwise(options))
    assert {"--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--rm"} <= set(
        options
    )
    assert ("--network", "none") in pairs
    assert ("--memory", "2g") in pairs
    assert ("--memory-swap", "2g") in pairs
    assert ("--pids-limit", "1024") in pairs
    assert ("--volume", f"{data}:/data-dir:ro,z") in pairs
    assert ("--volume", f"{output}:/output:rw,z") in pairs
    assert ("--env", "IOA_DATA_DIR=/data-dir") in pairs
    assert ("--env", f"IOA_IMAGE_ID={ID}") in pairs
    assert ("--env", f"IOA_IMAGE_DIGEST={ID}") in pairs
    user = options[options.index("--user") + 1]
    assert user == ("65534:65534" if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}")
    assert not any("privileged" in one and "no-new" not in one for one in options)
    assert rest == [
        "python", "-m", "suite", "run", "--output", "/output", "--profile", "micro",
        "--set", "a=/data-dir/x", "/output/y", f"{output}z",
    ]  # fmt: skip


def test_resumed_run_gets_no_other_output(podman, tmp_path):
    run = tmp_path / "out" / "micro" / "a"
    run.mkdir(parents=True)
    podman.call("run.sh", "bench", "--output", tmp_path / "out", "--resume", run)
    call = podman.engine_calls()[-1]
    assert call[call.index("python") :] == [
        "python", "-m", "suite", "run", "--resume", "/output/micro/a",
    ]  # fmt: skip


@pytest.mark.parametrize(("code", "word"), [(124, "--time"), (137, "memory"), (5, "")])
def test_exit_codes(podman, code, word):
    got, _, error = podman.call("run.sh", "--time", "9", "shell", CODE=str(code))
    assert got == code
    assert word in error


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files to others")
def test_roots_results_are_given_back(podman, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    os.chown(output, 1234, 1235)
    podman.add("podman", ENGINE.replace("run*)", f"run*) stat -c %u {output} >>{tmp_path}/seen;"))
    podman.call("run.sh", "--output", output, "shell")
    assert (tmp_path / "seen").read_text().split()[-1] == "65534"
    assert (output.stat().st_uid, output.stat().st_gid) == (1234, 1235)


@pytest.fixture
def reference(tmp_path):
    folder = tmp_path / "reference"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    return folder


def test_reproduce_refuses_another_image(podman, reference):
    code, _, error = podman.call(
        "reproduce.sh", "--reference", reference, "--image", "some", "--image-id", "sha256:0"
    )
    assert code == 4
    assert f"some is {ID}, not sha256:0" in error
    assert not any(call[0] == "run" for call in podman.engine_calls())


def test_reproduce_with_a_broken_archive(podman, reference, tmp_path):
    arguments = ("reproduce.sh", "--reference", reference, "--image-id", ID, "--archive")
    code, _, error = podman.call(*arguments, tmp_path / "none.tar")
    assert code == 2
    assert "no such file" in error
    (tmp_path / "some.tar").touch()
    code, _, error = podman.call(*arguments, tmp_path / "some.tar")
    assert code == 2
    assert "can't load it: not an archive" in error


@pytest.mark.parametrize(
    ("code", "verdict"), [(0, "reproduced:"), (5, "not reproduced:"), (2, None)]
)
def test_verdict(podman, reference, tmp_path, code, verdict):
    compares = f'case "$*" in *" compare "*) exit {code} ;; *) exit 0 ;; esac'
    podman.add("podman", ENGINE.replace("run*)", f"run*) {compares} ;;\n    never)"))
    (tmp_path / "a.tar").touch()
    got, out, _ = podman.call(
        "reproduce.sh", "--reference", reference, "--image-id", ID, "--output", tmp_path / "out",
        "--archive", tmp_path / "a.tar", LOADED="Loaded image: localhost/ioa-jax:cpu",
    )  # fmt: skip
    assert got == code
    assert verdict is None or out.splitlines()[-1].startswith(verdict)
    assert f"{ID}, as expected" in out
    runs = [call for call in podman.engine_calls() if call[0] == "run" and call[-1] != "true"]
    assert len(runs) == 2
    assert "compare" in runs[1]


def test_published_images_have_an_id_and_a_digest():
    images = json.loads((ROOT / "containers" / "images.lock.json").read_text())
    for target in images["targets"].values():
        assert (target["image_id"] is None) == (target["digest"] is None)
        lock = ROOT / "containers" / target["lock"]
        assert hashlib.sha256(lock.read_bytes()).hexdigest() == target["lock_sha256"]
