"""Looks up every package of a lock in the index, without downloading any.

    check_lock.py LOCK

For each that Python 3.11 on Linux and x86-64 needs, the index has to list a wheel (or, for those in
locks/source-only.txt, a source archive) under one of the lock's hashes, and its file has to be
there, in full length. PIP_INDEX_URL names another index than PyPI; it has to offer JSON.
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from packaging import tags
from packaging.markers import Marker
from packaging.utils import parse_wheel_filename

INDEX = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
JSON = "application/vnd.pypi.simple.v1+json"
SOURCE_ONLY = Path(__file__).with_name("locks").joinpath("source-only.txt").read_text().split()
SECONDS = 60

PYTHON = (3, 11)
MACHINE = {
    "python_version": "3.11",
    "python_full_version": "3.11.2",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
}
# From what glibc 2.36 of the base runs down to the oldest.
PLATFORMS = [
    *(f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)),
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
]
TAGS = {
    *tags.cpython_tags(PYTHON, platforms=PLATFORMS),
    *tags.compatible_tags(PYTHON, "cp311", PLATFORMS),
}


def entries(text: str) -> Iterator[tuple[str, str, set[str]]]:
    """Name, version and hashes of what the machine needs."""
    blocks = re.findall(r"^([a-z0-9.-]+)==(\S+)(.*(?:\n {4}.*)*)", text, re.MULTILINE)
    for name, version, rest in blocks:
        marker = re.match(r" ; (.*?) \\$", rest, re.MULTILINE)
        if marker is None or Marker(marker[1]).evaluate({**MACHINE, "extra": ""}):
            yield name, version, set(re.findall(r"--hash=sha256:([0-9a-f]{64})", rest))


def problem(name: str, version: str, hashes: set[str]) -> str | None:
    """What is wrong with a package; None if nothing is."""
    request = urllib.request.Request(f"{INDEX}/{name}/", headers={"Accept": JSON})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            if response.headers.get_content_type() != JSON:
                return f"{name}: the index {INDEX} offers no JSON"
            files = json.load(response)["files"]
        usable = [
            file
            for file in files
            if file["hashes"].get("sha256") in hashes and _fits(name, file["filename"])
        ]
        if not usable:
            return f"{name} {version}: the index has no file for this machine under a locked hash"
        return _missing(urllib.parse.urljoin(request.full_url, usable[0]["url"]), usable[0])
    except (OSError, ValueError) as error:
        return f"{name} {version}: {error}"


def _fits(name: str, filename: str) -> bool:
    if not filename.endswith(".whl"):
        return name in SOURCE_ONLY
    return not TAGS.isdisjoint(parse_wheel_filename(filename)[3])


def _missing(url: str, file: dict[str, Any]) -> str | None:
    request = urllib.request.Request(url, method="HEAD")
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        length = response.headers.get("Content-Length")
    if length is None or "size" not in file or int(length) == file["size"]:
        return None
    return f"{file['filename']}: {length} bytes, not {file['size']}"


def main() -> None:
    """Print the problems, and exit with 1 if there are any."""
    wanted = list(entries(Path(sys.argv[1]).read_text(encoding="utf-8")))
    with ThreadPoolExecutor(8) as pool:
        problems = [one for one in pool.map(lambda entry: problem(*entry), wanted) if one]
    for one in problems:
        print(one, file=sys.stderr)
    print(f"{len(wanted) - len(problems)} of {len(wanted)} packages are in the index", flush=True)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
