"""A whole diagnosis and a whole distillation with llama.cpp's server as the teacher."""

import dataclasses
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from typer.testing import CliRunner

from ioa_jax.cli import app
from ioa_jax.errors import NothingTaught
from ioa_jax.models.tensors import build_decoder, hf_shapes
from ioa_jax.teachers.base import ChatRequest, Sampling
from ioa_jax.teachers.spec import open_teacher
from tests.models.test_gguf import CORE, FLOAT32, SPECIAL, config_for, write_gguf
from tests.suite.world import write_model

pytest.importorskip("openai")
pytest.importorskip("llama_cpp.server.app", reason='needs "llama-cpp-python[server]"')

pytestmark = pytest.mark.slow

START_SECONDS = 60.0
# This server finishes a character of several bytes beyond max_tokens, so the model writes none:
# in a byte-level vocabulary, the letters beyond ASCII stand for single bytes. Nor does it write an
# empty answer or a comma, so that it fulfils the tasks.
BIAS = {
    "logit_bias": {
        str(number): -100.0
        for number, token in enumerate(CORE)
        if not token.isascii() or token in (*SPECIAL, ",")
    }
}
# A block of each of Llama's parts is a whole number of 32 values.
CONFIG = dataclasses.replace(config_for("llama"), max_position=4096)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Base URL of a server of a model that writes nonsense."""
    folder = tmp_path_factory.mktemp("llama")
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(0, 0.1, shape).astype(np.float32)
        for name, shape in hf_shapes(CONFIG).items()
    }
    decoder = build_decoder(
        CONFIG, FLOAT32, np.float32, None, lambda name, index: tensors[name][index]
    )
    write_gguf(folder / "teacher.gguf", decoder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(folder / "teacher.gguf")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "4096"]
    command += ["--chat_format", "chatml", "--n_threads", "1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}/v1"
            end = time.monotonic() + START_SECONDS
            while True:
                try:
                    with urllib.request.urlopen(f"{url}/models", timeout=5):
                        break
                except (urllib.error.URLError, ConnectionError):
                    if process.poll() is not None or time.monotonic() > end:
                        pytest.fail((folder / "log").read_text(errors="replace")[-2000:])
                    time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student") / "model"
    write_model(folder)
    return folder


def test_it_answers_and_says_what_it_used(server, student):
    request = ChatRequest(({"role": "user", "content": "1 2 3"},), "x", 0, {"type": "object"})
    with open_teacher(f"openai:m@{server}", concurrency=1, extra_body=BIAS) as teacher:
        (answer,) = teacher.generate([request], Sampling(max_tokens=8))
        assert 0 < answer.completion_tokens <= 8
        assert answer.prompt_tokens > 3
        assert answer.finish_reason in ("stop", "length")
        assert answer.left_out == ("response_format",)
        assert teacher.capabilities.score
        # " ab" is one token of the vocabulary, and "!" another.
        (score,) = teacher.score([("12 ab", " ab!")])
        assert len(score.logprobs) == 2
    # Of chats it doesn't echo the special tokens.
    with open_teacher(f"openai:m@{server}", chat_template_from=str(student)) as teacher:
        assert not teacher.capabilities.score


def run(command, server, student, tmp_path, *options):
    write_seeds(tmp_path / "seeds.jsonl")
    arguments = [command, "--student", student, "--teacher", f"openai:m@{server}"]
    arguments += ["--seeds", tmp_path / "seeds.jsonl", "--output", tmp_path / "run", *options]
    CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)


def write_seeds(path):
    """Tasks that nonsense fulfils: a teacher that can do nothing ends a diagnosis."""
    check = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    rows = [
        {
            "id": f"{module}-{number}",
            "prompt": f"Say {number} {module} without a comma.",
            "reference": f"{number} {module}",
            "check": {"kind": "instruction", **check},
            "module": f"kitchen/{module}",
        }
        for module in ("spoons", "cups", "pints")
        for number in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def settings(prefix=""):
    names = ("measure.scorer=accuracy", "measure.max_tokens=8", "decompose.min_seeds=4")
    names += ("decompose.min_probes=2", "resamples=20")
    return [part for name in names for part in ("--set", prefix + name)]


def test_a_diagnosis_ends(server, student, tmp_path):
    run("diagnose", server, student, tmp_path, *settings(),
        "--teacher-set", "concurrency=1", "--teacher-set", f"extra_body={json.dumps(BIAS)}",
        "--teacher-set", f"chat_template_from={student}")  # fmt: skip
    diagnosis = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    measured = diagnosis["measurement"]["teacher"]["accuracy"]
    assert set(measured) == {"kitchen/spoons", "kitchen/cups", "kitchen/pints"}


def test_a_distillation_of_nonsense_ends_with_nothing_taught(server, student, tmp_path):
    more = ["--set", "teacher.settings.concurrency=1", "--set", "precision=float32"]
    more += ["--set", f"teacher.settings.chat_template_from={student}"]
    more += ["--set", f"teacher.settings.extra_body={json.dumps(BIAS)}"]
    for name, value in {
        "adapter.max_tokens": 16,
        "adapter.verification.max_tokens": 8,
        "adapter.examples_per_seed": 1,
        "budget.teacher_tokens": 4000,
        "budget.student_tokens": 2000,
    }.items():
        more += ["--set", f"{name}={value}"]
    # Nonsense is no worse than nonsense, so that no module is deficient.
    with pytest.raises(NothingTaught):
        run("distill", server, student, tmp_path, *settings("diagnose."), *more)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["teacher"].startswith(f"openai:m@{server}#")
    assert not (tmp_path / "run" / "student").exists()
