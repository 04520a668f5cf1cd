"""What README and docs/ say: commands are parsed, settings are checked, Python is run."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
import yaml
from pydantic import BaseModel

from ioa_jax.cli import app as ioa_app
from ioa_jax.config import DistillConfig
from ioa_jax.errors import IOAError
from ioa_jax.graders.registry import make_grader
from ioa_jax.identifier.settings import DiagnoseSettings
from ioa_jax.seeds import SeedRow
from ioa_jax.settings import check_settings, override_setting
from suite.cli import app as suite_app
from suite.methods import METHODS
from suite.models import find_spec
from suite.profile import Profile
from suite.tasks import TASKS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
COMMANDS: dict[str, dict[str, Any]] = {
    "ioa": typer.main.get_command(ioa_app).commands,  # pyright: ignore[reportAttributeAccessIssue]
    "suite": typer.main.get_command(suite_app).commands,  # pyright: ignore[reportAttributeAccessIssue]
}
MODELS = {"teacher": {"spec": "t"}, "student": {"spec": "s"}, "seeds": "seeds.jsonl"}
# Blocks that run with what a test gives them. The guide to one's own domain is run by
# tests/test_own_domain.py, with README's section of it.
RUN = {"teachers.md", "accelerators.md", "adding-a-method.md", "adding-a-task.md"}
RUN_ELSEWHERE = {"own-domain.md", "README.md"}


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def split_command(text: str) -> tuple[str, list[str]] | None:
    """The command line that a command is of, and what follows its name; None if it isn't ours."""
    for program, start in (
        ("ioa", "ioa "),
        ("ioa", "python -m ioa_jax "),
        ("suite", "python -m suite "),
    ):
        if text.startswith(start):
            return program, shlex.split(text.removeprefix(start), comments=True)
    return None


def shell_commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            found = split_command(line.strip())
            if found is not None:
                yield found


def test_there_are_commands_to_check():
    assert sum(len([*shell_commands(page)]) for page in PAGES) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_blocks_are_parsed(page):
    for program, words in shell_commands(page):
        name, *arguments = words
        context = COMMANDS[program][name].make_context(name, arguments)
        given = context.params
        if (program, name) == ("ioa", "distill"):
            raw: dict[str, Any] = {**MODELS}
            for setting in given["settings"] or ():
                override_setting(raw, setting)
            check_settings(DistillConfig, raw, page.name)
        if (program, name) == ("ioa", "diagnose"):
            raw = {}
            for setting in given["set_"] or ():
                override_setting(raw, setting)
            check_settings(DiagnoseSettings, raw, page.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_in_a_line_exist(page):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    for span in re.findall(r"`([^`\n]+)`", text):
        found = split_command(span)
        if found is None:
            continue
        program, (name, *rest) = found
        if name.startswith("-"):
            assert name in ("--version", "--install-completion", "--no-compile-cache"), span
            continue
        # Such as `report|compare|verify`.
        for one in name.split("|"):
            parameters = COMMANDS[program][one].params
            known = {opt for p in parameters for opt in (*p.opts, *p.secondary_opts)} | {"--help"}
            used = {word.partition("=")[0] for word in rest if word.startswith("--")}
            assert used <= known, span


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_in_yaml_are_settings(page):
    for block in blocks(page, "yaml"):
        raw = yaml.safe_load(block)
        if "methods" in raw:
            check_settings(Profile, raw, page.name)
        else:
            check_settings(DistillConfig, {**MODELS, **raw}, page.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_of_json_are_seeds(page):
    for block in blocks(page, "json"):
        for line in block.splitlines():
            SeedRow.model_validate(json.loads(line))


def test_all_python_is_run():
    assert {page.name for page in PAGES if blocks(page, "python")} == RUN | RUN_ELSEWHERE


def run_block(name: str, **replaced: str) -> dict[str, Any]:
    """What a guide's block of Python defines."""
    (block,) = blocks(DOCS / "guides" / name, "python")
    for old, new in replaced.items():
        block = block.replace(old, new)
    # Dataclasses look their module up by its name.
    module = ModuleType("a_guide")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "a_guide", module)
        exec(compile(block, name, "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def test_the_method_of_the_guide_is_one():
    method = run_block("adding-a-method.md")["METHOD"]
    assert method.summary
    assert method.needs == ()
    assert method.run.__annotations__["context"].__name__ == "MethodContext"


def test_the_task_of_the_guide_is_one():
    task = run_block("adding-a-task.md")["TASK"]
    items = task.load(None).items
    assert task.prompt(items[0]).messages[0]["content"] == "What is 0 + 3?"
    with make_grader(task.grader_kind) as grader:
        assert grader.grade(items[1], "It is 5.").correct
        assert not grader.grade(items[1], "It is 6.").correct


def test_the_guide_opens_a_teacher(capsys):
    pytest.importorskip("openai")
    run_block("teachers.md")
    assert capsys.readouterr().out == "openai:MODEL@http://localhost:8000/v1\n"


def test_the_guide_puts_a_model_on_a_mesh():
    found = run_block("accelerators.md", MODEL=find_spec("micro:student-flat"))
    weights = found["model"].decoder.embedding
    assert len(weights.sharding.device_set) == len(found["jax"].devices()) == 2


# -- what is generated ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated", DOCS / "generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_pages_ask_for_is_generated(generated):
    asked = {
        (kind, name or None)
        for page in PAGES
        for kind, name in re.findall(
            r"^<!-- generated: (\w+)(?: ([\w.-]+))? -->$", page.read_text("utf-8"), re.M
        )
    }
    assert {kind for kind, _ in asked} == set(generated.KINDS)
    for kind, name in asked:
        if kind != "modules":
            assert len(generated.text(kind, name).splitlines()) > 3, (kind, name)


def test_tables_name_everything(generated):
    methods = generated.text("methods") + generated.text("controls")
    assert set(re.findall(r"^\| `([\w-]+)` \|", methods, re.M)) == set(METHODS)
    assert set(re.findall(r"^\| `([\w-]+)` \|", generated.text("tasks"), re.M)) == set(TASKS)
    for program, commands in COMMANDS.items():
        text = generated.text("commands", program)
        for name, command in commands.items():
            assert f" {name}`\n" in text
            for parameter in command.params:
                assert all(f"`{option}`" in text for option in parameter.opts[:1] if "-" in option)


def leaves(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, str]]:
    """Path and description of every setting."""
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, f"{path}{name}.")
        yield f"{path}{name}", field.description or ""


def test_every_decision_of_ours_is_explained():
    concepts = (DOCS / "concepts.md").read_text("utf-8")
    ours = [path for path, description in leaves(DistillConfig) if "[ours" in description]
    assert len(ours) > 10
    missing = [path for path in ours if path.rpartition(".")[2] not in concepts]
    assert missing == []


def test_every_exit_code_and_error_is_explained(generated):
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    table = generated.text("errors")
    kinds = [IOAError]
    for kind in kinds:
        # Tests and other packages may have some of their own.
        kinds += [one for one in kind.__subclasses__() if one.__module__.startswith("ioa_jax")]
    for kind in kinds[1:]:
        assert f"\n| {kind.exit_code} |" in page
        assert f"`{kind.__name__}`" in table
    explained = {kind for kind in kinds if f"### `{kind.__name__}`" in page}
    assert {one for one in kinds if one.__base__ is IOAError} <= explained


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
