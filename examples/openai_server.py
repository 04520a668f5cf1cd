"""Distil from a model behind an OpenAI-compatible server, such as vLLM's or llama.cpp's.

    python examples/openai_server.py MODEL http://HOST:8000/v1 STUDENT seeds.jsonl OUTPUT

STUDENT is a Hugging Face directory or hub id of a Llama, Qwen2 or Qwen3 model. Every answer is kept
in OUTPUT/run/ledger: give the same command again after a stop, and no call is paid twice.
"""

import datetime
import sys
from pathlib import Path

import ioa_jax
from ioa_jax.teachers.spend import Budget, Prices

SETTINGS = {
    "budget": {"teacher_tokens": 200_000, "student_tokens": 500_000},
    "train": {"learning_rate": 1e-4, "row_length": 512},
}
# What a million tokens cost, by the price list of your server; these figures stand for it.
PRICES = Prices(prompt=0.15, completion=0.60, as_of=datetime.date(2026, 11, 1))
MOST_COST = 5.0
SERVER = {"concurrency": 8, "max_retries": 6}


def main(model: str, url: str, student: str, seed_file: str, output: Path) -> None:
    """Distil within a budget of tokens and of money, and say what was spent."""
    seeds = ioa_jax.read_seeds(Path(seed_file))
    config = ioa_jax.MethodConfig.model_validate(SETTINGS)
    run = output / "run"
    with ioa_jax.LedgeredTeacher(
        ioa_jax.open_teacher(f"openai:{model}@{url}", **SERVER),
        ioa_jax.Ledger(run / "ledger"),
        Budget(max_tokens=config.budget.teacher_tokens, max_cost=MOST_COST),
        PRICES,
        counted=run / "counted.jsonl",
    ) as teacher:
        opened = ioa_jax.Student.open(student)
        result = ioa_jax.distill(opened, teacher, seeds, config, run, baseline=True)
        for purpose, spend in teacher.spend.items():
            used = spend.used
            print(f"{purpose}: {used.calls} calls, {used.completion_tokens} tokens, {used.cost}")
    print(f"before {result.outcome.before:.2f}, after {result.outcome.after:.2f}")
    if result.outcome.verdict == "taught":
        result.student.save(output / "student", card="# Distilled\n")


if __name__ == "__main__":
    model, url, student, seed_file, output = sys.argv[1:]
    main(model, url, student, seed_file, Path(output))
