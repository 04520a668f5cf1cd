"""A sample of the kills: of the smallest command that pays a teacher."""

import pytest

from tests.attacks import asking, kills
from tests.attacks.paid import open_till

pytest.importorskip("openai")


def test_what_a_killed_process_paid_for_is_neither_lost_nor_paid_twice(tmp_path):
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
    assert found.is_sound, found
    assert (len(found.kills), found.calls) == (2, asking.CALLS)
    assert found.files == 3
