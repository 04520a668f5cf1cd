"""Models and data sets by the hub's own client, from a hub of ours on this machine."""

import json

import datasets
import pytest

from ioa_jax.models.huggingface import write_decoder
from ioa_jax.models.load import load_model
from suite.tasks.gsm8k import REVISION
from tests.hub import hub
from tests.tiny import tiny_model

MODEL = """
from ioa_jax.errors import IOAError
from ioa_jax.models.load import load_model
try:
    print(load_model({!r}).fingerprint)
except IOAError as error:
    print(error)
"""
DATA = """
import json, sys
from ioa_jax.errors import InputError
from suite.data import DataSource
from suite.tasks.gsm8k import TEST
try:
    found = DataSource(pins={!r}).load(TEST)
    print(json.dumps([found.rows, found.provenance.origin, found.provenance.rows_sha256]))
except InputError as error:
    print(error)
"""
ROWS = [{"question": f"How many are {i}?", "answer": f"#### {i}"} for i in range(4)]
WAYS = ("make the network available", "unset HF_HUB_OFFLINE", "--data-dir DIR", "IOA_DATA_DIR=DIR")


@pytest.fixture
def server():
    with hub() as found:
        yield found


@pytest.fixture
def table(server, tmp_path):
    """GSM8K's repository, with other problems in it."""
    folder = tmp_path / "gsm8k"
    (folder / "main").mkdir(parents=True)
    path = "main/test-00000-of-00001.parquet"
    datasets.Dataset.from_list(ROWS).to_parquet(folder / path)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: test\n"
        "    path: main/test-*\n---\n"
    )
    return server.add_folder("datasets", "openai/gsm8k", REVISION, folder)


def test_a_model_is_downloaded_by_its_id(server, tmp_path):
    model = tiny_model()
    write_decoder(model.decoder, model.tokenizer, tmp_path / "model")
    repository = server.add_folder("models", "someone/tiny", "0" * 40, tmp_path / "model")
    repository.files["pytorch_model.bin"] = b"not needed"
    code, cache = MODEL.format("someone/tiny"), tmp_path / "cache"
    fingerprint = load_model(str(tmp_path / "model")).fingerprint
    assert server.run(code, cache).split() == [fingerprint]
    assert any("/model.safetensors" in request for request in server.requests)
    assert not any("pytorch_model.bin" in request for request in server.requests)
    # What has been downloaded serves without network.
    server.requests.clear()
    assert server.run(code, cache, HF_HUB_OFFLINE="1").split() == [fingerprint]
    assert not server.requests


def test_a_model_that_the_hub_has_not_or_without_safetensors(server, tmp_path):
    model = tiny_model()
    write_decoder(model.decoder, model.tokenizer, tmp_path / "model")
    files = server.add_folder("models", "someone/other", "0" * 40, tmp_path / "model").files
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    said = server.run(MODEL.format("someone/tiny"), tmp_path / "cache")
    for part in ("'someone/tiny'", "no such directory here", "RepositoryNotFoundError"):
        assert part in said
    said = server.run(MODEL.format("someone/other"), tmp_path / "cache")
    assert "has neither model.safetensors nor model.safetensors.index.json" in said


def test_data_are_downloaded_at_the_pinned_revision(server, table, tmp_path):
    server.add_folder("datasets", "openai/gsm8k", "f" * 40, tmp_path)
    rows, origin, digest = json.loads(server.run(DATA.format({}), tmp_path / "cache"))
    assert rows == ROWS
    assert origin == f"hub openai/gsm8k@{REVISION}"
    assert all(REVISION in request for request in server.requests if "/store/" not in request)
    # Also from the cache, without network.
    server.requests.clear()
    again = server.run(DATA.format({}), tmp_path / "cache", HF_HUB_OFFLINE="1")
    assert json.loads(again) == [rows, origin, digest]
    assert not server.requests
    pins = {"gsm8k/test": "0" * 64}
    said = server.run(DATA.format(pins), tmp_path / "cache", HF_HUB_OFFLINE="1")
    assert f"sha256 of the rows is {digest}, and {'0' * 64} is pinned" in said


def test_a_cache_with_another_revision_is_not_taken(server, table, tmp_path):
    table.revision = "f" * 40
    code = "import datasets; datasets.load_dataset('openai/gsm8k', 'main', split='test')"
    server.run(code, tmp_path / "cache")
    said = server.run(DATA.format({}), tmp_path / "cache")
    assert f"gsm8k/test: not found here, and getting it from hub openai/gsm8k@{REVISION}" in said
    for way in WAYS:
        assert way in said


def test_a_file_that_is_missing_or_broken_on_the_hub(server, table, tmp_path):
    path = "main/test-00000-of-00001.parquet"
    content = table.files.pop(path)
    said = server.run(DATA.format({}), tmp_path / "cache")
    assert f"getting it from hub openai/gsm8k@{REVISION} failed" in said
    table.files[path] = content[:-8]
    said += server.run(DATA.format({}), tmp_path / "cache")
    assert f"getting it from hub openai/gsm8k@{REVISION} failed" in said
    for way in WAYS:
        assert said.count(way) == 2


@pytest.mark.slow
def test_without_a_hub_the_error_says_what_to_do(tmp_path):
    with hub() as gone:
        pass
    said = gone.run(DATA.format({}), tmp_path / "cache")
    for part in ("gsm8k/test: not found here", *WAYS, "test_even.jsonl"):
        assert part in said
    said = gone.run(MODEL.format("someone/tiny"), tmp_path / "cache")
    assert "without network, give a local directory" in said
