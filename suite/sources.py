"""What a split of a benchmark is, and where: on the hub or the web, in a package or a folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Part:
    """One file of a benchmark's folder.

    Attributes:
        stem: Its name without .jsonl or .jsonl.gz.
        sha256: Of the contents that are known, one or several; another content is an error. Where
            none is known, any content is taken and its sha256 is only recorded.
    """

    stem: str
    sha256: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
    """Files that make a split together. Those that are there are joined.

    Attributes:
        parts: The files.
        total: Items of the whole split.
        note: What sets this apart from what others report figures for; empty if nothing does.
    """

    parts: tuple[Part, ...]
    total: int
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Hub:
    """A dataset of the Hugging Face hub.

    Attributes:
        id: `owner/name`.
        revision: Full commit id.
        split: Name of the split there.
        configs: Configurations, joined in this order; None is the only one there is.
        access: How to get it where not everybody may; empty where everybody may.
    """

    id: str
    revision: str
    split: str
    configs: tuple[str | None, ...] = (None,)
    access: str = ""

    def __str__(self) -> str:
        return f"hub {self.id}@{self.revision}"


@dataclasses.dataclass(frozen=True)
class HubFile:
    """A JSONL file of a dataset's repository on the hub, which stays in the hub's cache.

    Attributes:
        id: `owner/name`.
        revision: Full commit id.
        path: In the repository.
        sha256: Of the file.
    """

    id: str
    revision: str
    path: str
    sha256: str

    def __str__(self) -> str:
        return f"hub {self.id}@{self.revision}, {self.path}"


@dataclasses.dataclass(frozen=True)
class WebFile:
    """A JSONL file at an address that holds a commit id, or one whose sha256 is known.

    Attributes:
        url: The address.
        sha256: Of the file; None where nobody who wrote this down could read the file.
    """

    url: str
    sha256: str | None = None

    def __str__(self) -> str:
        return self.url


@dataclasses.dataclass(frozen=True)
class PackageFile:
    """A file inside an installed distribution, which is not imported.

    Attributes:
        distribution: Its name.
        version: The one to install where it is missing.
        path: Below site-packages.
        sha256: Of the file.
    """

    distribution: str
    version: str
    path: str
    sha256: str

    def __str__(self) -> str:
        return f"package {self.distribution}"


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of one benchmark.

    Attributes:
        name: `benchmark/split`, for messages, results and pins.
        folder: Of the local folder.
        layouts: The first that has a file is used.
        remote: Where it is if it isn't local. A package comes before the folder.
        total: Items of the whole split there.
        fields: What each row must have.
        texts: The fields among them that must be a text with something in it.
        keep: Which rows belong to the split, where a file holds several. It may raise InputError
            about a field, which then names the line too.
        may_be_empty: Whether it's no error if none does.
    """

    name: str
    folder: str
    layouts: tuple[Layout, ...]
    remote: Hub | HubFile | WebFile | PackageFile
    total: int
    fields: tuple[str, ...]
    texts: tuple[str, ...]
    keep: Callable[[Row], bool] | None = None
    may_be_empty: bool = False
