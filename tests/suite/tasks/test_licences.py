from suite.tasks import TASKS, load_task


def test_every_task_names_its_source_and_licence():
    for name in TASKS:
        task = load_task(name)
        assert task.name == name
        assert task.source.strip()
        assert task.licence.strip()
