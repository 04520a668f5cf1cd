from pathlib import Path

from suite.tasks import TASKS, load_task, task_lines

README = Path(__file__).parents[3] / "README.md"


def test_the_readme_has_a_line_a_task():
    assert "\n".join(["", *task_lines(TASKS), ""]) in README.read_text(encoding="utf-8")


def test_every_task_names_its_source_and_licence():
    for name in TASKS:
        task = load_task(name)
        assert task.name == name
        assert task.source.strip()
        assert task.licence.strip()
