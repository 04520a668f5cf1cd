"""Nothing mastered is measured again or replayed more: what retention is worth.

Paper: He et al., 2026 (arXiv 2602.12172); a control of it.
Loop: `ioa`, but batches are new material alone, and what falls under its mastery is not noticed.
Departures: none further.
"""

from __future__ import annotations

from suite.methods.base import Method
from suite.methods.ioa import IOA

METHOD: Method = IOA("IOA without retention", {"organizer": {"retention": False}})
