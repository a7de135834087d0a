"""A model under its masks: its density, and a table."""

import keras
from rich.console import Console
from rich.table import Table

from keras_lottery import enforcement, weights
from keras_lottery import masks as mask_ops
from keras_lottery.masks import Masks


def density(model: keras.Model) -> float:
    """Alive over all prunable weights of a model, in [0, 1].

    By the enforced masks; without any, a prunable weight that is 0 counts as pruned.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> density(model)
    1.0
    """
    return mask_ops.density(alive(model))


def alive(model: keras.Model) -> Masks:
    """The enforced masks, or where the prunable weights are not 0."""
    masks = enforcement.enforced_masks(model)
    if masks is not None:
        return masks
    return {p: v != 0 for p, v in weights.read(weights.prunable(model)).items()}


def summary(model: keras.Model) -> None:
    """Prints shape, alive weights, all weights and density of each prunable weight.

    By the enforced masks; without any, a prunable weight that is 0 counts as pruned.

    Args:
        model: A built Keras model.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> summary(model)  # doctest: +ELLIPSIS
    ┏...
    ...6 │   6 │ 100.00% │...
    """
    masks = alive(model)
    table = Table("weight", "shape")
    for heading in ("alive", "all", "density"):
        table.add_column(heading, justify="right")
    total_alive = total = 0
    for path, (left, n) in mask_ops.counts(masks).items():
        table.add_row(path, str(masks[path].shape), f"{left:,}", f"{n:,}", f"{left / n:.2%}")
        total_alive, total = total_alive + left, total + n
    table.add_section()
    table.add_row("all", "", f"{total_alive:,}", f"{total:,}", f"{mask_ops.density(masks):.2%}")
    Console().print(table)
