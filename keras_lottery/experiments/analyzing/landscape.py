"""The loss around a round's trained weights."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_lottery.analysis import plots
from keras_lottery.analysis.evaluating import Evaluation
from keras_lottery.analysis.landscape import Landscape
from keras_lottery.analysis.landscape import landscape as measure
from keras_lottery.experiments.analyzing.findings import DASH, Finding, Table, pictures, plain
from keras_lottery.experiments.analyzing.runs import Run
from keras_lottery.experiments.live import Live
from keras_lottery.settings import check_integer

_QUIET_SECONDS = 20
WORDS = (
    "The loss at the trained weights of a round, and at steps from there along random "
    "directions. Pruned weights do not move, nor do biases and what belongs to a normalization.",
    "How to read it: with directions normalized by filter, a step of 1 is as long as the weights "
    "themselves, so that networks can be compared. A wide flat bottom says that the weights may "
    "change much before the loss does; a narrow one, that they may not (1712.09913). A direction "
    "is random: another seed shows how much of the picture is chance.",
)


def landscape(
    runs: Sequence[Run],
    live: Live,
    rounds: Sequence[int] = (),
    replicate: int = 0,
    dimensions: int = 1,
    reach: float = 1.0,
    points: int = 21,
    normalization: str = "filter",
    seed: int = 0,
    batchnorm: str = "interpolate",
    train_images: int = 10_000,
) -> Finding:
    """Loss along one or two random directions around the trained weights of a round.

    Args:
        runs: One run or several.
        live: Shows the points measured.
        rounds: Which. Default: the round nearest to 10.7 % density.
        replicate: Of the run.
        dimensions: 1 or 2.
        reach: The largest step, above 0.
        points: On each axis, at least 2.
        normalization: `"filter"`, `"layer"` or `"none"`.
        seed: Draws the directions.
        batchnorm: What becomes of BatchNormalization's statistics: `"interpolate"` keeps
            them, `"recompute"` measures them anew at each point.
        train_images: How many training images the loss is measured on, besides all test
            images.

    Returns:
        The finding.

    Raises:
        ValueError: For an argument out of range, or if a run has no such round or replicate.
    """
    check_integer("train_images", train_images, least=1)
    chosen = [(run, r) for run in runs for r in run.rounds(rounds, run.one(replicate))]
    found: dict[str, Landscape] = {}
    for run, r in chosen:
        name = f"round {r}" if len(runs) == 1 else f"{run.name}, round {r}"
        masks, values = run.masks(replicate, "ticket", r), run.trained(replicate, r)
        run.release()
        model, data = run.trainer.model, run.parts(train_images)
        found[name] = measure(
            model,
            weights=values,
            masks=masks,
            dimensions=dimensions,
            reach=reach,
            points=points,
            normalization=normalization,
            seed=seed,
            evaluation=Evaluation(model, data, metric="loss", batchnorm=batchnorm),
            center=f"{name}, trained",
            on_point=_teller(live, name, points**dimensions),
        )
    figures = {
        "" if i == 0 else f"{i + 1}": plots.landscape(one) for i, one in enumerate(found.values())
    }
    words = [
        *_words(replicate, seed, normalization, points, dimensions),
        *(run.images(train_images) for run in runs),
    ]
    title = f"Loss landscape, {'one direction' if dimensions == 1 else 'two directions'}"
    name = "landscape" if dimensions == 1 else "landscape2d"
    return Finding(
        name,
        title,
        words,
        [_table(found)],
        pictures(name, figures),
        {
            "replicate": replicate,
            "seed": seed,
            "batchnorm": batchnorm,
            "train_images": train_images,
            "landscapes": plain(found),
        },
    )


def _words(
    replicate: int, seed: int, normalization: str, points: int, dimensions: int
) -> list[str]:
    return [
        *WORDS,
        f"Replicate {replicate}; directions of seed {seed}, normalized: {normalization}; {points} "
        f"points on {'the line' if dimensions == 1 else 'each axis'}.",
    ]


def _table(found: dict[str, Landscape]) -> Table:
    columns = ["network", "part", "loss in the middle", "lowest", "highest"]
    rows = []
    for name, one in found.items():
        for part, values in one.values.items():
            middle: Any = tuple(len(axis) // 2 for axis in one.axes)
            shown = [f"{v:.4g}" for v in (values[middle], np.nanmin(values), np.nanmax(values))]
            if len(one.axes[0]) % 2 == 0:
                shown[0] = DASH
            rows.append([name, part, *shown])
    return Table("Losses", columns, rows)


def _teller(live: Live, name: str, total: int) -> Callable[[int, dict[str, float]], None]:
    """Says now and then how many points are measured."""
    last = time.monotonic()

    def tell(index: int, measured: dict[str, float]) -> None:
        nonlocal last
        if time.monotonic() - last >= _QUIET_SECONDS:
            last = time.monotonic()
            live.say(f"  {name}: {index + 1:,} of {total:,} points")

    return tell
