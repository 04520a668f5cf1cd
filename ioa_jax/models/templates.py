"""Chat templates, which are programs of whoever made the model: rendered within limits.

Jinja's sandbox keeps them from everything but time and memory. Here their steps are counted while
they run, with the processor's time for them, and what they may add to the process's memory is
bounded. What would spend either in one step is refused before: powers, and filters that search a
text by patterns.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import sys
import threading
import time
from collections.abc import Generator
from types import FrameType
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from ioa_jax.errors import InputError

MAX_STEPS = 500_000  # lines and calls; a turn of a chat takes some tens
MAX_SECONDS = 2.0  # of the processor; a step that is under way ends first
MAX_BYTES = 1 << 30
_TEMPLATE = "<template>"  # Jinja's name of the file that a template is compiled from
MAX_TEMPLATE = 200_000  # characters; templates with tools have some 20,000
_PATTERN_FILTERS = ("urlize", "striptags", "wordwrap")

# The limit of memory is the whole process's.
_rendering = threading.Lock()


@contextlib.contextmanager
def within_limits(template: str) -> Generator[None]:
    """Render a template inside of this, in this thread.

    Raises:
        InputError: The template has what is refused, or went beyond a limit.
    """
    fault = _refused(template)
    if fault:
        raise InputError(f"the chat template can't be used: {fault}")
    with _rendering, _little_memory():
        steps = _Steps()
        before = sys.gettrace()
        sys.settrace(steps.trace)
        try:
            yield
        except MemoryError:
            raise InputError(f"the chat template needs more than {MAX_BYTES} bytes") from None
        except RecursionError:
            raise InputError("the chat template calls itself without an end") from None
        finally:
            sys.settrace(before)


class _Steps:
    """Counts the template's lines, and the functions that it calls; ends it where they are many.

    What comes before its first line, as when Jinja compiles it, isn't counted: that takes no longer
    than the template has characters.
    """

    def __init__(self) -> None:
        self._count = 0
        self._end = 0.0

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        """As `sys.settrace` calls it."""
        own = frame.f_code.co_filename == _TEMPLATE
        if self._count == 0 and not own:
            return None
        if self._count == 0:
            self._end = time.thread_time() + MAX_SECONDS
        self._count += 1
        if self._count > MAX_STEPS or time.thread_time() > self._end:
            raise InputError(
                f"the chat template takes more than {MAX_STEPS} steps or {MAX_SECONDS:g} s"
            )
        return self.trace if own else None


@contextlib.contextmanager
def _little_memory() -> Generator[None]:
    """Within it, the process can get no more than `MAX_BYTES` beside what it has."""
    if sys.platform != "linux":
        # Others don't keep to such a limit.
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + MAX_BYTES
    if soft != resource.RLIM_INFINITY and soft <= most:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class _Generation(Extension):
    """transformers' tag around what the model writes."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own form

    def parse(self, parser: Parser) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@functools.lru_cache(maxsize=32)
def _refused(template: str) -> str:
    """What a template isn't rendered for; empty if it may be."""
    if len(template) > MAX_TEMPLATE:
        return f"it has {len(template)} characters; at most {MAX_TEMPLATE}"
    environment = Environment(extensions=[loopcontrols, _Generation])
    try:
        tree = environment.parse(template)
    except TemplateSyntaxError as error:
        return f"line {error.lineno}: {error.message}"
    except RecursionError:
        return "it is nested too deeply"
    if next(tree.find_all(nodes.Pow), None) is not None:
        return "it takes a power (**), which may have any size"
    for one in tree.find_all(nodes.Filter):
        if one.name in _PATTERN_FILTERS:
            return f"its filter {one.name} may take forever"
    return ""
