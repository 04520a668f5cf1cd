"""A method with one number changed: how much its result owes to that number.

`METHOD@SETTING=VALUE` names it, as in `ioa@organizer.tau_zpd=0.2`: METHOD is `ioa` or a control of
it, SETTING a number in `SECTIONS` of `ioa_jax.config.MethodConfig`. `METHOD@train.SETTING=VALUE` is
any method with a number of the profile's `train` changed, such as its learning rate.
`METHOD@seeds=COUNT` is any method that needs no other's cell, started from so many of the seed
items, drawn at random; a larger count has those of a smaller one. Seed and budget are the same for
every method, and stay so.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from ioa_jax.config import MethodConfig
from ioa_jax.errors import InputError
from ioa_jax.settings import check_settings
from ioa_jax.streams import stream
from suite.methods.base import Method, MethodContext, MethodResult
from suite.methods.ioa import IOA
from suite.profile import Profile, TrainSettings

SECTIONS = ("diagnose", "organizer", "adapter")
SEEDS = "seeds"
TRAIN = "train"

_PROPOSALS = tuple(
    f"diagnose.decompose.{name}"
    for name in (
        "batch_size",
        "max_batches",
        "seed_characters",
        "max_tokens",
        "temperature",
        "max_retries",
        "min_valid_batches",
        "min_votes",
    )
)
# By settings and the values with which they switch something off, the numbers, or sections of them,
# that nothing reads then.
IDLE: tuple[tuple[dict[str, Any], tuple[str, ...]], ...] = (
    ({"organizer.zone": False}, ("organizer.tau_zpd",)),
    (
        {"organizer.stage_mode": "pooled"},
        ("organizer.max_remedial_rounds", "organizer.remedial_share"),
    ),
    (
        {"organizer.stage_mode": "sequential"},
        ("organizer.first_pass_share", "organizer.late_share", "organizer.retention"),
    ),
    (
        {"organizer.stage_mode": "sequential", "organizer.gate": "off"},
        ("organizer.max_remedial_rounds",),
    ),
    (
        {"organizer.stage_mode": "sequential", "organizer.max_remedial_rounds": 0},
        ("adapter.remedial_scale",),
    ),
    ({"organizer.gate": "off"}, ("adapter.remedial_scale",)),
    ({"organizer.retention.kind": "off"}, ("organizer.retention",)),
    (
        {"organizer.retention.kind": "replay"},
        (
            "organizer.retention.weight",
            "organizer.retention.teacher_share",
            "organizer.retention.variants",
        ),
    ),
    *(
        (
            {"adapter.protocol": protocol},
            ("adapter.size_caps", "adapter.step_caps", "adapter.remedial_scale"),
        )
        for protocol in ("lean", "few_shot")
    ),
    (
        {"adapter.protocol": "few_shot"},
        ("adapter.decompose_below", "adapter.styled_share", "adapter.answer_temperature"),
    ),
    # Of two short calls, neither asks for a style.
    ({"adapter.protocol": "lean", "adapter.pack": "micro"}, ("adapter.styled_share",)),
    (
        {"adapter.protocol": "lean", "adapter.pack": "paper"},
        ("adapter.answer_temperature",),
    ),
    (
        {"adapter.protocol": "schema"},
        ("adapter.decompose_below", "adapter.answer_temperature"),
    ),
    ({"adapter.level_order": "easy_first"}, ("adapter.levels",)),
    (
        {"adapter.dimensions.concretization": False, "adapter.dimensions.language": False},
        ("adapter.styled_share",),
    ),
    (
        {"adapter.dimensions.cognitive_load": False},
        ("adapter.size_caps", "adapter.step_caps", "adapter.remedial_scale"),
    ),
    ({"adapter.verification.on": False}, ("adapter.verification",)),
    # Severity chooses among the deficient modules.
    ({"diagnose.target_fraction": None}, ("diagnose.alpha",)),
    ({"diagnose.gate_probe_share": 0.0}, ("diagnose.min_gate_probes",)),
    ({"diagnose.decompose.decomposer": "random"}, _PROPOSALS),
    (
        {"diagnose.decompose.decomposer": "metadata"},
        (*_PROPOSALS, "diagnose.decompose.num_modules"),
    ),
    (
        {"diagnose.decompose.decomposer": "teacher", "diagnose.decompose.fallback": None},
        ("diagnose.decompose.num_modules",),
    ),
)


class Sweep(IOA):
    """Another method with one number changed, over whatever the profile's options say."""

    def __init__(self, usual: Method, of: str, setting: str, value: float) -> None:
        """Take the usual method; whether it has the setting is known with its configuration.

        Args:
            usual: `ioa` or a control of it.
            of: Its name.
            setting: Dotted path, such as organizer.tau_zpd.
            value: Instead of the usual one.

        Raises:
            InputError: It is none of IOA's methods.
        """
        if not isinstance(usual, IOA):
            raise InputError(f"method {of!r} has no such settings; ioa and its controls have")
        super().__init__(f"{usual.summary}; {setting} is {_text(value)}")
        self._usual, self._of, self._setting, self._value = usual, of, setting, value

    def check(self, profile: Profile) -> None:
        """Whether it can be run under a profile.

        Raises:
            InputError: The method has no such number, or it is the same or idle there.
        """
        self.config(profile)

    def config(self, given: MethodContext | Profile) -> MethodConfig:
        usual = self._usual.config(given)
        default = self._number(usual)
        self._check_not_idle(usual)
        _check_other(self._of, self._setting, self._value, default)
        settings = _changed(usual.model_dump(), self._setting, self._value)
        source = f"{self._of}@{self._setting}={_text(self._value)}"
        return check_settings(MethodConfig, settings, source)

    def run(self, context: MethodContext) -> MethodResult:
        value, default = (
            self._number(config) for config in (self.config(context), self._usual.config(context))
        )
        return _noted(super().run(context), self._of, self._setting, value, default)

    def _check_not_idle(self, usual: MethodConfig) -> None:
        """A number that the method has switched off would give a cell of the same figures."""
        if self._setting in _numbers(self._usual.changes):
            raise InputError(
                f"setting {self._setting!r} is what {self._of!r} itself changes of 'ioa'; with "
                "another value it would be another method"
            )
        settings = usual.model_dump()
        for switches, idle in IDLE:
            is_idle = any(f"{self._setting}.".startswith(f"{name}.") for name in idle)
            if is_idle and all(_value(settings, name) == off for name, off in switches.items()):
                places = " and ".join(
                    f"{name} is {_word(off)}" for name, off in sorted(switches.items())
                )
                raise InputError(
                    f"setting {self._setting!r} changes nothing in {self._of!r}, where {places}"
                )

    def _number(self, config: MethodConfig) -> float:
        return _number_of(self._of, self._setting, config.model_dump(include=set(SECTIONS)))


def _number_of(of: str, setting: str, settings: Mapping[str, Any]) -> float:
    numbers = _numbers(settings)
    if setting not in numbers:
        section = setting.partition(".")[0]
        near = [name for name in numbers if name.startswith(f"{section}.")] or numbers
        raise InputError(
            f"setting {setting!r} can't be changed in {of!r}; numbers are {', '.join(near)}"
        )
    return numbers[setting]


def _check_other(of: str, setting: str, value: float, default: float) -> None:
    if value == default:
        raise InputError(
            f"setting {setting!r} is {_text(default)} in {of!r} too: this would be the same cell "
            "twice"
        )


def _changed(settings: dict[str, Any], setting: str, value: float) -> dict[str, Any]:
    """Settings with the number at a dotted path changed, in place."""
    *sections, number = setting.split(".")
    place = settings
    for section in sections:
        place = place[section]
    place[number] = value
    return settings


def _noted(
    result: MethodResult, of: str, setting: str, value: float, default: float
) -> MethodResult:
    """A result whose notes say what was changed."""
    sweep = {"of": of, "setting": setting, "value": value, "default": default}
    return dataclasses.replace(result, notes={**result.notes, "sweep": sweep})


def _numbers(settings: Mapping[str, Any], place: str = "") -> dict[str, float]:
    """Every number by its dotted path."""
    found: dict[str, float] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{place}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{place}{name}"] = value
    return found


def _value(settings: Mapping[str, Any], path: str) -> Any:
    value: Any = settings
    for name in path.split("."):
        value = value[name]
    return value


def _word(value: Any) -> str:
    """A setting's value as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _text(value: float) -> str:
    """The shortest way to write it: 0.2, 5, 1e-08."""
    return repr(value).removesuffix(".0")


class FewerSeeds:
    """Another method from fewer seed items."""

    needs: tuple[str, ...] = ()

    def __init__(self, usual: Method, of: str, count: int) -> None:
        """Take the usual method.

        Args:
            usual: Any.
            of: Its name.
            count: Of seed items, at least 1.

        Raises:
            InputError: It needs another's cell, which has all seeds.
        """
        self._usual = usual
        if self._usual.needs:
            raise InputError(
                f"method {of!r} takes what {' and '.join(self._usual.needs)} made of all seed items"
            )
        self.summary = f"{self._usual.summary}; from {count} seed items"
        self._of, self._count = of, count

    def check(self, profile: Profile) -> None:
        """How many seed items a profile has is known with the run."""

    def run(self, context: MethodContext) -> MethodResult:
        available = len(context.seeds)
        if self._count >= available:
            raise InputError(
                f"method '{self._of}@{SEEDS}={self._count}': the profile has {available} seed "
                "items to start from; name fewer"
            )
        order = stream(context.seed, "fewer seeds").permutation(available)
        chosen = tuple(context.seeds[place] for place in sorted(order[: self._count]))
        result = self._usual.run(dataclasses.replace(context, seeds=chosen))
        return _noted(result, self._of, SEEDS, self._count, available)


class OtherTraining:
    """Another method with one number of its training changed."""

    def __init__(self, usual: Method, of: str, setting: str, value: float) -> None:
        """Take the usual method.

        Args:
            usual: Any.
            of: Its name.
            setting: Dotted path from `train` on, such as train.learning_rate.
            value: Instead of the profile's.
        """
        self._usual = usual
        self.needs = self._usual.needs
        self.summary = f"{self._usual.summary}; {setting} is {_text(value)}"
        self._of, self._setting, self._value = of, setting, value

    def check(self, profile: Profile) -> None:
        """As `Sweep.check`."""
        self._train(profile.train_of(self._of))

    def _train(self, usual: TrainSettings) -> tuple[TrainSettings, float]:
        """The changed settings, and the usual number."""
        settings = {TRAIN: usual.model_dump()}
        default = _number_of(self._of, self._setting, settings)
        _check_other(self._of, self._setting, self._value, default)
        changed = _changed(settings, self._setting, self._value)[TRAIN]
        source = f"{self._of}@{self._setting}={_text(self._value)}"
        return check_settings(TrainSettings, changed, source), default

    def run(self, context: MethodContext) -> MethodResult:
        train, default = self._train(context.train)
        result = self._usual.run(dataclasses.replace(context, train=train))
        return _noted(result, self._of, self._setting, self._value, default)


def read_sweep(name: str, load: Callable[[str], Method]) -> Sweep | FewerSeeds | OtherTraining:
    """The method that `METHOD@SETTING=VALUE` names.

    Args:
        name: That.
        load: Makes METHOD.

    Raises:
        InputError: It has another form, there is no METHOD, or it has no such setting.
    """
    of, _, change = name.partition("@")
    setting, _, text = change.partition("=")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (of and setting and math.isfinite(value)):
        raise InputError(
            f"method {name!r}: write it as METHOD@SETTING=VALUE with a number, such as "
            "ioa@organizer.tau_zpd=0.2"
        )
    # A number that could be written in two ways could be two cells of a run.
    if text != _text(value):
        raise InputError(f"method {name!r}: write {text} as {_text(value)}")
    if setting == SEEDS:
        if value < 1 or value != int(value):
            raise InputError(f"method {name!r}: {SEEDS} is a whole number from 1")
        return FewerSeeds(load(of), of, int(value))
    if setting.startswith(f"{TRAIN}."):
        return OtherTraining(load(of), of, setting, value)
    return Sweep(load(of), of, setting, value)
