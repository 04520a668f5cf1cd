"""Writes into images.lock.json the sha256 of what an image is made of.

What only a release or a person knows (the base, the published images) is kept as it is.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
FILE = FOLDER / "images.lock.json"


def sha256(path: Path) -> str:
    """In hexadecimal, of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refreshed(images: dict[str, Any]) -> dict[str, Any]:
    """The same with the sha256 of the files as they are now."""
    inputs = {name: sha256(FOLDER / name) for name in images["inputs"]}
    targets = {
        name: {**target, "lock_sha256": sha256(FOLDER / target["lock"])}
        for name, target in images["targets"].items()
    }
    return {**images, "inputs": inputs, "targets": targets}


def main() -> None:
    """Refresh the file."""
    images = json.loads(FILE.read_text(encoding="utf-8"))
    FILE.write_text(json.dumps(refreshed(images), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
