"""How the models of the world are trained: sizes, mixtures and batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerBase

from ioa_jax.engine.batching import TokenPair, pack_in_order
from ioa_jax.engine.training import TrainConfig
from ioa_jax.models.config import DecoderConfig
from ioa_jax.models.decoder import init_decoder
from ioa_jax.models.load import LanguageModel
from ioa_jax.models.precision import Precision
from ioa_jax.models.text import end_of_turn, render_chat
from ioa_jax.streams import stream
from suite.micro.lessons import SKILLS, Task
from suite.micro.world import DIFFICULTIES, MODULES, Domain, true_edges

SEED = 0
TOKENIZER_TASKS = 12_000
CONTEXT = 512

# Copying comes first and alone. Among problems, which have few words, a model learns to copy by
# place instead of by what stood before, stays with that, and mixes up the words of longer ones.
COPYING: dict[str, float] = {"copy": 1.0}
# Share of a skill among the examples of the teacher, then of a student.
TEACHER_SKILLS = {
    "answer": 0.42,
    "solve": 0.14,
    "synthesis": 0.22,
    "name": 0.05,
    "choice": 0.02,
    "prior": 0.01,
    "proposal": 0.02,
    "similar": 0.07,
    "harder": 0.05,
    "copy": 0.02,
}
STUDENT_SKILLS = {"answer": 0.83, "explain": 0.15, "copy": 0.02}

# `uneven`: two thirds of the modules mastered, the rest from hardly to half; `flat`: all near half.
Variant = Literal["uneven", "flat"]
VARIANTS: tuple[Variant, ...] = ("uneven", "flat")
# Two of the five difficulties are taught to `flat`, which bounds its mathematics, the last that it
# learns. Code and instructions go on rising with it after they are there, so less is aimed at.
FLAT: dict[Domain, float] = {"math": 0.6, "code": 0.2, "instruction": 0.2}
FLAT_HARDEST = 2
WEAKEST = 0.45


@dataclasses.dataclass(frozen=True)
class Round:
    """A part of a training, with a schedule and an optimiser state of its own.

    Attributes:
        tokens: Trained on, prompts included.
        learning_rate: Peak of its cosine.
        focus: How many times as much more a module has at accuracy 0 than at 1 (`weights`).
        skills: Share of each skill among its examples.
    """

    tokens: int
    learning_rate: float
    focus: float
    skills: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that fixes a model of the world.

    Attributes:
        name: Of its folder.
        hidden_size: Width.
        intermediate_size: Width of the gated MLP.
        num_layers: Blocks.
        num_heads: Query heads.
        num_kv_heads: Key and value heads.
        rounds: One after the other.
        train: All other hyperparameters.
        targets: Accuracy by module that it is meant to reach; 1 is as much as it can.
        watch_every: Steps between measurements on the split `probe`, from which the modules' shares
            among the examples follow.
        watched: Problems of each module in a measurement.
        hardest: Difficulty of the hardest problems that it is taught to answer.
    """

    name: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    rounds: tuple[Round, ...]
    train: TrainConfig
    targets: Mapping[str, float]
    watch_every: int
    watched: int
    hardest: int = DIFFICULTIES[-1]


# After copying. The last of `flat` is slow, so that no module leaps past the others unseen.
STUDENT_ROUNDS: dict[Variant, tuple[Round, ...]] = {
    "uneven": (Round(10_000_000, 4e-3, 5.0, STUDENT_SKILLS),),
    "flat": (
        Round(4_500_000, 4e-3, 5.0, STUDENT_SKILLS),
        Round(2_000_000, 7e-4, 5.0, STUDENT_SKILLS),
    ),
}


def teacher_recipe() -> Recipe:
    """All modules and skills."""
    return Recipe(
        name="teacher",
        hidden_size=192,
        intermediate_size=512,
        num_layers=5,
        num_heads=6,
        num_kv_heads=2,
        rounds=(
            Round(1_500_000, 2e-3, 0.0, COPYING),
            Round(16_000_000, 2e-3, 8.0, TEACHER_SKILLS),
        ),
        train=TrainConfig(
            batch_rows=12,
            row_length=320,
            warmup_fraction=0.02,
            weight_decay=0.05,
            beta2=0.98,
            seed=SEED,
            remat="none",
            save_every=250,
        ),
        targets=dict.fromkeys(MODULES, 1.0),
        watch_every=500,
        watched=10,
    )


def student_recipe(variant: Variant) -> Recipe:
    """A model of at most a tenth of the teacher's parameters, trained to copy and to answer."""
    return Recipe(
        name=f"student-{variant}",
        hidden_size=64,
        intermediate_size=160,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        rounds=(Round(2_500_000, 4e-3, 0.0, COPYING), *STUDENT_ROUNDS[variant]),
        train=TrainConfig(
            batch_rows=32,
            row_length=128,
            warmup_fraction=0.02,
            weight_decay=0.05,
            beta2=0.98,
            seed=SEED,
            remat="none",
            save_every=250,
        ),
        targets=student_targets(variant),
        # The flat one goes through every module quickly.
        watch_every=100 if variant == "uneven" else 50,
        watched=12 if variant == "uneven" else 24,
        hardest=DIFFICULTIES[-1] if variant == "uneven" else FLAT_HARDEST,
    )


def student_targets(variant: Variant) -> dict[str, float]:
    """Accuracy by module to aim at: by domain for `flat`, strong and weak modules for `uneven`.

    A third of each domain's modules is weak, with targets spread evenly from 0 to `WEAKEST`. Which
    they are is drawn by `SEED`, again and again until one of them needs another one.
    """
    if variant == "flat":
        return {name: FLAT[module.domain] for name, module in MODULES.items()}
    rng = stream(SEED, "micro", "weak")
    edges = true_edges()
    while True:
        weak: list[str] = []
        for domain in ("math", "code", "instruction"):
            names = [module.id for module in MODULES.values() if module.domain == domain]
            weak += [names[int(i)] for i in rng.permutation(len(names))[: len(names) // 3]]
        if any(need in weak and dependent in weak for need, dependent in edges):
            break
    spread = rng.permutation(np.linspace(0, WEAKEST, len(weak)))
    return dict.fromkeys(MODULES, 1.0) | dict(zip(weak, map(float, spread), strict=True))


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
    """Random weights by the recipe's seed."""
    end, pad = (int(str(id_)) for id_ in (tokenizer.eos_token_id, tokenizer.pad_token_id))
    config = DecoderConfig(
        model_type="llama",
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_layers=recipe.num_layers,
        num_heads=recipe.num_heads,
        num_kv_heads=recipe.num_kv_heads,
        head_dim=recipe.hidden_size // recipe.num_heads,
        rms_norm_eps=1e-5,
        rope_theta=10_000.0,
        tie_embeddings=True,
        max_position=CONTEXT,
        eos_token_ids=(end,),
        pad_token_id=pad,
    )
    key = jax.random.key(recipe.train.seed)
    decoder = init_decoder(config, key, Precision.named("bfloat16"), jnp.float32)
    return LanguageModel(decoder, tokenizer, recipe.name, "0" * 64)


class Batches:
    """The recipe's batches, each a function of (seed, step, weights of modules and skills)."""

    def __init__(self, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> None:
        self._recipe = recipe
        self._tokenizer = tokenizer

    def batch(
        self, step: int, weights: Mapping[str, float], skills: Mapping[str, float]
    ) -> list[TokenPair]:
        """As many examples as fill the rows of a step.

        Args:
            step: From 0.
            weights: Of the modules.
            skills: Weights of the skills.
        """
        config = self._recipe.train
        rng = stream(config.seed, "micro", self._recipe.name, step)
        modules, shares = list(weights), _shares(list(weights.values()))
        names, skill_shares = list(skills), _shares(list(skills.values()))
        capacity = config.batch_rows * config.row_length
        pairs: list[TokenPair] = []
        sizes: list[int] = []
        while True:
            skill = names[int(rng.choice(len(names), p=skill_shares))]
            module = modules[int(rng.choice(len(modules), p=shares))]
            task = SKILLS[skill](rng, module, "train")
            # Of the same skill and module, so that these keep their shares.
            while task.difficulty is not None and task.difficulty > self._recipe.hardest:
                task = SKILLS[skill](rng, module, "train")
            pair = self.encode(task)
            # Two long examples in one array may not fit a row.
            if len(pair) > config.row_length:
                continue
            pairs.append(pair)
            sizes.append(len(pair))
            # Packing is asked only when the rows may be full.
            if sum(sizes) < 0.8 * capacity:
                continue
            if len(pack_in_order(sizes, config.row_length)) > config.batch_rows:
                return pairs[:-1]

    def encode(self, task: Task) -> TokenPair:
        """Prompt and answer with the end of the turn, as tokens."""
        endings = [int(str(self._tokenizer.eos_token_id))]
        return TokenPair(
            self._encode(render_chat(self._tokenizer, task.messages)),
            (*self._encode(task.answer), end_of_turn(self._tokenizer, endings)),
        )

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def weights(
    targets: Mapping[str, float], measured: Mapping[str, float] | None, focus: float
) -> dict[str, float]:
    """Weights of the modules among the examples, each above 0.

    A module with the target 1 has `1 + focus` times as much where it is at 0 as where it is at 1.
    One with a lower target has less the nearer it is, and hardly any from there on; it has little
    from the beginning, since a module is learnt at once, and would be past it at the next
    measurement.

    Args:
        targets: Accuracy by module that is wanted, in [0, 1].
        measured: Accuracy by module, in [0, 1]; None before anything was measured.
        focus: At least 0.
    """
    found: dict[str, float] = {}
    for module, target in targets.items():
        if target == 1:
            found[module] = 1.0 if measured is None else 1 + focus * (1 - measured[module])
        else:
            missing = target if measured is None else max(target - measured[module], 0.0)
            found[module] = max(0.25 * missing, 0.0005)
    return found


def _shares(weights: Sequence[float]) -> np.ndarray:
    values = np.asarray(weights, np.float64)
    return values / values.sum()
