"""What a run's files tell of its rounds' tickets: anatomy, early stop, movement, signs, pixels."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from keras_lottery.analysis.anatomy import Anatomy, anatomy
from keras_lottery.analysis.early_stopping import EarlyStop, early_stop
from keras_lottery.analysis.movement import (
    InitialValues,
    Movement,
    SignFlips,
    initial_values,
    movement,
    sign_flips,
)
from keras_lottery.analysis.pixels import alive_per_pixel
from keras_lottery.experiments.analyzing.runs import Record, Run
from keras_lottery.experiments.store import TICKET
from keras_lottery.masks import Array, Masks, density
from keras_lottery.tickets import Ticket

_LADDER = (0.5, 0.21, 0.107, 0.036)  # densities at which the papers draw their curves


@dataclass(frozen=True)
class Insides:
    """Some rounds of one replicate.

    Attributes:
        rounds: Which, the densest first.
        anatomies: By round.
        stops: Early stop by round, of the densest round too; `None` without a finite loss.
        accuracies: Test accuracy at early stop by round.
        initial: Values at the rewind point: those that the sparsest round keeps, and all.
        movements: From the start to the end of a round's training; in a round that prunes
            nothing, the weights that the sparsest one keeps against the others.
        signs: Of the sparsest round's weights, from the rewind point over the ends of the
            rounds; `None` if nothing is alive.
        pixels: Alive first-layer weights by round; empty if they belong to no pixel.
        dense: The densest round.
    """

    rounds: list[int]
    anatomies: dict[int, Anatomy]
    stops: dict[int, EarlyStop | None]
    accuracies: dict[int, float | None]
    initial: dict[str, InitialValues]
    movements: dict[int, list[Movement]]
    signs: SignFlips | None
    pixels: dict[int, Array]
    dense: int


def chosen(run: Run, rounds: Sequence[int], replicate: int) -> list[int]:
    """The rounds in order. Default: dense, those nearest to the papers' densities, the last."""
    own = {r: float(v["density"]) for r, v in run.records[run.one(replicate)[0]].items()}
    if rounds:
        return sorted(run.rounds(rounds, [replicate]))
    near = {min(own, key=lambda r: abs(own[r] - wanted)) for wanted in _LADDER}
    return sorted({min(own), *near, max(own)})


def read(run: Run, rounds: Sequence[int], replicate: int) -> Insides:
    """Everything that is known of some rounds of a replicate.

    Raises:
        ValueError: If a file of a round is missing or damaged.
    """
    records = run.records[replicate]
    masks = {r: run.masks(replicate, TICKET, r) for r in rounds}
    first, last = min(records), rounds[-1]
    start = run.replicate(replicate).rewind_point().variables
    survivors = Ticket(masks[last], {p: start[p] for p in masks[last]})
    return Insides(
        rounds=list(rounds),
        anatomies={r: anatomy(run.trainer.model, masks[r]) for r in rounds},
        stops={r: _stop(records[r]) for r in sorted({first, *rounds})},
        accuracies={r: records[r]["early_stop"].get("test_accuracy") for r in rounds},
        initial=initial_values(survivors, dict(start)),
        movements={r: _moved(run, replicate, r, masks, last) for r in rounds},
        signs=_signs(run, replicate, rounds, masks[last], start),
        pixels=_pixels(run, masks),
        dense=first,
    )


def _stop(record: Record) -> EarlyStop | None:
    """The early stop of a training; `None` if no validation loss is finite."""
    losses = [v for v in record["curve"]["val_loss"] if v is not None and np.isfinite(v)]
    return early_stop(record) if losses else None


def _moved(
    run: Run, replicate: int, round: int, masks: dict[int, Masks], last: int
) -> list[Movement]:
    """What is pruned does not move in a round's own training, so it is not told of."""
    began, ended = run.replicate(replicate).ticket(round).weights, run.trained(replicate, round)
    if density(masks[round]) == 1:
        return movement(began, ended, masks[last])
    return [
        replace(m, moved_pruned=math.nan, away_pruned=math.nan, flips_pruned=math.nan)
        for m in movement(began, ended, masks[round])
    ]


def _signs(
    run: Run, replicate: int, rounds: Sequence[int], masks: Masks, start: dict[str, Array]
) -> SignFlips | None:
    def trajectory() -> Iterator[dict[str, Array]]:
        yield start
        for r in rounds:
            yield run.trained(replicate, r)

    return sign_flips(trajectory(), masks) if density(masks) else None


def _pixels(run: Run, masks: dict[int, Masks]) -> dict[int, Array]:
    """Empty where no weight reads the flattened image, as in a convolution."""
    shape = run.trainer.data.input_shape
    if len(shape) not in (2, 3):
        return {}
    inputs = int(np.prod(shape))
    kernel = next(iter(next(iter(masks.values())).values()))
    if kernel.ndim != 2 or kernel.shape[0] != inputs:
        return {}
    return {r: alive_per_pixel(m, shape) for r, m in masks.items()}
