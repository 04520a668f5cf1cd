"""A server on loopback, and teachers that ask it."""

import pytest

from tests.teachers.server import running_server


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with running_server() as state:
        yield state


@pytest.fixture
def connect(server):
    """Opens teachers of the server, which are closed with the test."""
    opened = []

    from ioa_jax.teachers.openai import OpenAISettings, OpenAITeacher

    def open_one(**settings):
        quick = {"backoff_seconds": 0.001, **settings}
        teacher = OpenAITeacher("m", server.url, OpenAISettings.model_validate(quick))
        opened.append(teacher)
        return teacher

    yield open_one
    for teacher in opened:
        teacher.close()
