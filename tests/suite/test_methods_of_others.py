"""Methods that installed packages add."""

import textwrap

import pytest

from ioa_jax.errors import InputError
from suite.cells import Cell, Share, cells_of, share_of
from suite.methods import method_names
from suite.methods.registry import load_method
from suite.profile_files import load_profile
from suite.run import run_cells


def install(folder, entry_points, code):
    """A package with entry points, as an installer would leave it."""
    (folder / "their_methods.py").write_text(textwrap.dedent(code))
    info = folder / "their_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ioa.methods]\n" + entry_points)


CODE = """
    from suite.methods.base import MethodResult, answer_tasks, example_pairs, fine_tune

    class Half:
        summary = "half of the seeds"
        needs = ("sft",)

        def run(self, context):
            chats = [seed.messages for seed in context.seeds[::2]]
            answered, _ = answer_tasks(context, chats)
            return MethodResult(fine_tune(context, example_pairs(context, answered)))

    METHOD = Half()
    NO_METHOD = object()
"""


def test_a_package_adds_a_method(tmp_path, monkeypatch):
    install(tmp_path, "half = their_methods:METHOD\n", CODE)
    monkeypatch.syspath_prepend(tmp_path)
    assert "half" in method_names()
    assert load_method("half").summary == "half of the seeds"
    _, profile = load_profile("smollm2-short", ["methods=[half, sft]"])
    # It comes after what it needs.
    assert [cell.name for cell in run_cells(profile)] == ["teacher", "sft-seed0", "half-seed0"]


@pytest.mark.parametrize(
    ("entry_point", "message"),
    [
        ("bad = their_methods:MISSING", "MISSING"),
        ("bad = no_such_module:METHOD", "no_such_module"),
        ("bad = their_methods:NO_METHOD", "has no 'summary'"),
    ],
)
def test_a_method_that_is_none_is_named(tmp_path, monkeypatch, entry_point, message):
    install(tmp_path, entry_point + "\n", CODE)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        load_method("bad")
    assert "their-methods" in str(error.value)


def test_a_name_is_taken_once(tmp_path, monkeypatch):
    install(tmp_path, "sft = their_methods:METHOD\n", CODE)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="has the name of ours"):
        method_names()


NEEDS = {"b": ("a",), "d": ("c", "a")}


def test_cells_come_after_what_they_need():
    names = [cell.name for cell in cells_of(["b", "undistilled", "a"], [0, 1], NEEDS)]
    assert names == ["teacher", "undistilled", "a-seed0", "a-seed1", "b-seed0", "b-seed1"]
    # What the run doesn't have is not waited for.
    assert [cell.name for cell in cells_of(["b"], [0], NEEDS)] == ["teacher", "b-seed0"]
    with pytest.raises(InputError, match="need each other"):
        cells_of(["a", "b"], [0], {"a": ("b",), "b": ("a",)})


def test_shares_are_disjoint_complete_and_keep_together_what_belongs_together():
    cells = cells_of(["a", "b", "c", "d", "e"], [0, 1], NEEDS)
    parts = [share_of(cells, NEEDS, Share(index, 3)) for index in (1, 2, 3)]
    assert sorted(cell.name for part in parts for cell in part) == sorted(
        cell.name for cell in cells
    )
    for part in parts:
        assert part
        for cell in part:
            for need in NEEDS.get(cell.method, ()):
                assert Cell(need, cell.seed) in part
    assert share_of(cells, NEEDS, None) == cells
