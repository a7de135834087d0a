"""A model under its masks, as a table."""

import keras
from rich.console import Console
from rich.table import Table

from keras_lottery import enforcement
from keras_lottery import masks as mask_ops


def summary(model: keras.Model) -> None:
    """Prints shape, alive weights, all weights and density of each prunable weight.

    By the enforced masks; without any, a prunable weight that is 0 counts as pruned.

    Args:
        model: A built Keras model.

    Example:

    >>> summary(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]))  # doctest: +SKIP
    """
    masks = enforcement.alive(model)
    table = Table("weight", "shape")
    for heading in ("alive", "all", "density"):
        table.add_column(heading, justify="right")
    total_alive = total = 0
    for path, (alive, n) in mask_ops.counts(masks).items():
        table.add_row(path, str(masks[path].shape), f"{alive:,}", f"{n:,}", f"{alive / n:.2%}")
        total_alive, total = total_alive + alive, total + n
    table.add_section()
    table.add_row("all", "", f"{total_alive:,}", f"{total:,}", f"{mask_ops.density(masks):.2%}")
    Console().print(table)
