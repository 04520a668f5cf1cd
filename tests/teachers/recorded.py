"""A deterministic teacher without a model, which remembers what it was asked."""

import hashlib
from collections.abc import Callable

from ioa_jax.teachers.base import (
    Capabilities,
    ChatRequest,
    Completion,
    Teacher,
    TokenScores,
)
from tests.teachers.server import answer_text


class ScriptedTeacher(Teacher):
    """Answers with what `script` makes of (request, number of earlier calls)."""

    def __init__(self, script: Callable[[ChatRequest, int], str] | None = None, tokens: int = 5):
        self.script = script or (lambda request, _: answer(request))
        self.tokens = tokens
        self.asked: list[ChatRequest] = []
        self.batches: list[int] = []
        self.closed = False

    @property
    def fingerprint(self):
        return "scripted"

    @property
    def capabilities(self):
        return Capabilities(score=True)

    def generate(self, requests, sampling, on_completion=None):
        self.batches.append(len(requests))
        completions = []
        for index, request in enumerate(requests):
            text = self.script(request, len(self.asked))
            self.asked.append(request)
            completion = Completion(text, 10, min(self.tokens, sampling.max_tokens), "stop")
            completions.append(completion)
            if on_completion is not None:
                on_completion(index, completion)
        return completions

    def score(self, pairs, on_scores=None):
        self.batches.append(len(pairs))
        scores = [TokenScores((-0.5, -len(pair[1]) / 4), False, 7) for pair in pairs]
        for index, score in enumerate(scores):
            if on_scores is not None:
                on_scores(index, score)
        return scores

    def count_prompt_tokens(self, request):
        return 10

    def close(self):
        self.closed = True


def answer(request: ChatRequest) -> str:
    """Differs by what was asked and by the seed."""
    text = request.messages[-1]["content"]
    return hashlib.sha256(f"{text}/{request.seed}".encode()).hexdigest()[:8]


def ask(text: str, purpose: str = "synthesis", seed: int = 0) -> ChatRequest:
    """A request of one turn."""
    return ChatRequest(({"role": "user", "content": text},), purpose, seed)


def expected(requests: list[ChatRequest]) -> list[str]:
    """What `tests.teachers.server` answers."""
    return [answer_text([dict(m) for m in r.messages], r.seed) for r in requests]
