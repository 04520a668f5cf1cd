import pytest

from ioa_jax.errors import InputError
from ioa_jax.models.huggingface import write_decoder
from ioa_jax.teachers.local import LocalTeacher
from ioa_jax.teachers.spec import open_teacher
from tests.tiny import tiny_decoder, tiny_tokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "model: 1"
    write_decoder(tiny_decoder(), tiny_tokenizer(), path)
    return str(path)


@pytest.mark.parametrize("prefix", ["", "jax:"])
def test_a_directory(directory, prefix):
    with open_teacher(prefix + directory, precision="float32") as teacher:
        assert isinstance(teacher, LocalTeacher)
        assert teacher.fingerprint.endswith(":float32")


def test_a_server(monkeypatch):
    pytest.importorskip("openai")
    from ioa_jax.teachers.openai import OpenAITeacher

    monkeypatch.setenv("OPENAI_API_KEY", "sk")
    with open_teacher(
        "openai:@cf/some/model:7b@http://127.0.0.1:8000/v1/", concurrency=3
    ) as teacher:
        assert isinstance(teacher, OpenAITeacher)
        assert teacher.model == "@cf/some/model:7b"
        assert teacher.base_url == "http://127.0.0.1:8000/v1"
        assert teacher.settings.concurrency == 3


@pytest.mark.slow
@pytest.mark.smollm2
def test_smollm2():
    with open_teacher("smollm2") as teacher:
        assert teacher.fingerprint.endswith(":bfloat16")


@pytest.mark.parametrize("spec", ["", "jax:", "gguf:", "transformers:", "vllm:some/model"])
def test_other_forms(spec):
    with pytest.raises(InputError, match=r"a teacher is smollm2, .*openai:MODEL@BASE-URL"):
        open_teacher(spec)


@pytest.mark.parametrize("spec", ["openai:", "openai:o1", "openai:o1@api.openai.com", "openai:o1@"])
def test_servers_without_an_address(spec):
    with pytest.raises(InputError, match="base URL, such as openai:o1@https://"):
        open_teacher(spec)


def test_models_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="no such directory"):
        open_teacher(str(tmp_path / "missing"))
    with pytest.raises(InputError, match=r"missing\.gguf"):
        open_teacher(f"gguf:{tmp_path / 'missing.gguf'}")


@pytest.mark.parametrize(
    ("spec", "settings", "message"),
    [
        ("smollm2", {"batch": 3}, "setting 'batch'.*settings are precision, batch_size"),
        ("smollm2", {"precision": "int8"}, "setting 'precision'.*'float32' or 'bfloat16'"),
        ("transformers:a/b", {"batch_size": 0}, "setting 'batch_size'.*greater than"),
        ("openai:m@http://h", {"concurrency": "x"}, "setting 'concurrency'.*valid integer"),
    ],
)
def test_wrong_settings(spec, settings, message):
    with pytest.raises(InputError, match=message):
        open_teacher(spec, **settings)
