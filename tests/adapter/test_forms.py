import pytest

from ioa_jax.adapter.forms import FORMS, FormChoice, choose_forms, reference_in_form
from ioa_jax.errors import InputError
from ioa_jax.seeds import SeedItem

REFERENCE = "2 + 3 = 5\n5 + 1 = 6\nThe answer is 6."


def seed(kind="math", reference=REFERENCE, **check):
    return SeedItem("s", f"What? {reference}", reference, {"kind": kind} | check, "math")


def test_references_are_written_in_each_form():
    written = {form: reference_in_form(seed(), form) for form in FORMS}
    assert written == {
        "as_written": REFERENCE,
        "lines": "2 + 3 = 5\n5 + 1 = 6\n\\boxed{6}",
        "numbered": "1. 2 + 3 = 5\n2. 5 + 1 = 6\n\\boxed{6}",
        "labelled": "Solve: 2 + 3 = 5\nSolve: 5 + 1 = 6\n\\boxed{6}",
    }
    # What can't be taken apart stays.
    unread = seed("number", "It is five.")
    assert reference_in_form(unread, "numbered") == "It is five."


def test_the_form_that_surprises_the_student_least_is_chosen():
    asked = []

    def scorer(pairs):
        asked.append(list(pairs))
        return [0.1 if answer.startswith("1. ") else 0.5 for _, answer in pairs]

    own = {"a/b": [seed(), seed(reference="3 + 4 = 7\nThe answer is 7.")], "c/d": [seed("exact")]}
    chosen = choose_forms(own, scorer)
    assert chosen["a/b"] == FormChoice(
        "a/b",
        "numbered",
        {"as_written": 0.5, "lines": 0.5, "numbered": 0.1, "labelled": 0.5},
        2,
    )
    # An exact answer is the same text in every form, and is scored once.
    assert chosen["c/d"].form == "as_written"
    assert len(asked) == 1
    assert len(asked[0]) == len(set(asked[0])) == 9 - 1
    assert FormChoice.from_json(chosen["a/b"].to_json(), "forms") == chosen["a/b"]


def test_only_the_first_seeds_are_scored():
    seeds = [seed(reference=f"{n} + 1\nThe answer is {n}.") for n in range(5)]
    chosen = choose_forms({"a/b": seeds}, lambda pairs: [1.0] * len(pairs), ("lines",), 3)
    assert (chosen["a/b"].seeds, chosen["a/b"].form) == (3, "lines")


def test_what_makes_no_sense():
    with pytest.raises(InputError, match="'a/b': there are no seeds"):
        choose_forms({"a/b": []}, lambda pairs: [])
    with pytest.raises(InputError, match="no candidate"):
        choose_forms({"a/b": [seed()]}, lambda pairs: [], ())
