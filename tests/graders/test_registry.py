import subprocess
import sys

import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from ioa_jax.graders.exact import ExactGrader
from ioa_jax.graders.instructions import InstructionGrader
from ioa_jax.graders.numbers import NumberGrader
from ioa_jax.graders.registry import check_golds, make_grader


def test_a_grader_by_name_with_settings():
    grader = make_grader("exact", ignore_case=True)
    assert isinstance(grader, ExactGrader)
    assert grader.grade(Item("1", "?", ("A",)), "a").correct
    assert isinstance(make_grader("number"), NumberGrader)


def test_a_grader_is_closed_where_its_block_ends():
    class Counting(ExactGrader):
        closed = 0

        def close(self):
            self.closed += 1

    with Counting() as grader:
        assert type(grader) is Counting
        assert grader.closed == 0
    assert grader.closed == 1


def test_an_unknown_name_or_setting():
    with pytest.raises(InputError, match=r"'maths': there are math, number, code"):
        make_grader("maths")
    with pytest.raises(InputError, match=r"setting 'ignorecase': there are ignore_case"):
        make_grader("exact", ignorecase=True)


def test_golds_that_fail_are_listed_in_order():
    items = [Item(str(i), "?", (gold,)) for i, gold in enumerate(["1", "2", "3"])]
    broken = [Item(f"b{i}", "?", ("5",), {"solution": "#### 6"}) for i in range(2)]
    found = check_golds(NumberGrader(), [broken[0], *items, broken[1]])
    assert [item_id for item_id, _ in found] == ["b0", "b1"]
    assert all(verdict.extracted == "6" for _, verdict in found)


def test_graders_without_golds_say_so():
    with pytest.raises(InputError, match="InstructionGrader"):
        check_golds(InstructionGrader(), [])


def test_importing_graders_imports_no_jax():
    names = ["base", "maths", "numbers", "exact", "rouge", "instructions", "code", "registry"]
    script = "\n".join(
        [
            *(f"import ioa_jax.graders.{name}" for name in names),
            "import sys",
            "print('jax' in sys.modules)",
        ]
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.stderr, run.stdout) == ("", "False\n")
