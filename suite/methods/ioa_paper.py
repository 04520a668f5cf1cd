"""Stages strictly one after the other, each on its own data: the paper read literally.

Paper: He et al., 2026 (arXiv 2602.12172); a control of it.
Loop: `ioa`, but a stage trains on its own lessons alone, for three epochs, from the student that
the stage before left, with a learning-rate schedule of its own (`stage_mode: sequential`).
Departures: the other departures of `ioa`.
"""

from __future__ import annotations

from suite.methods.base import Method
from suite.methods.ioa import IOA

METHOD: Method = IOA(
    "IOA with strictly sequential stages, as the paper reads",
    {"organizer": {"stage_mode": "sequential"}},
)
