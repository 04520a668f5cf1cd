"""A domain that nobody has thought of, a teacher that knows it, and a student that can learn it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ioa_jax.config import MethodConfig
from ioa_jax.models.decoder import init_decoder
from ioa_jax.models.load import LanguageModel
from ioa_jax.models.precision import Precision
from ioa_jax.seeds import SeedItem
from ioa_jax.student import Student
from ioa_jax.teachers.base import Capabilities, ChatRequest, TokenScores
from tests.suite.world import chat_config, chat_tokenizer
from tests.teachers.recorded import ScriptedTeacher

# Of each kitchen measure, how many fill a box, and why.
BOXES = {
    "spoons": (40, "Spoons are small."),
    "cups": (16, "Cups are large."),
    "pints": (25, "Pints are heavy."),
}
# Numbers of the boxes that the cook asks for; those of the seeds are even.
FIRST_NEW, NEW = 3, 97
QUESTION = re.compile(r"How many (\w+) fill box (\d+)\?")


def question(number: int, measure: str) -> str:
    return f"How many {measure} fill box {number}?"


def solution(measure: str) -> str:
    right, why = BOXES[measure]
    return f"1. {why}\n\\boxed{{{right}}}"


def seed(number: int, measure: str, named: bool = True) -> SeedItem:
    return SeedItem(
        id=f"{measure}-{number}",
        prompt=question(number, measure),
        reference=solution(measure),
        check={"kind": "math"},
        domain="math",
        module=f"kitchen/{measure}" if named else None,
    )


SEEDS = tuple(seed(number, measure) for measure in BOXES for number in range(4, 100, 8))


class Cook(ScriptedTeacher):
    """Knows what fills a box; of the examples that it writes every fifth has a wrong answer."""

    def __init__(self, speak: Callable[[str, int], str] | None = None) -> None:
        super().__init__(self.say, tokens=40)
        self.speak = speak or globals()["speak"]

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(score=True)

    def render(self, messages: Any) -> str:
        return f"<{messages[-1]['content']}>"

    def score(self, pairs: Any, on_scores: Any = None) -> list[TokenScores]:
        """Every answer is nearly certain."""
        scores = [TokenScores((-0.02,) * 4, True, 9) for _ in pairs]
        for index, score in enumerate(scores):
            if on_scores is not None:
                on_scores(index, score)
        return scores

    def say(self, request: ChatRequest, number: int) -> str:
        return self.speak(request.messages[-1]["content"], request.seed)


def speak(text: str, seed: int) -> str:
    """What a cook answers to the method's prompts, and to a question."""
    if "Propose the knowledge modules" in text:
        modules = [
            {"category": "kitchen", "module": name, "difficulty": 1, "prerequisites": []}
            for name in BOXES
            if name in text
        ]
        return json.dumps({"modules": modules})
    # The protocol `schema`, in both packs.
    if text.startswith(("Write 1 math example", "You prepare study material")):
        return json.dumps([example(text, text.partition("odule: kitchen/")[2].split()[0], seed)])
    found = QUESTION.search(text)
    assert found is not None, text
    measure, number = found[1], int(found[2])
    if "Which one of these knowledge modules" in text:
        return f"kitchen/{measure}"
    new = FIRST_NEW + seed % NEW
    # The protocol `lean` in the pack `paper`; problems alone, in both packs.
    if text.startswith("Write a new problem with its correct solution"):
        return f"Problem: {question(new, measure)}\nSolution: {answer(new, measure)}"
    if text.startswith(("Write a new problem like", "Make this problem harder", "Here is a task")):
        return question(new, measure)
    return answer(number, measure) if text == found[0] else solution(measure)


def answer(number: int, measure: str) -> str:
    """Of a question alone; of the odd ones every fifth is wrong, which a second look finds out."""
    right = solution(measure)
    return right.replace("boxed{", "boxed{1") if number % 10 == 5 else right


def example(prompt: str, measure: str, seed: int) -> dict[str, Any]:
    number = FIRST_NEW + seed % NEW
    right, why = BOXES[measure]
    level = re.search(r"(?:Level|Difficulty): (\w+)", prompt)
    assert level is not None
    return {
        "module": f"kitchen/{measure}",
        "prereq": [],
        "difficulty_tag": level[1],
        "problem": question(number, measure),
        "solution": {
            "steps": [why],
            "final_answer": str(right + (number % 10 == 5)),
            "verification": "Fill a box.",
        },
        "adapter_flags": {
            "concretization": False,
            "decomposition": True,
            "cognitive_load": {"scale": "small", "notes": ""},
            "format_template": "numbered",
            "simplified_language": True,
        },
        "metadata": {"stage_id": "1", "seed_style_ref": "seed"},
    }


def new_student() -> Student:
    tokenizer = chat_tokenizer()
    config = chat_config(
        tokenizer, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16, max_position=512
    )
    decoder = init_decoder(config, jax.random.key(0), Precision.named("float32"), jnp.float32)
    return Student(LanguageModel(decoder, tokenizer, "tiny", "1" * 64), batch_size=8)


def method_config(**changes: dict[str, Any]) -> MethodConfig:
    """A short run in which some gates are passed and some aren't."""
    settings: dict[str, Any] = {
        "diagnose": {
            "decompose": {"min_seeds": 4, "min_probes": 2},
            "measure": {"scorer": "logprob", "max_tokens": 16},
            "probe_fraction": 0.33,
            "target_fraction": 0.7,
            "min_gate_probes": 8,
            "resamples": 50,
        },
        "organizer": {"max_remedial_rounds": 2, "tau_mastery": 0.3},
        "adapter": {
            "pack": "micro",
            "examples_per_seed": 2,
            "max_tokens": 64,
            "max_problem_tokens": 64,
            "calls_per_round": 8,
            "verification": {"max_tokens": 64},
            "size_caps": {"introductory": 1000, "intermediate": 2000, "advanced": None},
        },
        "train": {
            "learning_rate": 2e-2,
            "epochs": 8,
            "batch_rows": 2,
            "row_length": 96,
            "save_every": 3,
        },
        "budget": {"teacher_tokens": 20_000, "student_tokens": 12_000},
    }
    for name, value in changes.items():
        settings[name] = {**settings.get(name, {}), **value}
    return MethodConfig.model_validate(settings)


def write_seeds(path: Path, named: bool = True) -> None:
    rows: list[dict[str, Any]] = []
    for item in SEEDS:
        row = {"id": item.id, "prompt": item.prompt, "reference": item.reference}
        row |= {"check": item.check}
        rows.append(row | ({"module": item.module} if named else {}))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
