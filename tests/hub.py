"""A server that speaks as much of the Hugging Face hub's protocol as its client needs."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Generator
from pathlib import Path

_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/(.*))?")
_RESOLVE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_STORE = "/store/"
_LARGE = (".safetensors", ".parquet")  # kept apart, under their sha256


@dataclasses.dataclass
class Repository:
    """One revision of a model or a dataset.

    Attributes:
        kind: `models` or `datasets`.
        id: `owner/name`.
        revision: The commit.
        files: Contents by path.
    """

    kind: str
    id: str
    revision: str
    files: dict[str, bytes]


@dataclasses.dataclass
class Hub:
    """What there is, and what was asked for.

    Attributes:
        address: Of the server.
        repositories: To be changed at will.
        requests: `METHOD PATH`, in order.
    """

    address: str
    repositories: list[Repository] = dataclasses.field(default_factory=list)
    requests: list[str] = dataclasses.field(default_factory=list)

    def add_folder(self, kind: str, name: str, revision: str, folder: Path) -> Repository:
        """A repository with a folder's files."""
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        self.repositories.append(Repository(kind, name, revision, files))
        return self.repositories[-1]

    def run(self, code: str, cache: Path, **variables: str) -> str:
        """What Python prints that has this hub.

        Args:
            code: Run in a process of its own: the client reads its settings when it is imported.
            cache: Folder for what it downloads.
            variables: More of the process's environment.
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        environment |= {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "JAX_PLATFORMS": "cpu",
            **variables,
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextlib.contextmanager
def hub() -> Generator[Hub, None, None]:
    """A hub on this machine without anything in it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def _answer(self) -> None:
            found.requests.append(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
            if match := _API.fullmatch(path):
                kind, name, what, rest = match.groups()
                revision, _, folder = (rest or "").partition("/")
                self._describe(kind, name, what, revision, folder, body)
            elif match := _RESOLVE.fullmatch(path):
                kind, name, revision, file = match.groups()
                self._send_file(kind or "models", name, revision, file)
            elif path.startswith(_STORE):
                digest = path.removeprefix(_STORE)
                contents = [one for each in found.repositories for one in each.files.values()]
                (content,) = {one for one in contents if _sha256(one) == digest}
                self._send(200, content, {"ETag": f'"{digest}"'})
            else:
                self._fail("EntryNotFound")

        def _find(self, kind: str, name: str, revision: str) -> Repository | None:
            same = [one for one in found.repositories if (one.kind, one.id) == (kind, name)]
            for one in same:
                if revision in ("", "main", one.revision):
                    return one
            self._fail("RevisionNotFound" if same else "RepoNotFound")
            return None

        def _describe(
            self, kind: str, name: str, what: str | None, revision: str, folder: str, body: bytes
        ) -> None:
            if (repository := self._find(kind, name, revision)) is None:
                return
            if what == "tree":
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                self._send_json(_tree(repository, folder, query["recursive"] == ["true"]))
            elif what == "paths-info":
                paths = (
                    json.loads(body)["paths"]
                    if body.startswith(b"{")
                    else urllib.parse.parse_qs(body.decode())["paths"]
                )
                asked = [path for path in paths if path in repository.files]
                self._send_json([_entry(repository, path) for path in asked])
            else:
                description = {
                    "_id": "0",
                    "id": name,
                    "sha": repository.revision,
                    "private": False,
                    "gated": False,
                    "disabled": False,
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                    "siblings": [{"rfilename": path} for path in repository.files],
                }
                self._send_json(description)

        def _send_file(self, kind: str, name: str, revision: str, file: str) -> None:
            if (repository := self._find(kind, name, revision)) is None:
                return
            if file not in repository.files:
                self._fail("EntryNotFound", repository.revision)
                return
            content = repository.files[file]
            headers = {"X-Repo-Commit": repository.revision}
            if file.endswith(_LARGE):
                headers["X-Linked-ETag"] = f'"{_sha256(content)}"'
                headers["X-Linked-Size"] = str(len(content))
                # Another host, as there; to the same one, the client would go at once.
                host = found.address.replace("127.0.0.1", "localhost")
                headers["Location"] = f"{host}{_STORE}{_sha256(content)}"
                self._send(302, b"", headers)
            else:
                self._send(200, content, headers | {"ETag": f'"{_sha1(content)}"'})

        def _send_json(self, content: object) -> None:
            self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def _fail(self, code: str, revision: str = "") -> None:
            headers = {"X-Error-Code": code, "X-Error-Message": code}
            if revision:
                headers["X-Repo-Commit"] = revision
            self._send(404, b"", headers)

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Hub(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def _tree(repository: Repository, folder: str, recursive: bool) -> list[dict[str, object]]:
    """What is in a folder, or anywhere below it."""
    top = f"{folder}/" if folder else ""
    below = [path.removeprefix(top) for path in repository.files if path.startswith(top)]
    folders = {top + path.partition("/")[0] for path in below if "/" in path}
    return [
        *({"type": "directory", "path": path, "oid": "0", "size": 0} for path in sorted(folders)),
        *(_entry(repository, top + path) for path in below if recursive or "/" not in path),
    ]


def _entry(repository: Repository, path: str) -> dict[str, object]:
    content = repository.files[path]
    entry: dict[str, object] = {
        "type": "file",
        "path": path,
        "size": len(content),
        "oid": _sha1(content),
    }
    if path.endswith(_LARGE):
        entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 134}
    return entry


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
