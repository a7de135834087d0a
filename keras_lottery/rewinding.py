"""Snapshots: taking and restoring everything that training changes."""

from dataclasses import dataclass

import keras

from keras_lottery import weights
from keras_lottery.masks import Array, Path


@dataclass
class Snapshot:
    """A model and its optimizer at one step, as NumPy copies.

    Attributes:
        step: Optimizer steps since the start of the search.
        variables: Every variable of the model by path: weights, BatchNorm statistics
            and the states of random seeds.
        optimizer: The values of `optimizer.variables` in order (step counter, learning
            rate, slots, loss scale), or `None` if there was no optimizer yet.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> start = Snapshot.take(model)
    >>> _ = model.layers[0].kernel.assign([[7.0], [7.0]])
    >>> start.restore(model)
    >>> bool((model.layers[0].kernel.numpy() == 7).any())
    False
    """

    step: int
    variables: dict[Path, Array]
    optimizer: list[Array] | None = None

    @classmethod
    def take(cls, model: keras.Model, step: int = 0) -> "Snapshot":
        """Copies the state of `model` and, if it is compiled, of its built optimizer."""
        return cls(step, weights.read(weights.all_variables(model)), optimizer_state(model))

    def restore(
        self, model: keras.Model, restore_weights: bool = True, restore_optimizer: bool = True
    ) -> None:
        """Writes the copies back. Masks are the caller's business.

        Raises:
            ValueError: If the model's optimizer is another kind than the one copied.
        """
        if restore_weights:
            weights.write(weights.all_variables(model), self.variables)
        if restore_optimizer and self.optimizer is not None and optimizer_state(model) is not None:
            self.restore_optimizer(model)

    def restore_optimizer(self, model: keras.Model) -> None:
        """Writes the optimizer's part back, also into a newly compiled optimizer."""
        now = model.optimizer.variables
        values = self.optimizer or []
        if [tuple(v.shape) for v in now] != [a.shape for a in values]:
            raise ValueError(
                f"The optimizer {model.optimizer.name!r} has other variables than the one that "
                "was copied at the rewind point. Compile the model alike in every round."
            )
        for variable, value in zip(now, values, strict=True):
            variable.assign(value)


def optimizer_state(model: keras.Model) -> list[Array] | None:
    """The values of the optimizer's variables, or `None` without a built optimizer."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return None
    return [v.numpy() for v in optimizer.variables]


def steps_done(model: keras.Model) -> int:
    """Optimizer steps so far; 0 without a built optimizer."""
    optimizer = getattr(model, "optimizer", None)
    return int(optimizer.iterations) if optimizer is not None and optimizer.built else 0
