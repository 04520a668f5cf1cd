"""Files that say that they are huge, templates without an end, settings that are none, links."""

import errno
import json
import struct

import pytest
import typer
from transformers import PreTrainedTokenizerFast

from ioa_jax.cli import run_app
from ioa_jax.config import DistillConfig
from ioa_jax.engine.train_config import LoRAConfig, TrainConfig
from ioa_jax.errors import InputError, ModelFormatError
from ioa_jax.files import check_no_links, locked, read_json, write_json
from ioa_jax.models import gguf_header
from ioa_jax.models.config import DecoderConfig
from ioa_jax.models.gguf_header import check_header
from ioa_jax.models.load import read_tokenizer
from ioa_jax.models.patterns import find_fault
from ioa_jax.models.text import render_chat
from ioa_jax.settings import read_settings
from suite.archive import archive_run
from suite.merge import merge_runs
from tests.attacks.models import (
    ARRAY,
    CONFIG,
    STRING,
    U32,
    gguf_array,
    gguf_fields,
    gguf_file,
    gguf_text,
    model_files,
    tokenizer,
)
from tests.attacks.texts import CHAT, TEMPLATES, YAML
from tests.suite.runs import write_run

USER = [{"role": "user", "content": "hello"}]


def header_of(tmp_path, **fields):
    (tmp_path / "a.gguf").write_bytes(gguf_file(gguf_fields(**fields)))
    check_header(tmp_path / "a.gguf")


def test_the_header_of_a_right_file_passes(tmp_path):
    texts = b"".join(map(gguf_text, ["a", "b", "c"]))
    header_of(tmp_path, a=gguf_array(STRING, texts, 3), b=gguf_array(U32, b"\0" * 8, 2))


@pytest.mark.parametrize("kind", [0, U32, STRING, ARRAY])
@pytest.mark.parametrize("count", [2**31, 2**64 - 1, 1_000_000])
def test_an_array_that_is_longer_than_its_file_is_named(kind, count, tmp_path):
    with pytest.raises(ModelFormatError, match=r"a\.gguf: .*field 'a': "):
        header_of(tmp_path, a=gguf_array(kind, b"", count))


def test_entries_are_counted_over_all_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_header, "MAX_ENTRIES", 5)
    three = gguf_array(0, b"abc", 3)
    header_of(tmp_path, a=three)
    with pytest.raises(ModelFormatError, match="field 'b': 3 entries; no model has as many"):
        header_of(tmp_path, a=three, b=three)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("num_hidden_layers", value) for value in (10**9, 0, -1, "2", 1.5, True)),
        *(("num_attention_heads", 0), ("vocab_size", 2**62), ("hidden_size", -8)),
        *(("rope_theta", 0), ("rope_theta", 10**400), ("rms_norm_eps", 0), ("rms_norm_eps", "x")),
        *(("eos_token_id", 97), ("bos_token_id", 10**9), ("model_type", []), ("layer_types", 7)),
    ],
)
def test_a_configuration_that_no_model_has_is_refused(field, value):
    config = CONFIG | {field: value}
    with pytest.raises(
        ModelFormatError, match=rf"config\.json: .*{field}|config\.json: num_layers"
    ):
        DecoderConfig.from_hf(config)


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+$", "(a|a)*b", "(a?a)+", "(a{1,3})+", r"(x+x+)+y", "(?:ab|ac)*", "(.|a)+"),
        *(r"\s*\s*\s*\s*x", "a{1,1000}" * 4, r"(\w+)\1", r"(?<a>x)\k<a>", "a)", "a" * 10_000),
    ],
)
def test_patterns_that_may_take_forever_are_found(pattern):
    assert find_fault(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
        r"(?:\n|\\n)+ *| ?(?:(?!\\n)[^\sA-Za-z_\d])+(?: (?=\d))?",
        r"[[a-z]&&[^b]]+|[])]*|\(+\)*",
    ],
)
def test_patterns_of_real_tokenizers_pass(pattern):
    assert find_fault(pattern) == ""


def test_a_tokenizer_with_such_a_pattern_is_not_loaded(tmp_path):
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}
    content = tokenizer() | {"pre_tokenizer": split | {"invert": False}}
    for name, data in model_files(tokenizer_json=json.dumps(content).encode()).items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json: pattern '\(a\+\)\+\$': what"):
        read_tokenizer(tmp_path)


@pytest.fixture
def chat(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer()))

    def render(template):
        own = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
        own.chat_template = template
        return render_chat(own, USER)

    return render


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("loops", "takes more than 500000 steps or 2 s"),
        ("a large text", "needs more than 1073741824 bytes"),
        ("a wide number", "needs more than"),
        ("a large list", "needs more than"),
        ("a power", r"can't be used: it takes a power"),
        ("patterns", "its filter striptags may take forever"),
        ("a macro that calls itself", "calls itself without an end"),
        ("deep brackets", "can't be used"),
        ("an open block", "can't be used: line 1"),
    ],
)
def test_a_template_keeps_to_its_limits(name, reason, chat):
    with pytest.raises(InputError, match=reason):
        chat(TEMPLATES[name] + CHAT)
    assert chat(CHAT) == "hello"


def test_a_template_may_mark_what_the_model_writes(chat):
    assert chat("{% generation %}" + CHAT + "{% endgeneration %}") == "hello"


@pytest.mark.parametrize("name", YAML)
def test_settings_that_are_none_are_named(name, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_bytes(YAML[name].encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=r"own\.yaml: "):
        read_settings(DistillConfig, path)


@pytest.mark.parametrize(
    "setting",
    [
        *("train.learning_rate=.nan", "train.learning_rate=1e999", "train.clip=.inf"),
        *("train.learning_rate=-1", "adapter.temperature=.nan", "budget.teacher_cost=.inf"),
        *("diagnose.tau_gap=1e999", "organizer.prior=[1, 1e999]"),
    ],
)
def test_numbers_that_are_none_are_refused(setting):
    given = {"teacher": {"spec": "t"}, "student": {"spec": "s"}, "seeds": "x.jsonl"}
    read_settings(DistillConfig, None, (), given)
    with pytest.raises(InputError, match=r"setting|--set"):
        read_settings(DistillConfig, None, [setting], given)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("weight_decay", float("nan")), ("warmup_fraction", 2.0), ("clip", 0.0), ("beta1", -1.0)),
        *(("seed", -1), ("learning_rate", float("nan")), ("retention_weight", float("inf"))),
    ],
)
def test_hyperparameters_that_are_none_are_refused(field, value):
    with pytest.raises(InputError, match=field):
        TrainConfig(**{field: value})


@pytest.mark.parametrize(
    "given", [{"rank": 0}, {"alpha": float("nan")}, {"alpha": -1.0}, {"targets": "("}], ids=str
)
def test_adapters_that_are_none_are_refused(given):
    with pytest.raises(InputError, match=next(iter(given))):
        LoRAConfig(**given)


def test_copies_follow_no_links(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    parts = [write_run(tmp_path / name, items=3, seeds=(0,), distill=False) for name in "ab"]
    for part in parts:
        run = read_json(part / "run.json")
        same = {"provenance": None}
        tasks = [task | same for task in run["tasks"]]
        write_json(part / "run.json", run | {"seed_items": "x", "tasks": tasks})
    (parts[0] / "cells" / "teacher" / "notes.json").symlink_to(secret)
    with pytest.raises(InputError, match=r"notes\.json: is a symbolic link"):
        merge_runs(parts, tmp_path / "merged")
    with pytest.raises(InputError, match=r"notes\.json: is a symbolic link"):
        archive_run(parts[0], tmp_path / "archive")
    (parts[1] / "plots").mkdir()
    (parts[1] / "plots" / "x.svg").symlink_to(secret)
    with pytest.raises(InputError, match=r"x\.svg: is a symbolic link"):
        archive_run(parts[1], tmp_path / "archive")
    assert not (tmp_path / "merged").exists()
    assert not (tmp_path / "archive").exists()
    check_no_links(tmp_path / "nowhere", secret)


def test_a_full_disk_is_named_wherever_it_is_met(capsys):
    app = typer.Typer()

    @app.command()
    def work() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "train.jsonl")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["work"])
        with pytest.raises(SystemExit) as caught:
            run_app(app)
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "error: train.jsonl: No space left on device; make room and go on\n"
    )


def test_a_folder_that_cannot_be_held_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"), locked(tmp_path / "file"):
        pass


def test_a_file_of_another_byte_order_is_named(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 0, 0))
    with pytest.raises(ModelFormatError, match="little-endian"):
        check_header(tmp_path / "a.gguf")
