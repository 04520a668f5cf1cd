import json

import numpy as np
import pytest
from pydantic import ValidationError

from ioa_jax.errors import InputError
from ioa_jax.identifier.decompose import (
    KnowledgeModule,
    NamedPrerequisite,
    Proposal,
    Taxonomy,
    assign_seeds,
    decompose_by_metadata,
    merge_proposals,
    merge_taxonomy,
)
from ioa_jax.identifier.seeds import MergedModule
from ioa_jax.seeds import module_id


def proposal(*modules):
    """(category, module, difficulty, prerequisites) each."""
    return Proposal.model_validate(
        {
            "modules": [
                {"category": c, "module": m, "difficulty": d, "prerequisites": p}
                for c, m, d, p in modules
            ]
        }
    )


def test_ids_are_the_same_for_all_spellings():
    assert module_id("Number Theory", " Greatest common divisor ") == (
        "number-theory/greatest-common-divisor"
    )
    assert module_id("Géométrie", "a/b") == "geometrie/a-b"
    with pytest.raises(InputError, match="'…'"):
        module_id("maths", "…")


def entry(**changes):
    module = {"category": "m", "module": "a", "difficulty": 1, "prerequisites": []} | changes
    return json.dumps({"modules": [module]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"modules": []}', "modules"),
        (entry(difficulty=6), r"modules\.0\.difficulty"),
        (entry(category=" "), r"modules\.0\.category"),
        (entry(extra=1), r"modules\.0\.extra"),
    ],
)
def test_what_is_no_proposal(text, message):
    with pytest.raises(ValidationError, match=message):
        Proposal.model_validate_json(text)


def test_a_name_without_letters_has_no_id():
    with pytest.raises(InputError, match="'!'"):
        _ = Proposal.model_validate_json(entry(module="!")).modules[0].id


def test_proposals_merge_by_id():
    taxonomy = merge_proposals(
        [
            proposal(("Maths", "Add", 1, []), ("Maths", "Multiply", 3, ["Add"])),
            proposal(("maths", "multiply", 2, ["maths/add", "Add"]), ("Code", "Loops", 2, [])),
            proposal(("maths", "MULTIPLY", 5, []), ("Maths", "add", 2, ["Add"])),
        ]
    )
    assert taxonomy.modules == (
        KnowledgeModule("code/loops", "Code", "Loops", 2.0, 1),
        KnowledgeModule("maths/add", "Maths", "Add", 1.5, 2),
        KnowledgeModule("maths/multiply", "Maths", "Multiply", 3.0, 3),
    )
    # Two of the three proposals with multiply say that it needs add; nothing needs itself.
    assert taxonomy.prerequisites == (NamedPrerequisite("maths/add", "maths/multiply", 2 / 3),)
    assert taxonomy.prior() == {("maths/add", "maths/multiply"): 2 / 3}
    assert taxonomy.difficulty()["maths/add"] == 1.5
    assert Taxonomy.from_json(taxonomy.to_json(), "taxonomy.json") == taxonomy


def test_prerequisites_by_name_prefer_their_own_category():
    taxonomy = merge_proposals(
        [
            proposal(
                ("m", "basics", 1, []),
                ("c", "basics", 1, []),
                ("m", "more", 2, ["basics"]),
                ("x", "other", 2, ["basics", "c/basics", "nothing", "z/basics"]),
            )
        ]
    )
    assert set(taxonomy.prior()) == {("m/basics", "m/more"), ("c/basics", "x/other")}
    assert taxonomy.unresolved == (
        ("x/other", "basics"),
        ("x/other", "nothing"),
        ("x/other", "z/basics"),
    )


def test_rare_modules_can_be_left_out():
    proposals = [proposal(("m", "a", 1, [])), proposal(("m", "a", 1, []), ("m", "b", 1, ["a"]))]
    assert [module.id for module in merge_proposals(proposals, min_votes=2).modules] == ["m/a"]
    with pytest.raises(InputError, match="no module is in 3 of 2"):
        merge_proposals(proposals, min_votes=3)
    with pytest.raises(InputError, match="no proposals"):
        merge_proposals([])


def test_merged_modules_hand_on_their_prerequisites():
    taxonomy = Taxonomy(
        tuple(KnowledgeModule(f"m/{name}", "m", name, 1.0, 1) for name in "abcde"),
        (
            NamedPrerequisite("m/a", "m/b", 0.5),
            NamedPrerequisite("m/b", "m/c", 0.4),
            NamedPrerequisite("m/c", "m/d", 0.7),
            NamedPrerequisite("m/b", "m/d", 0.2),
            NamedPrerequisite("m/e", "m/d", 0.9),
        ),
    )
    # b goes to c, c with it to a; e is set aside.
    merged = [
        MergedModule("m/b", "m/c", 1, 0),
        MergedModule("m/c", "m/a", 2, 0),
        MergedModule("m/e", None, 1, 0),
    ]
    found = merge_taxonomy(taxonomy, merged)
    assert [module.id for module in found.modules] == ["m/a", "m/d"]
    assert found.prerequisites == (NamedPrerequisite("m/a", "m/d", 0.7),)
    with pytest.raises(InputError, match="'m/z'"):
        merge_taxonomy(taxonomy, [MergedModule("m/z", "m/a", 1, 0)])


def test_seeds_go_to_the_most_likely_name_with_the_prior_removed():
    # "common" is the likeliest name for every seed, and likelier still without a seed.
    logprobs = np.array([[-1.0, -3.0, -9.0], [-1.0, -5.0, -7.5]])
    first, second = assign_seeds(
        ["s1", "s2"], ["m/common", "m/a", "m/b"], logprobs, np.array([-0.5, -5.0, -8.0])
    )
    assert (first.seed, first.module) == ("s1", "m/a")
    assert first.margin == pytest.approx(2.0 - -0.5)
    assert (second.module, second.margin) == ("m/b", pytest.approx(0.5))


def test_ties_and_single_modules():
    assert assign_seeds(["s"], ["m/b", "m/a"], [[-1.0, -1.0]], [0.0, 0.0])[0].module == "m/a"
    assert assign_seeds(["s"], ["m/a"], [[-1.0]], [0.0])[0].margin is None


@pytest.mark.parametrize(
    ("logprobs", "prior", "message"),
    [
        ([[-1.0]], [0.0, 0.0], r"shape \(1, 1\)"),
        ([[-1.0, -1.0]], [0.0], r"shape \(1,\)"),
        ([[-1.0, -np.inf]], [0.0, 0.0], "seed 's'"),
        ([[-1.0, -1.0]], [0.0, -np.inf], "module 'm/b'"),
    ],
)
def test_assignment_needs_finite_values_of_the_right_shape(logprobs, prior, message):
    with pytest.raises(InputError, match=message):
        assign_seeds(["s"], ["m/a", "m/b"], logprobs, prior)


def test_metadata_decomposer():
    fields = {
        "s2": {"subject": "Algebra", "topic": "Lines", "level": "Level 3"},
        "s1": {"subject": "algebra", "topic": "lines", "level": "Level 5"},
        "s3": {"subject": "Geometry", "topic": "Circles", "level": 2},
    }
    taxonomy, assignments = decompose_by_metadata(fields, "subject", "topic", "level")
    assert [(m.id, m.difficulty, m.votes) for m in taxonomy.modules] == [
        ("algebra/lines", 4.0, 2),
        ("geometry/circles", 2.0, 1),
    ]
    assert [(a.seed, a.module) for a in assignments] == [
        ("s1", "algebra/lines"),
        ("s2", "algebra/lines"),
        ("s3", "geometry/circles"),
    ]
    assert taxonomy.prerequisites == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "no seeds"),
        ({"s": {"topic": "a", "level": 1}}, "seed 's': field 'subject'"),
        ({"s": {"subject": "a", "topic": "", "level": 1}}, "seed 's': field 'topic'"),
        ({"s": {"subject": "a", "topic": "b", "level": "Level ?"}}, "seed 's': field 'level'"),
    ],
)
def test_metadata_has_to_be_there(fields, message):
    with pytest.raises(InputError, match=message):
        decompose_by_metadata(fields, "subject", "topic", "level")
