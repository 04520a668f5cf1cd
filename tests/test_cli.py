"""The commands of `ioa`, on a small model in a Hugging Face directory."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from ioa_jax.cli import app
from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.generation import Completion
from ioa_jax.errors import InputError, NothingTaught
from ioa_jax.models.load import load_model
from ioa_jax.models.text import render_chat
from tests.suite.world import write_model

CHAT = [{"role": "user", "content": "Add two and three."}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "model"
    write_model(folder)
    return folder


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def ioa(*arguments):
    """Run a command; its error is raised here."""
    CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def test_score_and_generate_agree(model, tmp_path):
    """What generation says of its own tokens is what scoring says of the text."""
    prompts = write(tmp_path / "p.jsonl", {"prompt": "Add two", "id": 7}, {"messages": CHAT})
    ioa("generate", "--model", model, "--input", prompts, "--output", tmp_path / "out.jsonl",
        "--precision", "float32", "--max-tokens", 6)  # fmt: skip
    out = read(tmp_path / "out.jsonl")
    assert out[0]["id"] == 7
    assert out[1]["messages"] == CHAT
    assert all(1 <= len(row["tokens"]) <= 6 for row in out)
    assert out[0]["finish_reason"] in ("stop", "length")

    completion = " three and four"
    pairs = write(tmp_path / "pairs.jsonl", {"prompt": "Add two", "completion": completion, "n": 1})
    ioa("score", "--model", model, "--input", pairs, "--output", tmp_path / "s.jsonl",
        "--precision", "float32")  # fmt: skip
    (score,) = read(tmp_path / "s.jsonl")
    assert score["n"] == 1
    loaded = load_model(str(model), "float32")
    assert loaded.tokenizer.decode(score["tokens"]) == completion
    tokens = loaded.tokenizer("Add two" + completion, add_special_tokens=False)["input_ids"]
    hidden = loaded.decoder.hidden(jnp.array([tokens], jnp.int32))
    logits = np.asarray(loaded.decoder.logits(hidden))
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    count = len(score["tokens"])
    expected = [logprobs[0, -count - 1 + i, t] for i, t in enumerate(score["tokens"])]
    np.testing.assert_allclose(score["token_logprobs"], expected, atol=1e-4)
    assert score["logprob"] == pytest.approx(sum(score["token_logprobs"]))


def test_train_then_export(model, tmp_path):
    data = write(
        tmp_path / "sft.jsonl",
        {"messages": CHAT, "completion": "Five."},
        {"prompt": "Two and two", "completion": " make four."},
    )
    output = tmp_path / "trained"
    ioa("train", "--student", model, "--data", data, "--output", output, "--precision", "float32",
        "--epochs", 60, "--learning-rate", 0.03, "--row-length", 64, "--batch-rows", 1)  # fmt: skip
    steps = read(output / "train.jsonl")
    assert len(steps) == 60
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"]
    assert not output.with_name("trained.checkpoints").exists()

    # It has learnt the answer and where the answer ends.
    prompts = write(tmp_path / "p.jsonl", {"messages": CHAT})
    ioa("generate", "--model", output, "--input", prompts, "--output", tmp_path / "out.jsonl",
        "--precision", "float32", "--max-tokens", 20)  # fmt: skip
    (answer,) = read(tmp_path / "out.jsonl")
    assert (answer["completion"], answer["finish_reason"]) == ("Five.", "stop")

    ioa("export", "--model", output, "--keep-layers", 2, "--output", tmp_path / "small")
    assert load_model(str(tmp_path / "small")).decoder.config.num_layers == 2


def test_generated_thoughts_have_a_field_of_their_own(model, tmp_path, monkeypatch):
    said = "3 + 4 is 7</think>Seven."
    monkeypatch.setattr(
        "ioa_jax.engine.generation.Generator.generate",
        lambda self, prompts, *_: [Completion(said, (), (), "stop", 1) for _ in prompts],
    )
    rows = [{"prompt": "Add.\n<think>\n"}, {"prompt": "Add."}]
    prompts = write(tmp_path / "p.jsonl", *rows)
    ioa("generate", "--model", model, "--input", prompts, "--output", tmp_path / "out.jsonl")
    fields = ("completion", "answer", "thought")
    read_back = [tuple(row[name] for name in fields) for row in read(tmp_path / "out.jsonl")]
    assert read_back == [(said, "Seven.", "3 + 4 is 7")] * 2
    # Only a prompt that opened the thought tells that nothing was answered.
    said = "3 + 4 is"
    ioa("generate", "--model", model, "--input", prompts, "--output", tmp_path / "cut.jsonl")
    read_back = [tuple(row[name] for name in fields) for row in read(tmp_path / "cut.jsonl")]
    assert read_back == [(said, None, said), (said, said, "")]


def test_chats_are_trained_as_a_thinking_template_writes_them(model, tmp_path):
    student = tmp_path / "student"
    shutil.copytree(model, student)
    template = (
        "{{ strftime_now('%Y') }}{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    (student / "chat_template.jinja").write_text(template)
    data = write(tmp_path / "sft.jsonl", {"messages": CHAT, "completion": "Five."})
    output = tmp_path / "trained"
    ioa("train", "--student", student, "--data", data, "--output", output, "--precision", "float32",
        "--epochs", 200, "--learning-rate", 0.03, "--row-length", 96,
        "--batch-rows", 1)  # fmt: skip
    record = json.loads((output / "train.json").read_text())
    assert record["examples"] == {"chats with thoughts": 0, "chats without": 1, "texts": 0}
    assert "behind an empty one" in record["thoughts"]
    assert record["template_date"] == "2024-07-26"
    prompts = write(tmp_path / "p.jsonl", {"messages": CHAT})
    ioa("generate", "--model", output, "--input", prompts, "--output", tmp_path / "out.jsonl",
        "--precision", "float32", "--max-tokens", 40)  # fmt: skip
    (row,) = read(tmp_path / "out.jsonl")
    assert row["completion"] == "<think>\n\n</think>\n\nFive."
    assert (row["answer"].strip(), row["thought"].strip()) == ("Five.", "")

    bad = write(tmp_path / "bad.jsonl", {"messages": CHAT, "completion": "<think>Five."})
    with pytest.raises(InputError, match=r"bad\.jsonl:1: field 'completion': a thought has no end"):
        ioa("train", "--student", student, "--data", bad, "--output", tmp_path / "none")


@pytest.mark.parametrize(
    "wrong",
    [
        {"teacher": "opnai:m@http://127.0.0.1:1/v1"},
        {"teacher": "no/such/folder"},
        {"student": "no/such/folder"},
        {"seeds": "no/such/file"},
    ],
    ids=lambda one: " ".join(*one.items()),
)
@pytest.mark.parametrize("command", ["diagnose", "distill"])
def test_what_cannot_be_opened_leaves_no_folder(model, tmp_path, command, wrong):
    rows = [{"prompt": f"{n}?", "reference": str(n), "check": {"kind": "exact"}} for n in range(20)]
    seeds = write(tmp_path / "seeds.jsonl", *rows)
    named = {"student": model, "teacher": model, "seeds": seeds} | wrong
    options = [part for name, value in named.items() for part in (f"--{name}", value)]
    with pytest.raises(InputError):
        ioa(command, *options, "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_lora_is_written_beside_the_merged_weights(model, tmp_path):
    data = write(tmp_path / "sft.jsonl", {"prompt": "Two", "completion": " four."})
    output = tmp_path / "lora"
    ioa("train", "--student", model, "--data", data, "--output", output, "--precision", "float32",
        "--epochs", 2, "--lora-rank", 2, "--learning-rate", 0.01)  # fmt: skip
    assert (output / "adapter" / "adapter_config.json").is_file()
    ioa("export", "--model", model, "--adapter", output / "adapter", "--output",
        tmp_path / "merged", "--dtype", "float32")  # fmt: skip
    merged, trained = (load_model(str(tmp_path / name)) for name in ("merged", "lora"))
    a, b = (np.asarray(m.decoder.blocks.qkv[...]) for m in (merged, trained))
    np.testing.assert_allclose(a, b, atol=2e-3)


def test_texts_begin_as_the_tokenizer_begins_them_and_chats_as_the_template(
    model, tmp_path, monkeypatch
):
    """By one rule, whatever the command: what a model is trained on is what it sees later."""
    begins = tmp_path / "begins"
    shutil.copytree(model, begins)
    tokenizer = json.loads((begins / "tokenizer.json").read_text())
    start = load_model(str(model)).tokenizer.eos_token
    assert isinstance(start, str)
    (token,) = load_model(str(model)).decoder.config.eos_token_ids
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": start, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {start: {"id": start, "ids": [token], "tokens": [start]}},
    }
    (begins / "tokenizer.json").write_text(json.dumps(tokenizer))
    seen = {}

    class Seen(Exception):
        pass

    def keep(name):
        def kept(*arguments, **_):
            seen[name] = arguments[1]
            raise Seen

        return kept

    monkeypatch.setattr("ioa_jax.engine.scoring.Scorer.score_tokens", keep("score"))
    monkeypatch.setattr("ioa_jax.engine.generation.Generator.generate", keep("generate"))
    monkeypatch.setattr("ioa_jax.engine.training.train", keep("train"))
    pair = {"prompt": "Add two", "completion": " Five."}
    chat = {"messages": CHAT, "completion": " Five."}
    asked = {
        "score": [pair],
        "generate": [{"prompt": "Add two"}, {"messages": CHAT}],
        "train": [pair, chat],
    }
    for command, rows in asked.items():
        data = write(tmp_path / f"{command}.jsonl", *rows)
        options = ("--student", "--data") if command == "train" else ("--model", "--input")
        with pytest.raises(Seen):
            ioa(command, options[0], begins, options[1], data, "--output", tmp_path / "out")
    loaded = load_model(str(begins))

    def plain(text):
        return tuple(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])

    text = (token, *plain("Add two"))
    header = plain(render_chat(loaded.tokenizer, CHAT))
    assert seen["score"] == [TokenPair(text, plain(" Five."))]
    assert seen["generate"] == [text, header]
    assert seen["train"] == [
        TokenPair(text, (*plain(" Five."), token)),
        TokenPair(header, (*plain(" Five."), token)),
    ]


@pytest.mark.parametrize(
    ("command", "option", "line", "message"),
    [
        ("score", "--input", {"prompt": "a"}, "2: field 'completion'"),
        ("score", "--input", {"prompt": "a", "completion": ""}, "2: field 'completion'"),
        ("score", "--input", {"prompt": 3, "completion": "b"}, "2: field 'prompt'"),
        ("generate", "--input", {"prompt": ""}, "2: field 'prompt'"),
        ("generate", "--input", {}, "2: field 'line'.*exactly one of"),
        ("generate", "--input", {"messages": [{"role": "user"}]}, "2: field 'messages.0.content'"),
        ("generate", "--input", {"messages": [{"role": "x", "content": "a"}]}, "2: field 'mess"),
        ("train", "--data", {"prompt": "a"}, "2: field 'completion'"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_and_nothing_is_written(
    model, tmp_path, command, option, line, message
):
    good = {"prompt": "a", "completion": " b"} if command != "generate" else {"prompt": "a"}
    data = write(tmp_path / "in.jsonl", good, line, good)
    spec = "--student" if command == "train" else "--model"
    with pytest.raises(InputError, match=rf"in\.jsonl:{message}"):
        ioa(command, spec, model, option, data, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_distill_says_how_it_may_end(tmp_path):
    shown = " ".join(CliRunner().invoke(app, ["distill", "--help"]).output.split())
    for words in ("7, nothing was taught", "--no-baseline", "--dry-run"):
        assert words in shown
    assert NothingTaught.exit_code == 7
    with pytest.raises(InputError, match="--resume goes on with the run's own settings"):
        ioa("distill", "--resume", tmp_path, "--no-baseline")
    # A dry run must never go on with a real one.
    with pytest.raises(InputError, match="--resume goes on with the run's own settings"):
        ioa("distill", "--resume", tmp_path, "--dry-run")


def test_line_numbers_count_blank_lines_and_not_other_separators(model, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(
        json.dumps({"prompt": "a\u2028b", "completion": "c"}, ensure_ascii=False) + "\n\n{]\n"
    )
    with pytest.raises(InputError, match=r"in\.jsonl:3: not JSON"):
        ioa("score", "--model", model, "--input", path, "--output", tmp_path / "out")


def test_an_output_that_cannot_be_written_is_found_first(model, tmp_path, monkeypatch):
    data = write(tmp_path / "in.jsonl", {"prompt": "a", "completion": "c"})
    arguments = ("score", "--model", tmp_path / "no model", "--input", data, "--output")
    with pytest.raises(InputError, match="is a directory; name a file"):
        ioa(*arguments, tmp_path)
    with pytest.raises(InputError, match="none is not a directory"):
        ioa(*arguments, tmp_path / "none" / "out")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    train = ("train", "--student", tmp_path / "no model", "--data", data, "--output")
    export = ("export", "--model", tmp_path / "no model", "--output")
    for command in (arguments, train, export):
        with pytest.raises(InputError, match=r"out: Permission denied"):
            ioa(*command, tmp_path / "out")
