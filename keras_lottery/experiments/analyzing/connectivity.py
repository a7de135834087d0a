"""Linear mode connectivity of a run's tickets: the error between two trained copies."""

from collections.abc import Sequence
from typing import Any

from keras_lottery.analysis import plots
from keras_lottery.analysis.barrier import Barrier
from keras_lottery.analysis.comparing import Stability
from keras_lottery.analysis.evaluating import Evaluation
from keras_lottery.experiments.analyzing.comparing import (
    about,
    compared,
    copies_in_words,
    shown,
    wanted,
)
from keras_lottery.experiments.analyzing.findings import Finding, Table, pictures, plain
from keras_lottery.experiments.analyzing.runs import Run
from keras_lottery.experiments.live import Live
from keras_lottery.settings import check_integer

PARTS = ("train", "test")
WORDS = (
    "Two copies of one network train from the state at step k to the end, in different data "
    "orders. The error is measured along the straight line between their weights. The error "
    "barrier is its maximum minus the mean of the two ends, in points of the classification "
    "error.",
    "How to read it: a network whose barrier is below 2 points is stable: both copies ended in "
    "the same linearly connected minimum. The barrier falls as k grows; sparse networks that "
    "match the dense accuracy are those that are stable (1912.05671). LeNet on MNIST is stable "
    "from k = 0, dense or as a ticket; a ResNet-20 at a high learning rate is not.",
)
STATISTICS = {
    "interpolate": "BatchNormalization's statistics are interpolated as the weights are.",
    "recompute": "BatchNormalization's statistics are measured anew at each point.",
}


def connectivity(
    runs: Sequence[Run],
    live: Live,
    rounds: Sequence[int] = (),
    steps: Sequence[str] = (),
    orders: int = 2,
    replicates: int | None = None,
    points: int = 30,
    batchnorm: str = "interpolate",
    train_images: int = 10_000,
    checkpoint_seconds: float = 30.0,
) -> Finding:
    """Error barriers between copies that differ by the order of the data alone.

    Args:
        runs: One run or several; with different rewind points they make one figure.
        live: Shows the trainings and each barrier.
        rounds: Whose masks. Default: the round nearest to 10.7 % density.
        steps: The steps k from which copies train, as `500it` or `2ep`. Default: the rewind
            point.
        orders: Data orders of each copy, at least 2. All pairs are compared.
        replicates: How many, from the first. Default: all.
        points: On the line, both ends included, at least 2.
        batchnorm: What becomes of BatchNormalization's statistics on the line:
            `"interpolate"` or `"recompute"`.
        train_images: How many training images the error is measured on, besides all test
            images.
        checkpoint_seconds: The least time between two checkpoints of a training.

    Returns:
        The finding.

    Raises:
        ValueError: For an argument out of range, or if a run has no such round, step or
            replicate, before anything is trained.
    """
    check_integer("points", points, least=2)
    check_integer("train_images", train_images, least=1)
    if batchnorm not in STATISTICS:
        raise ValueError(f"`batchnorm` is one of {list(STATISTICS)}. Received: {batchnorm!r}")
    chosen = wanted(runs, rounds, steps, orders, replicates)

    def evaluation(run: Run) -> Evaluation:
        data = run.parts(train_images)
        return Evaluation(run.trainer.model, data, metric="error", batchnorm=batchnorm)

    found = compared(chosen, live, checkpoint_seconds, points, evaluation).stability
    rows = [row for row in found.rows() if row["what"] == "order"]
    barriers = [c for c in found.comparisons if c.barrier is not None]
    words = [*WORDS, copies_in_words(chosen), *(run.images(train_images) for run in runs)]
    return Finding(
        "connectivity",
        "Linear mode connectivity",
        [*words, f"{points} points on each line. {STATISTICS[batchnorm]}"],
        [_table(rows)],
        pictures("connectivity", _figures(found)),
        {
            "copies": about(chosen),
            "points": points,
            "batchnorm": batchnorm,
            "train_images": train_images,
            "rows": plain(rows),
            "comparisons": [
                {**plain(c), "heights": c.barrier.heights} for c in barriers if c.barrier
            ],
        },
    )


def _figures(found: Stability) -> dict[str, Any]:
    lines = {
        f"line_{step}": plots.barrier(barriers, title=f"Two copies, trained from k = {step:,}")
        for step, barriers in _lines(found).items()
    }
    return {"": plots.barrier_heights(found), **lines}


def _lines(found: Stability) -> dict[int, dict[str, list[Barrier]]]:
    """The barriers of each step by kind."""
    lines: dict[int, dict[str, list[Barrier]]] = {}
    for c in found.comparisons:
        if c.barrier is not None:
            label = c.kind.replace("_", " ")
            lines.setdefault(c.step, {}).setdefault(label, []).append(c.barrier)
    return lines


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    columns = ["k", "kind", "density, %", "n"]
    for part in PARTS:
        columns += [f"{part} error, %", f"{part} barrier", "stable"]
    cells = []
    for row in sorted(rows, key=lambda r: int(r["step"])):
        cells.append([f"{row['step']:,}", row["kind"].replace("_", " ")])
        cells[-1] += [f"{100 * row['density']:.3g}", str(row["n"])]
        for part in PARTS:
            height = shown(row[f"barrier_{part}_mean"], row[f"barrier_{part}_std"], ".2f", 100)
            stable = "yes" if row[f"stable_{part}"] else "no"
            cells[-1] += [f"{100 * row[f'end_{part}_mean']:.2f}", height, stable]
    title = "Errors of the copies and barriers between them, in points: mean ± standard deviation"
    return Table(title, columns, cells)
