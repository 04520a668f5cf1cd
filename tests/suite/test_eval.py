import gzip
import json

import pytest
from typer.testing import CliRunner

from ioa_jax.engine.generation import Generator
from ioa_jax.errors import InputError
from ioa_jax.journal import read_journal
from suite.cli import app
from suite.tasks.code import HUMANEVAL_TEST
from tests.suite.world import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval") / "model"
    write_model(folder)
    return folder


def suite(*arguments):
    """Run a command; its error is raised here."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def evaluate(model, output, *more):
    suite("eval", "--model", model, "--tasks", "humaneval", "--output", output, "--limit", 6,
          "--max-tokens", 8, "--samples", 2, "--temperature", 1.0, "--precision", "float32",
          "--batch-size", 8, *more)  # fmt: skip
    return json.loads((output / "results.json").read_text())


def texts(output):
    rows = read_journal(output / "tasks" / "humaneval" / "texts.jsonl")
    return {(row["id"], row["sample"]): row["text"] for row in rows}


def test_a_killed_evaluation_goes_on_with_what_is_missing(model, tmp_path, monkeypatch):
    whole = evaluate(model, tmp_path / "whole")
    task = whole["tasks"]["humaneval"]
    assert (task["items"], task["graded"]) == (6, 6)
    assert task["metrics"]["pass@1"]["clusters"] == 6
    assert task["grader"]["sandbox"]["backend"]
    assert sum(task["statuses"].values()) == 12
    assert len(set(texts(tmp_path / "whole").values())) > 6  # the samples differ

    # What a kill may leave: fewer verdicts than texts, and a line without its end.
    other = tmp_path / "killed"
    evaluate(model, other)
    folder = other / "tasks" / "humaneval"
    for name, keep in (("texts.jsonl", 7), ("verdicts.jsonl", 4)):
        lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:keep]) + lines[keep][:20])
    kept = texts(other)
    generated = []
    generate = Generator.generate

    def counted(self, prompts, *arguments, **options):
        generated.append(len(prompts))
        return generate(self, prompts, *arguments, **options)

    monkeypatch.setattr(Generator, "generate", counted)
    resumed = evaluate(model, other)
    assert generated == [5]
    assert kept.items() <= texts(other).items()
    assert texts(other) == texts(tmp_path / "whole")
    assert resumed["tasks"]["humaneval"]["metrics"] == task["metrics"]
    # A finished one does nothing.
    evaluate(model, other)
    assert generated == [5]

    with pytest.raises(InputError, match="begun with another settings"):
        evaluate(model, other, "--seed", 3)


def test_answers_are_graded_again_and_shown(model, tmp_path):
    output = tmp_path / "out"
    before = evaluate(model, output)
    folder = output / "tasks" / "humaneval"
    # One answer becomes the reference solution.
    lines = [json.loads(line) for line in (folder / "texts.jsonl").read_text().splitlines()]
    chosen = lines[3]
    from suite.data import DataSource

    row = next(
        row for row in DataSource.open().load(HUMANEVAL_TEST).rows if row["task_id"] == chosen["id"]
    )
    chosen["text"] = f"```python\n{row['prompt']}{row['canonical_solution']}\n```"
    (folder / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    printed = suite("regrade", output)
    assert "humaneval: 1 verdicts changed" in printed
    after = json.loads((output / "results.json").read_text())
    gain = 1 / 12
    means = [r["tasks"]["humaneval"]["metrics"]["pass@1"]["mean"] for r in (before, after)]
    assert means[1] - means[0] == pytest.approx(gain)

    shown = suite("show", output, "--task", "humaneval", "--id", chosen["id"], "--limit", 5)
    assert shown.count("===== ") == 2
    assert "----- correct" in shown
    failed = suite("show", output, "--task", "humaneval", "--failed", "--limit", 50)
    assert failed.count("----- wrong") == failed.count("===== ") == 11

    # Compressed, a finished evaluation is the same.
    for path in list(folder.glob("*.jsonl")):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert suite("show", output, "--task", "humaneval", "--failed", "--limit", 50) == failed
    evaluate(model, output)
    assert "humaneval: 0 verdicts changed" in suite("regrade", output)
    assert json.loads((output / "results.json").read_text()) == after
    assert {path.name for path in folder.iterdir()} == {
        "texts.jsonl.gz", "verdicts.jsonl", "seconds.jsonl.gz",
    }  # fmt: skip


def test_texts_of_another_engine_are_graded(tmp_path):
    from suite.data import DataSource

    rows = DataSource.open().load(HUMANEVAL_TEST).rows[:2]
    texts = tmp_path / "texts.jsonl"
    right = rows[0]["prompt"] + rows[0]["canonical_solution"]
    lines = [
        {"id": rows[0]["task_id"], "text": right, "engine": "other"},
        {"id": rows[1]["task_id"], "text": "I don't know."},
    ]
    texts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "verdicts.jsonl"
    printed = suite("grade", "--task", "humaneval", "--input", texts, "--output", out)
    assert "1 of 2 correct" in printed
    verdicts = [json.loads(line) for line in out.read_text().splitlines()]
    assert [v["correct"] for v in verdicts] == [True, False]
    assert verdicts[0]["engine"] == "other"
    assert verdicts[0]["status"] == "passed"
    assert "text" not in verdicts[0]

    texts.write_text(json.dumps({"id": "HumanEval/999", "text": ""}) + "\n")
    with pytest.raises(InputError, match=r"texts\.jsonl:1: field 'id'.*no item 'HumanEval/999'"):
        suite("grade", "--task", "humaneval", "--input", texts, "--output", out)


def test_samples_have_a_majority_and_pages(model, tmp_path):
    output = tmp_path / "out"
    command = ["eval", "--model", model, "--tasks", "micro-math", "--output", output, "--limit", 2,
               "--max-tokens", 6, "--samples", 4, "--temperature", 1.0, "--precision", "float32",
               "--batch-size", 8]  # fmt: skip
    suite(*command, "--k", "1,2,4")
    results = output / "results.json"
    found = json.loads(results.read_text())["tasks"]["micro-math"]["metrics"]
    assert list(found) == ["accuracy", "pass@1", "pass@2", "pass@4", "avg@4", "maj@2", "maj@4"]
    groups = read_journal(output / "tasks" / "micro-math" / "groups.jsonl")
    assert [len(row["groups"]) for row in groups] == [4, 4]

    # Another choice of k needs no answer anew; saved texts are grouped anew.
    folder = output / "tasks" / "micro-math"
    rows = read_journal(folder / "texts.jsonl")
    for row in rows:
        row["text"] = r"\boxed{1.5}" if row["sample"] < 2 else r"\boxed{\frac{3}{2}}"
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite("regrade", output, "--k", "3")
    assert all(len(set(row["groups"])) == 1 for row in read_journal(folder / "groups.jsonl"))
    found = json.loads(results.read_text())["tasks"]["micro-math"]["metrics"]
    assert list(found) == ["accuracy", "pass@3", "avg@4", "maj@3"]
    with pytest.raises(InputError, match=r"--k 9: task 'micro-math' has 4 samples"):
        suite(*command, "--k", "9")

    def headers(*more):
        shown = suite("show", output, "--task", "micro-math", *more)
        return [line for line in shown.splitlines() if line.startswith("=====")], shown

    first, shown = headers("--limit", 3)
    prompt = suite("show", output, "--task", "micro-math", "--limit", 1).splitlines()[1]
    assert shown.count(prompt) == 1
    assert "5 more; --skip 3 goes on" in shown
    rest, _ = headers("--skip", 3)
    whole, _ = headers()
    assert first + rest == whole
    assert [line[-1] for line in whole] == list("01230123")
    assert len(headers("--sample", 2)[0]) == 2


def mt_bench(folder, categories):
    folder = folder / "mt_bench"
    folder.mkdir(parents=True)
    questions = [
        {"question_id": number, "category": category, "turns": ["Name a bird.", "And its egg?"]}
        for number, category in enumerate(categories)
    ]
    text = "".join(json.dumps(question) + "\n" for question in questions)
    (folder / "question_odd.jsonl").write_text(text)
    reference = {"question_id": 0, "choices": [{"turns": ["A wren.", "Small."]}]}
    (folder / "reference_answer_gpt-4_odd.jsonl").write_text(json.dumps(reference) + "\n")


def test_a_second_turn_comes_after_the_models_first_answer(model, tmp_path, monkeypatch):
    mt_bench(tmp_path / "data", ["writing"])
    asked = []
    generate = Generator.generate

    def noted(self, prompts, *arguments, **options):
        asked.extend(self.model.tokenizer.decode(prompt) for prompt in prompts)
        return generate(self, prompts, *arguments, **options)

    monkeypatch.setattr(Generator, "generate", noted)
    output = tmp_path / "out"
    printed = suite("eval", "--model", model, "--tasks", "mt_bench", "--output", output,
                    "--max-tokens", 6, "--precision", "float32", "--batch-size", 8,
                    "--data-dir", tmp_path / "data")  # fmt: skip
    assert "python -m suite judge" in printed
    first, second = read_journal(output / "tasks" / "mt_bench" / "texts.jsonl")
    assert (first["id"], second["id"]) == ("mt_bench-0/1", "mt_bench-0/2")
    assert asked[1].startswith(asked[0] + first["text"])
    assert "And its egg?" in asked[1]
    shown = suite("show", output, "--task", "mt_bench", "--data-dir", tmp_path / "data")
    assert shown.count("===== ") == 2
    assert "wrong" not in shown


def test_a_thought_that_the_template_begins_is_the_answers(tmp_path):
    write_model(tmp_path / "model")
    template = tmp_path / "model" / "chat_template.jinja"
    template.write_text(template.read_text() + "{{ '<think>\n' }}")
    evaluate(tmp_path / "model", tmp_path / "out")
    assert all(text.startswith("<think>") for text in texts(tmp_path / "out").values())
    verdicts = read_journal(tmp_path / "out" / "tasks" / "humaneval" / "verdicts.jsonl")
    # None of them ends, and so there is no answer.
    assert {row["verdict"]["rule"] for row in verdicts} == {"unfinished_thought"}
    # Nor is there one to `grade`, which knows nothing of the template.
    records = tmp_path / "out" / "tasks" / "humaneval" / "texts.jsonl"
    suite("grade", "--task", "humaneval", "--input", records, "--output", tmp_path / "graded.jsonl")
    graded = read_journal(tmp_path / "graded.jsonl")
    assert [row["rule"] for row in graded] == ["unfinished_thought"] * 12


def test_each_category_of_mt_bench_has_its_temperature(model, tmp_path, monkeypatch):
    categories = ["writing", "roleplay", "extraction", "math", "coding", "reasoning", "stem",
                  "humanities", "gardening"]  # fmt: skip
    expected = [0.7, 0.7, 0.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.7]
    mt_bench(tmp_path / "data", categories)
    asked = []
    generate = Generator.generate

    def noted(self, prompts, params, *arguments, **options):
        asked.append((params.temperature, len(prompts), params.seed))
        return generate(self, prompts, params, *arguments, **options)

    monkeypatch.setattr(Generator, "generate", noted)

    def evaluated(output, *more):
        asked.clear()
        suite("eval", "--model", model, "--tasks", "mt_bench", "--output", output, "--max-tokens",
              4, "--precision", "float32", "--batch-size", 16, "--data-dir", tmp_path / "data",
              "--seed", 5, *more)  # fmt: skip
        record = json.loads((output / "eval.json").read_text())
        rows = read_journal(output / "tasks" / "mt_bench" / "texts.jsonl")
        assert record["settings"]["seed"] == 5
        assert len(rows) == 2 * len(categories)
        return record["tasks"]["mt_bench"]["generation"], {row["id"]: row["text"] for row in rows}

    found, texts = evaluated(tmp_path / "own")
    # Of each turn: three at 0.7, four greedy, two at 0.1.
    assert sorted(asked) == sorted([(0.7, 3, 5), (0.0, 4, 5), (0.1, 2, 5)] * 2)
    recorded = [found["temperatures"].get(one, found["temperature"]) for one in categories]
    assert recorded == expected
    # What asks for the same question greedily gets the same answer; samples differ.
    assert len({texts[f"mt_bench-{number}/1"] for number in (2, 3, 4, 5)}) == 1
    assert len({texts[f"mt_bench-{number}/1"] for number in (0, 1, 8)}) == 3

    found, greedy = evaluated(tmp_path / "greedy", "--temperature", 0)
    assert {temperature for temperature, _, _ in asked} == {0.0}
    assert found["temperature"] == 0.0
    assert "temperatures" not in found
    assert greedy["mt_bench-0/1"] == texts["mt_bench-2/1"]

    # The records name their settings, and are read by them.
    for output in ("own", "greedy"):
        shown = suite("show", tmp_path / output, "--task", "mt_bench", "--data-dir",
                      tmp_path / "data", "--limit", 50)  # fmt: skip
        assert shown.count("===== ") == 2 * len(categories)
    with pytest.raises(InputError, match="begun with another"):
        evaluated(tmp_path / "own", "--temperature", 0)
    with pytest.raises(InputError, match="2 samples need a --temperature over 0"):
        evaluated(tmp_path / "several", "--samples", 2)


def test_a_prompt_that_does_not_fit_is_an_item_without_an_answer(tmp_path):
    write_model(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    rows = json.loads(config.read_text())
    rows["max_position_embeddings"] = 300
    config.write_text(json.dumps(rows))
    results = evaluate(tmp_path / "model", tmp_path / "out")["tasks"]["humaneval"]
    assert results["graded"] == 6
    written = read_journal(tmp_path / "out" / "tasks" / "humaneval" / "texts.jsonl")
    long = {row["id"] for row in written if row["prompt_tokens"] >= 300}
    assert 0 < len(long) < 6
    for row in written:
        assert (row["tokens"] == 0) == (row["id"] in long)
