import collections
import re

import pytest

from ioa_jax.errors import InputError
from ioa_jax.sandbox import Sandbox
from suite.tasks.seeds import load_seed_tasks, split_seeds

TASKS = load_seed_tasks()


def test_the_shipped_tasks():
    modules = collections.Counter(task.module for task in TASKS)
    assert len(TASKS) >= 120
    assert set(modules.values()) == {16}
    assert {task.domain for task in TASKS} == {"math", "code", "instruction"}


def test_code_references_pass_their_own_tests():
    code = [task for task in TASKS if task.kind == "code"]
    assert len(code) == 64
    with Sandbox() as sandbox:
        for task in code:
            name, tests = task.check["entry_point"], task.check["tests"]
            block = re.search(r"```python\n(.*?)```", task.reference, re.DOTALL)
            assert block is not None, task.id
            result = sandbox.check(block.group(1), tests, [name])
            assert result.passed, (task.id, result)
            # Tests that an empty function passes would test nothing.
            empty = f"def {name}(*args): pass"
            assert sandbox.check(empty, tests, [name]).status == "failed", task.id


def test_math_references_end_in_their_answer():
    for task in TASKS:
        if task.kind == "math":
            assert task.reference.endswith(f"The answer is {task.check['answer']}."), task.id


def test_split_is_stratified_disjoint_and_complete():
    split = split_seeds(TASKS, 0.375, 0)
    assert (len(split.seeds), len(split.probes)) == (120, 72)
    assert {task.id for task in (*split.seeds, *split.probes)} == {task.id for task in TASKS}
    assert set(collections.Counter(task.module for task in split.probes).values()) == {6}


def test_split_depends_on_the_seed_and_not_on_order_or_other_modules():
    split = split_seeds(TASKS, 0.375, 0)
    assert split_seeds(TASKS[::-1], 0.375, 0) == split
    assert split_seeds(TASKS, 0.375, 1).probes != split.probes
    one = [task for task in TASKS if task.module == "lists/aggregate"]
    expected = [task for task in split.probes if task.module == "lists/aggregate"]
    assert list(split_seeds(one, 0.375, 0).probes) == expected


def test_a_short_run_keeps_roles():
    full, short = split_seeds(TASKS, 0.375, 0), split_seeds(TASKS, 0.375, 0, 2, 1)
    assert (len(short.seeds), len(short.probes)) == (24, 12)
    assert all(item in full.seeds for item in short.seeds)
    assert all(item in full.probes for item in short.probes)


@pytest.mark.parametrize(("fraction", "message"), [(0.01, "0 of them"), (0.99, "16 of them")])
def test_both_parts_need_a_task(fraction, message):
    with pytest.raises(InputError, match=message):
        split_seeds(TASKS, fraction, 0)
