"""Models that come with the suite: `micro:NAME`, those of the embedded world."""

from __future__ import annotations

from pathlib import Path

from ioa_jax.errors import InputError

MICRO = "micro:"

_FOLDER = Path(__file__).with_name("micro")


def find_spec(spec: str) -> str:
    """A model's spec as the engine takes it: `micro:NAME` is a folder, others stay as they are.

    Raises:
        InputError: The embedded world has no model of that name.
    """
    if not spec.startswith(MICRO):
        return spec
    known = sorted(path.parent.name for path in _FOLDER.glob("*/model.safetensors"))
    name = spec.removeprefix(MICRO)
    if name not in known:
        raise InputError(
            f"model {spec!r}: the embedded world has {', '.join(known) or 'no models here'}; "
            "`python -m suite.micro.build` makes them"
        )
    return str(_FOLDER / name)
