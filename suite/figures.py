"""A task's figures with their intervals: its own, and those of several samples an item.

pass@k  that one of k samples is right, estimated without bias (Chen et al., 2021, eq. 1)
avg@n   mean score of the n samples
maj@k   that the answer which most of k samples give is right (Wang et al., 2023, self-consistency)

They are of tasks whose answers are right or wrong, maj@k of those among them whose answers can be
the same.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Grader, Item, Verdict
from ioa_jax.graders.code import pass_at_k
from suite.stats import Estimate, mean_interval
from suite.tasks.base import Graded, MetricValues, Task, values_of
from suite.tasks.code import REPORTED_K

# No answer is right or wrong here, or not to every item.
_BY_LIKENESS = ("rouge", "mixed", "judge")
# Two programs, or two texts that keep to an instruction, are never the same answer.
_WITHOUT_EQUALS = (*_BY_LIKENESS, "code", "instruction")

# By item, the number of each sample's answer: equal answers have the same, None gives no answer.
Groups = Mapping[str, Sequence[int | None]]


def parse_k(text: str | None) -> tuple[int, ...] | None:
    """The k of pass@k and maj@k as they are given on the command line, such as `1,5,10`.

    Raises:
        InputError: It isn't a list of whole numbers from 1.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise InputError(f"--k {text!r}: whole numbers from 1 with commas between, such as 1,5,10")
    return tuple(sorted({int(part) for part in parts}))


def choose_k(task: Task, samples: int, asked: Sequence[int] | None) -> tuple[int, ...]:
    """The k to report: those that were asked for, or 1, 10, 100 and the number of samples.

    Raises:
        InputError: One is more than the number of samples.
    """
    if asked is None:
        return tuple(sorted({samples, *(k for k in REPORTED_K if k < samples)}))
    if asked and max(asked) > samples:
        raise InputError(
            f"--k {max(asked)}: task {task.name!r} has {samples} samples an item; k is at most that"
        )
    return tuple(asked)


def has_votes(task: Task) -> bool:
    """Whether the task's answers can be the same, so that a majority can be found."""
    return task.grader_kind not in _WITHOUT_EQUALS


def group_answers(
    grader: Grader, item: Item, answers: Sequence[tuple[str, Verdict]]
) -> list[int | None]:
    """Which of an item's answers are the same, as its grader compares them with references.

    Right answers are one group, and so are answers of which the same text was extracted. Any other
    is graded with the first answer of each group as the reference, until one is equal.

    Args:
        grader: Of the item.
        item: What was asked.
        answers: Text and verdict of each sample.

    Returns:
        By sample, the number of its group; None where nothing was extracted that can be compared.
    """
    known: dict[tuple[bool, str], int | None] = {}
    firsts: list[Item | None] = []
    groups: list[int | None] = []
    for text, verdict in answers:
        # One that was killed while it was compared would be again.
        if not (verdict.extracted or "").strip() or verdict.source == "timeout":
            groups.append(None)
            continue
        key = (verdict.correct, "" if verdict.correct else str(verdict.extracted))
        if key not in known:
            known[key] = _find_group(grader, item, text, verdict, firsts)
        groups.append(known[key])
    return groups


def _find_group(
    grader: Grader, item: Item, text: str, verdict: Verdict, firsts: list[Item | None]
) -> int | None:
    """The answer's group; a new one has its first answer, as reference, in `firsts`."""
    if verdict.correct:
        firsts.append(None)
        return len(firsts) - 1
    for number, first in enumerate(firsts):
        if first is not None and grader.grade(first, text).correct:
            return number
    own = dataclasses.replace(item, references=(str(verdict.extracted),))
    try:
        grader.check_item(own)
    except InputError:
        # Such as 1.2.3 where numbers are asked for: wrong, and no answer that others could give.
        return None
    firsts.append(own)
    return len(firsts) - 1


def majority_share(groups: Sequence[int | None], right: Sequence[bool], k: int) -> float:
    """Share of the blocks of k samples, in the order drawn, whose majority is right.

    Samples without an answer don't vote. Of several answers with as many votes, the one that was
    given first counts. Samples after the last whole block are left out.

    Args:
        groups: By sample, as `group_answers` gives them.
        right: By sample, whether it is.
        k: At most the number of samples.
    """
    blocks = [range(start, start + k) for start in range(0, len(groups) - k + 1, k)]
    return sum(_majority_is_right([(groups[i], right[i]) for i in own]) for own in blocks) / len(
        blocks
    )


def _majority_is_right(votes: Sequence[tuple[int | None, bool]]) -> bool:
    counted = Counter(group for group, _ in votes if group is not None)
    if not counted:
        return False
    winner = counted.most_common(1)[0][0]
    return next(right for group, right in votes if group == winner)


def sampled_metrics(
    task: Task, graded: Sequence[Graded], asked: Sequence[int] | None, groups: Groups
) -> dict[str, MetricValues]:
    """pass@k, avg@n and maj@k; none of one sample an item unless k is asked for.

    Args:
        task: Whose.
        graded: At least one item; of unequal numbers of samples the least counts as n.
        asked: The k; None is `choose_k`'s own.
        groups: For maj@k, of every item; empty leaves it out.

    Raises:
        InputError: As `choose_k`.
    """
    fewest = min(len(one.verdicts) for one in graded)
    ks = choose_k(task, fewest, asked)
    if task.grader_kind in _BY_LIKENESS or (fewest == 1 and asked is None):
        return {}
    ids = tuple(one.item.id for one in graded)
    right = [[verdict.correct for verdict in one.verdicts] for one in graded]
    found = {
        f"pass@{k}": MetricValues(tuple(pass_at_k(len(r), sum(r), k) for r in right), ids)
        for k in ks
    }
    found[f"avg@{fewest}"] = values_of(graded, lambda verdict: verdict.score)
    if groups:
        for k in ks:
            if k > 1:
                shares = (
                    majority_share(groups[one.item.id], r, k)
                    for one, r in zip(graded, right, strict=True)
                )
                found[f"maj@{k}"] = MetricValues(tuple(shares), ids)
    return found


def task_figures(
    task: Task,
    graded: Sequence[Graded],
    asked: Sequence[int] | None = None,
    groups: Groups | None = None,
) -> dict[str, Any]:
    """What results say of graded answers: `graded`, `metrics`, `statuses` and `infra_errors`.

    Args:
        task: Whose.
        graded: Items with all of their verdicts; may be none.
        asked: As `sampled_metrics`.
        groups: As there.

    Raises:
        InputError: As there.
    """
    statuses = Counter(v.status for one in graded for v in one.verdicts if v.status is not None)
    metrics: dict[str, MetricValues] = {}
    if graded:
        metrics = task.metrics(graded) | sampled_metrics(task, graded, asked, groups or {})
    return {
        "graded": len(graded),
        "metrics": {
            name: dataclasses.asdict(mean_interval(values.values, values.items))
            for name, values in metrics.items()
        },
        "statuses": dict(statuses),
        "infra_errors": statuses["infra_error"],
    }


def print_results(results: dict[str, Any]) -> None:
    """The table, on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=results["model"]["spec"], title_justify="left")
    for column in ("task", "metric", "%", "95 % interval", "items", "remarks"):
        table.add_column(column, justify="right" if column in ("%", "items") else "left")
    for name, task in results["tasks"].items():
        remarks = [source["subset"] for source in task["description"]["data"][:1]]
        if task["graded"] < task["items"]:
            remarks.append(f"{task['items'] - task['graded']} of {task['items']} have no verdict")
        if task["description"]["grader"] == "judge":
            remarks = [*remarks[:1], "answers for `python -m suite judge`"]
        if task["infra_errors"]:
            remarks.append(f"{task['infra_errors']} infra errors, counted as wrong")
        if faults := task["statuses"].get("bad_test"):
            remarks.append(f"tests of {faults} answers can't be run, counted as wrong")
        if not task["metrics"]:
            table.add_row(name, "", "", "", "", "; ".join(remarks))
        for i, (metric, value) in enumerate(task["metrics"].items()):
            interval = Estimate(**value)
            table.add_row(
                name if i == 0 else "",
                metric,
                f"{100 * interval.mean:.1f}",
                f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
                str(interval.clusters),
                "; ".join(remarks) if i == 0 else "",
            )
    Console(width=None if Console().is_terminal else 140).print(table)
