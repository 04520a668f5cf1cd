"""IOA's lessons from easy to hard: what its order is worth beyond that one.

Paper: He et al., 2026 (arXiv 2602.12172); a control of it.
Loop: as `suite.methods.pool` says.
Departures: as there.
"""

from __future__ import annotations

from suite.methods.base import Method
from suite.methods.pool import PoolControl

METHOD: Method = PoolControl("the lessons of ioa, from easy to hard", "easy_to_hard")
