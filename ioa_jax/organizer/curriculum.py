"""When to teach which module."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ioa_jax.errors import InputError


def stages_by_gap(gaps: Mapping[str, float], num_stages: int) -> tuple[tuple[str, ...], ...]:
    """Modules in stages of rising gap: the smallest gap first.

    The direction is [ours]: what the student can nearly do comes first, and each stage asks for a
    little more than the one before. Nothing here knows of prerequisites (Eq. 7) or of the zone of
    proximal development (Eq. 8).

    Args:
        gaps: A gap by module id, relative (Eq. 2) or in nats a token; only the order counts.
        num_stages: At least 1 and at most the number of modules.

    Returns:
        Module ids by stage. Sizes differ by one at most, with the larger stages first; ties are
        broken by id, so that runs repeat.

    Raises:
        InputError: No such number of stages can be made, or a gap isn't finite.
    """
    if not 1 <= num_stages <= len(gaps):
        raise InputError(f"{len(gaps)} modules can't make {num_stages} stages with one module each")
    for module, gap in gaps.items():
        if not math.isfinite(gap):
            raise InputError(f"module {module!r}: gap {gap}")
    order = sorted(gaps, key=lambda module: (gaps[module], module))
    size, larger = divmod(len(order), num_stages)
    stages: list[tuple[str, ...]] = []
    start = 0
    for stage in range(num_stages):
        end = start + size + (stage < larger)
        stages.append(tuple(order[start:end]))
        start = end
    return tuple(stages)
