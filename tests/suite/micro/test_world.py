import subprocess
import sys

import networkx
import pytest

from ioa_jax.adapter.dimensions import is_concrete
from ioa_jax.errors import InputError, SandboxError
from ioa_jax.graders.base import Item, Verdict
from ioa_jax.graders.by_kind import Graders
from ioa_jax.seeds import SeedRow, check_seeds, seed_from_row
from ioa_jax.streams import stream
from suite.micro.draft import NAMES, THINGS
from suite.micro.measure import score
from suite.micro.world import (
    DIFFICULTIES,
    MODULES,
    benchmark_problems,
    distinct_problems,
    draw,
    make_problem,
    micro_seeds,
    modules_of,
    split_of,
    true_edges,
)

SPLITS = ("train", "probe", "test")


def test_a_broken_sandbox_is_no_wrong_answer() -> None:
    class Broken:
        def of(self, kind: str) -> "Broken":
            return self

        def grade(self, item: Item, text: str) -> Verdict:
            return Verdict(False, 0.0, None, "none", "a test", "no answer", "infra_error")

    problem = make_problem("lists/map", 1, 0, "probe")
    with pytest.raises(SandboxError, match=f"{problem.id}.*no answer"):
        score(Broken(), problem, "def f(): ...")  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def graders():
    with Graders() as found:
        yield found


def test_the_world_is_as_large_as_it_says():
    counts = {name: len(modules_of(name)) for name in ("math", "code", "instruction")}
    assert counts["math"] >= 14
    assert counts["code"] >= 10
    assert counts["instruction"] >= 8
    assert len({module.id.split("/")[0] for module in modules_of("math")}) >= 5


def test_dependencies_have_no_cycle_and_name_modules_of_one_domain():
    graph = networkx.DiGraph(true_edges())
    assert networkx.is_directed_acyclic_graph(graph)
    for need, dependent in true_edges():
        assert MODULES[need].domain == MODULES[dependent].domain
    assert any(MODULES[need].needs for need, _ in true_edges())


@pytest.mark.parametrize("module", MODULES)
def test_right_answers_pass_their_checks_and_others_do_not(module, graders):
    problems = [problem for split in SPLITS for problem in distinct_problems(module, 4, split)]
    for problem in problems:
        assert score(graders, problem, problem.reference) == 1, problem.prompt
        assert score(graders, problem, "Nothing") < 1, problem.prompt


@pytest.mark.parametrize("module", MODULES)
def test_splits_have_no_parameters_in_common_and_every_difficulty(module):
    keys = {}
    for split in SPLITS:
        drafts = [
            draw(stream(seed, split), module, difficulty, split)
            for difficulty in DIFFICULTIES
            for seed in range(4)
        ]
        keys[split] = {draft.key for draft in drafts}
        assert all(split_of(module, key) == split for key in keys[split])
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["probe"]
    assert not keys["probe"] & keys["test"]


def test_a_problem_is_a_function_of_its_arguments_in_any_process():
    code = (
        "from suite.micro.world import *;"
        "print([make_problem(m, 3, 7, 'probe').id for m in MODULES])"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert other.strip() == str([make_problem(m, 3, 7, "probe").id for m in MODULES])
    assert make_problem("lists/map", 3, 7, "probe") != make_problem("lists/map", 3, 8, "probe")


def test_numbers_grow_with_difficulty():
    def largest(difficulty):
        problems = [make_problem("arithmetic/addition", difficulty, s, "train") for s in range(30)]
        return max(int(problem.draft.answer) for problem in problems)

    assert largest(1) <= 18 < largest(3) < largest(5) < 100


def test_problems_and_answers_are_short():
    for module in MODULES:
        for problem in distinct_problems(module, 10, "train"):
            assert len(problem.prompt.split()) <= 30
            assert len(problem.reference) <= 200
            assert len(problem.draft.steps) <= 7


def test_concrete_wordings_of_maths_begin_with_everyday_things():
    for module in modules_of("math"):
        for seed in range(5):
            draft = draw(stream(seed), module.id, 3, "train")
            assert all(is_concrete(text) for text in draft.concrete), draft.concrete
    assert not is_concrete(f"What is 3 + 4, {NAMES[0]}?")
    assert is_concrete(f"3 {THINGS[0]}")


def test_what_is_written_after_a_seed_passes_the_seeds_check(graders):
    for module in MODULES.values():
        if module.redraw is None:
            continue
        for seed in distinct_problems(module.id, 5, "train"):
            draft = draw(stream(0, seed.id), module.id, 3, "train", seed.draft)
            assert draft.key != seed.draft.key
            assert score(graders, seed, draft.answer) == 1, (seed.prompt, draft.answer)


def test_unknown_modules_are_named():
    with pytest.raises(InputError, match="'arithmetic/roots' of difficulty 2"):
        make_problem("arithmetic/roots", 2, 0, "train")
    with pytest.raises(InputError, match="of difficulty 6"):
        make_problem("arithmetic/addition", 6, 0, "train")


def test_seeds_are_a_users_seed_file():
    seeds = micro_seeds(200, seed=3)
    check_seeds(seeds, "micro")
    assert len({seed.prompt for seed in seeds}) == 200
    assert all(seed.module is None and not seed.fields for seed in seeds)
    assert seeds == micro_seeds(200, seed=3)
    assert seeds != micro_seeds(200, seed=4)
    seed = seeds[0]
    row = {"id": seed.id, "prompt": seed.prompt, "reference": seed.reference}
    assert seed_from_row(SeedRow.model_validate({**row, "check": seed.check}), 1).item() == (
        seed.item()
    )


def test_seeds_have_nothing_of_the_benchmark():
    tested = {
        p.prompt for name in ("math", "code", "instruction") for p in benchmark_problems(name, 50)
    }
    assert not tested & {seed.prompt for seed in micro_seeds(500)}


def test_a_prefix_of_the_benchmark_has_every_module():
    problems = benchmark_problems("code", 5)
    count = len(modules_of("code"))
    assert {problem.module for problem in problems[:count]} == {m.id for m in modules_of("code")}
