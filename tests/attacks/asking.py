"""The smallest command that pays a teacher and can be killed: it asks, and writes what it heard."""

from __future__ import annotations

import sys
from pathlib import Path

from ioa_jax.files import write_json
from ioa_jax.teachers.base import ChatRequest, Sampling
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.openai import OpenAISettings, OpenAITeacher
from ioa_jax.teachers.replay import LedgeredTeacher

CALLS = 40
CONCURRENCY = 4


def main() -> None:
    """`asking URL FOLDER` begins, or goes on."""
    url, folder = sys.argv[1], Path(sys.argv[2])
    write_json(folder / "config.json", {"calls": CALLS})
    requests = [
        ChatRequest(({"role": "user", "content": f"question {n}"},), "ask", n) for n in range(CALLS)
    ]
    settings = OpenAISettings.model_validate({"concurrency": CONCURRENCY})
    with LedgeredTeacher(
        OpenAITeacher("m", url, settings),
        Ledger(folder / "ledger"),
        counted=folder / "counted.jsonl",
    ) as teacher:
        answers = teacher.generate(requests, Sampling(max_tokens=8))
    write_json(folder / "answers.json", [answer.text for answer in answers])
