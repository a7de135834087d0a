"""Is a network's training stable: to data order, to pruning, from which step on?"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_lottery import enforcement, weights
from keras_lottery import masks as mask_ops
from keras_lottery.analysis.batches import Data
from keras_lottery.analysis.comparing import DENSE, Case, Comparison, Stability, compare
from keras_lottery.analysis.copies import Build, Copies, Train, full_masks
from keras_lottery.analysis.evaluating import Evaluation
from keras_lottery.analysis.pairing import masks_of, pair
from keras_lottery.analysis.recorders import Metric
from keras_lottery.analysis.watching import Watch
from keras_lottery.masks import Masks
from keras_lottery.settings import check_integer
from keras_lottery.tickets import Ticket

__all__ = ["Case", "Comparison", "Stability", "compare", "stability"]

TICKET, RANDOM_MASK = "ticket", "random_mask"
Fixed = Masks | Ticket | enforcement.Enforcement
GivenMasks = Fixed | Callable[[int, int], Fixed | None]
_BATCHNORM = ("interpolate", "recompute")


def stability(
    build: Build,
    train: Train,
    masks: GivenMasks | None = None,
    data: Data | Mapping[str, Data] | None = None,
    steps: Sequence[int] = (0,),
    replicates: int = 3,
    orders: int = 2,
    seed: int = 0,
    points: int = 30,
    metric: Metric = "error",
    batchnorm: str = "interpolate",
    verbose: int = 1,
    larger_is_better: bool | None = None,
) -> Stability:
    """Trains copies from rewind points k and compares them.

    For each replicate and each k, one network is trained from its initialization to k; from
    there copies train to the end in several data orders: dense, under the masks of the
    ticket, and under random masks with the same counts in each layer. Everything goes back
    to step k before each copy: weights, statistics, random seeds, optimizer. Copies of
    one order are given the same seed. At most `2 * orders` trained copies are held.

    Args:
        build: Function `seed -> model`: a compiled Keras model, freshly initialized.
            Replicate r is built with `seed + r`.
        train: Function `(model, first_step, last_step, seed)` that trains the model from
            optimizer step `first_step` to `last_step` (`None`: the end), with the data
            order (and augmentation) that `seed` draws. It must not compile anew.
        masks: The ticket's masks (or a ticket, or what `kl.prune` returns): dict of path to
            bool array, matched by path, else by order and shape. Or a function
            `(replicate, k)` that gives those, or `None` where there is no ticket. Default:
            dense networks only.
        data: What barriers are measured on, as in `error_barrier`. Default: no barriers.
        steps: The rewind points k in optimizer steps, growing, from 0. Default: 0 only.
        replicates: Integer, at least 1: networks with initializations of their own.
        orders: Integer, at least 2: data orders for each network. All pairs are compared.
        seed: Integer.
        points: Integer, at least 2: points on the line between two copies.
        metric: As in `error_barrier`.
        batchnorm: As in `error_barrier`.
        verbose: 0 for silence, 1 for a bar over the trainings and a line a comparison.
        larger_is_better: As in `error_barrier`.

    Returns:
        A `Stability`; `rows()` are its means.

    Raises:
        ValueError: Before the first training, for arguments out of range, masks that do not
            fit the model, or data that cannot be measured. In between, if `train` trained
            other steps than it was asked for; so too if it ends before the last of `steps`,
            for only `train` knows its end.
        TypeError: Before the first training, for masks or steps of another type.

    Source: Stabilizing the LTH, 1903.01611, section 4; Linear Mode Connectivity, 1912.05671.

    Example:

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(32, 4))
    >>> y = x.sum(axis=1, keepdims=True)
    >>> def build(seed):
    ...     init = keras.initializers.GlorotUniform(seed)
    ...     out = keras.layers.Dense(1, kernel_initializer=init)
    ...     model = keras.Sequential([keras.Input((4,)), out])
    ...     model.compile("sgd", "mse")
    ...     return model
    >>> def train(model, first, last, seed):
    ...     order = np.random.default_rng(seed).permutation(32)
    ...     for s in range(first, 4 if last is None else last):
    ...         batch = order[8 * s : 8 * s + 8]
    ...         _ = model.train_on_batch(x[batch], y[batch])
    >>> found = stability(build, train, steps=[0, 2], replicates=1, verbose=0)
    >>> [(row["kind"], row["step"], row["n"]) for row in found.rows()]
    [('dense', 0, 1), ('dense', 2, 1)]
    """
    _check(steps, replicates, orders, points, seed)
    if batchnorm not in _BATCHNORM:
        raise ValueError(f"`batchnorm` must be one of {_BATCHNORM}. Received: {batchnorm!r}")
    kinds = 1 if masks is None else 3
    comparisons: list[Comparison] = []
    with Watch(replicates * len(steps) * orders * kinds, verbose) as watch:
        for replicate in range(replicates):
            copies = Copies(build, train, replicate, seed + replicate, watch)
            measured = _measured(
                copies.model, data, metric, batchnorm, larger_is_better, try_it=not replicate
            )
            try:
                for step in steps:
                    copies.masks = _masks(copies.model, masks, replicate, step, seed + replicate)
                    watch.skip((kinds - len(copies.masks)) * orders)
                    copies.go_to(step)
                    comparisons += compare(
                        copies,
                        copies.masks_of,
                        copies.cases(orders),
                        points=points,
                        on_comparison=watch.add,
                        **measured,
                    ).comparisons
            finally:
                enforcement.release(copies.model)
    return Stability(comparisons)


def _measured(
    model: keras.Model,
    data: Any,
    metric: Metric,
    batchnorm: str,
    larger_is_better: bool | None,
    try_it: bool,
) -> dict[str, Any]:
    """What `compare` needs for barriers; tried on the fresh model, so that errors come early."""
    if data is None:
        return {}
    evaluation = Evaluation(
        model, data, metric=metric, batchnorm=batchnorm, larger_is_better=larger_is_better
    )
    if try_it:
        evaluation()
    return {"model": model, "evaluation": evaluation}


def _masks(
    model: keras.Model, given: GivenMasks | None, replicate: int, step: int, seed: int
) -> dict[str, Masks]:
    """The masks of each kind; those of the dense network cover the same weights, all alive."""
    found = given(replicate, step) if callable(given) else given
    if found is None:
        return {DENSE: full_masks(model)}
    ticket = _fitted(model, masks_of(found))
    dense = mask_ops.full({p: m.shape for p, m in ticket.items()})
    return {DENSE: dense, TICKET: ticket, RANDOM_MASK: mask_ops.shuffle(ticket, seed)}


def _fitted(model: keras.Model, masks: Masks) -> Masks:
    """The masks by the model's paths: by path, else by the order of the prunable weights."""
    known = weights.all_weights(model)
    if all(p in known and m.shape == tuple(known[p].shape) for p, m in masks.items()):
        fitted = masks
    else:
        fitted = {p: m for p, _, m in pair(full_masks(model), masks, ("the model", "masks"))}
    if not mask_ops.density(fitted):
        raise ValueError("`masks` leave no weight alive, so there is nothing to train.")
    return fitted


def _check(steps: Sequence[int], replicates: int, orders: int, points: int, seed: int) -> None:
    least = {"replicates": 1, "orders": 2, "points": 2, "seed": 0}
    given = {"replicates": replicates, "orders": orders, "points": points, "seed": seed}
    for name, value in given.items():
        check_integer(name, value, least=least[name])
    if not isinstance(steps, Iterable):
        raise TypeError(f"`steps` must be a list of integers, as [0, 100]. Received: {steps!r}")
    for step in steps:
        check_integer("steps", step, least=0)
    if not len(steps) or list(steps) != sorted(set(steps)):
        raise ValueError(
            "`steps` must name one rewind point or more, growing and each once. Received: "
            f"{list(steps)}"
        )
