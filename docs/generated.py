"""Text of the pages that follows from the code: commands, settings, methods, tasks, schemas."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import ioa_jax
from ioa_jax.cli import app as ioa_app
from ioa_jax.config import DistillConfig, MethodConfig
from ioa_jax.errors import IOAError
from ioa_jax.seeds import SeedRow
from ioa_jax.teachers.chat_fields import OpenAISettings
from ioa_jax.teachers.huggingface import TransformersSettings
from ioa_jax.teachers.local import LocalSettings
from ioa_jax.teachers.spend import Prices
from suite.cli import app as suite_app
from suite.methods import CONTROL_NAMES, METHODS, ORDERS
from suite.methods.controls import CONTROLS
from suite.methods.registry import load_method
from suite.profile import Profile
from suite.profile_files import load_profile, profile_names
from suite.schema import SCHEMAS
from suite.tasks import TASKS, load_task, task_lines

COMMANDS = {"ioa": (ioa_app, "ioa"), "suite": (suite_app, "python -m suite")}
MODELS: dict[str, type[BaseModel]] = {
    "distill": DistillConfig,
    "profile": Profile,
    "local": LocalSettings,
    "transformers": TransformersSettings,
    "openai": OpenAISettings,
    "prices": Prices,
    "seed": SeedRow,
    **SCHEMAS,
}


def text(kind: str, name: str | None = None) -> str:
    """Markdown of one kind, such as the commands of `ioa`.

    Raises:
        KeyError: There is no such kind or name.
    """
    return "\n".join(KINDS[kind](*([name] if name else [])))


# -- commands ------------------------------------------------------------------------------------


def commands(name: str) -> Iterator[str]:
    """A section a command: what it does, its arguments and options."""
    app, program = COMMANDS[name]
    group: Any = typer.main.get_command(app)
    yield "Options before the command's name:\n"
    yield from _options(group.params)
    for command_name, command in group.commands.items():
        yield f"\n## `{program} {command_name}`\n"
        yield f"{escape(command.help or '')}\n"
        yield from _options(command.params)


def _options(parameters: Iterable[Any]) -> Iterator[str]:
    yield from table_head("argument or option", "value", "default", "meaning")
    for one in parameters:
        if one.name in ("install_completion", "show_completion"):
            continue
        is_argument = one.param_type_name == "argument"
        names = [one.name.upper()] if is_argument else [*one.opts, *one.secondary_opts]
        flag = getattr(one, "is_flag", False)
        default = "required" if one.required else "" if flag or one.default is None else one.default
        default = default() if callable(default) else default
        kind = "" if flag else one.type_descriptor.annotation
        yield row(
            " ".join(f"`{part}`" for part in names),
            _plain(kind),
            default if default == "required" else f"`{_value(default)}`" if default != "" else "",
            escape(one.help or ""),
        )


# -- settings ------------------------------------------------------------------------------------


def settings(name: str) -> Iterator[str]:
    """Every setting of a tree by its path, a table a section."""
    yield from _section(MODELS[name], "")


def _section(model: type[BaseModel], path: str) -> Iterator[str]:
    if path:
        yield f"\n## `{path}`\n"
        yield f"{escape(first_paragraph(model))}\n"
    nested: list[tuple[type[BaseModel], str]] = []
    yield from table_head("setting", "value", "default", "meaning")
    for name, field in model.model_fields.items():
        whole = f"{path}.{name}" if path else name
        inner = _model_in(field)
        if inner is not None:
            nested.append((inner, whole))
        yield row(
            f"[`{name}`](#{whole.replace('.', '')})" if inner else f"`{name}`",
            "section" if inner else _plain(field.annotation),
            _default(field, inner),
            escape(field.description or (first_paragraph(inner) if inner else "")),
        )
    for inner, whole in nested:
        yield from _section(inner, whole)


def fields(name: str) -> Iterator[str]:
    """The fields of one kind of record, without those of the records in it."""
    yield from table_head("field", "value", "default", "meaning")
    for field_name, field in MODELS[name].model_fields.items():
        yield row(
            f"`{field_name}`",
            _plain(field.annotation),
            _default(field, None),
            escape(field.description or ""),
        )


def schemas() -> Iterator[str]:
    """Every kind of file of a run, and every record in one."""
    waiting = list(SCHEMAS.values())
    for model in waiting:
        is_file = model in SCHEMAS.values()
        yield f"\n{'##' if is_file else '###'} `{model.__name__}`\n"
        yield f"{escape(first_paragraph(model))}\n"
        if model.model_config.get("extra") == "allow":
            yield "It may hold further fields.\n"
        yield from table_head("field", "value", "default", "meaning")
        for name, field in model.model_fields.items():
            yield row(
                f"`{name}`", _plain(field.annotation), _default(field, None),
                escape(field.description or ""),
            )  # fmt: skip


def _model_in(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field is, if it is one: alone or as one of several."""
    found = field.annotation
    parts = typing.get_args(found) if typing.get_origin(found) else (found,)
    for part in parts:
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _default(field: FieldInfo, inner: type[BaseModel] | None) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if inner is not None and isinstance(default, BaseModel):
        return ""
    return f"`{_value(default)}`"


def _value(value: Any) -> str:
    """As YAML writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_value(one)}' for key, one in value.items())}}}"
    return str(value.value if hasattr(value, "value") else value)


def _plain(kind: Any) -> str:
    """A type in words that a user of YAML knows."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " ".join(f"`{part}`" for part in parts)
    if origin is typing.Annotated:
        return _plain(parts[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_plain(part) for part in parts))
    if origin in (list, tuple):
        return f"list of {_plain(parts[0])}" if parts else "list"
    if origin is dict or kind is dict:
        return "mapping"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"`{kind.__name__}`"
    if isinstance(kind, type) and hasattr(kind, "__members__"):
        return " ".join(f"`{one.value}`" for one in kind)  # pyright: ignore
    words = {
        str: "text", int: "whole number", float: "number", bool: "true or false",
        Path: "path", type(None): "null", Any: "any",
    }  # fmt: skip
    return words.get(kind, "" if kind == "" else getattr(kind, "__name__", str(kind)))


# -- what there is -------------------------------------------------------------------------------


def methods() -> Iterator[str]:
    """A row a method, but for the controls of IOA."""
    others = {*CONTROL_NAMES, *(f"ioa_{order}" for order in ORDERS)}
    yield from _methods(name for name in METHODS if name not in others)


def controls() -> Iterator[str]:
    """A row a control of IOA."""
    yield from _methods((*CONTROL_NAMES, *(f"ioa_{order}" for order in ORDERS)))


def paper() -> Iterator[str]:
    """A row a setting of the paper read literally that differs from the default."""
    yield from table_head("setting", "`ioa_paper`", "default")
    default = MethodConfig().model_dump()
    for path, value in _leaves(CONTROLS["ioa_paper"][1]):
        here: Any = default
        for name in path:
            here = here[name]
        yield row(f"`{'.'.join(path)}`", f"`{_value(value)}`", f"`{_value(here)}`")


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _methods(names: Iterable[str]) -> Iterator[str]:
    yield from table_head("method", "what it does")
    for name in names:
        yield row(f"`{name}`", escape(load_method(name).summary))


def tasks() -> Iterator[str]:
    """A row a task, and how it is asked and graded."""
    yield from (escape_braces(line) for line in task_lines(TASKS))
    yield ""
    yield from table_head("task", "version", "graded by", "longest answer", "examples (chat, base)")
    for name in TASKS:
        task = load_task(name)
        shots = task.default_shots
        yield row(
            f"`{name}`",
            task.version,
            f"`{task.grader_kind}`",
            f"{task.settings.max_tokens} tokens",
            f"{shots.get('chat', 0)}, {shots.get('base', 0)}",
        )


def profiles() -> Iterator[str]:
    """A row a profile that comes with the suite."""
    yield from table_head("profile", "what it runs", "methods", "seeds")
    for name in profile_names():
        profile = load_profile(name)[1]
        yield row(
            f"`{name}`", escape(profile.description), len(profile.methods), len(profile.seeds)
        )


def errors() -> Iterator[str]:
    """A row an error class that can end a command."""
    for package in ("ioa_jax.teachers.replay", "ioa_jax.teachers.server", "ioa_jax.identifier"):
        importlib.import_module(package)
    importlib.import_module("ioa_jax.identifier.proposals")
    yield from table_head("exit code", "class", "what it means")
    found = sorted(_subclasses(IOAError), key=lambda kind: (kind.exit_code, kind.__name__))
    for kind in found:
        yield row(kind.exit_code, f"`{kind.__name__}`", escape(first_paragraph(kind)))


def _subclasses(kind: type[IOAError]) -> Iterator[type[IOAError]]:
    for one in kind.__subclasses__():
        yield one
        yield from _subclasses(one)


# -- the Python interface ------------------------------------------------------------------------


def public() -> Iterator[str]:
    """What `ioa_jax` exports, functions before classes."""
    names = sorted(
        ioa_jax.__all__, key=lambda name: (inspect.isclass(getattr(ioa_jax, name)), name)
    )
    for name in names:
        kind = "autoclass" if inspect.isclass(getattr(ioa_jax, name)) else "autofunction"
        yield from directive(kind, f"ioa_jax.{name}", members=kind == "autoclass")


def modules(package: str) -> Iterator[str]:
    """Every module of a package, or a module alone."""
    found = importlib.import_module(package)
    names = [package]
    if hasattr(found, "__path__"):
        names += sorted(one.name for one in pkgutil.walk_packages(found.__path__, f"{package}."))
    for name in names:
        module = importlib.import_module(name)
        if name.endswith("__main__") or not module.__doc__:
            continue
        # What `ioa_jax` exports stands with its public name, and there alone.
        exported = [
            one for one in ioa_jax.__all__ if getattr(module, one, None) is getattr(ioa_jax, one)
        ]
        yield f"\n## `{name}`\n"
        yield from directive("automodule", name, members=True, without=exported)
        if exported:
            listed = ", ".join(f"`{one}`" for one in exported)
            yield f"\nIn [the Python interface](/reference/python.md): {listed}."


def directive(kind: str, name: str, members: bool, without: Iterable[str] = ()) -> Iterator[str]:
    """A directive of autodoc, whose docstrings are reStructuredText."""
    yield "```{eval-rst}"
    yield f".. {kind}:: {name}"
    if members:
        yield "   :members:"
    if without:
        yield f"   :exclude-members: {', '.join(without)}"
    yield "```"


# -- Markdown ------------------------------------------------------------------------------------


def table_head(*names: str) -> Iterator[str]:
    """The first two lines of a table."""
    yield row(*names)
    yield row(*["---"] * len(names))


def row(*cells: object) -> str:
    """A line of a table."""
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def escape(prose: str) -> str:
    """Prose of a docstring or a description, as Markdown that says the same."""
    for sign in "*<_$":
        prose = prose.replace(sign, f"\\{sign}")
    return prose.replace("\\_\\_", "__")


def escape_braces(line: str) -> str:
    """A line that is Markdown already."""
    return line.replace("$", "\\$")


def first_paragraph(thing: Any) -> str:
    """Of a docstring, as one line; a class without one doesn't have its base's."""
    own = vars(thing).get("__doc__")
    return inspect.cleandoc(own or "").split("\n\n")[0].replace("\n", " ")


KINDS: dict[str, Callable[..., Iterable[str]]] = {
    one.__name__: one
    for one in (
        commands, settings, fields, schemas, methods, controls, paper, tasks, profiles, errors,
        public, modules,
    )
}  # fmt: skip
