import dataclasses
import json
import re

import numpy as np
import pytest

from ioa_jax.errors import InputError
from ioa_jax.identifier.assignment import named_module, read_name
from ioa_jax.identifier.decompose import Proposal
from ioa_jax.identifier.decomposers import Decomposition, decompose
from ioa_jax.identifier.proposals import DecompositionError
from ioa_jax.identifier.settings import DecomposeSettings
from ioa_jax.seeds import SeedItem
from ioa_jax.teachers.base import Capabilities, TokenScores
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.replay import LedgeredTeacher
from tests.teachers.recorded import ScriptedTeacher

MODULES = ("maths/add", "maths/multiply")


def item(number, verb, **changes):
    seed = SeedItem(
        id=f"{verb}-{number:02d}",
        prompt=f"{verb} {number} and 7",
        reference="9",
        check={"kind": "exact"},
        domain="math",
    )
    return dataclasses.replace(seed, **changes)


SEEDS = tuple(item(n, verb) for verb in ("add", "multiply") for n in range(20))


class ReadingTeacher(ScriptedTeacher):
    """Proposes the verbs that it reads, and finds the name likely whose verb is in the prompt."""

    def __init__(self, script=None, score=True):
        super().__init__(script or self.propose)
        self.can_score = score

    @property
    def capabilities(self):
        return Capabilities(score=self.can_score, embed=True)

    def propose(self, request, number):
        text = request.messages[-1]["content"]
        if "one of these" in text:
            return "I think: " + ("maths/add" if "Task: add" in text else "maths/multiply") + "."
        verbs = sorted(set(re.findall(r"\d\. (add|multiply)", text)))
        return json.dumps(
            {
                "modules": [
                    {
                        "category": "Maths",
                        "module": verb.title(),
                        "difficulty": 1 + (verb != "add"),
                        "prerequisites": ["maths/add"] if verb != "add" else [],
                    }
                    for verb in verbs
                ]
            }
        )

    def render(self, messages):
        return f"<{messages[-1]['content']}>"

    def score(self, pairs, on_scores=None):
        # "multiply" is likely whatever is asked; a verb that fits adds two nats.
        scores = []
        for prompt, name in pairs:
            verb = name.split("/")[1]
            value = -2.0 - 3 * (verb == "add") + 2 * (f"Task: {verb}" in prompt)
            scores.append(TokenScores((value / 2, value / 2), False, 5))
            if on_scores is not None:
                on_scores(len(scores) - 1, scores[-1])
        return scores

    def embed(self, texts):
        return np.asarray(
            [[5.0, "add" in text, "multiply" in text, len(text) / 100] for text in texts],
            np.float32,
        )


def micro(**changes):
    options = {"pack": "micro", "max_batches": 2, "batch_size": 6} | changes
    return DecomposeSettings.model_validate(options)


def test_the_teacher_finds_modules_and_reads_no_probe(tmp_path):
    teacher = ReadingTeacher()
    found = decompose(teacher, SEEDS, micro(), tmp_path, seed=3)
    assert [module.id for module in found.taxonomy.modules] == list(MODULES)
    assert found.taxonomy.prior() == {MODULES: 1.0}
    # With the prior removed, the popular name doesn't win where it doesn't fit.
    assert found.modules == {s.id: f"maths/{s.id.split('-')[0]}" for s in SEEDS}
    assert found.margins["add-00"] == pytest.approx(2.0)
    assert (found.decomposer, found.assignment) == ("teacher", "score")
    assert (found.proposals, found.valid_proposals) == (2, 2)
    # What was read is a seed, and the split is 8:2 in each module.
    read = "\n".join(request.messages[-1]["content"] for request in teacher.asked)
    by_id = {seed.id: seed for seed in SEEDS}
    assert set(found.shown) == {s for s in by_id if re.search(rf"{by_id[s].prompt}\b", read)}
    assert len(found.shown) == 12
    assert all(found.roles[item] == "seed" for item in found.shown)
    for module in MODULES:
        assert (len(found.items(module, "seed")), len(found.items(module, "probe"))) == (16, 4)
    assert Decomposition.from_json(found.to_json(), "x") == found
    assert decompose(ReadingTeacher(), SEEDS, micro(), tmp_path, seed=3) == found


def test_a_teacher_that_cant_score_chooses_from_the_list(tmp_path):
    found = decompose(ReadingTeacher(score=False), SEEDS, micro(), tmp_path)
    assert found.assignment == "choice"
    assert found.modules == {s.id: f"maths/{s.id.split('-')[0]}" for s in SEEDS}
    assert found.margins == {}


def test_a_teacher_that_knows_the_names_writes_one(tmp_path):
    teacher = ReadingTeacher()

    def script(request, number):
        text = request.messages[-1]["content"]
        verb = re.match(r"Task: (\w+) ", text)
        return f"maths/{verb[1]}" if verb else teacher.propose(request, number)

    teacher.script = script
    found = decompose(teacher, SEEDS, micro(assignment="name"), tmp_path)
    assert found.assignment == "name"
    assert found.modules == {s.id: f"maths/{s.id.split('-')[0]}" for s in SEEDS}
    assert not any("one of these" in r.messages[-1]["content"] for r in teacher.asked)


def test_items_without_a_named_module_are_reported(tmp_path):
    teacher = ReadingTeacher(score=False)

    def script(request, number):
        text = request.messages[-1]["content"]
        return (
            "none fits"
            if "one of these" in text and "add 3 " in text
            else (teacher.propose(request, number))
        )

    teacher.script = script
    found = decompose(teacher, SEEDS, micro(), tmp_path)
    assert found.unassigned == ("add-03",)
    assert "add-03" not in found.modules
    asked = [r for r in teacher.asked if "add 3 " in r.messages[-1]["content"]]
    seeds = {r.seed for r in asked if "one of" in r.messages[-1]["content"]}
    assert len(seeds) == micro().max_retries + 1


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("M/Add", "m/add"),
        ("m/b, or rather m/add", "m/b"),
        ("it is m/add-carry", "m/add-carry"),
        ("neither", None),
    ],
)
def test_named_module(text, module):
    assert named_module(text, ["m/add", "m/add-carry", "m/b"]) == module


def test_modules_of_a_small_file_get_their_probes(tmp_path):
    # 24 items, of which a random fifth are probes: without unread seeds, one module of four would
    # be left with none or one in most draws.
    seeds = [*SEEDS[:12], *SEEDS[20:32]]
    for seed in range(5):
        teacher = ReadingTeacher()
        found = decompose(
            teacher, seeds, micro(min_seeds=4, max_batches=9), tmp_path / str(seed), seed=seed
        )
        assert len(found.shown) == 10
        assert [len(found.items(m, "probe")) >= 2 for m in MODULES] == [True, True]
        assert not {*found.shown} & {i for i, role in found.roles.items() if role == "probe"}


def naming(**changes):
    return micro(**({"assignment": "name", "max_batches": 0, "min_seeds": 4} | changes))


def name_it(request, number):
    return "maths/" + request.messages[-1]["content"].split()[1]


def test_without_proposals_the_modules_are_what_the_names_say(tmp_path):
    teacher = ReadingTeacher(name_it)
    found = decompose(teacher, SEEDS, naming(), tmp_path)
    assert len(teacher.asked) == len(SEEDS)
    assert found.modules == {s.id: f"maths/{s.id.split('-')[0]}" for s in SEEDS}
    assert [(m.id, m.votes) for m in found.taxonomy.modules] == [(m, 20) for m in MODULES]
    assert (found.decomposer, found.assignment) == ("teacher", "name")
    assert (found.proposals, found.shown, found.unassigned) == (0, (), ())
    # Nothing was read for a taxonomy, so that the split is stratified.
    assert [len(found.items(m, "probe")) for m in MODULES] == [4, 4]


def test_a_name_that_can_not_be_read_is_asked_for_again(tmp_path):
    def stutter(request, number):
        odd = "7 and 7" in request.messages[-1]["content"] and number < len(SEEDS)
        return "I don't know" if odd else name_it(request, number)

    teacher = ReadingTeacher(stutter)
    found = decompose(teacher, SEEDS, naming(), tmp_path)
    assert len(teacher.asked) == len(SEEDS) + sum("7 and 7" in s.prompt for s in SEEDS)
    assert found.unassigned == ()

    def rare(request, number):
        return "maths/odd" if "multiply 7 and 7" in str(request.messages) else name_it(request, 0)

    found = decompose(ReadingTeacher(rare), SEEDS, naming(min_votes=2), tmp_path)
    assert found.unassigned == ("multiply-07",)
    with pytest.raises(DecompositionError, match=r"named none .*assignment to auto"):
        decompose(ReadingTeacher(lambda *_: "no"), SEEDS, naming(), tmp_path)


def test_names_count_beside_proposals(tmp_path):
    """One proposal that has a module of the two, which needs another that no seed is of."""
    modules = [
        {"category": "maths", "module": "add", "difficulty": 4, "prerequisites": ["counting"]},
        {"category": "maths", "module": "counting", "difficulty": 1, "prerequisites": []},
    ]

    def answer(request, number):
        return json.dumps({"modules": modules}) if number == 0 else name_it(request, number)

    found = decompose(ReadingTeacher(answer), SEEDS, naming(max_batches=1), tmp_path)
    assert {m.id: m.difficulty for m in found.taxonomy.modules} == {
        "maths/add": 4.0,
        "maths/multiply": 1.0,
    }
    assert found.unassigned == ()
    assert (found.proposals, len(found.shown)) == (1, 6)
    assert [entry.module for entry in found.merged] == ["maths/counting"]


def test_seeds_with_and_without_a_name_of_their_own(tmp_path):
    named = [item(n, "add", module="Maths/Add") for n in range(20)]
    teacher = ReadingTeacher(name_it)
    found = decompose(teacher, [*named, *SEEDS[20:]], naming(), tmp_path)
    assert len(teacher.asked) == 20
    assert set(found.modules.values()) == set(MODULES)


def test_without_proposals_modules_have_to_be_named():
    with pytest.raises(ValueError, match="set assignment to name"):
        micro(max_batches=0)
    assert micro(max_batches=0, decomposer="embedding").max_batches == 0


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("maths/add", ("maths", "add")),
        (
            "**Number Theory / Greatest common divisor**.",
            ("Number Theory", "Greatest common divisor"),
        ),
        ("I think it is `number-theory/gcd`, since", ("number-theory", "gcd")),
        ("Sure:\nmaths/add-carry\n", ("maths", "add-carry")),
        ("maths", None),
        ("-/_", None),
        ("", None),
    ],
)
def test_read_name(text, name):
    assert read_name(text) == name


def test_small_modules_without_a_sibling_are_one(tmp_path):
    seeds = [item(n, f"verb{n % 7}", module=f"c{n % 7}/verb{n % 7}") for n in range(35)]
    found = decompose(ReadingTeacher(), seeds, micro(min_seeds=6), tmp_path)
    assert [(m.id, m.category, m.name) for m in found.taxonomy.modules] == [
        ("mixed/rest", "mixed", "rest")
    ]
    assert len(found.modules) == 35
    assert Decomposition.from_json(found.to_json(), "x") == found


def test_invalid_json_stops_the_run_and_is_kept(tmp_path):
    teacher = ReadingTeacher(lambda request, number: f"I can't, {number}")
    with pytest.raises(DecompositionError, match=r"2 of 2 .*decompose_rejects\.jsonl"):
        decompose(teacher, SEEDS, micro(max_retries=1), tmp_path)
    lines = (tmp_path / "decompose_rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == [f"I can't, {n}" for n in range(4)]
    # Small teachers are asked as they were taught.
    assert [r.messages for r in teacher.asked[:2]] == [r.messages for r in teacher.asked[2:]]


def test_a_named_fallback_is_recorded(tmp_path):
    teacher = ReadingTeacher(lambda request, number: "no")
    settings = micro(fallback="random", num_modules=3, max_retries=0)
    found = decompose(teacher, SEEDS, settings, tmp_path)
    assert (found.requested, found.decomposer) == ("teacher", "random")
    assert found.fallback_reason is not None
    assert "stayed invalid" in found.fallback_reason
    sizes = [len(found.items(m.id, "seed")) for m in found.taxonomy.modules]
    assert sizes == [11, 10, 10]
    mixed = {found.modules[s.id] for s in SEEDS if s.id.startswith("add")}
    assert len(mixed) == 3


def test_some_invalid_proposals_are_allowed(tmp_path):
    teacher = ReadingTeacher()
    teacher.script = lambda request, number: (
        "no" if number == 0 else teacher.propose(request, number)
    )
    found = decompose(teacher, SEEDS, micro(max_retries=0), tmp_path)
    assert (found.proposals, found.valid_proposals) == (2, 1)


def test_seeds_that_name_their_module_keep_it(tmp_path):
    teacher = ReadingTeacher()
    named = [item(n, "add", module="Maths/Add", difficulty=2.0 + n % 3) for n in range(20)]
    found = decompose(teacher, named, micro(), tmp_path)
    assert teacher.asked == []
    assert (found.decomposer, found.assignment) == ("given", "given")
    assert set(found.modules.values()) == {"maths/add"}
    assert found.taxonomy.modules[0].difficulty == 3.0
    assert found.shown == ()
    mixed = [*named, *SEEDS[20:]]
    found = decompose(teacher, mixed, micro(), tmp_path)
    assert found.decomposer == "teacher"
    assert set(found.modules.values()) == {"maths/add", "maths/multiply"}
    # The teacher reads those without a module alone.
    assert not any("add" in item for item in found.shown)
    ignored = decompose(teacher, mixed, micro(use_given=False), tmp_path)
    assert any("add" in item for item in ignored.shown)


def test_embedding_finds_clusters_and_the_teacher_names_them(tmp_path):
    settings = micro(decomposer="embedding", num_modules=2)
    found = decompose(ReadingTeacher(), SEEDS, settings, tmp_path)
    assert found.modules == {s.id: f"maths/{s.id.split('-')[0]}" for s in SEEDS}
    assert (found.decomposer, found.assignment, found.proposals) == ("embedding", "nearest", 2)
    with pytest.raises(InputError, match="more clusters"):
        decompose(ReadingTeacher(), SEEDS, micro(decomposer="embedding", num_modules=33), tmp_path)


def test_metadata(tmp_path):
    seeds = [item(n, "add", fields={"subject": "Maths", "topic": "Add"}) for n in range(20)]
    found = decompose(ReadingTeacher(), seeds, micro(decomposer="metadata"), tmp_path)
    assert set(found.modules.values()) == {"maths/add"}
    with pytest.raises(InputError, match="seed 'add-00': field 'subject'"):
        decompose(ReadingTeacher(), SEEDS, micro(decomposer="metadata"), tmp_path)


def test_too_few_items_for_any_module(tmp_path):
    with pytest.raises(InputError, match=r"decompose\.min_seeds"):
        decompose(ReadingTeacher(), SEEDS, micro(min_seeds=50), tmp_path)


def test_it_replays_from_the_ledger(tmp_path):
    teacher = LedgeredTeacher(ReadingTeacher(), Ledger(tmp_path / "ledger"))
    found = decompose(teacher, SEEDS, micro(), tmp_path)
    assert set(teacher.spend) == {"decompose"}
    assert teacher.spend["decompose"].called.calls == 2 + 41 * 2
    replay = LedgeredTeacher(None, Ledger(tmp_path / "ledger"))
    assert decompose(replay, SEEDS, micro(), tmp_path) == found


def test_the_micro_proposal_is_what_the_schema_writes():
    """A teacher that is trained on `model_dump_json` of a proposal gives what is read here."""
    value = {"category": "maths", "module": "add", "difficulty": 1, "prerequisites": []}
    text = Proposal.model_validate({"modules": [value]}).model_dump_json()
    assert text == json.dumps({"modules": [value]}, separators=(",", ":"))
