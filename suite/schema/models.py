"""The files of a run, version 3."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from ioa_jax.rows import Row as JournalRow
from ioa_jax.rows import Seconds
from suite.cells import settings_digest
from suite.stats import Difference, Estimate, Share

Count = Annotated[int, Field(ge=0)]
Figure = Annotated[float, Field(allow_inf_nan=False)]
Score = Annotated[float, Field(ge=0, le=1)]
# A sum of rounded numbers may be a little over 0.
LogProb = Annotated[float, Field(le=1e-3, allow_inf_nan=False)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Open(BaseModel):
    """May hold more than the report reads."""

    model_config = ConfigDict(extra="allow", frozen=True)


class TaskRecord(_Open):
    """A task as the run measured it, with where its data came from."""

    name: str
    version: int
    metric: str | None = Field(
        description="Name of the figure that `score` of scores.jsonl is; null until one is there."
    )
    higher_is_better: bool = True
    items: Count


class RunFile(_Open):
    """run.json"""

    version: Literal[3]
    profile: str
    run_id: str
    created: str
    status: str
    settings: dict[str, Any]
    settings_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    environments: list[dict[str, Any]]
    models: dict[str, Any] | None = None
    tasks: list[TaskRecord]

    @field_validator("settings_sha256")
    @classmethod
    def _of_settings(cls, value: str, info: ValidationInfo) -> str:
        found = settings_digest(info.data.get("settings", {}))
        if value != found:
            raise ValueError(f"'settings' have {found}: one of the two was changed")
        return value


class Purpose(_Open):
    """What the teacher was asked for one purpose."""

    calls: Count
    prompt_tokens: Count
    completion_tokens: Count


class SpendRecord(_Open):
    """What a cell cost."""

    teacher_tokens: Count = 0
    teacher_requests: Count = 0
    by_purpose: dict[str, Purpose] = Field(default_factory=dict)
    teacher_of: str | None = Field(
        default=None,
        description="Method whose data were used: its cell's teacher tokens count for this one.",
    )
    student_tokens: Count = 0
    student_tokens_by_part: dict[str, Count] = Field(
        default_factory=dict,
        description="By part of train.jsonl; `further` are tokens of no step there, such as those "
        "of the adapters that find dependencies.",
    )
    steps: Count = 0
    seconds: dict[str, Seconds] = Field(
        default_factory=dict,
        description="By step, in this order; all but `evaluation` are parts of `method`.",
    )


class Sweep(_Closed):
    """A cell that is another method with one setting changed."""

    of: str = Field(description="The method with its usual settings.")
    setting: str
    value: float
    default: float = Field(description="The setting's value in the method `of`.")


class Notes(_Open):
    """What a method has to say of itself; of its fields the report knows these."""

    sweep: Sweep | None = None


class CellFile(_Open):
    """cells/<cell>/cell.json"""

    method: str
    seed: int | None
    status: Literal["complete", "failed"]
    error: str | None = None
    spend: SpendRecord = SpendRecord()
    notes: Notes = Notes()


class ScoreLine(_Open):
    """cells/<cell>/scores.jsonl: one line a task and item."""

    task: str
    id: str
    module: str | None = None
    score: Score = Field(description="Mean over the item's samples.")
    correct: bool | None = None
    logprob: LogProb | None = Field(
        default=None, description="Of the reference answer, in nats a token."
    )


class CurvePoint(_Open):
    """cells/<cell>/curve.jsonl: a score measured during training."""

    student_tokens: Count
    teacher_tokens: Count
    task: str
    score: Score
    items: Count


class AskedHow(_Open):
    """How a task of an evaluation was answered."""

    samples: Annotated[int, Field(ge=1)]
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    max_tokens: Annotated[int, Field(ge=1)]
    temperatures: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}


class EvaluatedTask(_Open):
    """A task of an evaluation."""

    items: Count
    shots: Count
    style: Literal["chat", "base"]
    generation: AskedHow


class EvalFile(_Open):
    """eval.json, as far as it is read again."""

    model: dict[str, Any]
    settings: dict[str, Any]
    tasks: dict[str, EvaluatedTask]
    environments: list[dict[str, Any]] = Field(min_length=1)
    graders: dict[str, Any]


class TextRow(JournalRow):
    """texts.jsonl: an answer."""

    id: str
    sample: Count
    text: str


class AnswerRow(TextRow):
    """texts.jsonl as `suite.answers` writes it, with what the answer took."""

    finish_reason: str
    prompt_tokens: Count
    tokens: Count


class GraderVerdict(JournalRow):
    """What a grader found; see `ioa_jax.graders.base.Verdict`."""

    correct: bool
    score: Score


class VerdictRow(JournalRow):
    """verdicts.jsonl: the verdict on an answer."""

    id: str
    sample: Count
    verdict: GraderVerdict


class GroupRow(JournalRow):
    """groups.jsonl: by sample, the number of an item's answer; equal answers have the same."""

    id: str
    groups: list[Count | None]


class PointRow(JournalRow):
    """curve.jsonl, as a journal."""

    student_tokens: Count
    task: str
    score: Score


class WorstModule(_Closed):
    """The module in which a method's students are worst, by the mean over its seeds."""

    module: str
    score: Score


class ModuleMeans(_Closed):
    """Means over modules with equal weights, of the tasks that the mean is of."""

    all: Estimate
    deficient: Estimate | None = Field(
        description="Of the modules in `deficient_modules` of the table; null where none is."
    )
    others: Estimate | None = Field(description="Of the modules that are not; null where none is.")
    worst: WorstModule


class Row(_Closed):
    """A method: means over its seeds and items."""

    method: str
    seeds: list[int]
    scores: dict[str, Estimate] = Field(description="By task, in [0, 1].")
    mean: Estimate = Field(
        description="Of the tasks, with equal weights; without the probes if there are others."
    )
    logprob: dict[str, Estimate] = Field(description="By task that has it, nats a token.")
    retained: dict[str, Share] = Field(description="Share of the teacher's score, by task.")
    retained_mean: Share | None
    lost: dict[str, Share] = Field(
        description="Share of the undistilled student's score that was lost item by item, by task."
    )
    modules: ModuleMeans | None = Field(
        default=None, description="Null where an item doesn't name its module."
    )
    teacher_tokens: Figure
    student_tokens: Figure
    sweep: Sweep | None = None


class Comparison(_Closed):
    """The reference method minus another one, on a task."""

    method: str
    task: str
    difference: Difference
    p_bootstrap_holm: Score
    p_mcnemar_holm: Score | None = Field(description="Of one seed's right-or-wrong items alone.")


class ModuleComparison(_Closed):
    """The reference method minus another one, in a mean over modules."""

    method: str
    over: Literal["all", "deficient"]
    difference: Difference
    p_bootstrap_holm: Score = Field(
        description="Corrected over these comparisons, those of tasks aside."
    )


class ReferencePoint(_Closed):
    """A method that power is told by: its mean over all modules."""

    mean: Score
    by_seed: dict[int, Score] = Field(description="None of the untaught student, which has none.")


class PowerFile(_Closed):
    """suite/profiles/<profile>.power.json: what a comparison of methods can find, measured before
    any is compared.
    """

    version: Literal[1] = 1
    profile: str
    run_id: str
    revision: str | None = Field(description="The run's, of this project's source.")
    settings: dict[str, Any] = Field(
        description="Those of the run that power depends on; runs that share them have this power."
    )
    untaught: ReferencePoint
    uniform: ReferencePoint = Field(
        description="Right answers to problems of all modules alike, as many as the budgets allow."
    )
    oracle: ReferencePoint = Field(
        description="Unlimited right answers to problems of the deficient modules, the others "
        "retained."
    )
    seed_sd: Annotated[float, Field(gt=0)] = Field(
        description="Standard deviation over seeds, pooled over uniform and oracle."
    )
    ratio: Figure = Field(description="(oracle - uniform) / seed_sd.")


class Unfinished(_Closed):
    """A cell that the table lacks."""

    cell: str
    reason: str


class TableFile(_Closed):
    """table.json: what two runs of the same settings are compared by."""

    version: Literal[3, 4] = Field(
        default=4, description="3 has no means over modules and no power."
    )
    profile: str
    run_id: str
    settings_sha256: str
    reference: str | None = Field(description="The method that the others are compared with.")
    level: float
    resamples: int
    tasks: list[TaskRecord]
    rows: list[Row]
    sweeps: list[Row] = Field(description="Methods with one setting changed; not in `rows`.")
    comparisons: list[Comparison]
    modules: list[str] = Field(default=[], description="That items of the mean's tasks name.")
    deficient_modules: list[str] | None = Field(
        default=None,
        description="Those in which the undistilled student has less than `deficient_below` of the "
        "teacher's score on the run's own items; null where one of the two wasn't measured.",
    )
    deficient_below: Figure | None = None
    module_comparisons: list[ModuleComparison] = []
    power: PowerFile | None = Field(
        default=None, description="Of the run's settings, where it was measured."
    )
    unfinished: list[Unfinished]
