import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioa_jax.adapter.duplicates import BenchmarkIndex, DuplicateIndex
from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item

LONG = " ".join(f"word{i}" for i in range(30))
SHORT = "How can I improve my time management?"  # 7 words
TINY = "Compute sin 60."
SOLUTION = " ".join(f"step{i}" for i in range(20))


@pytest.fixture(scope="module")
def index():
    return BenchmarkIndex(
        {
            "long": [Item(id="l", prompt=LONG, references=("18",), data={"solution": SOLUTION})],
            "short": [Item(id="s", prompt=SHORT), Item(id="t", prompt=TINY)],
        }
    )


def found(index, text):
    return [(one.task, one.item, one.field, one.kind, one.value) for one in index.find(text)]


def test_a_whole_item_in_a_longer_text(index):
    text = f"Please: {LONG.upper().replace(' ', ',  ')}! And then?"
    assert found(index, text) == [("long", "l", "prompt", "whole", 1.0)]


def test_thirteen_words_in_a_row_and_not_twelve(index):
    words = LONG.split()
    # The prompt has 30 - 13 + 1 = 18 runs of 13 words.
    (overlap,) = index.find("before " + " ".join(words[5:18]) + " after")
    assert (overlap.kind, overlap.value) == ("ngram", round(1 / 18, 4))
    assert overlap.match == " ".join(words[5:18])
    assert index.find("before " + " ".join(words[5:17]) + " after") == []


def test_solutions_are_looked_for_and_bare_answers_are_not(index):
    assert found(index, SOLUTION + " so 18") == [("long", "l", "solution", "whole", 1.0)]
    assert found(index, "18") == []


def test_short_items_count_when_contained_and_tiny_ones_when_alone(index):
    assert found(index, f"My question: {SHORT} Thanks.") == [("short", "s", "prompt", "whole", 1)]
    assert found(index, "compute SIN 60!") == [("short", "t", "prompt", "whole", 1.0)]
    assert found(index, "Compute sin 60 and cos 60.") == []


def test_six_words_count_when_contained():
    six, five = "Name the capital city of Peru.", "Name the capital of Chad."
    index = BenchmarkIndex({"t": [Item("six", six), Item("five", five)]})
    around = "The teacher asks: {} Nobody in the class has raised a hand so far, and it is late."
    assert found(index, around.format(six)) == [("t", "six", "prompt", "whole", 1.0)]
    assert index.find(around.format(five)) == []
    assert found(index, five) == [("t", "five", "prompt", "whole", 1.0)]


def test_answers_are_looked_for_from_thirteen_different_words_on():
    thirteen = " ".join(f"word{i}" for i in range(13))
    twelve, zeros = " ".join(f"step{i}" for i in range(12)), "0 " * 40
    index = BenchmarkIndex({"t": [Item("a", "?", (thirteen,)), Item("b", "?", (twelve, zeros))]})
    assert [(one.item, one.kind) for one in index.find(f"so {thirteen}")] == [("a", "whole")]
    assert index.find(twelve) == index.find(zeros) == []


def test_texts_as_similar_as_the_threshold_are_near_duplicates():
    # Of 14 triples of the one text, the other has 7 and no more.
    text = " ".join(f"word{i}" for i in range(16))
    half = " ".join(text.split()[:9])
    assert found(BenchmarkIndex({"t": [Item("a", text)]}, 0.5), half) == [
        ("t", "a", "prompt", "near", 0.5)
    ]
    assert BenchmarkIndex({"t": [Item("a", text)]}, 0.51).find(half) == []
    assert DuplicateIndex([("a", text)], 0.5).find(half) == ("a", 0.5)
    assert DuplicateIndex([("a", text)], 0.51).find(half) is None


def test_near_duplicates_have_their_exact_similarity(index):
    words = LONG.split()
    # Other words at 12 and 24 leave no 13 words in a row. Each change breaks 3 of the 28 triples,
    # so 22 are in both and 34 in either.
    words[12] = words[24] = "other"
    assert found(index, " ".join(words)) == [("long", "l", "prompt", "near", round(22 / 34, 4))]
    words[6] = words[18] = "other"
    # 16 in both, 40 in either: below a half.
    assert found(index, " ".join(words)) == []


def test_texts_without_words(index):
    assert index.find("") == index.find("?! \u2026") == []


@pytest.mark.parametrize("similarity", [0.0, 1.0, -1.0])
def test_a_similarity_that_is_none(similarity):
    with pytest.raises(InputError, match="similarity"):
        BenchmarkIndex({}, similarity)


def test_phrases_of_many_items_can_be_passed_over():
    frame = " ".join(f"frame{i}" for i in range(14))
    items = [Item(str(i), f"{frame} case{i}") for i in range(3)]
    text = f"{frame} and something else of ours that makes it unlike every one of the items here"
    assert len(BenchmarkIndex({"t": items}).find(text)) == 3
    assert BenchmarkIndex({"t": items}, common=2).find(text) == []
    assert len(BenchmarkIndex({"t": items}, common=3).find(text)) == 3
    with pytest.raises(InputError, match="common=0"):
        BenchmarkIndex({"t": items}, common=0)


def test_scripts_without_spaces_are_compared_by_characters():
    # Thirty characters, and thirteen words of which are twenty-six.
    long = "".join(chr(0x4E00 + i) for i in range(30))
    short = "".join(chr(0x5E00 + i) for i in range(12))
    index = BenchmarkIndex(
        {"c": [Item("long", long), Item("short", short), Item("tiny", short[:8])]}
    )
    assert found(index, f"\u6c49{long[2:28]}\u6c49") == [("c", "long", "prompt", "ngram", 0.2)]
    assert not [one for one in index.find(f"\u6c49{long[2:27]}\u6c49") if one.kind != "near"]
    # Six words are twelve characters; fewer count only alone.
    contained = index.find(f"\u6c49{short}\u6c49")
    assert [one.item for one in contained if one.kind == "whole"] == ["short"]
    assert [one.item for one in index.find(short[:8]) if one.kind == "whole"] == ["tiny"]
    duplicates = DuplicateIndex([("a", long)])
    assert duplicates.find(long[:-1]) == ("a", 27 / 28)
    assert duplicates.find(long[::-1]) is None


def test_one_text_has_one_way_to_be_written():
    assert DuplicateIndex([("a", "caf\u00e9 3")]).find("CAFE\u0301 \uff13") == ("a", 1.0)


def test_a_duplicate_is_named_with_its_similarity():
    words = LONG.split()
    index = DuplicateIndex([("a", LONG), ("b", "What is 3 + 4?")])
    assert index.find(LONG.upper()) == ("a", 1.0)
    # One other word in the middle breaks 3 of 28 triples: 25 in both, 31 in either.
    assert index.find(" ".join([*words[:10], "other", *words[11:]])) == ("a", 25 / 31)
    assert index.find("What is  3 + 4?") == ("b", 1.0)
    assert index.find("What is 3 * 4?") is None


def test_what_was_added_is_found_and_the_first_of_equals_is_named():
    index = DuplicateIndex()
    assert (len(index), index.find("x")) == (0, None)
    index.add("first", "x")
    index.add("second", "X")
    index.add("empty", "")
    assert len(index) == 3
    assert index.find(" x ") == ("first", 1.0)
    assert index.find("\n") == ("empty", 1.0)
    assert index.find("y") is None


@given(st.lists(st.text(alphabet="ab +1", max_size=12), min_size=1, max_size=6))
def test_every_indexed_text_is_a_duplicate_of_itself(texts):
    index = DuplicateIndex((str(i), text) for i, text in enumerate(texts))
    for text in texts:
        found = index.find(text)
        assert found is not None
        assert found[1] == 1.0


@pytest.mark.parametrize("similarity", [0.0, 1.0, 2.0])
def test_a_threshold_of_duplicates_that_is_none(similarity):
    with pytest.raises(InputError, match="similarity"):
        DuplicateIndex(similarity=similarity)
