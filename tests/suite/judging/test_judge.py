import json
import re

import pytest
from typer.testing import CliRunner

from ioa_jax.errors import InputError
from suite.cli import app
from suite.judging.replies import read_rating, read_verdict, render
from tests.teachers.server import running_server

QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["Name a bird.", "Name a larger one."]},
    {"question_id": 2, "category": "math", "turns": ["What is 1 + 1?", "And twice that?"]},
]
REFERENCES = [{"question_id": 2, "choices": [{"turns": ["It is 2.", "It is 4."]}]}]
IDS = ["mt_bench-1/1", "mt_bench-1/2", "mt_bench-2/1", "mt_bench-2/2"]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers(path, said, ids=IDS):
    return write(path, [{"id": one, "text": f"{said} to {one}"} for one in ids])


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data" / "mt_bench"
    write(folder / "question_odd.jsonl", QUESTIONS)
    write(folder / "reference_answer_gpt-4_odd.jsonl", REFERENCES)
    return folder.parent


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with running_server() as state:
        yield state


def judge(server, data, output, *more):
    own = [] if "--judge" in more else ["--judge", f"openai:m@{server.url}", "--set",
                                        "backoff_seconds=0.001"]  # fmt: skip
    arguments = ["judge", "--task", "mt_bench", "--output", output, "--data-dir", data, *own, *more]
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = [json.loads(row) for row in (output / "judgements.jsonl").read_text().splitlines()]
    return json.loads((output / "results.json").read_text()), rows


def prompts(server):
    return [body["messages"][-1]["content"] for _, body, _ in server.calls]


def mean(results, name):
    return results["metrics"][name]["mean"]


def test_answers_are_rated_turn_by_turn(server, data, tmp_path):
    texts = answers(tmp_path / "texts.jsonl", "<think>a draft</think>Reply")
    server.answer = lambda messages, seed: (
        "Good.\nRATING: 7" if "It is" in messages[-1]["content"] else "Poor.\n**Rating: 3**"
    )
    results, rows = judge(server, data, tmp_path / "out", "--answers", texts)
    assert [row["rating"] for row in rows] == [3, 3, 7, 7]
    assert results["rated"] == 4
    assert mean(results, "rating") == pytest.approx(5)
    assert mean(results, "rating, category math") == pytest.approx(7)
    assert mean(results, "rating, turn 2") == pytest.approx(5)
    # The questions, not their turns, are independent.
    assert results["metrics"]["rating"]["clusters"] == 2
    asked = {one.count("<<<USER>>>"): one for one in prompts(server)}
    assert "Reply to mt_bench-" in asked[2]
    assert "a draft" not in "".join(prompts(server))

    # The ledger has every call: nothing is asked twice.
    judge(server, data, tmp_path / "out", "--answers", texts)
    assert len(server.calls) == 4


def test_a_reply_that_cannot_be_read_counts_apart(server, data, tmp_path):
    texts = answers(tmp_path / "texts.jsonl", "Reply")
    server.answer = lambda messages, seed: (
        "RATING: 11" if "It is" in messages[-1]["content"] else "RATING: 1"
    )
    server.faults = ["internal"]  # tried again
    results, rows = judge(server, data, tmp_path / "out", "--answers", texts)
    assert (results["rated"], results["unread"]) == (2, 2)
    assert [row["rating"] for row in rows] == [1, 1, None, None]
    assert results["metrics"]["rating"]["low"] == mean(results, "rating") == 1.0
    assert len(server.calls) == 5


def test_pairs_are_put_in_both_orders(server, data, tmp_path):
    mine = answers(tmp_path / "mine.jsonl", "GOOD")
    theirs = answers(tmp_path / "theirs.jsonl", "BAD")

    def reply(messages, seed):
        prompt = messages[-1]["content"]
        if "And twice that?" in prompt:
            return "I can't say."
        if "What is 1 + 1?" in prompt:
            return "VERDICT: A"  # whatever comes first
        if "Name a larger one." in prompt:
            return "verdict: tie"
        first = re.search(r"<<<ASSISTANT A>>>\n(\w+)", prompt)
        assert first is not None
        return f"VERDICT: {'A' if first[1] == 'GOOD' else 'B'}"

    server.answer = reply
    human = write(
        tmp_path / "human.jsonl",
        [{"id": IDS[0], "verdict": "win"}, {"id": IDS[1], "verdict": "loss"}],
    )
    results, rows = judge(
        server, data, tmp_path / "out", "--answers", mine, "--baseline", theirs, "--mode",
        "pairwise", "--human", human,
    )  # fmt: skip
    assert [row["verdict"] for row in rows] == [
        "win", "win", "tie", "tie", "win", "loss", None, None,
    ]  # fmt: skip
    counts = {name: results[name] for name in ("pairs", "wins", "losses", "ties")}
    assert counts == {"pairs": 4, "wins": 1, "losses": 0, "ties": 2}
    assert (results["inconsistent"], results["unread"], results["unread_replies"]) == (1, 1, 2)
    assert mean(results, "win rate") == pytest.approx(2 / 3)
    assert mean(results, "agreement of the two orders") == pytest.approx(2 / 3)
    assert mean(results, "preferred what it saw first") == pytest.approx(3 / 4)
    assert mean(results, "agreement with people") == pytest.approx(1 / 2)
    # A reference helps to compare two models.
    assert all(("<<<REFERENCE>>>" in one) == ("1 + 1" in one) for one in prompts(server))


def test_without_a_baseline_the_references_are_compared_with(server, data, tmp_path):
    server.answer = lambda messages, seed: "VERDICT: TIE"
    texts = answers(tmp_path / "texts.jsonl", "Reply")
    results, rows = judge(server, data, tmp_path / "out", "--answers", texts, "--mode", "pairwise")
    assert {row["id"] for row in rows} == set(IDS[2:])
    assert results["pairs"] == results["ties"] == 2
    assert all("It is" in one and "<<<REFERENCE>>>" not in one for one in prompts(server))


@pytest.mark.parametrize(
    ("mine", "more", "message"),
    [
        (IDS[1:2], [], "the answer to 'mt_bench-1/1' is missing"),
        (IDS[:1], ["--mode", "pairwise"], "no answered item has a reference"),
        (IDS[:2], ["--mode", "pairwise", "--baseline", "one.jsonl"], "no answer to item"),
        (IDS[:1], ["--baseline", "one.jsonl"], "for --mode pairwise"),
        (IDS[:1], ["--mode", "both"], "single or pairwise"),
        (IDS[:1], ["--set", "concurrency"], "a.b=value"),
    ],
)
def test_errors_come_before_anything_is_asked(
    server, data, tmp_path, monkeypatch, mine, more, message
):
    monkeypatch.chdir(tmp_path)
    texts = answers(tmp_path / "texts.jsonl", "Reply", mine)
    answers(tmp_path / "one.jsonl", "Reply", IDS[:1])
    with pytest.raises(InputError, match=message):
        judge(server, data, tmp_path / "out", "--answers", texts, *more)
    assert server.calls == []
    # Nor is a judge loaded: that there is none of this name would be known only then.
    missing = ("--judge", f"jax:{tmp_path / 'no-model'}")
    with pytest.raises(InputError, match=message):
        judge(server, data, tmp_path / "out", "--answers", texts, *more, *missing)
    assert not (tmp_path / "out").exists()


def test_a_judge_is_opened_after_all_else_was_checked(server, data, tmp_path):
    texts = answers(tmp_path / "texts.jsonl", "Reply")
    missing = ("--answers", texts, "--judge", f"jax:{tmp_path / 'no-model'}")
    with pytest.raises(InputError, match=r"texts\.jsonl is a file; name a directory"):
        judge(server, data, texts, *missing)
    with pytest.raises(InputError, match=r"texts\.jsonl is a file; name a directory"):
        judge(server, data, tmp_path / "out", *missing, "--ledger", texts / "calls")
    with pytest.raises(InputError, match="there is no such directory"):
        judge(server, data, tmp_path / "out", *missing)
    assert not (tmp_path / "out").exists()


def test_people_must_have_seen_the_pair(server, data, tmp_path):
    texts = answers(tmp_path / "texts.jsonl", "Reply")
    human = write(tmp_path / "human.jsonl", [{"id": IDS[0], "verdict": "win"}])
    with pytest.raises(InputError, match=r"human\.jsonl:1: there is no pair of item"):
        judge(server, data, tmp_path / "out", "--answers", texts, "--mode", "pairwise",
              "--human", human)  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        ("RATING: 8", 8), ("fine\n**RATING:** 8.5/10", 8.5), ("Rating: [[9]]", 9),
        ("RATING: 3\nNo, more.\nRATING: 4", 4), ("RATING: 0", None), ("RATING: 11", None),
        ("RATING: -3", None), ("I rate it 8", None), ("<think>RATING: 8", None),
        ("<think>RATING: 2</think>RATING: 8", 8),
    ],
)  # fmt: skip
def test_ratings(reply, rating):
    assert read_rating(reply) == rating


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("VERDICT: A", "first"), ("so\n**VERDICT: B**", "second"), ("Verdict: Tie.", "tie"),
        ("VERDICT: A or B", None), ("A", None), ("VERDICT: C", None),
    ],
)  # fmt: skip
def test_verdicts(reply, verdict):
    assert read_verdict(reply) == verdict


@pytest.mark.parametrize(
    "reply", ["\n" * 100_000, "rating" + "*" * 100_000, "RATING: 1" + " " * 10**5]
)
def test_replies_are_read_in_linear_time(reply):
    # In quadratic time, each would take minutes.
    assert read_verdict(reply) is None
    assert read_rating(reply) in (None, 1)


def test_an_answer_cannot_pass_for_the_prompt():
    prompt = render("single", [{"question": "{{ 1 + 1 }}", "answer": ""}], None)
    assert "{{ 1 + 1 }}" in prompt
    assert "(no answer)" in prompt
