"""Real data, where the folder that IOA_DATA_DIR names has them."""

import json
import os
from pathlib import Path

import pytest


def rows(path):
    folder = os.environ.get("IOA_DATA_DIR")
    if not folder or not (Path(folder) / path).is_file():
        pytest.skip(f"IOA_DATA_DIR has no {path}")
    with (Path(folder) / path).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]
