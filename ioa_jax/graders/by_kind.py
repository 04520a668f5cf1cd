"""Graders of several kinds, for items that are not all checked in one way."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from ioa_jax.graders.base import Grader
from ioa_jax.graders.registry import make_grader


class Graders(contextlib.ExitStack):
    """One grader a kind, made when it is first needed. Close it, or use it as a context manager.

    Safe to call from several threads at once.
    """

    def __init__(self, settings: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Nothing is made yet.

        Args:
            settings: By kind, as `make_grader` takes them; a kind that isn't there has its own.
        """
        super().__init__()
        self._settings = settings or {}
        self._graders: dict[str, Grader] = {}
        self._lock = threading.Lock()
        self._closed = False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        with self._lock:
            self._closed = True
        return super().__exit__(kind, error, trace)

    def of(self, kind: str) -> Grader:
        """The grader of a kind.

        Raises:
            InputError: As `make_grader`.
            ValueError: They are closed.
        """
        with self._lock:
            if self._closed:
                raise ValueError("the graders are closed")
            if kind not in self._graders:
                made = make_grader(kind, **self._settings.get(kind, {}))
                self._graders[kind] = self.enter_context(made)
            return self._graders[kind]
