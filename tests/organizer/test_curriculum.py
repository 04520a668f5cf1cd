import math

import pytest

from ioa_jax.errors import InputError
from ioa_jax.organizer.curriculum import stages_by_gap

GAPS = {"c": 0.3, "a": 2.0, "e": -0.1, "b": 0.3, "d": 1.0}


def test_smallest_gap_first_and_ties_by_id():
    assert stages_by_gap(GAPS, 5) == (("e",), ("b",), ("c",), ("d",), ("a",))


def test_sizes_differ_by_one_with_the_larger_stages_first():
    assert stages_by_gap(GAPS, 2) == (("e", "b", "c"), ("d", "a"))
    assert stages_by_gap(GAPS, 3) == (("e", "b"), ("c", "d"), ("a",))
    assert stages_by_gap(GAPS, 1) == (("e", "b", "c", "d", "a"),)


def test_order_of_the_mapping_does_not_matter():
    assert stages_by_gap(dict(reversed(GAPS.items())), 3) == stages_by_gap(GAPS, 3)


@pytest.mark.parametrize("num_stages", [0, 6])
def test_a_stage_has_a_module(num_stages):
    with pytest.raises(InputError, match=f"5 modules can't make {num_stages} stages"):
        stages_by_gap(GAPS, num_stages)


def test_gaps_are_finite():
    with pytest.raises(InputError, match="module 'a'"):
        stages_by_gap({"a": math.nan, "b": 1.0}, 1)
