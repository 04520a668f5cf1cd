import collections

import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders.base import GoldGrader, Item
from ioa_jax.graders.registry import check_golds, make_grader
from suite.data import DataSource, rows_sha256
from suite.tasks import load_task
from suite.tasks.micro import PER_MODULE

# The benchmark itself: figures of other items aren't comparable with the published ones. By task
# the digest of its rows, their number, and what version 1 had: the first 20 of each module.
ROWS = {
    "micro-math": (
        "3557a7d4b6e5e3e769395a7102c05cdec8571ed55de2f4cebda315a456a5be0a", 780,
        "a9c4a3af864a8f4587733f40fa02729320c76244625a63520739d6978ef40b86", 320,
    ),
    "micro-code": (
        "8502552c4de24359f07f2c261e85fad0da601789e42fb55db8c19c0afd48df46", 600,
        "3b61b14b1ef0b75c26fb7b33556ce14a776a2e5d2499ca00447bf4dd3b6f95bf", 240,
    ),
    "micro-instruct": (
        "70c49fcd5565689217ed6cfc2c3d1e99ee2a7749e6d2dcadac9652ca79946d31", 550,
        "fe4657280d7d65ce932e0517d864209093de5f2f050d089931c998e56aef3213", 220,
    ),
}  # fmt: skip
OFFLINE = DataSource(None, network=False)


@pytest.mark.parametrize("name", ROWS)
def test_items_are_the_published_ones_and_graded(name):
    task = load_task(name)
    data = task.load(OFFLINE)
    digest, count, earlier, of_them = ROWS[name]
    assert (data.sources[0].rows_sha256, len(data.items)) == (digest, count)
    rows = [{"prompt": i.prompt, "worked": i.data["worked"]} for i in data.items[:of_them]]
    assert rows_sha256(rows, ("prompt", "worked")) == earlier
    with make_grader(task.grader_kind) as grader:
        if isinstance(grader, GoldGrader):
            assert check_golds(grader, data.items) == []
        for item in data.items[:40]:
            assert grader.grade(item, item.data["worked"]).score == 1
            assert task.prompt(item).messages == ({"role": "user", "content": item.prompt},)


def test_every_module_has_50_items_but_one_that_the_world_has_fewer_of():
    items = [item for name in ROWS for item in load_task(name).load(OFFLINE).items]
    counts = collections.Counter(item.data["module"] for item in items)
    assert len(counts) == 39
    fewer = {module: count for module, count in counts.items() if count != PER_MODULE}
    assert fewer == {"geometry/area": 30}


def test_examples_come_from_what_models_are_trained_on():
    data = load_task("micro-math").load(OFFLINE, shots=18)
    assert len(data.examples) == 18
    assert not {one.item.prompt for one in data.examples} & {item.prompt for item in data.items}
    text = load_task("micro-math").prompt(data.items[0], "base", data.examples).text
    assert text.count("Task: ") == 19


def test_another_world_is_refused_where_one_is_pinned():
    data = DataSource(None, {"micro-code/test": "0" * 64}, network=False)
    with pytest.raises(InputError, match=r"micro-code/test: sha256 of the rows is 8502"):
        load_task("micro-code").load(data)


def test_a_mixed_set_names_an_items_unknown_check():
    with (
        make_grader("mixed") as grader,
        pytest.raises(InputError, match=r"item 'a': field 'check': 'taste'"),
    ):
        grader.check_item(Item("a", "?", ("b",), {"check": "taste"}))
