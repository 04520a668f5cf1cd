"""Modules that the teacher proposes for batches of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ioa_jax.errors import InputError
from ioa_jax.identifier.decompose import Proposal
from ioa_jax.identifier.rendering import render_proposal
from ioa_jax.identifier.settings import DecomposeSettings
from ioa_jax.jsonl import write_rows
from ioa_jax.seeds import SeedItem
from ioa_jax.streams import stream
from ioa_jax.teachers.base import ChatRequest, Sampling, Teacher, TeacherError
from ioa_jax.teachers.structured import Rules, StructuredResult, generate_structured

PURPOSE = "decompose"


class DecompositionError(TeacherError):
    """The teacher's proposals stayed invalid; the message names the file with the raw texts."""


def propose(
    teacher: Teacher,
    batches: Sequence[Sequence[SeedItem]],
    settings: DecomposeSettings,
    directory: Path,
    seed: int,
) -> list[Proposal | None]:
    """A proposal for each batch; None where every attempt was rejected.

    Raises:
        DecompositionError: Fewer are valid than the settings ask for.
    """
    requests = [
        ChatRequest(
            render_proposal(
                settings.pack, [item.prompt[: settings.seed_characters] for item in batch]
            ),
            PURPOSE,
            int(stream(seed, "proposal", number).integers(2**31)),
        )
        for number, batch in enumerate(batches)
    ]
    result = generate_structured(
        teacher,
        requests,
        Sampling(settings.max_tokens, settings.temperature),
        Proposal,
        # Small teachers were taught the prompt as it stands.
        Rules(settings.max_retries, settings.repair, describe=settings.pack != "micro"),
        check=lambda _, proposal: _wrong_name(proposal),
    )
    path = directory / "decompose_rejects.jsonl"
    _write_rejects(path, result)
    valid = sum(one is not None for one in result.accepted)
    if valid < settings.min_valid_batches * len(requests):
        last = result.rejects[-1]
        raise DecompositionError(
            f"{len(requests) - valid} of {len(requests)} proposals of modules stayed invalid after "
            f"{settings.max_retries} retries, the last because of: {last.reason}. The raw answers "
            f"are in {path}. Raise decompose.max_retries or decompose.max_tokens, or name a "
            "fallback in decompose.fallback"
        )
    return [None if one is None else one.value for one in result.accepted]


def _wrong_name(proposal: Proposal) -> str | None:
    for i, entry in enumerate(proposal.modules):
        try:
            _ = entry.id
        except InputError as error:
            return f"field 'modules.{i}': {error}"
    return None


def _write_rejects(path: Path, result: StructuredResult[Proposal]) -> None:
    write_rows(
        path,
        [
            {
                "request": reject.request,
                "attempt": reject.attempt,
                "kind": reject.kind,
                "reason": reject.reason,
                "text": reject.completion.text,
            }
            for reject in result.rejects
        ],
    )
