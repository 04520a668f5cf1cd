import pytest

from ioa_jax.words import is_character, words, words_and_signs


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The cat's 3_4 na\u00efve", ["the", "cat", "s", "3", "4", "na\u00efve"]),
        # One way to write a letter.
        ("cafe\u0301 \ufb01ne", ["caf\u00e9", "fine"]),
        ("\uff11\uff12", ["12"]),
        # A letter that has no upper case, and marks that can't be seen.
        ("Stra\u00dfe STRASSE", ["strasse", "strasse"]),
        ("\ufeffco\u00adoperate\u200e", ["cooperate"]),
        # Devanagari's vowel signs belong to the word, Thai's to the character.
        ("\u0939\u093f\u0928\u094d\u0926\u0940 x", ["\u0939\u093f\u0928\u094d\u0926\u0940", "x"]),
        ("\u0e1b\u0e34x", ["\u0e1b\u0e34", "x"]),
        ("\u6cb3\u8fb9 7\u3002", ["\u6cb3", "\u8fb9", "7"]),
        ("\u0433\u043e\u0440\u043e\u0434", ["\u0433\u043e\u0440\u043e\u0434"]),
        ("?! \u0301", []),
    ],
)
def test_words_of_any_script(text, found):
    assert words(text) == found


def test_signs_are_told_apart_from_words():
    assert words_and_signs("3 + a_b=\u6cb3\u8fb9!") == [
        "3",
        "+",
        "a_b",
        "=",
        "\u6cb3",
        "\u8fb9",
        "!",
    ]
    assert is_character("\u6cb3")
    assert not is_character("a")
