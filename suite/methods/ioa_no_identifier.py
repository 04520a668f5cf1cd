"""Modules drawn at random: what finding them is worth.

Paper: He et al., 2026 (arXiv 2602.12172); a control of it.
Loop: `ioa`, but seeds are dealt to modules at random.
Departures: everything after the decomposition is as in `ioa`: gaps and dependencies are those of
random modules. These are all about as weak, often none by τ_gap, so each of them may be a target.
Their names say nothing; an example belongs to the module that it was asked for.
"""

from __future__ import annotations

from suite.methods.base import Method
from suite.methods.ioa import IOA

METHOD: Method = IOA(
    "IOA on random modules",
    {"diagnose": {"decompose": {"decomposer": "random"}, "tau_gap": -1.0}},
)
