import pytest

from ioa_jax.graders.by_kind import Graders


def test_a_grader_a_kind_until_they_are_closed():
    with Graders() as graders:
        assert graders.of("math") is graders.of("math")
        assert graders.of("exact") is not graders.of("math")
    with pytest.raises(ValueError, match="closed"):
        graders.of("math")
