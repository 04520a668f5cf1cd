"""A sample of the kills: of the smallest command that pays a teacher."""

import pytest

from tests.attacks import asking, kills
from tests.attacks.paid import open_till

pytest.importorskip("openai")


def test_what_a_killed_process_paid_for_is_not_lost(tmp_path):
    kills.prepare(["tests.attacks.asking", "ioa_jax.teachers.transport", "openai"], tmp_path)
    with open_till(lambda text, seed: f"{text}, {seed}", seconds=0.1) as till:
        job = kills.Job(
            "asking",
            "tests.attacks.asking",
            lambda folder: [till.url, str(folder)],
            lambda folder: [till.url, str(folder)],
            lambda folder: folder,
        )
        found = kills.kill_again_and_again(job, tmp_path, till, points=2, seed=0)
    assert (len(found.kills), found.calls, found.files) == (2, asking.CALLS, 3)
    assert (found.lost, found.other_bytes) == (0, ())
    # On a busy machine a kill may come between reading an answer and writing it down.
    assert found.paid_twice <= 2 * asking.CONCURRENCY
