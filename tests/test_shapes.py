"""Shapes in types: every array of models and engine says its dtype and its axes."""

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest

from ioa_jax.engine.batching import TokenPair, pack_batch
from ioa_jax.engine.scheduling import Prefix
from tests.tiny import tiny_decoder

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path for part in ("engine", "models") for path in (ROOT / "ioa_jax" / part).glob("*.py")
)
ARRAYS = {"Array", "jax.Array", "jnp.ndarray", "np.ndarray"}


def is_shaped(node: ast.Subscript) -> bool:
    """Whether this is such as `Float[Array, "B T"]`."""
    name = ast.unparse(node.value).rpartition(".")[2]
    return issubclass(getattr(jaxtyping, name, type(None)), jaxtyping.AbstractDtype)


def bare(annotation: ast.expr) -> Iterator[str]:
    """Array types in an annotation that stand there without dtype and axes."""
    if isinstance(annotation, ast.Name | ast.Attribute):
        if ast.unparse(annotation) in ARRAYS:
            yield ast.unparse(annotation)
        return
    if isinstance(annotation, ast.Subscript) and is_shaped(annotation):
        return
    for child in ast.iter_child_nodes(annotation):
        if isinstance(child, ast.expr):
            yield from bare(child)


def annotations(tree: ast.AST) -> Iterator[tuple[int, ast.expr]]:
    """Line and annotation of every parameter, return value, field and alias of a type."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            yield node.lineno, node.annotation
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            yield node.lineno, node.returns
        elif (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Subscript)
            and ast.unparse(node.value.value) in ("Callable", "Mapping", "dict", "tuple")
        ):
            yield node.lineno, node.value


def bare_in(text: str) -> list[tuple[int, str]]:
    return [(line, name) for line, found in annotations(ast.parse(text)) for name in bare(found)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_array_has_a_dtype_and_named_axes(path):
    assert bare_in(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("def f(x: Array) -> np.ndarray: ...", 2),
        ("def f(*x: dict[str, Array]): ...", 1),
        ("class C:\n    x: Float[Array, 'B'] | jax.Array", 1),
        ("F = Callable[[Array], Float[Array, 'B']]", 1),
        ("def f(x: Float[Array | np.ndarray, 'B T'], key: PRNGKeyArray): ...", 0),
    ],
)
def test_a_bare_array_is_found_wherever_it_stands(text, count):
    assert len(bare_in(text)) == count


def test_fields_are_checked_where_they_are_set():
    rows = pack_batch([TokenPair((2, 3), (4, 5))], 8)
    for wrong in (rows.labels[:, 1:], rows.labels.astype(np.int64)):
        with pytest.raises(jaxtyping.TypeCheckError):
            dataclasses.replace(rows, labels=wrong)
    cache: Any = tiny_decoder().init_cache(2, 8)
    assert Prefix(3, cache).cache is cache
    with pytest.raises(jaxtyping.TypeCheckError):
        dataclasses.replace(cache, values=cache.values[..., 1:, :])
