"""The teacher's plain style: what the Adapter's five dimensions are worth.

Paper: He et al., 2026 (arXiv 2602.12172); a control of it.
Loop: `ioa`, but the teacher is asked for examples without any adaptation to the student.
Departures: examples are verified and filtered as in `ioa`.
"""

from __future__ import annotations

from ioa_jax.adapter.dimensions import PLAIN
from suite.methods.base import Method
from suite.methods.ioa import IOA

METHOD: Method = IOA(
    "IOA in the teacher's plain style",
    {"adapter": {"dimensions": PLAIN.model_dump(exclude={"template"})}},
)
