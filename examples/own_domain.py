"""Distil a model into a domain of your own: a minute on two cores, without a network.

The domain is small mathematics, and teacher and student are the embedded world's models. With
your own seeds and models, leave out what SETTINGS says of small ones. So short a run is no
comparison: results/reference has those.

    python examples/own_domain.py OUTPUT
"""

import json
import sys
from pathlib import Path

import ioa_jax
from suite.micro.world import micro_seeds
from suite.models import find_spec

SETTINGS = {
    "budget": {"teacher_tokens": 12_000, "student_tokens": 100_000},
    # These models write a few lines at most; for instruct models leave out all but the budget.
    "diagnose": {
        "decompose": {"pack": "micro", "assignment": "name", "max_batches": 0},
        "measure": {"max_tokens": 96, "report_logprob": False},
        "gate_probe_share": 0,
    },
    "adapter": {
        "pack": "micro",
        "max_tokens": 96,
        "examples_per_seed": 40,
        "lesson_tokens": 40,
        "duplicate_similarity": 0.95,
        "verification": {"max_tokens": 96, "undecided": "accept"},
    },
    "train": {"learning_rate": 5e-4, "row_length": 128},
}


def write_seeds(path: Path, count: int) -> None:
    """Real tasks with a right answer and a way to check others, one JSON object a line."""
    seeds = [seed for seed in micro_seeds(3 * count) if seed.domain == "math"][:count]
    lines = [{"prompt": s.prompt, "reference": s.reference, "check": s.check} for s in seeds]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def main(output: Path, num_seeds: int = 240) -> None:
    """Write seeds, distil, save."""
    output.mkdir(parents=True)
    write_seeds(output / "seeds.jsonl", num_seeds)
    seeds = ioa_jax.read_seeds(output / "seeds.jsonl")
    student = ioa_jax.Student.open(find_spec("micro:student-uneven"))
    config = ioa_jax.MethodConfig.model_validate(SETTINGS)
    with ioa_jax.open_teacher(find_spec("micro:teacher"), batch_size=128) as teacher:
        result = ioa_jax.distill(student, teacher, seeds, config, output / "run", baseline=True)
    print(json.loads((output / "run/record.json").read_text())["conclusion"])
    result.student.save(output / "student", card="# A student of small mathematics\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
