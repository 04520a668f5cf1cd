"""The benchmark tasks by name: ours, and those that installed packages add."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

from ioa_jax.errors import InputError
from suite.entry_points import find_others, load_other, package_of

if TYPE_CHECKING:
    from suite.tasks.base import Task

ENTRY_POINTS = "ioa.tasks"

# Name to module and attribute. They are imported when they are used.
TASKS = {
    "math": ("maths", "MATH"),
    "math500": ("maths", "MATH500"),
    "gsm8k": ("gsm8k", "GSM8K"),
    "aime24": ("maths", "AIME24_TASK"),
    "aime25": ("maths", "AIME25_TASK"),
    "aime26": ("maths", "AIME26_TASK"),
    "amc23": ("maths", "AMC23_TASK"),
    "gpqa_diamond": ("choice", "GPQA_DIAMOND"),
    "mmlu_pro": ("choice", "MMLU_PRO"),
    "humaneval": ("code", "HUMANEVAL"),
    "mbpp": ("code", "MBPP"),
    "mbpp_sanitized": ("code", "MBPP_SANITIZED"),
    "humaneval_plus": ("plus", "HUMANEVAL_PLUS"),
    "mbpp_plus": ("plus", "MBPP_PLUS"),
    "livecodebench": ("livecodebench", "LIVECODEBENCH"),
    "ifeval": ("instructions", "IFEVAL"),
    "dolly": ("instructions", "DOLLY"),
    "self_instruct": ("instructions", "SELF_INSTRUCT"),
    "vicuna": ("instructions", "VICUNA"),
    "vicuna_bench": ("open_ended", "VICUNA_BENCH"),
    "koala": ("open_ended", "KOALA"),
    "mt_bench": ("open_ended", "MT_BENCH"),
    "micro-math": ("micro", "MICRO_MATH"),
    "micro-code": ("micro", "MICRO_CODE"),
    "micro-instruct": ("micro", "MICRO_INSTRUCT"),
}


def task_names() -> list[str]:
    """Ours in the order of `TASKS`, then others' by name.

    Raises:
        InputError: Two tasks have the same name.
    """
    return [*TASKS, *sorted(_others())]


def load_task(name: str) -> Task:
    """A task by its name, with settings behind it: `livecodebench@release=v5@end=2024-12-31`.

    Raises:
        InputError: There is none, or an installed package's can't be imported; or it has no such
            setting.
    """
    base, *texts = name.split("@")
    task = _load_named(base)
    if not texts:
        return task
    settings: dict[str, str] = {}
    for text in texts:
        key, is_pair, value = text.partition("=")
        if not is_pair or key in settings:
            raise InputError(f"task {name!r}: {text!r}: write each setting once, as @NAME=VALUE")
        settings[key] = value
    with_settings = getattr(task, "with_settings", None)
    if with_settings is None:
        raise InputError(f"task {name!r}: {base} has no settings")
    return with_settings(name, settings)


def _load_named(name: str) -> Task:
    if name in TASKS:
        module, attribute = TASKS[name]
        return getattr(importlib.import_module(f"suite.tasks.{module}"), attribute)
    others = _others()
    if name not in others:
        raise InputError(f"task {name!r} is unknown; there are {', '.join(task_names())}")
    point = others[name]
    task = load_other(point, "task")
    if getattr(task, "name", None) != name:
        raise InputError(
            f"task {name!r} of {package_of(point)}: {point.value} has to be a task of that name"
        )
    return task


def task_lines(names: Iterable[str] | None = None) -> list[str]:
    """A Markdown table with a line a task: name, what it asks, source, licence."""
    lines = ["| task | what | source | licence |", "|---|---|---|---|"]
    for name in task_names() if names is None else names:
        task = load_task(name)
        lines.append(f"| `{task.name}` | {task.summary} | {task.source} | {task.licence} |")
    return lines


def _others() -> dict[str, EntryPoint]:
    return find_others(ENTRY_POINTS, TASKS, "task")
