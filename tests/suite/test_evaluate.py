import dataclasses
import math

import pytest

from ioa_jax.engine.chat import answer_pair
from ioa_jax.engine.scoring import Scorer
from ioa_jax.errors import SandboxError
from ioa_jax.graders.base import Verdict
from ioa_jax.graders.exact import ExactGrader
from ioa_jax.journal import read_journal
from ioa_jax.seeds import SeedItem
from suite.answers import Ready, graded_items, is_complete
from suite.evaluate import Evaluation, Measured, evenly
from suite.grading import as_json
from suite.probes import ProbeTask
from suite.profile_files import load_profile
from suite.tasks.base import GenerationSettings, MetricValues, TaskData
from tests.suite.runs import write_lines
from tests.tiny import tiny_model


def probe(number):
    prompt = (
        "On the market square of the old town Ann has a stall and sells "
        f"{number} apples. She gives away {number + 1}. How many has she sold or given in the end?"
    )
    return SeedItem(
        id=f"probe-{number}",
        prompt=prompt,
        reference=str(number),
        domain="math",
        check={"kind": "math", "answer": str(number)},
    )


def test_what_counts_as_an_overlap_is_the_profiles():
    probes = [probe(3), probe(40)]
    other = "On the market square of the old town Ann has a stall and sells nothing at all today."

    def overlaps(*settings):
        profile = load_profile("smollm2-short", settings)[1]
        return Evaluation(profile, probes, (), {}).index().find(other)

    assert {one.item for one in overlaps()} == {"probe-3", "probe-40"}
    assert not overlaps("overlap.common=1")


@pytest.fixture(scope="module")
def model():
    model = tiny_model()
    model.tokenizer.chat_template = "{{ messages[0].content }}"
    return model


def test_a_probe_has_the_geometric_mean_of_its_references_probabilities(model, tmp_path):
    probes = [dataclasses.replace(probe(n), reference="7 8 9 10") for n in (3, 40)]
    _, profile = load_profile("smollm2-short", ())
    means = Evaluation(profile, probes, (), {}).run(model, tmp_path)
    scores = {row["id"]: row["score"] for row in read_journal(tmp_path / "scores.jsonl")}
    pairs = [answer_pair(model, one.messages, one.reference, ended=False) for one in probes]
    for one, found in zip(probes, Scorer(model).score_tokens(pairs), strict=True):
        assert len(found.token_logprobs) > 3
        mean = math.fsum(found.token_logprobs) / len(found.token_logprobs)
        assert scores[one.id] == pytest.approx(math.exp(mean))
    assert means == {"probes": pytest.approx(sum(scores.values()) / 2)}


def graded_task(folder, samples, verdicts, kind=ProbeTask):
    """A task whose answers are graded already, with the verdicts of each item in order."""
    probes = tuple(probe(number) for number in range(len(verdicts)))
    task = kind(
        name="graded",
        version=1,
        summary="",
        source="",
        licence="",
        grader_kind="exact",
        settings=GenerationSettings(8),
        probes=probes,
    )
    rows = [
        {"id": one.id, "sample": sample, "verdict": as_json(dataclasses.asdict(verdict))}
        for one, found in zip(probes, verdicts, strict=True)
        for sample, verdict in enumerate(found)
    ]
    write_lines(folder / "tasks" / "graded" / "verdicts.jsonl", rows)
    data = TaskData(tuple(one.item() for one in probes))
    ready = Ready(task, data, "chat", 0, samples, 1.0, 8)
    _, profile = load_profile("smollm2-short", ())
    return Evaluation(profile, (), [Measured(ready, ExactGrader())], {})


def verdict(score, status=None):
    return Verdict(score == 1, score, None, "whole", "string", status=status)


def test_an_items_score_is_the_mean_of_its_samples(model, tmp_path):
    found = [[verdict(1.0), verdict(0.0)], [verdict(0.0), verdict(0.0)]]
    assert graded_task(tmp_path, 2, found).run(model, tmp_path) == {"graded": 0.25}
    rows = read_journal(tmp_path / "scores.jsonl")
    assert [(row["score"], row["correct"]) for row in rows] == [(0.5, None), (0.0, None)]


class SeveralFigures(ProbeTask):
    """A task whose main figure has as many values of an item as the item has checks."""

    def metrics(self, graded):
        items = [one.item.id for one in graded]
        return {"check": MetricValues((1.0, 0.0, 0.0, 0.5), (*[items[0]] * 3, items[1]))}


def test_an_items_score_is_the_mean_of_its_values(model, tmp_path):
    evaluation = graded_task(tmp_path, 1, [[verdict(0.0)], [verdict(0.0)]], SeveralFigures)
    evaluation.run(model, tmp_path)
    rows = read_journal(tmp_path / "scores.jsonl")
    assert [row["score"] for row in rows] == [pytest.approx(1 / 3), 0.5]


def test_an_item_that_the_sandbox_failed_on_has_no_score(model, tmp_path):
    found = [[verdict(1.0, "passed")], [verdict(0.0, "infra_error")]]
    with pytest.raises(SandboxError, match="'graded', item 'probe-1'"):
        graded_task(tmp_path, 1, found).run(model, tmp_path)
    assert not (tmp_path / "scores.jsonl").exists()


def test_a_task_is_complete_with_every_verdict_of_every_sample(tmp_path):
    found = [[verdict(1.0), verdict(1.0)], [verdict(0.0)]]
    (ready,) = (one.ready for one in graded_task(tmp_path, 2, found).tasks)
    folder = tmp_path / "tasks" / "graded"
    assert not is_complete(ready, folder)
    assert [one.item.id for one in graded_items(ready, folder)] == ["probe-0"]
    found[1].append(verdict(1.0))
    graded_task(tmp_path, 2, found)
    assert is_complete(ready, folder)
    assert len(graded_items(ready, folder)) == 2


def test_a_part_of_the_items_is_spread_over_all():
    assert evenly(range(10), 4) == (0, 2, 5, 7)
    assert evenly(range(3), None) == evenly(range(3), 7) == (0, 1, 2)
