"""A sample of the malformed inputs; `python -m tests.attacks.malformed` tries them all."""

import pytest

pytest.importorskip("openai")

from tests.attacks.malformed import COUNT, KINDS, attempt, cases, sample

# These take the processor for a second or two, or more memory than a test should.
HEAVY = ("squares", "a text that doubles", "a list that doubles", "a large replacement", "patterns")


def test_there_are_300_each_with_a_name_of_its_own():
    names = [(case.kind, case.name) for case in cases()]
    assert len(names) == COUNT
    assert len(set(names)) == COUNT
    assert names == [(case.kind, case.name) for case in cases()]
    assert names != [(case.kind, case.name) for case in cases(seed=1)]
    assert len({kind for kind, _ in names}) == len(KINDS) + 1


@pytest.mark.parametrize("case", sample(30), ids=lambda case: f"{case.kind}: {case.name}")
def test_a_malformed_input_is_named(case, tmp_path):
    if case.name in HEAVY:
        pytest.skip("takes seconds")
    state, said = attempt(case, tmp_path)
    assert state in ("error", "verdict"), said
