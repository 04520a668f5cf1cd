"""Imports go down only: what a module needs can be read before the module itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).parents[1]
# From the bottom to the top: a layer imports itself and what stands before it.
LAYERS = (
    ("errors", "words", "streams", "progress", "thoughts", "conclusion", "values", "bootstrap"),
    ("files",),
    ("clock", "journal", "jsonl", "settings", "record"),
    ("sandbox", "models"),
    ("engine",),
    ("graders",),
    ("student", "seeds", "teachers"),
    ("identifier",),
    ("adapter", "organizer"),
    ("config",),
    ("run", "run_record", "card"),
    ("steps", "report"),
    ("distillation",),
    ("commands",),
    ("cli",),
)
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("ioa_jax", "suite")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imports(name: str) -> Iterator[str]:
    """Modules of ours that a module imports anywhere, but for types alone."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    of_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in of_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                found = module if module in MODULES else node.module
                if found in MODULES:
                    yield found


GRAPH = networkx.DiGraph([(name, other) for name in MODULES for other in imports(name)])


def test_no_module_needs_itself():
    assert [sorted(c) for c in networkx.strongly_connected_components(GRAPH) if len(c) > 1] == []


def test_every_part_of_ioa_jax_has_its_layer():
    parts = {name.split(".")[1] for name in MODULES if name.startswith("ioa_jax.")}
    assert parts - {"__main__"} == {part for layer in LAYERS for part in layer}


def test_imports_of_ioa_jax_go_down():
    height = {part: place for place, layer in enumerate(LAYERS) for part in layer}

    def part_of(name: str) -> str:
        return name.split(".")[1]

    up = [
        f"{name} -> {other}"
        for name, other in GRAPH.edges
        if name.startswith("ioa_jax.")
        if other.startswith("ioa_jax.")
        if part_of(name) != part_of(other) and height[part_of(other)] > height[part_of(name)]
    ]
    assert up == []


def test_the_method_knows_nothing_of_the_suite():
    assert [edge for edge in GRAPH.edges if edge[0].startswith("ioa") and "suite" in edge[1]] == []


@pytest.mark.parametrize("part", ["results", "compare", "verify", "stats", "report", "schema"])
def test_what_reads_results_never_imports_what_makes_them(part):
    makes = {"suite.run", "suite.workers", "suite.methods.registry"}
    start = next(name for name in MODULES if name == f"suite.{part}")
    assert networkx.descendants(GRAPH, start) & makes == set()
