import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders.base import GoldGrader, Item
from ioa_jax.graders.registry import check_golds, make_grader
from suite.data import DataSource
from suite.tasks import load_task
from suite.tasks.micro import PER_MODULE

# The benchmark itself: figures of other items aren't comparable with the published ones.
ROWS = {
    "micro-math": "a9c4a3af864a8f4587733f40fa02729320c76244625a63520739d6978ef40b86",
    "micro-code": "3b61b14b1ef0b75c26fb7b33556ce14a776a2e5d2499ca00447bf4dd3b6f95bf",
    "micro-instruct": "fe4657280d7d65ce932e0517d864209093de5f2f050d089931c998e56aef3213",
}
OFFLINE = DataSource(None, network=False)


@pytest.mark.parametrize("name", ROWS)
def test_items_are_the_published_ones_and_graded(name):
    task = load_task(name)
    data = task.load(OFFLINE)
    assert data.sources[0].rows_sha256 == ROWS[name]
    assert len(data.items) >= 10 * PER_MODULE
    with make_grader(task.grader_kind) as grader:
        if isinstance(grader, GoldGrader):
            assert check_golds(grader, data.items) == []
        for item in data.items[:40]:
            assert grader.grade(item, item.data["worked"]).score == 1
            assert task.prompt(item).messages == ({"role": "user", "content": item.prompt},)


def test_examples_come_from_what_models_are_trained_on():
    data = load_task("micro-math").load(OFFLINE, shots=18)
    assert len(data.examples) == 18
    assert not {one.item.prompt for one in data.examples} & {item.prompt for item in data.items}
    text = load_task("micro-math").prompt(data.items[0], "base", data.examples).text
    assert text.count("Task: ") == 19


def test_another_world_is_refused_where_one_is_pinned():
    data = DataSource(None, {"micro-code/test": "0" * 64}, network=False)
    with pytest.raises(InputError, match=r"micro-code/test: sha256 of the rows is 3b61"):
        load_task("micro-code").load(data)


def test_a_mixed_set_names_an_items_unknown_check():
    with (
        make_grader("mixed") as grader,
        pytest.raises(InputError, match=r"item 'a': field 'check': 'taste'"),
    ):
        grader.check_item(Item("a", "?", ("b",), {"check": "taste"}))
