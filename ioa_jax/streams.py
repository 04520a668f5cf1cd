"""Random streams that depend on what they are for, not on the order of execution."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """The generator of (seed, purpose): the same wherever and whenever it is asked for.

    Args:
        seed: The user's.
        purpose: Names of what it is drawn for; another purpose gives an independent stream.
    """
    digest = hashlib.sha256(json.dumps([seed, *purpose]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
