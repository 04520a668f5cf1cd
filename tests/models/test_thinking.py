"""How chat templates write the thoughts before an answer."""

import pytest

from ioa_jax.errors import InputError
from ioa_jax.models.text import thought_opening
from ioa_jax.models.thinking import ThoughtForm
from tests.tiny import tiny_tokenizer

# Each as the family's own, cut down to a last answer.
QWEN3 = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content.split('</think>')[-1] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{{ opening }}{% endif %}"
)
QWEN3_THINKING = QWEN3.replace("{{ opening }}", "{{ '<think>\n' }}")
R1 = QWEN3_THINKING.replace("{{ '<think>\n\n</think>\n\n' }}", "")
PLAIN = R1.replace("{{ '<think>\n' }}", "")

WRITTEN = ["7", "<think>\n3 + 4\n</think>\n\n7", "3 + 4</think>7"]


@pytest.mark.parametrize(
    ("template", "opening", "without", "with_thoughts"),
    [
        (QWEN3, "", "<think>\n\n</think>\n\n7", "<think>\n3 + 4\n</think>\n\n7"),
        (QWEN3_THINKING, "<think>", "\n</think>\n\n7", "3 + 4\n</think>\n\n7"),
        (R1, "<think>", "\n</think>\n\n7", "3 + 4\n</think>\n\n7"),
    ],
    ids=["qwen3", "qwen3-thinking", "r1"],
)
def test_answers_are_written_as_the_template_writes_them(template, opening, without, with_thoughts):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    assert thought_opening(tokenizer) == opening
    form = ThoughtForm.of(tokenizer)
    assert [form.write(text) for text in WRITTEN] == [without, with_thoughts, with_thoughts]
    assert "with their thoughts" in form.told
    with pytest.raises(InputError, match="a thought has no end"):
        form.write("<think>3 + 4")


def test_without_thoughts_in_the_template_answers_stay_as_they_are():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = PLAIN
    form = ThoughtForm.of(tokenizer)
    assert [form.write(text) for text in WRITTEN] == WRITTEN
    assert "writes no thoughts" in form.told
