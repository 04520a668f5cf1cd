import time

import pytest

from ioa_jax.thoughts import closing_tag, cut_thoughts, opened_thought

OPEN, CLOSE = "<think>", "</think>"


@pytest.mark.parametrize(
    ("text", "answer", "thought"),
    [
        ("seven", "seven", ""),
        ("", "", ""),
        (f"{OPEN}\n3 + 4\n{CLOSE}\n\nseven\n", "seven\n", "\n3 + 4\n"),
        (f"{OPEN}\n\n{CLOSE}\n\nseven", "seven", ""),
        # The template wrote the opening tag.
        (f"3 + 4{CLOSE}seven", "seven", "3 + 4"),
        (f"It is eight.{OPEN}No.{CLOSE} Seven.", "It is eight. Seven.", "No."),
        (f"{OPEN}a{CLOSE}{OPEN}b{CLOSE}seven", "seven", "a\nb"),
        (f"{OPEN}a {CLOSE} was too early{CLOSE}seven", "seven", "a \n was too early"),
        (f"{OPEN}is {OPEN} a tag?{CLOSE}yes", "yes", f"is {OPEN} a tag?"),
        # Nothing was answered, or not to the end of a thought.
        (f"{OPEN}3 + 4{CLOSE}", "", "3 + 4"),
        (f"{OPEN}3 + 4 = 7", None, "3 + 4 = 7"),
        (f"seven{OPEN}or eight", None, "or eight"),
        (f"{OPEN}a{CLOSE}seven{OPEN}b", None, "a\nb"),
        # A function's body keeps its indentation.
        (f"{OPEN}a{CLOSE}\n\n    return 7", "    return 7", "a"),
        # Talked about.
        (f"Write `{OPEN}` first.", f"Write `{OPEN}` first.", ""),
        (f"text.split('{CLOSE}')", f"text.split('{CLOSE}')", ""),
        (f'{OPEN}"yes"{CLOSE}"no"', '"no"', '"yes"'),
        ("[THINK]a[/THINK]seven", "seven", "a"),
        ("<reasoning>a</reasoning>seven", "seven", "a"),
        ("<thinking>a</think></thinking>seven", "seven", "a</think>"),
        ("\u25c1think\u25b7a\u25c1/think\u25b7seven", "seven", "a"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>seven"
         "<|return|>", "seven", "a"),
        ("<|channel|>commentary to=f <|constrain|>json<|message|>{}<|call|>", None, "{}"),
        ("<|channel|>analysis<|message|>3 + 4", None, "3 + 4"),
        ("analysisIt is 3 + 4.assistantfinalseven", "seven", "It is 3 + 4."),
        ("analysis of variance", "analysis of variance", ""),
    ],
)  # fmt: skip
def test_what_is_thought_and_what_is_answered(text, answer, thought):
    assert cut_thoughts(text) == (answer, thought)


def test_a_text_that_began_inside_a_thought_must_leave_it():
    assert cut_thoughts("3 + 4 = 7", inside=True) == (None, "3 + 4 = 7")
    assert cut_thoughts(f"3 + 4{CLOSE}seven", inside=True) == ("seven", "3 + 4")
    assert cut_thoughts(f"{OPEN}3 + 4{CLOSE}seven", inside=True).answer == "seven"


def test_a_prompt_may_end_inside_a_thought():
    assert opened_thought(f"<|assistant|>{OPEN}\n") == OPEN
    assert opened_thought(f"<|assistant|>{OPEN}\n\n{CLOSE}\n\n") == ""
    assert opened_thought(f"What does {OPEN} mean?") == ""
    assert closing_tag(f"{OPEN}\n") == CLOSE


@pytest.mark.parametrize(
    "text", [OPEN, CLOSE, "<|channel|>", "<|channel|>final<|message|>", "analysis", "`<think>`"]
)
def test_long_markup_takes_no_long_time(text):
    start = time.process_time()
    cut_thoughts(text * 50_000)
    cut_thoughts("<|channel|>" + "a" * 500_000)
    assert time.process_time() - start < 2
