"""Gates of a method by module and by stage, beside the oracle's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ioa_jax.report.finished import Gates

HEADER = ("module or stage", "after the first pass", "at the end", "the oracle")
# Of one gate, by the name of what passes it.
Passed = Mapping[str, bool]


def gates_by_module(gates: Sequence[Gates], oracle: Sequence[Gates]) -> tuple[tuple[str, ...], ...]:
    """Rows under `HEADER`: passed of measured gates, modules first, then stages.

    Args:
        gates: A method's, one a seed.
        oracle: Of the oracle's students of the same seeds.
    """
    modules = tuple(
        (
            module,
            *_counted(module, [own.first_pass for own in gates], [own.end for own in gates]),
            _count(module, [own.end for own in oracle]),
        )
        for module in sorted({module for own in gates for module in own.end})
    )
    # The oracle has no stages.
    stages = tuple(
        (
            f"stage {stage}",
            *_counted(
                stage,
                [own.stages_first_pass for own in gates],
                [own.stages_end for own in gates],
            ),
            "-",
        )
        for stage in sorted({stage for own in gates for stage in own.stages_end}, key=int)
    )
    return (*modules, *stages)


def _counted(name: str, first: Sequence[Passed], end: Sequence[Passed]) -> tuple[str, str]:
    return _count(name, first), _count(name, end)


def _count(name: str, gates: Iterable[Passed]) -> str:
    """`2 of 3`."""
    passed = [own[name] for own in gates if name in own]
    return f"{sum(passed)} of {len(passed)}" if passed else "-"
