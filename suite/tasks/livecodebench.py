"""LiveCodeBench (Jain et al., 2024): problems of programming contests, by the time of the contest.

Code generation, in the version that its authors call lite. Its six files were published one after
the other, so that a model can be measured on problems which are newer than what it was trained on.
Settings are written behind the task's name, such as
`livecodebench@release=release_v6@start=2024-08-01@end=2025-04-30`:

- `release`: files, by the names that LiveCodeBench gives to sets of them: `release_v3` is the first
  three, `v3` the third alone, `v2_v4` the second to the fourth. Without it, the newest.
- `start`, `end`: contests from and up to these days, both included.

Not all is right with the tests: some problems have several right answers, of which one passes, and
two are a dialogue with a judge; LiveCodeBench's `ERRATA.md` lists them. There are no reference
programs. LiveCodeBench takes 10 samples at temperature 0.2; here a greedy one is the default.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from ioa_jax.graders.contests import decode_tests
from suite.data import DataSource
from suite.sources import HubFile, Layout, Part, Row, Source
from suite.tasks.base import (
    Description,
    Example,
    GenerationSettings,
    Prompt,
    Style,
    TaskData,
    chat_prompt,
    take_examples,
)
from suite.tasks.code import CodeMetrics

HUB = "livecodebench/code_generation_lite"
REVISION = "0fe84c3912ea0c4d4a78037083943e8f0c4dd505"
# Problems and sha256 of test.jsonl, test2.jsonl and so on. As the hub lists the files at that
# revision (Git LFS), by what several projects publish of it; not computed by us from the files.
FILES = (
    (400, "2bd02b38beb48e8c46b5b9987095d999ff38cd8efc255ea5d58974317c48f63f"),
    (111, "095df7c5daf15f882c51a9deb84085cff1e073495a5dbcf95015a564d485f3a3"),
    (101, "28ed26cc83363ce3f1fe2d5fad9f8393077beb1907b167a31bd3b32f80801b79"),
    (101, "d711138ddaebfcf5f8ec6a4283ee677298c0f5c5d374a235af92aaf0584510da"),
    (167, "7f77571c2a6df0c2a72a3277650309f67e01e0008e18117e624633df53f81214"),
    (175, "bb4c364f71921c4495a6ad15abe1a927350b720009f4933e2e71f8af0f6fd1f5"),
)
# Of each test. The 6 seconds are LiveCodeBench's; here they are the processor's. It has no limit of
# memory.
LIMITS = {"cpu_seconds": 6, "memory_bytes": 2 << 30}
STOPS = ("\n```",)

_TEXTS = (
    "question_content", "platform", "question_id", "contest_date", "public_test_cases",
    "private_test_cases", "metadata",
)  # fmt: skip
_RELEASE = re.compile(r"v([1-6])(?:_v([1-6]))?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveCodeBenchTask(CodeMetrics, Description):
    """Programs that read standard input, or methods to write.

    Attributes:
        release: As this module says.
        start: First day.
        end: Last day.
    """

    release: str = "v6"
    start: datetime.date = datetime.date.min
    end: datetime.date = datetime.date.max

    def with_settings(self, name: str, settings: Mapping[str, str]) -> LiveCodeBenchTask:
        """This task under another name, with settings.

        Raises:
            InputError: One is unknown, or its value isn't of its kind.
        """
        known = ("release", "start", "end")
        found: dict[str, Any] = {}
        for key, value in settings.items():
            if key not in known:
                raise InputError(f"task {name!r}: setting {key!r}: there are {', '.join(known)}")
            found[key] = value
            if key != "release":
                try:
                    found[key] = datetime.date.fromisoformat(value)
                except ValueError:
                    raise InputError(
                        f"task {name!r}: {key}={value!r}: a day is needed, such as 2025-01-31"
                    ) from None
        task = dataclasses.replace(self, name=name, **found)
        task._files()
        if task.start > task.end:
            raise InputError(f"task {name!r}: start={task.start} is after end={task.end}")
        return task

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """The problems of the release's files whose contest is in the window."""
        read = [data.load(self._source(number)) for number in self._files()]
        items = tuple(_item(row) for rows in read for row in rows.rows)
        if not items:
            raise InputError(f"task {self.name!r}: no contest of its files is in the window")
        sources = tuple(rows.provenance for rows in read)
        return TaskData(items, take_examples(self.name, (), shots), sources=sources)

    def prompt(self, item: Item, style: Style = "chat", examples: Sequence[Example] = ()) -> Prompt:
        """The problem, what kind of program is wanted, and the code that it begins with."""
        starter: str = item.data["starter_code"].strip()
        if item.data["entry_point"]:
            task = (
                "Write Python code that solves this problem. "
                f"`{item.data['entry_point']}` is called with the input and returns the answer."
            )
            whole = "code"
            if starter:
                task += f" The code begins like this:\n\n```python\n{starter}\n```"
        else:
            task = (
                "Write a Python program that solves this problem. It reads the input from standard "
                "input and writes the answer, and nothing else, to standard output."
            )
            whole = "program"
        question = f"{item.prompt.strip()}\n\n{task}"
        if style == "base":
            return Prompt(text=f"{question}\n\nThe whole {whole}:\n\n```python\n", stop=STOPS)
        return chat_prompt(f"{question}\n\nReply with the whole {whole} in one Python code block.")

    def _files(self) -> range:
        """Numbers of the release's files, from 1."""
        match = _RELEASE.fullmatch(self.release.replace("release_v", "v1_v"))
        files = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        if not files:
            raise InputError(
                f"task {self.name!r}: release={self.release!r}: release_v1 to release_v6, v1 to "
                "v6, or a range of these such as v5_v6"
            )
        return files

    def _source(self, number: int) -> Source:
        stem = f"test{number if number > 1 else ''}"
        total, sha256 = FILES[number - 1]
        return Source(
            name=f"livecodebench/{stem}",
            folder="livecodebench",
            layouts=(Layout((Part(stem, (sha256,)),), total),),
            remote=HubFile(HUB, REVISION, f"{stem}.jsonl", sha256),
            total=total,
            fields=(*_TEXTS, "starter_code"),
            texts=_TEXTS,
            keep=self._keep,
            may_be_empty=True,
        )

    def _keep(self, row: Row) -> bool:
        """Whether the contest is in the window.

        Raises:
            InputError: A field isn't what LiveCodeBench's is. The private tests are the grader's
                to read, since that takes long.
        """
        try:
            day = datetime.datetime.fromisoformat(row["contest_date"]).date()
        except ValueError:
            raise InputError(f"field 'contest_date': {row['contest_date']!r}: no date") from None
        if not self.start <= day <= self.end:
            return False
        if not isinstance(row["starter_code"], str):
            raise InputError("field 'starter_code': a text is needed")
        function = _function(row)
        try:
            decode_tests(row["public_test_cases"], bool(function))
        except ValueError as error:
            raise InputError(f"field 'public_test_cases': {error}") from None
        return True


def _function(row: Row) -> str:
    """Name of the function that is asked for; empty where it is a program."""
    try:
        metadata = json.loads(row["metadata"])
    except (ValueError, RecursionError) as error:
        raise InputError(f"field 'metadata': not JSON: {error}") from None
    if not isinstance(metadata, dict):
        raise InputError("field 'metadata': the JSON of an object is needed")
    function: Any = metadata.get("func_name") or ""
    if not isinstance(function, str) or not (function.isidentifier() or not function):
        raise InputError(f"field 'metadata': func_name={function!r} is no name of a function")
    return function


def _item(row: Row) -> Item:
    return Item(
        id=f"{row['platform']}/{row['question_id']}",
        prompt=row["question_content"],
        data={
            "kind": "contest",
            "entry_point": _function(row),
            "starter_code": row["starter_code"],
            "public_tests": row["public_test_cases"],
            "private_tests": row["private_test_cases"],
            "limits": LIMITS,
            "stops": list(STOPS),
        },
    )


LIVECODEBENCH = LiveCodeBenchTask(
    name="livecodebench",
    version=1,
    summary="175 problems of contests from January to April 2025; others by release and day",
    source=f"Jain et al. 2024, github.com/LiveCodeBench/LiveCodeBench; hub {HUB}",
    licence="Creative Commons, kind not stated (the problems: LeetCode, AtCoder, Codeforces)",
    grader_kind="code",
    settings=GenerationSettings(max_tokens=2048),
)
