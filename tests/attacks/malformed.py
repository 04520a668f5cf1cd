"""300 malformed inputs: each has to end in a named error, or in a verdict where it is an answer.

The whole, each in a process of its own with 2 GiB and 10 s of the processor:

    python -m tests.attacks.malformed --output results/reference/reliability/malformed.json
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import importlib
import json
import lzma
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedTokenizerFast
from typer import BadParameter, Exit

from ioa_jax import cli
from ioa_jax.adapter.plain_text import read_task, split_solution
from ioa_jax.adapter.schema import RawExamples
from ioa_jax.errors import IOAError
from ioa_jax.graders.base import Item
from ioa_jax.graders.choice import ChoiceGrader
from ioa_jax.graders.code import find_program
from ioa_jax.graders.numbers import NumberGrader
from ioa_jax.graders.rouge import RougeGrader
from ioa_jax.identifier.decompose import Proposal
from ioa_jax.journal import Journal, read_journal
from ioa_jax.models.config import DecoderConfig
from ioa_jax.models.peft import read_lora
from ioa_jax.models.text import render_chat
from ioa_jax.record import environment
from ioa_jax.teachers.base import Completion
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.protocol import ChatBody, Fault, http_fault, read_body, read_completion
from ioa_jax.teachers.structured import Unfit, parse_completion
from suite.archive import RECORDS, RunCells
from suite.cli import app as suite_app
from tests.attacks import models
from tests.attacks.models import ARRAY, F32, I32, STRING, U32, gguf_array, gguf_fields, gguf_text
from tests.attacks.texts import ANSWERS, JSON, TEMPLATES, YAML

COUNT = 300
NUM_CUT = 20  # of them, files that end early
MEMORY_BYTES = 2 << 30
CPU_SECONDS = 10
WALL_SECONDS = 900.0  # of a machine that is busy with something else

Outcome = tuple[str, str]  # error, verdict, accepted, traceback or hang; and what is said


@dataclasses.dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        kind: What is malformed.
        name: In what way.
        run: Reads it, in a folder of its own; its value is a verdict, or None for a command.
        files: In that folder, by name.
    """

    kind: str
    name: str
    run: Callable[[Path], Any]
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict[str, bytes])


def attempt(case: Case, folder: Path) -> Outcome:
    """Read the input in this process."""
    for name, content in case.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    try:
        value = case.run(folder)
    except (IOAError, BadParameter, Fault, Unfit) as error:
        said = error.format_message() if isinstance(error, BadParameter) else str(error)
        return ("error", said) if said.strip() else ("traceback", "an error without a word")
    except Exit as error:
        return ("error", f"exit code {error.exit_code}") if error.exit_code else ("accepted", "")
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return "traceback", f"{type(error).__name__} at {place}: {str(error)[:200]}"
    return ("accepted", "") if value is None else ("verdict", str(value)[:200])


def command(app: Any, *arguments: str) -> Callable[[Path], None]:
    """A command line; FOLDER stands for the case's folder."""

    def run(folder: Path) -> None:
        app([one.replace("FOLDER", str(folder)) for one in arguments], standalone_mode=False)

    return run


def cases(seed: int = 0, count: int = COUNT) -> list[Case]:
    """The inputs that a seed draws, files that are cut at random among them."""
    draw = random.Random(seed)
    found = [case for kind in KINDS for case in kind()]
    cut = list(cut_files(draw, NUM_CUT))
    chosen = sorted(draw.sample(range(len(found)), min(count - NUM_CUT, len(found))))
    return [found[i] for i in chosen] + cut


def sample(count: int, seed: int = 0) -> list[Case]:
    """Some of every kind."""
    all_cases = cases(seed)
    return [all_cases[i * len(all_cases) // count] for i in range(count)]


# -- kinds ---------------------------------------------------------------------------------------

SEED = {"prompt": "1 + 1?", "reference": "2", "check": {"kind": "number"}}


def seed_lines(*rows: Any) -> bytes:
    """A seed file of these rows and 25 that are right."""
    right = [SEED | {"prompt": f"{n} + 1?", "reference": str(n + 1)} for n in range(25)]
    lines = [row if isinstance(row, str) else json.dumps(row) for row in (*right, *rows)]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def seed_files() -> Iterator[Case]:
    run = command(cli.app, "validate", "FOLDER/seeds.jsonl", "--no-grade")

    def case(name: str, content: bytes) -> Case:
        return Case("seed files", name, run, {"seeds.jsonl": content})

    for name, text in JSON.items():
        yield case(name, seed_lines(text))
    for name, row in {
        "no prompt": {"reference": "2", "check": {"kind": "number"}},
        "a blank prompt": SEED | {"prompt": " \n"},
        "a prompt that is a number": SEED | {"prompt": 5},
        "an unknown check": SEED | {"check": {"kind": "faith"}},
        "a check without tests": SEED | {"check": {"kind": "code", "entry_point": "f"}},
        "an entry point that is none": SEED
        | {"check": {"kind": "code", "entry_point": "f(); import os", "tests": "assert 1"}},
        "a module of one level": SEED | {"module": "maths"},
        "a module without letters": SEED | {"module": "?/!"},
        "a difficulty that is a word": SEED | {"difficulty": "hard"},
        "a prompt twice": SEED | {"prompt": "1 + 1?"},
        "an id that is a list": SEED | {"id": [1]},
    }.items():
        yield case(name, seed_lines(SEED | {"prompt": "1 + 1?"}, row))
    yield case("not UTF-8", b"\xff\xfe\x00" + seed_lines())
    yield case("nothing", b"")
    yield case("too few", json.dumps(SEED).encode())


CONFIG = {
    "teacher": {"spec": "smollm2"},
    "student": {"spec": "smollm2"},
    "seeds": "FOLDER/seeds.jsonl",
}


def settings_files() -> Iterator[Case]:
    run = command(cli.app, "distill", "--config", "FOLDER/config.yaml", "--dry-run")
    for name, text in YAML.items():
        yield Case("settings", name, run, {"config.yaml": text.encode("utf-8", "surrogatepass")})
    files = {"config.yaml": yaml.safe_dump(CONFIG).encode(), "seeds.jsonl": seed_lines()}
    for setting in (
        *("train.learning_rate=.nan", "train.learning_rate=-1", "train.learning_rate=1e999"),
        *("train.clip=0", "train.lora.rank=0", "adapter.temperature=.nan", "seed=-1"),
        *("budget.student_tokens=0", "budget.teacher_cost=.inf", "diagnose.level=1"),
        *("seeds=/nowhere/seeds.jsonl", "seeds=[1]", "teacher=1", "adapter.levels={}", "=1", "a"),
    ):
        options = ("--set", "seeds=FOLDER/seeds.jsonl", "--set", setting, "--dry-run")
        changed = command(cli.app, "distill", "--config", "FOLDER/config.yaml", *options)
        yield Case("settings", setting, changed, files)


def profiles() -> Iterator[Case]:
    dry = ("run", "--profile", "FOLDER/own.yaml", "--dry-run")
    for name, text in list(YAML.items())[::2]:
        content = text.encode("utf-8", "surrogatepass")
        yield Case("profiles", name, command(suite_app, *dry), {"own.yaml": content})
    for name, text in {
        "a base that isn't there": "base: nowhere\n",
        "a base that is itself": "base: own\n",
        "a base elsewhere": "base: ../../etc/passwd\n",
        "a base that is a list": "base: [a]\n",
    }.items():
        yield Case("profiles", name, command(suite_app, *dry), {"own.yaml": text.encode()})
    for setting in (
        *("tasks=[]", "tasks=[{name: nothing}]", "methods=[]", "methods=['sft@train=1']"),
        *("seeds=[]", "seeds=[-1]", "seeds=[1, 1]", "train.learning_rate=.nan"),
        *("train.learning_rate=-1", "sampling.temperature=.nan", "budgets.student_tokens=-3"),
        *("options={diagnose: {level: 7}}", "learning_rates={sft: .inf}", "teacher.spec=7"),
    ):
        run = command(suite_app, "run", "--profile", "micro", "--set", setting, "--dry-run")
        yield Case("profiles", setting, run)


def options() -> Iterator[Case]:
    for arguments in (
        "run --profile micro --jobs -3",
        "run --profile micro --cells 3/2",
        "run --profile nowhere --dry-run",
        "eval --model x --tasks , --output FOLDER/out",
        "eval --model x --tasks micro-math --temperature nan --output FOLDER/out",
        "eval --model x --tasks micro-math --limit -3 --output FOLDER/out",
        "eval --model x --tasks micro-math --k 0 --output FOLDER/out",
        "eval --model FOLDER/nothing --tasks micro-math --output FOLDER/out",
        "table FOLDER/nowhere",
        "show FOLDER/nowhere --task micro-math",
        "grade --task nothing --input FOLDER/a --output FOLDER/b",
    ):
        yield Case("options", arguments, command(suite_app, *arguments.split()))
    rows = {"in.jsonl": b'{"prompt": "a", "completion": "b"}\n'}
    data = "--model FOLDER/none --input FOLDER/in.jsonl --output FOLDER/out"
    for arguments in (
        f"generate {data} --temperature nan",
        f"generate {data} --temperature -1",
        f"generate {data} --top-p 0",
        f"generate {data} --max-tokens 0",
        f"generate {data} --seed -1",
        f"score {data}",
        "train --student x --data FOLDER/in.jsonl --output FOLDER/out --learning-rate nan",
        "train --student x --data FOLDER/in.jsonl --output FOLDER/out --learning-rate -1",
        "train --student x --data FOLDER/in.jsonl --output FOLDER/out --lora-rank -1",
        "train --student x --data FOLDER/in.jsonl --output FOLDER/out --lora-rank 1 "
        "--lora-alpha nan",
        "train --student x --data FOLDER/in.jsonl --output FOLDER/out --lora-rank 1 "
        "--lora-targets (",
    ):
        yield Case("options", arguments, command(cli.app, *arguments.split()), rows)


EXPORT = command(cli.app, "export", "--model", "FOLDER/model", "--output", "FOLDER/out")


def model_case(kind: str, name: str, **changed: bytes) -> Case:
    files = models.model_files(**changed)
    return Case(kind, name, EXPORT, {f"model/{name}": content for name, content in files.items()})


def configurations() -> Iterator[Case]:
    for name in ("nested lists", "an integer of 5,000 digits", "NaN", "a key twice", "an array"):
        yield model_case("config.json", name, config_json=JSON[name].encode())
    for field, value in (
        *(("num_hidden_layers", value) for value in (10**9, -1, 0, "2", 1.5, [2])),
        *(("hidden_size", value) for value in (0, -8, 2**40, None, True)),
        *(("num_attention_heads", 0), ("num_attention_heads", 3), ("num_key_value_heads", -1)),
        *(("head_dim", 3), ("vocab_size", 0), ("vocab_size", 2**62), ("rms_norm_eps", 0)),
        *(("rms_norm_eps", -1.0), ("rms_norm_eps", "small"), ("rope_theta", 0)),
        *(("rope_theta", -1), ("rope_theta", 10**400), ("rope_scaling", {"rope_type": "x"})),
        *(("rope_scaling", {"rope_type": "linear", "factor": 0}), ("rope_scaling", [1])),
        *(("eos_token_id", 97), ("eos_token_id", -1), ("eos_token_id", [[1]])),
        *(("bos_token_id", 10**9), ("model_type", ["llama"]), ("model_type", "mamba")),
        *(("layer_types", 7), ("hidden_act", {}), ("max_position_embeddings", -1)),
    ):
        config = json.dumps(models.CONFIG | {field: value}).encode()
        yield model_case("config.json", f"{field}={str(value)[:20]}", config_json=config)


def weights() -> Iterator[Case]:
    whole = models.model_files()["model.safetensors"]
    head = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    for name, content in {
        "nothing": b"",
        "a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
        "a header that ends early": whole[:40],
        "data that end early": whole[:-8],
        "data that go on": whole + b"\0" * 8,
        "nested lists": models.safetensors_file(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"),
        "no JSON": models.safetensors_file(b"{a}"),
        "not UTF-8": models.safetensors_file(b'{"\xff": 1}'),
        "offsets that overlap": models.safetensors_file({"a": head, "b": head}, b"\0" * 16),
        "offsets beyond the end": models.safetensors_file({"a": head}, b"\0" * 8),
        "offsets backwards": models.safetensors_file({"a": head | {"data_offsets": [16, 0]}}),
        "a shape that overflows": models.safetensors_file(
            {"a": head | {"shape": [2**40, 2**40]}}, b"\0" * 16
        ),
        "a negative size": models.safetensors_file({"a": head | {"shape": [-1, 4]}}, b"\0" * 16),
        "an unknown dtype": models.safetensors_file({"a": head | {"dtype": "X9"}}, b"\0" * 16),
        "another tensor": models.safetensors_file({"a": head}, b"\0" * 16),
        "a pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    }.items():
        yield model_case("safetensors", name, model_safetensors=content)
    without = {k: v for k, v in models.model_files().items() if k != "model.safetensors"}
    for name, index in {
        "an index that is a list": b"[]",
        "an index without a map": b"{}",
        "an index that leads out": b'{"weight_map": {"a": "../../etc/passwd"}}',
        "an index to nothing": b'{"weight_map": {"a": "b.safetensors"}}',
        "an index of numbers": b'{"weight_map": {"a": 1}}',
        "an index of nested lists": b'{"weight_map": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    }.items():
        files = without | {"model.safetensors.index.json": index}
        yield Case("safetensors", name, EXPORT, {f"model/{n}": c for n, c in files.items()})
    yield Case("safetensors", "none", EXPORT, {f"model/{n}": c for n, c in without.items()})


def adapters() -> Iterator[Case]:
    def run(folder: Path) -> None:
        read_lora(folder, DecoderConfig.from_hf(models.CONFIG))

    right = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    for name, config in {
        "nested lists": JSON["nested lists"],
        "a list": "[]",
        "another kind": '{"peft_type": "OTHER"}',
        "no rank": json.dumps(right | {"r": None}),
        "a rank of 0": json.dumps(right | {"r": 0}),
        "an alpha that is NaN": json.dumps(right | {"lora_alpha": float("nan")}),
        "an option that matters": json.dumps(right | {"use_dora": True}),
        "no weights": json.dumps(right),
    }.items():
        yield Case("adapters", name, run, {"adapter_config.json": config.encode()})
    files = {"adapter_config.json": json.dumps(right).encode(), "adapter_model.safetensors": b"x"}
    yield Case("adapters", "weights that are none", run, files)


def gguf_files() -> Iterator[Case]:
    run = command(cli.app, "export", "--model", "gguf:FOLDER/a.gguf", "--output", "FOLDER/out")
    whole = models.gguf_file(gguf_fields())

    def field(**changed: tuple[int, bytes]) -> bytes:
        return models.gguf_file(gguf_fields(**changed))

    huge = 2**31
    tensor = gguf_text("token_embd.weight")
    for name, content in {
        "nothing": b"",
        "another magic number": b"GGML" + whole[4:],
        "version 1": models.gguf_file(gguf_fields(), version=1),
        "the other byte order": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "2^62 fields": models.gguf_file({}, counts=(0, 2**62)),
        "2^62 tensors": models.gguf_file({}, counts=(2**62, 0)),
        "an array of 2^31 bytes": field(a=gguf_array(0, b"", huge)),
        "an array of 2^31 texts": field(a=gguf_array(STRING, b"", huge)),
        "an array of 2^31 arrays": field(a=gguf_array(ARRAY, b"", huge)),
        "an array of 2^64 - 1 numbers": field(a=gguf_array(U32, b"", 2**64 - 1)),
        "nested arrays": field(a=(ARRAY, struct.pack("<IQ", ARRAY, 1) * 200)),
        "a text of 2^40 bytes": field(a=(STRING, struct.pack("<Q", 2**40))),
        "a name of 2^63 bytes": models.gguf_file({}, struct.pack("<Q", 2**63), (0, 1)),
        "an unknown type": field(a=(77, b"")),
        "a text that isn't UTF-8": field(general__architecture=(STRING, gguf_text(b"\xff\xfe"))),
        "another architecture": field(general__architecture=(STRING, gguf_text("mamba"))),
        "an architecture that is a number": field(general__architecture=(U32, b"\0\0\0\0")),
        "no tensors": whole,
        "a billion layers": field(llama__block_count=(U32, struct.pack("<I", 10**9))),
        "no heads": field(llama__attention__head_count=(U32, struct.pack("<I", 0))),
        "a negative width": field(llama__embedding_length=(I32, struct.pack("<i", -8))),
        "an epsilon that is NaN": field(
            llama__attention__layer_norm_rms_epsilon=(F32, struct.pack("<f", float("nan")))
        ),
        "a tensor of 2^31 dimensions": models.gguf_file(
            gguf_fields(), tensor + struct.pack("<I", huge), (1, len(gguf_fields()))
        ),
        "a tensor beyond the end": models.gguf_file(
            gguf_fields(),
            tensor + struct.pack("<IQQIQ", 2, 8, 97, 0, 2**40),
            (1, len(gguf_fields())),
        ),
        "a tensor of 2^63 values": models.gguf_file(
            gguf_fields(),
            tensor + struct.pack("<IQQIQ", 2, 2**32, 2**31, 0, 0),
            (1, len(gguf_fields())),
        ),
        "a tensor of an unknown type": models.gguf_file(
            gguf_fields(), tensor + struct.pack("<IQQIQ", 2, 8, 97, 999, 0), (1, len(gguf_fields()))
        ),
    }.items():
        yield Case("GGUF", name, run, {"a.gguf": content})


def tokenizers() -> Iterator[Case]:
    right = models.tokenizer()

    def split(pattern: str) -> dict[str, Any]:
        regex = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
        return right | {"pre_tokenizer": regex | {"invert": False}}

    vocabulary = right["model"]["vocab"]
    for name, content in {
        "nothing": {},
        "a list": [],
        "(a+)+": split(r"(a+)+$"),
        "(a|a)*": split(r"(a|a)*$"),
        "(a?a)+": split(r"(a?a)+$"),
        "five repetitions": split(r"\s*\s*\s*\s*\s*x"),
        "a reference": split(r"(\w+)\1"),
        "a pattern that is none": split(r"(["),
        "a large pattern": split("a" * 100_000),
        "an unknown model": right | {"model": {"type": "Magic"}},
        "a vocabulary that is a list": right | {"model": right["model"] | {"vocab": [1]}},
        "numbers below 0": right | {"model": right["model"] | {"vocab": {"<unk>": -1}}},
        "numbers beyond the embedding": right
        | {"model": right["model"] | {"vocab": vocabulary | {"x": 2**31}}},
        "added tokens that are none": right | {"added_tokens": [{"id": "x"}]},
        "no model": {k: v for k, v in right.items() if k != "model"},
    }.items():
        yield model_case("tokenizers", name, tokenizer_json=json.dumps(content).encode())
    for name in ("nested lists", "a key twice", "half a surrogate pair"):
        yield model_case("tokenizers", name, tokenizer_json=JSON[name].encode())
    yield model_case("tokenizers", "settings that are a list", tokenizer_config_json=b"[]")


def templates() -> Iterator[Case]:
    def rendering(template: str) -> Callable[[Path], str]:
        def run(folder: Path) -> str:
            (folder / "tokenizer.json").write_text(json.dumps(models.tokenizer()))
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
            tokenizer.chat_template = template
            return render_chat(tokenizer, [{"role": "user", "content": "hello"}])

        return run

    for name, template in TEMPLATES.items():
        yield Case("chat templates", name, rendering(template))


def answers() -> Iterator[Case]:
    graders = (
        (NumberGrader(), Item("i", "?", ("7.5",))),
        (ChoiceGrader(), Item("i", "?", ("Q",), {"choices": ["a", "b"]})),
        (RougeGrader(), Item("i", "?", ("nothing of this kind",))),
    )

    def reading(text: str) -> Callable[[Path], str]:
        def run(_: Path) -> str:
            found: dict[str, Any] = {"program": len(find_program(text, "f").code)}
            for grader, item in graders[::2]:
                found[type(grader).__name__] = grader.grade(item, text).correct
            for read in (
                lambda: parse_completion(Completion(text, 1, 1, "stop"), RawExamples),
                lambda: parse_completion(Completion(text, 1, 1, "stop"), Proposal),
                lambda: read_task(text, True),
                lambda: split_solution(text, "math", r"\boxed{1}"),
            ):
                try:
                    found["read"] = read()
                except Unfit as unfit:
                    found[unfit.kind] = str(unfit)
            return str(found)

        return run

    for name, text in ANSWERS.items():
        yield Case("answers", name, reading(text))


def server_bodies() -> Iterator[Case]:
    def chat(**changed: Any) -> str:
        message = {"content": "a", **changed.pop("message", {})}
        choice = {"message": message, "finish_reason": "stop", **changed.pop("choice", {})}
        return json.dumps({"choices": [choice], **changed})

    def reading(content: bytes) -> Callable[[Path], str]:
        def run(_: Path) -> str:
            told = http_fault(500, content, {"retry-after": "9" * 400}).reason
            body = read_body(content, ChatBody)
            return f"{read_completion(body, True, 10, 20)} {told}"

        return run

    bodies = {
        **{f"JSON, {name}": text for name, text in list(JSON.items())[:10]},
        "usage that is NaN": chat(usage={"prompt_tokens": float("nan")}),
        "usage that is a text": chat(usage="much"),
        "usage of 4,000 digits": chat(usage={"completion_tokens": 7}).replace("7", "9" * 4000),
        "a model that is a number": chat(model=5),
        "an end that is a list": chat(choice={"finish_reason": ["stop"]}),
        "log-probabilities that are NaN": chat(
            choice={"logprobs": {"content": [{"logprob": float("nan")}]}}
        ),
        "a refusal that is a number": chat(message={"refusal": 5}),
        "thoughts that are a number": chat(message={"reasoning": 5}),
        "content that is a number": chat(message={"content": 5}),
        "half a surrogate pair": chat(message={"content": "\ud800"}),
        "choices that are a text": '{"choices": "abc"}',
        "no choices": '{"choices": []}',
        "an error of errors": '{"error":' * 3000 + '"x"' + "}" * 3000,
        "an error of lists": '{"error":' + "[" * 90 + '"x"' + "]" * 90 + "}",
        "a status of other digits": '{"error": {"code": "\u00b2\u00b2\u00b2", "message": "x"}}',
        "a page of brackets": "<" * 2_000_000,
        "nothing": "",
        "zero bytes": "\0" * 1000,
    }
    for name, text in bodies.items():
        content = text.encode("utf-8", "surrogatepass")
        yield Case("server bodies", name, reading(content))


RUN = {
    "version": 3,
    "profile": "p",
    "run_id": "r",
    "created": "2026-01-01",
    "status": "complete",
    "settings": {"methods": ["sft"], "seeds": [0], "teacher": {"spec": "openai:x@http://y"}},
    "settings_sha256": "0" * 64,
    "environments": [],
    "tasks": [{"name": "micro-math", "version": 1, "metric": None, "items": 1}],
}


def run_records() -> Iterator[Case]:
    table = command(suite_app, "table", "FOLDER")
    for name in ("nested lists", "NaN", "a key twice", "an array", "an end that is missing"):
        yield Case("run records", name, table, {"run.json": JSON[name].encode()})
    for name, changed in {
        "another version": {"version": 99},
        "a version that is a text": {"version": "3"},
        "settings that are a list": {"settings": []},
        "methods that are a number": {"settings": {"methods": 1, "seeds": [0]}},
        "tasks that are a text": {"tasks": "micro-math"},
        "a count below 0": {"tasks": [RUN["tasks"][0] | {"items": -1}]},
        "a hash that is none": {"settings_sha256": "x"},
    }.items():
        yield Case("run records", name, table, {"run.json": json.dumps(RUN | changed).encode()})
    report = command(suite_app, "report", "FOLDER")
    run = {"run.json": json.dumps(RUN).encode()}
    for name, cell in {
        "a cell of nested lists": JSON["nested lists"],
        "a cell of another method": json.dumps({"method": "ioa", "seed": 0}),
        "a cell that is a list": "[]",
    }.items():
        files = run | {"cells/sft-seed0/cell.json": cell.encode()}
        yield Case("run records", name, report, files)


def archives() -> Iterator[Case]:
    def run(folder: Path) -> None:
        RunCells(folder)

    row = {"cell": "a", "file": "cell.json", "value": {}}
    lines = {
        "a file elsewhere": row | {"file": "../../x.json"},
        "an absolute file": row | {"file": "/tmp/x.json"},
        "a program": row | {"file": "x.py"},
        "no value": {"cell": "a", "file": "cell.json"},
        "a name that is a number": row | {"cell": 5},
    }
    for name, line in lines.items():
        content = lzma.compress(json.dumps(line).encode() + b"\n")
        yield Case("archives", name, run, {RECORDS: content})
    for name, text in list(JSON.items())[:4]:
        yield Case("archives", name, run, {RECORDS: lzma.compress(text.encode() + b"\n")})
    yield Case("archives", "no archive", run, {RECORDS: b"xz"})


def journals() -> Iterator[Case]:
    def opening(folder: Path) -> None:
        Journal(folder / "a.jsonl", ("id",)).close()

    def reading(folder: Path) -> None:
        read_journal(folder / "a.jsonl")

    for name in ("nested lists", "NaN", "a key twice", "words", "an end that is missing"):
        files = {"a.jsonl": b'{"id": 1}\n' + JSON[name].encode() + b"\n"}
        yield Case("journals", f"{name}, opened", opening, files)
        yield Case("journals", f"{name}, read", reading, files)
    for name, line in {"a key": '{"id": 1}', "no key": '{"x": 1}', "a list": '{"id": []}'}.items():
        files = {"a.jsonl": b'{"id": 1}\n' + line.encode() + b"\n"}
        yield Case("journals", name, opening, files)


def ledgers() -> Iterator[Case]:
    def run(folder: Path) -> None:
        ledger = Ledger(folder)
        list(ledger)

    for name in ("nested lists", "NaN", "an array", "words"):
        yield Case("ledgers", name, run, {"000000.jsonl": JSON[name].encode() + b"\n"})
    for name, line in {
        "no key": {"model": "m"},
        "a key that is a list": {"key": [], "model": "m"},
        "a model that is an object": {"key": "k", "model": {}},
    }.items():
        yield Case("ledgers", name, run, {"000000.jsonl": json.dumps(line).encode() + b"\n"})


KINDS = (
    *(seed_files, settings_files, profiles, options, configurations, weights, adapters),
    *(gguf_files, tokenizers, templates, answers, server_bodies, run_records, archives),
    *(journals, ledgers),
)


def cut_files(draw: random.Random, count: int) -> Iterator[Case]:
    """Files that end where nobody meant them to."""
    whole = models.gguf_file(gguf_fields())
    gguf = command(cli.app, "export", "--model", "gguf:FOLDER/a.gguf", "--output", "FOLDER/out")
    files = models.model_files()
    for number in range(count):
        name = draw.choice(["config.json", "tokenizer.json", "model.safetensors", "a.gguf"])
        content = whole if name == "a.gguf" else files[name]
        end = draw.randrange(1, len(content) - 1)
        if name == "a.gguf":
            yield Case("cut files", f"{number}: {name} at {end}", gguf, {name: content[:end]})
        else:
            changed = {name.replace(".", "_"): content[:end]}
            yield model_case("cut files", f"{number}: {name} at {end}", **changed)


# -- the whole ------------------------------------------------------------------------------------


def isolated(case: Case) -> tuple[Outcome, float]:
    """Read the input in a process of its own; what came of it, and processor seconds."""
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "outcome.json"
        folder = Path(name) / "case"
        folder.mkdir()
        child = os.fork()
        if child == 0:
            _in_child(case, folder, report)
        deadline = time.monotonic() + WALL_SECONDS
        while True:
            ended, status, used = os.wait4(child, os.WNOHANG)
            if ended:
                break
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.01)
        seconds = used.ru_utime + used.ru_stime
        if report.is_file():
            state, said = json.loads(report.read_text())
            return (state, said), seconds
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXCPU):
            return ("hang", f"ended after {seconds:.1f} s of the processor"), seconds
        return ("traceback", f"the process ended with status {status}"), seconds


def _in_child(case: Case, folder: Path, report: Path) -> None:
    code = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        outcome = attempt(case, folder)
        report.write_text(json.dumps(outcome))
        code = 0
    finally:
        os._exit(code)


def load_commands() -> None:
    """Import what commands import when they are called, so that not every process has to."""
    for name in (
        *("ioa_jax.adapter.synthesize", "ioa_jax.config", "ioa_jax.engine.training"),
        *("ioa_jax.engine.generation", "ioa_jax.engine.scoring", "ioa_jax.identifier.forecast"),
        *("ioa_jax.models.load", "ioa_jax.models.prune", "ioa_jax.settings", "ioa_jax.steps.write"),
        *("suite.eval", "suite.methods.registry", "suite.plan", "suite.profile_files", "suite.run"),
        *("suite.report", "suite.table", "suite.texts"),
    ):
        importlib.import_module(name)


def figures(seed: int, count: int) -> dict[str, Any]:
    """What came of the inputs, each in a process of its own."""
    found: dict[str, list[tuple[Case, str]]] = collections.defaultdict(list)
    by_kind: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    slowest = (0.0, "")
    for number, case in enumerate(cases(seed, count), start=1):
        (state, said), seconds = isolated(case)
        found[state].append((case, said))
        by_kind[case.kind][state] += 1
        slowest = max(slowest, (seconds, f"{case.kind}: {case.name}"))
        if state not in ("error", "verdict"):
            print(f"{number}: {case.kind}: {case.name}: {state}: {said}", file=sys.stderr)

    def named(state: str) -> list[str]:
        return [f"{case.kind}: {case.name}: {said}" for case, said in found[state]]

    return {
        "cases": sum(map(len, found.values())),
        "seed": seed,
        "limits": {"memory_bytes": MEMORY_BYTES, "processor_seconds": CPU_SECONDS},
        "named_errors": len(found["error"]),
        "verdicts": len(found["verdict"]),
        "accepted": named("accepted"),
        "tracebacks": named("traceback"),
        "hangs": named("hang"),
        "slowest": {"processor_seconds": round(slowest[0], 2), "case": slowest[1]},
        "by_kind": {kind: dict(sorted(counts.items())) for kind, counts in by_kind.items()},
    }


def main() -> None:
    """Print the figures, and write them if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="JSON file.")
    parser.add_argument("--seed", type=int, default=0, help="Of the draw.")
    parser.add_argument("--count", type=int, default=COUNT, help="Inputs; there are some 400.")
    chosen = parser.parse_args()
    load_commands()
    found = figures(chosen.seed, chosen.count)
    # It starts JAX, which isn't to be forked.
    found["environment"] = environment()
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    print(text, end="")
    if chosen.output is not None:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        chosen.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
