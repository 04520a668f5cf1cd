"""What the teacher is asked when seeds are decomposed (method 1.1).

The prompts are templates in packs: `paper` is worded for large instruction-tuned models, `micro`
for the embedded teacher and other small ones.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import jinja2

from ioa_jax.errors import InputError

Pack = Literal["paper", "micro"]
Messages = tuple[Mapping[str, str], ...]

PACKS: tuple[Pack, ...] = ("paper", "micro")


def render_proposal(pack: str, seeds: Sequence[str]) -> Messages:
    """Ask for the modules that a batch of seeds needs.

    The answer is one JSON object, as `ioa_jax.identifier.decompose.Proposal` reads it; the prompt
    has an example of its form.

    Args:
        pack: Of the template.
        seeds: Prompts of the batch, at least one.

    Raises:
        InputError: No seeds, or no such pack.
    """
    if not seeds:
        raise InputError("proposal: no seeds to read")
    return _render(pack, "proposal", seeds=[seed.strip() for seed in seeds])


def render_module_name(pack: str, seed: str) -> Messages:
    """Ask for the name of a seed's module; the answer is its id, `category/module`.

    Args:
        pack: Of the template.
        seed: The seed's prompt; empty for the prior, the likelihood of a name without a seed.

    Raises:
        InputError: No such pack.
    """
    return _render(pack, "module_name", seed=seed.strip())


def render_module_choice(pack: str, seed: str, modules: Sequence[str]) -> Messages:
    """Ask which of the modules is a seed's, of a teacher that can't score names.

    Args:
        pack: Of the template.
        seed: The seed's prompt.
        modules: Ids to choose from, at least one; the answer is one of them.

    Raises:
        InputError: No modules, or no such pack.
    """
    if not modules:
        raise InputError("module choice: no modules to choose from")
    return _render(pack, "module_choice", seed=seed.strip(), modules=list(modules))


def _render(pack: str, name: str, **values: object) -> Messages:
    if pack not in PACKS:
        raise InputError(f"prompt pack {pack!r}: choose from {', '.join(PACKS)}")
    text = _environment().get_template(f"{pack}/{name}.j2").render(values)
    return ({"role": "user", "content": text.strip()},)


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("prompts")),
        undefined=jinja2.StrictUndefined,
        # Prompts are plain text: what a task has of HTML stays as it is.
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
