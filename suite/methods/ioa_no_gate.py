"""Every stage is followed by the next: what the mastery gate is worth.

Paper: He et al., 2026 (arXiv 2602.12172); a control of it.
Loop: `ioa`, but nothing is asked of the student before it goes on (Eq. 9 off), so that there is no
remediation either; the budget that it would have had goes to the stages.
Departures: none further.
"""

from __future__ import annotations

from suite.methods.base import Method
from suite.methods.ioa import IOA

METHOD: Method = IOA(
    "IOA without mastery gates", {"organizer": {"gate": False, "remedial_share": 0.0}}
)
