"""A method with one number changed: how much its result owes to that number.

`METHOD@SETTING=VALUE` names it, as in `ioa@organizer.tau_zpd=0.2`: METHOD is `ioa` or a control of
it, SETTING a number in `SECTIONS` of `ioa_jax.config.MethodConfig`. Seed, budget and training are
the same for every method, and stay so. `METHOD@seeds=COUNT` is any method that needs no other's
cell, started from so many of the seed items, drawn at random; a larger count has those of a
smaller one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ioa_jax.config import MethodConfig
from ioa_jax.errors import InputError
from ioa_jax.settings import check_settings
from ioa_jax.streams import stream
from suite.methods import load_method
from suite.methods.base import MethodContext, MethodResult
from suite.methods.ioa import IOA
from suite.profile import Profile

SECTIONS = ("diagnose", "organizer", "adapter")
SEEDS = "seeds"

_REPLAY = ("organizer.delta", "organizer.new_share", "organizer.raise_factor")
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
# By a setting and the value with which it switches something off, the numbers, or sections of
# them, that nothing reads then.
IDLE: dict[tuple[str, Any], tuple[str, ...]] = {
    ("organizer.zone", False): ("organizer.tau_zpd",),
    ("organizer.gate", False): ("organizer.max_remedial_rounds", "adapter.remedial_scale"),
    ("organizer.max_remedial_rounds", 0): ("adapter.remedial_scale",),
    ("organizer.retention", False): _REPLAY,
    ("organizer.stage_mode", "sequential"): _REPLAY,
    ("adapter.dimensions.cognitive_load", False): (
        "adapter.size_caps",
        "adapter.step_caps",
        "adapter.remedial_scale",
    ),
    ("adapter.verification.on", False): ("adapter.verification",),
    ("diagnose.decompose.decomposer", "random"): _PROPOSALS,
    ("diagnose.decompose.decomposer", "metadata"): (
        *_PROPOSALS,
        "diagnose.decompose.num_modules",
    ),
}


class Sweep(IOA):
    """Another method with one number changed, over whatever the profile's options say."""

    def __init__(self, of: str, setting: str, value: float) -> None:
        """Take the usual method; whether it has the setting is known with its configuration.

        Args:
            of: Name of `ioa` or a control of it.
            setting: Dotted path, such as organizer.tau_zpd.
            value: Instead of the usual one.

        Raises:
            InputError: There is no such method, or it is none of IOA's.
        """
        usual = load_method(of)
        if not isinstance(usual, IOA):
            raise InputError(f"method {of!r} has no such settings; ioa and its controls have")
        super().__init__(f"{usual.summary}; {setting} is {_text(value)}")
        self._usual, self._of, self._setting, self._value = usual, of, setting, value

    def config(self, given: MethodContext | Profile) -> MethodConfig:
        usual = self._usual.config(given)
        default = self._number(usual)
        self._check_not_idle(usual)
        if self._value == default:
            raise InputError(
                f"setting {self._setting!r} is {_text(default)} in {self._of!r} too: this would be "
                "the same cell twice"
            )
        settings = usual.model_dump()
        *sections, number = self._setting.split(".")
        place = settings
        for section in sections:
            place = place[section]
        place[number] = self._value
        source = f"{self._of}@{self._setting}={_text(self._value)}"
        return check_settings(MethodConfig, settings, source)

    def run(self, context: MethodContext) -> MethodResult:
        result = super().run(context)
        sweep = {
            "of": self._of,
            "setting": self._setting,
            "value": self._number(self.config(context)),
            "default": self._number(self._usual.config(context)),
        }
        return dataclasses.replace(result, notes={**result.notes, "sweep": sweep})

    def _check_not_idle(self, usual: MethodConfig) -> None:
        """A number that the method has switched off would give a cell of the same figures."""
        if self._setting in _numbers(self._usual.changes):
            raise InputError(
                f"setting {self._setting!r} is what {self._of!r} itself changes of 'ioa'; with "
                "another value it would be another method"
            )
        for (switch, off), idle in IDLE.items():
            is_idle = any(f"{self._setting}.".startswith(f"{name}.") for name in idle)
            if is_idle and _value(usual.model_dump(), switch) == off:
                raise InputError(
                    f"setting {self._setting!r} changes nothing in {self._of!r}, where {switch} is "
                    f"{str(off).lower()}"
                )

    def _number(self, config: MethodConfig) -> float:
        numbers = _numbers(config.model_dump(include=set(SECTIONS)))
        if self._setting not in numbers:
            section = self._setting.partition(".")[0]
            near = [name for name in numbers if name.startswith(f"{section}.")] or numbers
            raise InputError(
                f"setting {self._setting!r} can't be changed in {self._of!r}; numbers are "
                f"{', '.join(near)}"
            )
        return numbers[self._setting]


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


def _text(value: float) -> str:
    """The shortest way to write it: 0.2, 5, 1e-08."""
    return repr(value).removesuffix(".0")


class FewerSeeds:
    """Another method from fewer seed items."""

    needs: tuple[str, ...] = ()

    def __init__(self, of: str, count: int) -> None:
        """Take the usual method.

        Args:
            of: Its name.
            count: Of seed items, at least 1.

        Raises:
            InputError: There is no such method, or it needs another's cell, which has all seeds.
        """
        self._usual = load_method(of)
        if self._usual.needs:
            raise InputError(
                f"method {of!r} takes what {' and '.join(self._usual.needs)} made of all seed items"
            )
        self.summary = f"{self._usual.summary}; from {count} seed items"
        self._of, self._count = of, count

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
        sweep = {"of": self._of, "setting": SEEDS, "value": self._count, "default": available}
        return dataclasses.replace(result, notes={**result.notes, "sweep": sweep})


def read_sweep(name: str) -> Sweep | FewerSeeds:
    """The method that `METHOD@SETTING=VALUE` names.

    Raises:
        InputError: It has another form, or METHOD has no such setting.
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
        return FewerSeeds(of, int(value))
    return Sweep(of, setting, value)
