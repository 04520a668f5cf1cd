"""`ioa validate`, `ioa diagnose` and `ioa curriculum`: the Identifier and the Organizer alone.

As in `ioa_jax.cli`, what needs JAX is imported by the commands, whose parameters are their options.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ioa_jax.errors import InputError
from ioa_jax.progress import progress_bar
from ioa_jax.seeds import MIN_SEEDS, SeedItem, check_seeds, find_seeds, read_seeds
from ioa_jax.terminal import shown

if TYPE_CHECKING:
    from rich.table import Table

    from ioa_jax.identifier.diagnosis import Diagnosis
    from ioa_jax.identifier.settings import DiagnoseSettings
    from ioa_jax.organizer.curriculum import Curriculum
    from ioa_jax.teachers.base import Teacher

PAGE = "diagnosis.html"
# By these a file is one of `distill`.
_SECTIONS = {"diagnose", "organizer", "adapter", "train", "budget", "teacher", "student"}


class PackOption(StrEnum):
    """Worded for large models, or for small ones."""

    paper = "paper"
    micro = "micro"


class ReadingOption(StrEnum):
    """How Eq. 8 is read."""

    drop = "drop"
    absolute = "absolute"
    printed = "printed"


class PrecisionOption(StrEnum):
    """Operand dtype of matrix products."""

    float32 = "float32"
    bfloat16 = "bfloat16"


def validate(
    seeds: Annotated[Path, typer.Argument(help="JSONL file.", show_default=False)],
    min_seeds: Annotated[int, typer.Option(min=1, help="Seeds that are needed.")] = MIN_SEEDS,
    grade: Annotated[
        bool, typer.Option(help="Check every reference by its own check; runs programs.")
    ] = True,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file of settings, as of diagnose or distill.", show_default=False),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting, as probe_fraction=0.3.", show_default=False),
    ] = None,
) -> None:
    """See whether seed tasks can be used, and what a diagnosis will make of them.

    A line has "prompt", "reference" and "check" ({"kind": "math", "number", "exact", "code",
    "instruction" or "rouge", and what that needs}), and may have "id", "domain", "module"
    (category/module), "difficulty" and any other fields.
    """
    settings = _read_settings(config, set_ or ())
    read, faults = find_seeds(seeds)
    if faults:
        print(shown("\n".join(faults)))
        raise InputError(f"{seeds}: bad lines: {len(faults)}; each is named above")
    check_seeds(read, str(seeds), min_seeds)
    if grade:
        _check_references(seeds, read)
    modules = Counter(item.module or "(none named)" for item in read)
    print(f"{seeds}: {len(read)} seeds")
    for title, counts in (
        ("domains", Counter(item.domain for item in read)),
        ("checks", Counter(item.kind for item in read)),
        ("modules", modules),
    ):
        parts = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        print(shown(f"{title}: {parts}"))
    from ioa_jax.identifier.forecast import forecast_lines

    for line in forecast_lines(read, settings):
        print(line)


def _read_settings(config: Path | None, overrides: Sequence[str]) -> DiagnoseSettings:
    """Of a diagnosis, from a file of its own or one of `distill`, whose section it takes.

    Raises:
        InputError: As `ioa_jax.settings.read_settings`.
    """
    from ioa_jax.identifier.settings import DiagnoseSettings
    from ioa_jax.settings import check_settings, override_setting, read_mapping

    raw = {} if config is None else read_mapping(config)
    if raw.keys() & _SECTIONS:
        raw = raw.get("diagnose", {})
        if not isinstance(raw, dict):
            raise InputError(f"{config}: setting 'diagnose': a section is needed")
    for override in overrides:
        override_setting(raw, override.removeprefix("diagnose."))
    return check_settings(DiagnoseSettings, raw, str(config or "settings"))


def _check_references(path: Path, seeds: tuple[SeedItem, ...]) -> None:
    """A reference that fails its check teaches what is then marked wrong.

    Raises:
        InputError: Some fail; each is printed before.
    """
    from ioa_jax.identifier.probes import ProbeGraders

    with ProbeGraders() as graders:
        verdicts = graders.grade([(item, item.reference) for item in seeds])
    failed = [
        f"{path}: {item.id}: {verdict.detail or f'extracted {verdict.extracted!r}'}"
        for item, verdict in zip(seeds, verdicts, strict=True)
        if not verdict.correct
    ]
    if failed:
        print(shown("\n".join(failed)))
        raise InputError(
            f"{path}: {len(failed)} of {len(seeds)} references fail their own check, each is named "
            "above. Mend the reference or the check, or look at the rest with --no-grade"
        )


def diagnose(
    student: Annotated[
        str,
        typer.Option(
            help="smollm2, gguf:FILE, a Hugging Face directory or hub id.", show_default=False
        ),
    ],
    teacher: Annotated[
        str,
        typer.Option(
            help="As --student, or transformers:MODEL, or openai:MODEL@URL.", show_default=False
        ),
    ],
    seeds: Annotated[Path, typer.Option(help="JSONL file of seed tasks.", show_default=False)],
    output: Annotated[
        Path, typer.Option(help="Folder; a diagnosis begun there goes on.", show_default=False)
    ],
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file of settings, its own or distill's.", show_default=False),
    ] = None,
    pack: Annotated[
        PackOption | None, typer.Option(help="Sets decompose.pack.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting, as decompose.min_seeds=4.", show_default=False),
    ] = None,
    teacher_set: Annotated[
        list[str] | None,
        typer.Option(help="Setting of the teacher, as batch_size=16.", show_default=False),
    ] = None,
    keep_layers: Annotated[
        int, typer.Option(min=0, help="Keep this many of the student's layers; 0 keeps all.")
    ] = 0,
    precision: Annotated[
        PrecisionOption, typer.Option(help="Operands of matrix products.")
    ] = PrecisionOption.bfloat16,
    seed: Annotated[int, typer.Option(min=0, help="Of all draws.")] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what is compiled.")] = False,
) -> None:
    """Find what a student lacks: modules, gaps, dependencies, severity and targets.

    The folder gets diagnosis.json, a page that shows it (diagnosis.html), every part of it
    (diagnosis/, with the graded answers) and the teacher's calls (ledger/).
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    from ioa_jax.settings import override_setting

    overrides = [] if pack is None else [f"decompose.pack={pack.value}"]
    settings = _read_settings(config, [*overrides, *(set_ or ())])
    teacher_settings: dict[str, object] = {}
    for text in teacher_set or ():
        override_setting(teacher_settings, text)
    read = read_seeds(seeds)
    check_seeds(read, str(seeds))
    from ioa_jax.files import locked, write_text
    from ioa_jax.identifier import diagnosis as identifier
    from ioa_jax.report.pages import diagnosis_page
    from ioa_jax.student import Student
    from ioa_jax.teachers.spec import open_teacher

    with open_teacher(teacher, **teacher_settings) as opened:
        learner = Student.open(student, precision.value, keep_layers or None)
        # Only now is the folder made: models that can't be opened leave none.
        with locked(output), _ledgered(opened, output) as asked, _progress() as progress:
            found = identifier.diagnose(
                learner, asked, read, settings, output, seed, progress=progress
            )
    write_text(output / PAGE, diagnosis_page(found, f"{student}, taught by {teacher}"))
    print_diagnosis(found)
    print(f"page: {output / PAGE}")


@contextlib.contextmanager
def _ledgered(opened: Teacher, output: Path) -> Generator[Teacher]:
    from ioa_jax.teachers.ledger import Ledger
    from ioa_jax.teachers.replay import LedgeredTeacher

    with LedgeredTeacher(opened, Ledger(output / "ledger"), owns_teacher=False) as teacher:
        yield teacher


@contextlib.contextmanager
def _progress() -> Generator[Callable[[str, int, int], None]]:
    """A bar for each thing that is done, one after another."""
    with contextlib.ExitStack() as stack:
        bars: dict[str, Callable[[int, int], None]] = {}

        def show(label: str, done: int, total: int) -> None:
            if label not in bars:
                stack.close()
                bars[label] = stack.enter_context(progress_bar(label, total))
            bars[label](done, total)

        yield show


def _module_table(diagnosis: Diagnosis) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    severity = {entry.module: entry.value for entry in diagnosis.targets.severities}
    table = Table(
        title=f"Modules, by {diagnosis.measurement.scorer}", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("module", overflow="fold", min_width=20)
    table.add_column("", no_wrap=True)
    sampled = any(gap.num_teacher_probes not in (None, gap.num_probes) for gap in diagnosis.gaps)
    probes = "probes (teacher's)" if sampled else "probes"
    for name in (probes, "teacher", "student", "gap", "interval", "severity"):
        table.add_column(name, justify="right", no_wrap=True)
    for gap in sorted(diagnosis.gaps, key=lambda gap: (-(gap.relative or 0.0), gap.module)):
        state = "deficient" if gap.module in diagnosis.deficient else ""
        if gap.module in diagnosis.targets.modules:
            state = "target"
        if gap.relative is None:
            state = "excluded"
        interval = gap.interval
        table.add_row(
            # Not a plain string, in which brackets would be markup.
            Text(gap.module),
            state,
            f"{gap.num_probes} ({gap.num_teacher_probes})" if sampled else str(gap.num_probes),
            f"{gap.teacher:.3f}",
            f"{gap.student:.3f}",
            "" if gap.relative is None else f"{gap.relative:.2f}",
            "" if interval is None else f"{interval.low:.2f} .. {interval.high:.2f}",
            f"{severity[gap.module]:.2f}" if gap.module in severity else "",
        )
    return table


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """The modules as a table, the largest gap first, and the targets."""
    from rich.console import Console

    # A file has no width to keep to.
    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(
        _module_table(diagnosis)
    )
    decomposition = diagnosis.decomposition
    if decomposition.fallback_reason is not None:
        print(f"fallback: {decomposition.decomposer}, since {decomposition.fallback_reason}")
    if decomposition.unassigned:
        lost = decomposition.unassigned
        total = len(lost) + len(decomposition.roles)
        print(f"left out: {len(lost)} of {total} items, whose module wasn't found, as {lost[0]}")
    for entry in decomposition.merged:
        if entry.num_seeds + entry.num_probes:
            print(f"merged: {entry.module} into {entry.into or 'nothing (set aside: too small)'}")
    for gap in diagnosis.gaps:
        if gap.module in diagnosis.set_aside:
            print(f"excluded: {gap.module}, in which the teacher itself has {gap.teacher:.2f}")
    if diagnosis.uncertain:
        print(
            f"uncertain, the interval holds the threshold ({diagnosis.tau_gap:g}); more probes "
            f"would tell: {', '.join(diagnosis.uncertain)}"
        )
    estimate = diagnosis.dependencies
    print(f"dependencies: by {estimate.estimator}, since {estimate.reason}")
    if estimate.note is not None:
        print(estimate.note)
    for edge in diagnosis.graph.edges:
        ends = f"{edge.prerequisite} -> {edge.dependent}"
        print(f"dependency: {ends} ({edge.value:.2f}, {edge.estimator})")
    print(f"targets: {', '.join(diagnosis.targets.modules) or 'none'}")


def curriculum(
    directory: Annotated[
        Path, typer.Argument(help="Folder with a diagnosis.json.", show_default=False)
    ],
    tau_zpd: Annotated[float, typer.Option(help="τ_ZPD of Eq. 8.")] = 0.15,
    reading: Annotated[ReadingOption, typer.Option(help="How Eq. 8 is read.")] = ReadingOption.drop,
    tau_mastery: Annotated[
        float, typer.Option(min=0, help="From this r(k) on, a module is mastered.")
    ] = 0.9,
    max_stage_modules: Annotated[int, typer.Option(min=1, help="Modules of a stage.")] = 4,
) -> None:
    """Plan when to teach which target of a diagnosis, and say why."""
    from ioa_jax.files import read_value
    from ioa_jax.identifier.diagnosis import Diagnosis
    from ioa_jax.organizer.curriculum import plan_curriculum
    from ioa_jax.organizer.zone import ZoneSettings

    path = directory / "diagnosis.json"
    diagnosis = read_value(path, Diagnosis)
    plan = plan_curriculum(
        diagnosis.targets.modules,
        diagnosis.graph,
        diagnosis.student_performance(),
        diagnosis.mastered(tau_mastery),
        ZoneSettings(tau_zpd, reading.value, max_stage_modules),
    )
    if diagnosis.dependencies.note is not None:
        print(diagnosis.dependencies.note)
    for line in curriculum_lines(plan):
        print(line)


def curriculum_lines(plan: Curriculum) -> list[str]:
    """A plan in words: its stages, and why each module stands where it does."""
    if not plan.stages:
        return ["no stages: the diagnosis has no targets"]
    lines: list[str] = []
    for stage in plan.stages:
        lines.append(f"stage {stage.number} (mean P_S {stage.performance:.2f})")
        if stage.bridge is not None:
            lines.append(f"  first a bridge of {stage.bridge.direction} examples")
        lines += [
            f"  {placement.sentence()}"
            for placement in plan.placements
            if placement.stage == stage.number
        ]
    return lines
