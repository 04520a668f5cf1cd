"""Stages as the dependencies alone make them: what the zone of proximal development is worth.

Paper: He et al., 2026 (arXiv 2602.12172); a control of it.
Loop: `ioa`, but no stage is split and no bridge is put before one (Eq. 8 off).
Departures: none further.
"""

from __future__ import annotations

from suite.methods.base import Method
from suite.methods.ioa import IOA

METHOD: Method = IOA("IOA without the zone of proximal development", {"organizer": {"zone": False}})
