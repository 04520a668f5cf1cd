"""Which module an item belongs to, by a teacher that is asked or scores the names."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from ioa_jax.identifier.decompose import Assignment, KnowledgeModule, Taxonomy, assign_seeds, slug
from ioa_jax.identifier.proposals import PURPOSE, DecompositionError
from ioa_jax.identifier.rendering import Messages, render_module_choice, render_module_name
from ioa_jax.identifier.settings import DecomposeSettings
from ioa_jax.seeds import SeedItem, module_id
from ioa_jax.streams import stream
from ioa_jax.teachers.base import ChatRequest, Sampling, Teacher, TokenScores
from ioa_jax.teachers.replay import LedgeredTeacher

CHOICE_TOKENS = 64
# category/module, alone in a line (words may be several), and among other words (one word each).
_LINE = re.compile(r"^\W*(\w[\w -]{0,59}?)\s*/\s*(\w[\w -]{0,59}?)\W*$", re.MULTILINE)
_WORDS = re.compile(r"([\w-]+)/([\w-]+)")
Answer = TypeVar("Answer")


def name_modules(
    teacher: Teacher,
    seeds: Sequence[SeedItem],
    known: Sequence[str],
    settings: DecomposeSettings,
    seed: int = 0,
) -> tuple[Taxonomy, dict[str, str]]:
    """Ask a teacher that was taught the modules' names for the one of each seed [ours].

    A name counts whether or not a proposal had it, so that proposals may be few or none; what they
    alone give is prerequisites.

    Args:
        teacher: Any.
        seeds: Items to assign.
        known: Ids of modules that were proposed or given.
        settings: Pack, retries and temperature; a module that isn't known needs `min_votes` seeds.
        seed: Of further attempts.

    Returns:
        All modules that seeds were named to be of, and the module id by item id; items without a
        usable name have none.

    Raises:
        DecompositionError: No seed was given a name that can be used.
    """
    named = _ask_each(
        teacher,
        seeds,
        lambda item: render_module_name(settings.pack, item.prompt),
        read_name,
        settings,
        seed,
    )
    members: dict[str, list[SeedItem]] = {}
    for item in seeds:
        if item.id in named:
            members.setdefault(module_id(*named[item.id]), []).append(item)
    members = {
        module: own
        for module, own in sorted(members.items())
        if module in known or len(own) >= settings.min_votes
    }
    if not members:
        raise DecompositionError(
            f"the teacher was asked for the module of {len(seeds)} seeds, and named none as "
            "category/module (decompose.assignment=name is for a teacher that was taught the "
            "names); set decompose.assignment to auto"
        )
    return _named_taxonomy(named, members), {
        item.id: module for module, own in members.items() for item in own
    }


def _named_taxonomy(
    named: Mapping[str, tuple[str, str]], members: Mapping[str, Sequence[SeedItem]]
) -> Taxonomy:
    """Modules as their first items' names write them."""
    return Taxonomy(
        tuple(
            KnowledgeModule(
                module,
                *named[own[0].id],
                float(statistics.median(x.difficulty or 1.0 for x in own)),
                len(own),
            )
            for module, own in members.items()
        )
    )


def read_name(text: str) -> tuple[str, str] | None:
    """Category and module in an answer; None if it has no such name."""
    match = _LINE.search(text) or _WORDS.search(text)
    if match is None or not (slug(match[1]) and slug(match[2])):
        return None
    return match[1], match[2]


def assign_by_score(
    teacher: Teacher, seeds: Sequence[SeedItem], modules: Sequence[str], pack: str
) -> tuple[Assignment, ...]:
    """`assign_seeds` with the teacher's log-probabilities of the modules' ids.

    Args:
        teacher: Can score.
        seeds: Items to assign.
        modules: Ids.
        pack: Of the prompt.

    Raises:
        InputError: No modules, or a prompt is longer than the teacher's context.
    """
    prompts = [teacher.render(render_module_name(pack, item.prompt)) for item in seeds]
    prompts.append(teacher.render(render_module_name(pack, "")))
    pairs = [(prompt, module) for prompt in prompts for module in modules]
    scores = score_pairs(teacher, pairs, PURPOSE)
    table = np.asarray([sum(score.logprobs) for score in scores], np.float64)
    table = table.reshape(len(prompts), len(modules))
    return assign_seeds([item.id for item in seeds], modules, table[:-1], table[-1])


def score_pairs(
    teacher: Teacher, pairs: Sequence[tuple[str, str]], purpose: str
) -> list[TokenScores]:
    """`Teacher.score`, counted by purpose where the teacher has a ledger."""
    if isinstance(teacher, LedgeredTeacher):
        return teacher.score(pairs, purpose=purpose)
    return teacher.score(pairs)


def assign_by_choice(
    teacher: Teacher,
    seeds: Sequence[SeedItem],
    modules: Sequence[str],
    settings: DecomposeSettings,
    seed: int = 0,
) -> tuple[Assignment, ...]:
    """Ask which of the modules each seed belongs to [ours].

    Args:
        teacher: Any.
        seeds: Items to assign.
        modules: Ids, which the question lists.
        settings: Pack, retries and temperature.
        seed: Of further attempts.

    Returns:
        One entry for each seed of which a module was named.
    """
    found = _ask_each(
        teacher,
        seeds,
        lambda item: render_module_choice(settings.pack, item.prompt, modules),
        lambda text: named_module(text, modules),
        settings,
        seed,
    )
    return tuple(Assignment(item.id, found[item.id], None) for item in seeds if item.id in found)


def _ask_each(
    teacher: Teacher,
    seeds: Sequence[SeedItem],
    question: Callable[[SeedItem], Messages],
    read: Callable[[str], Answer | None],
    settings: DecomposeSettings,
    seed: int,
) -> dict[str, Answer]:
    """Something short about each item, by its id; items without a usable answer are left out.

    The first answer is greedy; one that can't be read is asked for again at the settings'
    temperature. It is short, unless the teacher thinks for longer: then it may be as long as the
    settings allow.
    """
    found: dict[str, Answer] = {}
    max_tokens = CHOICE_TOKENS
    for attempt in range(settings.max_retries + 1):
        asked = [item for item in seeds if item.id not in found]
        if not asked:
            break
        number = int(stream(seed, "choice", attempt).integers(2**31)) if attempt else seed
        requests = [ChatRequest(question(item), PURPOSE, number) for item in asked]
        sampling = Sampling(max_tokens, settings.temperature if attempt else 0.0)
        for item, completion in zip(asked, teacher.generate(requests, sampling), strict=True):
            said = completion.answer or ""
            answer = read(said)
            if answer is not None:
                found[item.id] = answer
            elif not said.strip() and completion.finish_reason == "length":
                max_tokens = settings.max_tokens
    return found


def named_module(text: str, modules: Sequence[str]) -> str | None:
    """The module that an answer names first; None if it names none.

    Where several begin at one place, as `m/add` and `m/add-carry`, the longest counts.
    """
    text = text.lower()
    places = [(text.find(module), -len(module), module) for module in modules]
    named = [place for place in places if place[0] >= 0]
    return min(named)[2] if named else None
