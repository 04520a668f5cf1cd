"""The form of answers that the student finds likeliest [ours].

Candidates are the templates, and the references as they are written. Chosen is, module by module,
the one under which the references of the module's own seeds have the highest mean log-probability
per token to the student as it is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

from ioa_jax.adapter.answer import write_answer
from ioa_jax.adapter.plain_text import split_solution
from ioa_jax.errors import InputError
from ioa_jax.seeds import SeedItem
from ioa_jax.teachers.structured import Unfit
from ioa_jax.values import Value

Form = Literal["as_written", "lines", "numbered", "labelled"]
FORMS: tuple[Form, ...] = get_args(Form)

# Of (prompt, answer), texts: the answer's mean negative log-likelihood under the student, in nats
# per token of the student.
Scorer = Callable[[Sequence[tuple[str, str]]], Sequence[float]]


@dataclasses.dataclass(frozen=True)
class FormChoice(Value):
    """The form of a module's answers.

    Attributes:
        module: Id.
        form: The chosen one.
        nll: By form, mean over the seeds of their references' negative log-likelihood under the
            student, in nats per token. Forms in which all references are the same text have the
            same figure.
        seeds: How many references were scored.
    """

    module: str
    form: Form
    nll: dict[Form, float]
    seeds: int


def choose_forms(
    seeds: Mapping[str, Sequence[SeedItem]],
    scorer: Scorer,
    forms: Sequence[Form] = FORMS,
    max_seeds: int = 32,
) -> dict[str, FormChoice]:
    """Choose each module's form; everything is scored in one call.

    Args:
        seeds: Of each module, at least one.
        scorer: The student's.
        forms: Candidates; of equals the earlier one is chosen.
        max_seeds: Of a module, the first so many are scored.

    Raises:
        InputError: A module has no seeds, or there is no candidate.
    """
    if not forms:
        raise InputError("forms: there is no candidate to choose from")
    pairs: dict[tuple[str, str], int] = {}
    places: dict[str, dict[Form, list[int]]] = {}
    for module, own in seeds.items():
        if not own:
            raise InputError(f"module {module!r}: there are no seeds whose form could be chosen")
        places[module] = {
            form: [
                pairs.setdefault((seed.prompt, reference_in_form(seed, form)), len(pairs))
                for seed in own[:max_seeds]
            ]
            for form in forms
        }
    scores = scorer(list(pairs)) if pairs else []
    choices: dict[str, FormChoice] = {}
    for module, by_form in places.items():
        nll: dict[Form, float] = {
            form: math.fsum(scores[place] for place in own) / len(own)
            for form, own in by_form.items()
        }
        count = len(by_form[forms[0]])
        choices[module] = FormChoice(module, min(forms, key=lambda form: nll[form]), nll, count)
    return choices


def reference_in_form(seed: SeedItem, form: Form) -> str:
    """A seed's reference, written as answers of the form are.

    A reference whose answer can't be told from its steps stays as it is written.
    """
    if form == "as_written":
        return seed.reference
    try:
        steps, final = split_solution(seed.reference, seed.kind, seed.reference)
    except Unfit:
        return seed.reference
    if seed.kind in ("math", "number"):
        final = str(seed.check.get("answer", final))
    return write_answer(steps, final, seed.kind, form)
