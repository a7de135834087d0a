"""The scoreboard of planted tickets: what do pruners find where the sparsest ticket is known?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_lottery import enforcement
from keras_lottery import masks as mask_ops
from keras_lottery.display import RoundTable
from keras_lottery.masks import Masks
from keras_lottery.strong.planting import Planted
from keras_lottery.strong.problems import Problem
from keras_lottery.strong.pruners import REFERENCES, Data, Pruner, by_name

_TEST_SAMPLES, _TEST_SEED = 2000, 2**31


@dataclass(frozen=True)
class Found:
    """One pruner's ticket in one mother, and what it is worth.

    Attributes:
        problem: Name of the problem.
        pruner: Name of the pruner; `"planted"` and `"dense"` are what it is compared with.
        repeat: Index of the mother.
        asked: Density asked for, in (0, 1].
        density: Density of the masks over the kernels.
        strong: Score of the masked mother, no weight trained. A score is the accuracy of
            classes (higher is better); of a regression the mean squared error (lower is
            better) after the outputs were multiplied by the one number that makes it least.
        weak: Score after the ticket was trained.
        recall: Fraction of the planted kernel weights that are alive, in [0, 1].
    """

    problem: str
    pruner: str
    repeat: int
    asked: float
    density: float
    strong: float
    weak: float
    recall: float


def seek(
    planted: Planted | Sequence[Planted],
    pruners: Sequence[str] | Mapping[str, Pruner] = ("random", "magnitude", "snip", "gradient"),
    densities: Sequence[float] | None = None,
    samples: int = 9000,
    noise: float = 0.01,
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
    verbose: int = 1,
) -> list[Found]:
    """Lets pruners look for the planted ticket, and scores what they find.

    Every pruner gets its own copy of the mother, compiled with Adam, and the training data.
    Its masks are put on another copy, which is scored as it is (strong) and after training
    (weak), on 2000 samples without noise. Training can make a strong ticket worse: Adam moves
    each weight by up to the learning rate a step, and the planted biases of late layers are small.

    Args:
        planted: From `plant`; a sequence of mothers of one problem is one of replicates.
        pruners: Names in `kl.criteria`, pruned once each; or a dict of name to pruner, a
            callable `(model, density, (x, y)) -> masks` such as `one_shot("snip")`,
            `iterative()` or your own: a dict of path to bool array, True = alive.
        densities: Floats in (0, 1]. Default: the planted one, .01, .1 and .5.
        samples: Number of training samples.
        noise: Of the training targets, as in `Problem.data`.
        epochs: Epochs of training for the weak score.
        batch_size: Samples of a step.
        learning_rate: Adam's.
        seed: Integer, of data, order of batches and pruners that draw; repeat i has seed + i.
        verbose: 1 prints each row as soon as it is known, 0 nothing.

    Returns:
        One `Found` for each mother, pruner and density; first the planted masks and the dense
        mother.

    Raises:
        ValueError: If a density is out of range, a pruner unknown, or there is no mother.

    Source: Fischer & Burkholz, Plant 'n' Seek, 2111.11153.

    Example:

    >>> from keras_lottery.strong.planting import plant
    >>> from keras_lottery.strong.problems import relu
    >>> mother = plant(relu(), depth=3, width=10)
    >>> rows = seek(mother, ["random"], [0.5], samples=64, epochs=1, verbose=0)
    >>> [(r.pruner, round(r.density, 3), round(r.recall, 1)) for r in rows][:2]
    [('planted', 0.025, 1.0), ('dense', 1.0, 1.0)]
    """
    mothers = [planted] if isinstance(planted, Planted) else list(planted)
    asked = _checked(mothers, densities)
    named = by_name(pruners)
    train = partial(train_ticket, epochs=epochs, batch_size=batch_size, rate=learning_rate)
    table = RoundTable(verbose)
    rows: list[Found] = []
    for repeat, mother in enumerate(mothers):
        data = mother.problem.data(samples, seed + repeat, noise)
        cells = [("planted", mother.density), ("dense", 1.0)]
        for name, density in cells + [(name, d) for name in named for d in asked]:
            keras.utils.set_random_seed(seed + repeat)
            if name in REFERENCES:
                masks = mother.kernels if name == "planted" else {}
            else:
                model = compiled(masked_copy(mother, {}), mother.problem, learning_rate)
                masks = named[name](model, density, data)
            keras.utils.set_random_seed(seed + repeat)
            values = _values(mother, masks, data, train)
            rows.append(Found(mother.problem.name, name, repeat, density, **values))
            table.add(_cells(rows[-1:]))
    return rows


def masked_copy(planted: Planted, masks: Masks) -> keras.Model:
    """A copy of the mother with its weights as they were planted, masks enforced."""
    model = keras.models.clone_model(planted.model)
    model.set_weights(planted.model.get_weights())
    if masks:
        enforcement.enforce(model, masks)
    return model


def compiled(
    model: keras.Model, problem: Problem, rate: float = 1e-3, factor: float | None = None
) -> keras.Model:
    """The model compiled with Adam and the problem's loss, of `factor` times its outputs."""
    loss = (
        keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if problem.classes
        else keras.losses.MeanSquaredError()
    )
    scaled = loss if factor is None else lambda y, outputs: loss(y, factor * outputs)
    model.compile(keras.optimizers.Adam(rate), scaled, steps_per_execution=10)
    return model


def train_ticket(
    model: keras.Model,
    problem: Problem,
    data: Data,
    epochs: int = 10,
    batch_size: int = 32,
    rate: float = 1e-3,
) -> None:
    """Trains a masked mother with Adam.

    The loss is that of the outputs times a constant, because the outputs of a sparse network
    start very small: the constant that gives them the size of the targets; of classes the one
    of 2^0, 2^1, ..., 2^7 / size of the logits that has the least loss at the start.
    """
    x, y = data
    factor = _factor(_outputs(model, x), y, problem.classes)
    compiled(model, problem, rate, factor)
    model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0)


def _factor(outputs: NDArray[np.float64], y: NDArray[Any], classes: bool) -> float:
    """What outputs are multiplied by in training."""
    size = float(np.sqrt(np.mean(outputs**2)))
    if size == 0:
        return 1.0
    if not classes:
        return float(np.sqrt(np.mean(y**2))) / size

    def loss(factor: float) -> float:
        logits = factor * (outputs - outputs.max(axis=1, keepdims=True))
        chosen = np.take_along_axis(logits, y[:, None], 1)[:, 0]
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - chosen))

    factors = [float(2**k) / size for k in range(8)]
    return min(factors, key=loss)


def score(model: keras.Model, problem: Problem, data: Data) -> float:
    """Accuracy of classes; of a regression the error up to scale, as `Found` says."""
    x, y = data
    outputs = _outputs(model, x)
    if problem.classes:
        return float(np.mean(outputs.argmax(1) == y))
    squares = float(np.sum(outputs**2))
    factor = float(np.sum(outputs * y)) / squares if squares else 0.0
    return float(np.mean((factor * outputs - y) ** 2))


def show(rows: Sequence[Found]) -> None:
    """Prints the scoreboard: mean and standard deviation over the mothers.

    Example:

    >>> show([Found("relu", "snip", i, 0.5, 0.5, 0.25, 0.0, 1.0 - i) for i in range(2)])
    problem     pruner  density           strong             weak           recall
       relu       snip   50.00%           0.25±0              0±0          0.5±0.5
    """
    table = RoundTable()
    groups: dict[tuple[str, str, float], list[Found]] = {}
    for row in rows:
        groups.setdefault((row.problem, row.pruner, row.asked), []).append(row)
    for group in groups.values():
        table.add(_cells(group))


def _cells(group: Sequence[Found]) -> dict[str, str]:
    """The texts of one row: that of one ticket, or the means over several mothers."""

    def spread(name: str) -> str:
        values = [getattr(row, name) for row in group]
        many = f"±{np.std(values):.2g}" if len(values) > 1 else ""
        return f"{np.mean(values):.3g}{many}"

    return {
        "problem": group[0].problem,
        "pruner": group[0].pruner.rjust(9),
        "density": f"{np.mean([row.density for row in group]):.2%}",
        **{name: spread(name).rjust(15) for name in ("strong", "weak", "recall")},
    }


def _values(
    mother: Planted, masks: Masks, data: Data, train: Callable[..., None]
) -> dict[str, float]:
    """Density, recall, and the score of one ticket before and after training."""
    test = mother.problem.data(_TEST_SAMPLES, _TEST_SEED)
    model = masked_copy(mother, masks)
    strong = score(model, mother.problem, test)
    train(model, mother.problem, data)
    full = {p: masks.get(p, np.ones_like(m)) for p, m in mother.kernels.items()}
    hit = sum(int(np.count_nonzero(full[p] & m)) for p, m in mother.kernels.items())
    return {
        "density": mask_ops.density(full),
        "strong": strong,
        "weak": score(model, mother.problem, test),
        "recall": hit / sum(int(np.count_nonzero(m)) for m in mother.kernels.values()),
    }


def _outputs(model: keras.Model, x: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(keras.ops.convert_to_numpy(model(x, training=False)), np.float64)


def _checked(mothers: Sequence[Planted], densities: Sequence[float] | None) -> list[float]:
    """The densities that pruners are asked for."""
    if not mothers:
        raise ValueError("`planted` must hold at least one mother. Received: none")
    asked = [mothers[0].density, 0.01, 0.1, 0.5] if densities is None else list(densities)
    if not asked or not all(0 < density <= 1 for density in asked):
        raise ValueError(f"`densities` must lie in (0, 1]. Received: {asked}")
    return asked
