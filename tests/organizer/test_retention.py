import pytest

from ioa_jax.errors import InputError
from ioa_jax.organizer.retention import (
    ForgettingMatrix,
    Retained,
    RetainedExample,
)


def test_forgetting_is_the_fall_from_the_best():
    matrix = ForgettingMatrix(("a", "b", "c", "d"))
    matrix = matrix.with_stage(0, {"a": 0.2, "b": 0.5, "d": 0.1})
    matrix = matrix.with_stage(1, {"a": 0.9, "b": 0.6, "c": 0.4})
    matrix = matrix.with_stage(3, {"a": 0.7, "b": 0.8})
    assert matrix.stages == (0, 1, 3)
    assert matrix.ratios[2] == (0.7, 0.8, None, None)
    # b is at its best, c and d were measured once.
    assert matrix.forgetting() == {"a": pytest.approx(0.2), "b": pytest.approx(-0.2)}


def test_a_matrix_is_read_back_as_written():
    matrix = ForgettingMatrix(("a", "b")).with_stage(0, {"a": 0.2}).with_stage(1, {"b": 0.2})
    assert ForgettingMatrix.from_json(matrix.to_json(), "forgetting.json") == matrix
    retained = Retained(("a",), (RetainedExample("a", "How many?", "3", True),), 2)
    assert Retained.from_json(retained.to_json(), "retained.json") == retained


def test_rows_come_in_order_and_fit():
    matrix = ForgettingMatrix(("a",)).with_stage(1, {"a": 0.2})
    with pytest.raises(InputError, match="stage 1 after stage 1"):
        matrix.with_stage(1, {})
    with pytest.raises(InputError, match=r"\['z'\]"):
        matrix.with_stage(2, {"z": 0.1})
    with pytest.raises(InputError, match="stage 1 has 2 values"):
        ForgettingMatrix(("a",), (1,), ((0.1, 0.2),))
