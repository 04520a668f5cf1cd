"""Gates without remedial rounds: what remediation is worth.

Paper: He et al., 2026 (arXiv 2602.12172); a control of it.
Loop: `ioa`, but a module that fails its gate is parked at once; the budget that remediation would
have had goes to the stages.
Departures: none further.
"""

from __future__ import annotations

from suite.methods.base import Method
from suite.methods.ioa import IOA

METHOD: Method = IOA(
    "IOA without remediation", {"organizer": {"max_remedial_rounds": 0, "remedial_share": 0.0}}
)
