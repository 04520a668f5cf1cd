"""MATH (Hendrycks et al., 2021), MATH-500 (Lightman et al., 2023), AIME and AMC.

Base models get the layout of the Minerva protocol: "Problem:", "Solution:", four examples, and a
stop at the next "Problem:". Its four fixed examples are replaced by train problems: see
`choose_examples`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from suite.data import DataSource
from suite.sources import Hub, Layout, Part, Row, Source
from suite.tasks.base import (
    Description,
    Example,
    GenerationSettings,
    Graded,
    MetricValues,
    Prompt,
    Style,
    TaskData,
    chat_prompt,
    content_ids,
    mean_metric,
    take_examples,
)

STOP = "Problem:"
# A figure's source code, and a solution that fills the prompt, are of no use as an example.
FIGURE = "[asy]"
LONGEST_SOLUTION = 600

SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
MATH_REVISION = "21a5633873b6a120296cce3e2df9d5550074f4a3"
MATH500_EVEN = Part(
    "math500_even", ("a19e706cf04043c1a05d375d04253a06fa4f1024d80fe5dfa4f2c4508bba68a6",)
)

MATH_TRAIN = Source(
    name="math/train",
    folder="math",
    layouts=(
        Layout(
            (Part("train", ("3086b1daf75bccbc83351fd63b480b7590e52645981a463650354cd5bc32b7d8",)),),
            7500,
        ),
    ),
    remote=Hub("EleutherAI/hendrycks_math", MATH_REVISION, "train", SUBJECTS),
    total=7500,
    fields=("problem", "solution", "type"),
    texts=("problem", "solution", "type"),
)
MATH_TEST = Source(
    name="math/test",
    folder="math",
    layouts=(
        Layout((Part("test"),), 5000),
        Layout(
            (
                Part(
                    "test_rest_even",
                    ("0d2bbbd02f93e8ec721930fa6d28618cd9f79ed703db0a323e4c1db148d5dbfa",),
                ),
                Part("test_rest_odd"),
                MATH500_EVEN,
                Part("math500_odd"),
            ),
            5000,
        ),
    ),
    remote=Hub("EleutherAI/hendrycks_math", MATH_REVISION, "test", SUBJECTS),
    total=5000,
    fields=("problem", "solution"),
    texts=("problem", "solution"),
)
MATH500_TEST = Source(
    name="math500/test",
    folder="math",
    layouts=(
        Layout(
            (
                Part(
                    "math500", ("35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",)
                ),
            ),
            500,
        ),
        Layout((MATH500_EVEN, Part("math500_odd")), 500),
    ),
    remote=Hub("HuggingFaceH4/MATH-500", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", "test"),
    total=500,
    fields=("problem", "solution", "answer"),
    texts=("problem", "solution", "answer"),
)
AIME24 = Source(
    name="aime24/test",
    folder="aime24",
    layouts=(Layout((Part("test"),), 30),),
    remote=Hub("HuggingFaceH4/aime_2024", "2fe88a2f1091d5048c0f36abc874fb997b3dd99a", "train"),
    total=30,
    fields=("problem", "answer"),
    texts=("problem",),
)
# Others record this revision, split, 30 rows and fields. Its licence, below, is from memory: the
# one copy of the hub's page that was found, an older one, states none.
AIME25 = dataclasses.replace(
    AIME24,
    name="aime25/test",
    folder="aime25",
    remote=Hub("math-ai/aime25", "563bb8404243c5f09de6ec262f2db674fe5bce9b", "test"),
)
# Revision, split, 30 rows, fields and licence (that of the hub's page) as several projects record
# them independently; one of them aime2026.jsonl's sha256, too
# (476869564d174db87072caad1bcf4bb3b2d3baf811c1352a4887d5e1b0f1709c). Nobody who wrote this down
# could read the file.
AIME26 = dataclasses.replace(
    AIME24,
    name="aime26/test",
    folder="aime26",
    remote=Hub("math-ai/aime26", "79037aebdb6580008fb960d17cb21fd3099083e3", "test"),
)
# Revision, split, 40 rows and fields as several projects record them independently, two of them the
# parquet file's sha256 (b696e87ba47be4e879a60fd4ef1d4aa522ba78c5ae013c6aff5cc9788a397c5e). The
# hub's page states no licence. 22 problems are of the AMC 12A and 18 of the 12B, reworded so that
# their answers are whole numbers, from -1 to 3159. The half in Qwen2.5-Math's form was read.
AMC23 = Source(
    name="amc23/test",
    folder="amc",
    layouts=(
        Layout((Part("amc23"),), 40),
        Layout(
            (
                Part(
                    "amc23_even",
                    (
                        # Compressed, and not.
                        "b709322297ca65997620d2e5f743949df34fb18c06e9469509d6b5346d835276",
                        "67baa1595fa6e6b8183a58f0899cfc1fbe60a437f4d76a5b6eeaaa9bbd9ae575",
                    ),
                ),
                Part("amc23_odd"),
            ),
            40,
        ),
    ),
    remote=Hub("math-ai/amc23", "80815d37005feb82cd7f8fbc6901d5d3eff43057", "test"),
    total=40,
    fields=("question", "answer"),
    texts=("question",),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MathTask(Description):
    """Problems whose answer is an expression.

    Attributes:
        test: Their source.
        whole_numbers: Whether an answer is a whole number from 0 to 999, as in AIME.
        problem: Name of the field with the problem.
    """

    test: Source
    whole_numbers: bool = False
    problem: str = "problem"

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """Items with the answer in LaTeX as reference; examples are MATH's train problems."""
        test = data.load(self.test)
        ids = content_ids([row[self.problem] for row in test.rows], self.name)
        items = tuple(
            Item(
                id=str(row.get("unique_id") or new_id),
                prompt=row[self.problem],
                references=(self._answer(row, new_id),),
                data={"solution": row.get("solution") or ""},
            )
            for new_id, row in zip(ids, test.rows, strict=True)
        )
        if not shots:
            return TaskData(items, sources=(test.provenance,))
        train = data.load(MATH_TRAIN)
        return TaskData(
            items,
            take_examples(self.name, choose_examples(train.rows), shots),
            sources=(test.provenance, train.provenance),
            notes=("examples: MATH train problems, not Minerva's four",),
        )

    def prompt(self, item: Item, style: Style = "chat", examples: Sequence[Example] = ()) -> Prompt:
        """The problem, with a request for a boxed answer in a chat."""
        pairs = [(example.item.prompt, example.answer) for example in examples]
        if style == "chat":
            asked = [(_question(problem), answer) for problem, answer in pairs]
            return chat_prompt(_question(item.prompt), asked)
        parts = [f"Problem:\n{problem}\n\nSolution:\n{answer}\n\n" for problem, answer in pairs]
        return Prompt(text="".join(parts) + f"Problem:\n{item.prompt}\n\nSolution:\n", stop=(STOP,))

    def metrics(self, graded: Sequence[Graded]) -> dict[str, MetricValues]:
        """`accuracy`: share of right answers."""
        return mean_metric(graded)

    def _answer(self, row: Row, new_id: str) -> str:
        if "answer" not in row:
            return boxed_answer(row["solution"], new_id)
        answer = row["answer"]
        if isinstance(answer, float) and answer.is_integer():
            # 27.0, in a file whose answers are all whole.
            answer = int(answer)
        answer = str(answer).strip()
        if self.whole_numbers:
            if not (answer.isascii() and answer.isdigit() and int(answer) < 1000):
                raise InputError(
                    f"{self.test.name}: item {new_id}: field 'answer': {answer!r} is not a whole "
                    "number from 0 to 999"
                )
            return str(int(answer))
        return answer


def boxed_answer(solution: str, item_id: str) -> str:
    r"""What the last `\boxed{...}` or `\boxed x` of a solution holds.

    Raises:
        InputError: There is none, or its braces don't match.
    """
    start = solution.rfind(r"\boxed")
    rest = solution[start + len(r"\boxed") :].lstrip() if start >= 0 else ""
    if rest and rest[0] != "{":
        return rest[0]
    depth = 0
    for i, character in enumerate(rest):
        if character in "{}" and (i == 0 or rest[i - 1] != "\\"):
            depth += 1 if character == "{" else -1
            if depth == 0:
                return rest[1:i].strip()
    raise InputError(rf"item {item_id}: field 'solution': no \boxed{{...}} with the answer in it")


def choose_examples(rows: Sequence[Row]) -> list[Example]:
    """Train problems for few-shot prompts: of each subject in turn the first that serves.

    The subjects turn in the order in which they first occur; a problem serves if it has no figure,
    a boxed answer, and a solution of at most `LONGEST_SOLUTION` characters. Of MATH's train files
    ordered by subject and then by name as a text, the first four are algebra/0,
    counting_and_probability/1, geometry/1 and intermediate_algebra/1001. Minerva's four are others,
    so that figures differ a little from those reported with them.
    """
    subjects: dict[str, list[Example]] = {}
    ids = content_ids([row["problem"] for row in rows], "math-train")
    for new_id, row in zip(ids, rows, strict=True):
        solution = row["solution"]
        serves = len(solution) <= LONGEST_SOLUTION and r"\boxed{" in solution
        of_subject = subjects.setdefault(row["type"], [])
        if serves and FIGURE not in row["problem"] + solution:
            item = Item(id=str(row.get("unique_id") or new_id), prompt=row["problem"])
            of_subject.append(Example(item, solution))
    most = max(map(len, subjects.values()), default=0)
    return [found[i] for i in range(most) for found in subjects.values() if i < len(found)]


def _question(problem: str) -> str:
    return (
        f"{problem}\n\nWork through the problem step by step, and give the final answer in "
        r"\boxed{}."
    )


_SHOTS: dict[Style, int] = {"chat": 0, "base": 4}

MATH = MathTask(
    name="math",
    version=1,
    summary="competition mathematics, the whole test set of 5,000 problems",
    source="Hendrycks et al. 2021, github.com/hendrycks/math; hub EleutherAI/hendrycks_math",
    licence="MIT (the contests' texts: MAA, AoPS)",
    grader_kind="math",
    settings=GenerationSettings(max_tokens=1024),
    default_shots=_SHOTS,
    test=MATH_TEST,
)
MATH500 = MathTask(
    name="math500",
    version=1,
    summary="500 problems of MATH's test set",
    source="Lightman et al. 2023, github.com/openai/prm800k; hub HuggingFaceH4/MATH-500",
    licence="MIT (the contests' texts: MAA, AoPS)",
    grader_kind="math",
    settings=GenerationSettings(max_tokens=1024),
    default_shots=_SHOTS,
    test=MATH500_TEST,
)
AIME24_TASK = MathTask(
    name="aime24",
    version=1,
    summary="the 30 problems of the AIME of 2024, answers from 0 to 999",
    source="AIME I and II 2024 (MAA); hub HuggingFaceH4/aime_2024",
    licence="none stated (the contests' texts: MAA)",
    grader_kind="math",
    settings=GenerationSettings(max_tokens=4096),
    default_shots=_SHOTS,
    test=AIME24,
    whole_numbers=True,
)
AIME25_TASK = dataclasses.replace(
    AIME24_TASK,
    name="aime25",
    summary="the 30 problems of the AIME of 2025, answers from 0 to 999",
    source="AIME I and II 2025 (MAA); hub math-ai/aime25",
    licence="Apache-2.0 (the contests' texts: MAA)",
    test=AIME25,
)
AIME26_TASK = dataclasses.replace(
    AIME24_TASK,
    name="aime26",
    summary="the 30 problems of the AIME of 2026, answers from 0 to 999",
    source="AIME I and II 2026 (MAA); hub math-ai/aime26",
    licence="Apache-2.0 (the contests' texts: MAA)",
    test=AIME26,
)
AMC23_TASK = MathTask(
    name="amc23",
    version=1,
    summary="40 problems of the AMC 12 of 2023, reworded without choices, with whole answers",
    source="AMC 12A and 12B 2023 (MAA), github.com/QwenLM/Qwen2.5-Math; hub math-ai/amc23",
    licence="none stated (the contests' texts: MAA)",
    grader_kind="math",
    settings=GenerationSettings(max_tokens=4096),
    default_shots=_SHOTS,
    test=AMC23,
    problem="question",
)
