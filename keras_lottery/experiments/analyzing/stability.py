"""Stability of a run's tickets to data order and to pruning."""

from collections.abc import Sequence
from typing import Any

from keras_lottery.analysis import plots
from keras_lottery.experiments.analyzing.comparing import (
    Compared,
    about,
    compared,
    copies_in_words,
    shown,
    spread,
    wanted,
)
from keras_lottery.experiments.analyzing.copies import RANDOM
from keras_lottery.experiments.analyzing.findings import Finding, Table, pictures, plain
from keras_lottery.experiments.analyzing.runs import Run
from keras_lottery.experiments.live import Live
from keras_lottery.experiments.store import TICKET

WORDS = (
    "Copies of one network train from the state at step k to the end. Stability to data order "
    "compares two copies that see the data in different orders; stability to pruning compares a "
    "sparse copy with the dense one of the same order. Distance (L2) and angle are taken over "
    "the weights that the sparse network keeps: small is stable. The dense network's distance is "
    "over all weights, many more than the others', so that it is longer for that alone: compare "
    "the ticket with the random mask, not with the dense network.",
    "How to read it: the random mask keeps as many weights in each layer as the ticket. A ticket "
    "found by rewinding far enough is several times nearer than the random mask; a ratio near 1 "
    "says that the ticket is no more stable than chance. The paper (1903.01611) gives for LeNet "
    "on MNIST at 10.7 % density, k = 0: data order 20.7 against 58.6 and 22.7 against 49.2 "
    "degrees, pruning 48.1 against 75.7 and 53.1 against 83.6 degrees.",
)


def stability(
    runs: Sequence[Run],
    live: Live,
    rounds: Sequence[int] = (),
    steps: Sequence[str] = (),
    orders: int = 2,
    replicates: int | None = None,
    checkpoint_seconds: float = 30.0,
) -> Finding:
    """Distance and angle between trained copies: tickets, random masks, dense networks.

    Args:
        runs: One run or several.
        live: Shows the trainings.
        rounds: Whose masks. Default: the round nearest to 10.7 % density.
        steps: The steps k from which copies train, as `500it` or `2ep`. Default: the rewind
            point.
        orders: Data orders of each copy, at least 2. All pairs are compared.
        replicates: How many, from the first. Default: all.
        checkpoint_seconds: The least time between two checkpoints of a training.

    Returns:
        The finding.

    Raises:
        ValueError: If a run has no such round, step or replicate, before anything is trained.
    """
    chosen = wanted(runs, rounds, steps, orders, replicates)
    found = compared(chosen, live, checkpoint_seconds)
    rows = found.stability.rows()
    return Finding(
        "stability",
        "Stability to data order and to pruning",
        [*WORDS, copies_in_words(chosen)],
        [_distances(rows), _accuracies(found)],
        pictures("stability", {"": plots.stability(found.stability)}),
        {
            "copies": about(chosen),
            "rows": plain(rows),
            "comparisons": plain(found.stability.comparisons),
            "test_accuracies": [
                {"kind": kind, "step": step, "test_accuracies": values}
                for (kind, step), values in found.accuracies.items()
            ],
        },
    )


def _distances(rows: Sequence[dict[str, Any]]) -> Table:
    columns = ["stability to", "k", "kind", "density, %", "n", "distance", "angle, °"]
    columns += ["distance ÷ ticket's", "angle ÷ ticket's"]
    cells = [
        [
            {"order": "data order"}.get(row["what"], row["what"]),
            f"{row['step']:,}",
            row["kind"].replace("_", " "),
            f"{100 * row['density']:.3g}",
            str(row["n"]),
            shown(row["distance_mean"], row["distance_std"], ".3g"),
            shown(row["angle_mean"], row["angle_std"], ".1f"),
            *_ratios(row, rows),
        ]
        for row in sorted(rows, key=lambda r: (r["what"], r["step"]))
    ]
    return Table("Mean ± standard deviation over n pairs of copies", columns, cells)


def _ratios(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[str]:
    """How many times as far as the ticket's a random mask's copies are."""
    name = row["kind"].replace(RANDOM, TICKET, 1)
    same = [
        r for r in rows
        if (r["kind"], r["what"], r["step"]) == (name, row["what"], row["step"])
    ]  # fmt: skip
    if name == row["kind"] or not same:
        return ["", ""]
    means = [(row[f"{of}_mean"], same[0][f"{of}_mean"]) for of in ("distance", "angle")]
    return [f"{own / ticket:.2f}" if ticket else "" for own, ticket in means]


def _accuracies(found: Compared) -> Table:
    rows = [
        [f"{step:,}", kind.replace("_", " "), str(len(values)), spread(values, ".2f", 100)]
        for (kind, step), values in found.accuracies.items()
    ]
    columns = ["k", "kind", "n", "test accuracy, %"]
    return Table("Test accuracy at the end of the copies", columns, rows)
