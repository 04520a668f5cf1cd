"""Imports go down only, and what is to be read at once is short."""

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).parents[1]
# From the bottom to the top: a layer imports itself and what stands before it.
LAYERS = (
    (
        *("errors", "words", "streams", "progress", "thoughts", "conclusion", "values"),
        *("bootstrap", "json_text", "terminal", "compile_cache"),
    ),
    ("files",),
    ("rows",),
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
    ("__main__",),
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
    assert parts == {part for layer in LAYERS for part in layer}


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


MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 500, 60, 6
# Held to these limits later.
NOT_YET = (
    "suite.report",
    "suite.tasks",
    "suite.judging",
)
# Parameters of a command are its options; what it does is held to the limit without them.
COMMANDS = (
    "ioa_jax.cli",
    "ioa_jax.commands.distill",
    "ioa_jax.commands.identify",
    "suite.cli",
    "suite.commands",
    "suite.text_commands",
)
MORE_PARAMETERS = {
    # The public calls: five things that are needed, and options by name.
    "ioa_jax.distillation.distill",
    "ioa_jax.identifier.diagnosis.diagnose",
    # What a compiled step is traced with, and its settings.
    "ioa_jax.engine.train_step.train_step",
    # A wrapper's options, all with a default.
    "ioa_jax.teachers.replay.__init__",
    # The options of `suite grade`.
    "suite.texts.grade_texts",
}


def held(name: str) -> bool:
    return not any(name == part or name.startswith(f"{part}.") for part in NOT_YET)


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for name in filter(held, MODULES):
        for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield name, node


def test_files_are_short():
    lengths = {name: len(MODULES[name].read_text("utf-8").splitlines()) for name in MODULES}
    assert {n: length for n, length in lengths.items() if held(n) and length > MAX_FILE} == {}


def test_functions_are_short():
    long = [
        f"{module}.{node.name}"
        for module, node in functions()
        for first in (node.body[0] if module in COMMANDS else node,)
        if (node.end_lineno or 0) - first.lineno >= MAX_FUNCTION
    ]
    assert long == []


def test_functions_have_few_parameters():
    many: set[str] = set()
    for module, node in functions():
        arguments = node.args
        given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        own = [one for one in given if one.arg not in ("self", "cls")]
        if len(own) > MAX_PARAMETERS and module not in COMMANDS:
            many.add(f"{module}.{node.name}")
    assert many == MORE_PARAMETERS
