"""A tf_keras model in the words of Keras 3, so that the search can work on it as on any.

Paths are tf_keras's variable names without `:0`. The variables that tfmot's wrappers add
(masks, thresholds, step counters) are no weights of the model.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lottery.masks import Array, Path

PREFIX = "prune_low_magnitude_"


def wrappers(model: Any) -> list[Any]:
    """tfmot's wrappers in a tf_keras model, in its order, in nested models too.

    Example:

    >>> from keras_lottery.tfmot.importing import load
    >>> tfmot, keras = load()
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="out")])
    >>> [w.layer.name for w in wrappers(tfmot.sparsity.keras.prune_low_magnitude(model))]
    ['out']
    """
    found: list[Any] = []
    for layer in getattr(model, "layers", []):
        found += [layer] if is_wrapper(layer) else wrappers(layer)
    return found


def is_wrapper(layer: Any) -> bool:
    """Whether a layer is tfmot's `PruneLowMagnitude`, whose class is not public."""
    return all(hasattr(layer, name) for name in ("pruning_vars", "pruning_step", "layer")) or (
        type(layer).__name__ == "PruneLowMagnitude"
    )


def path_of(variable: Any) -> Path:
    """A variable's path: `dense/kernel`, whether it was built before or in its wrapper."""
    name: str = variable.name.partition(":")[0]
    return name.replace(PREFIX, "")


class VariableView:
    """A `tf.Variable` with the path, name and methods of a Keras 3 variable."""

    def __init__(self, variable: Any, path: Path):
        self.variable = variable
        self.path = path

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def shape(self) -> tuple[int, ...]:
        """As a tuple."""
        return tuple(self.variable.shape)

    @property
    def value(self) -> Any:
        """The `tf.Variable` itself."""
        return self.variable

    def numpy(self) -> Array:
        """A copy of the value."""
        return np.array(self.variable.numpy())

    def assign(self, value: Any) -> None:
        """Writes the value; on all devices of a strategy."""
        self.variable.assign(value)


class SlotView(VariableView):
    """A variable of an optimizer, called `<path with _>_<kind>` as Keras 3 calls slots."""

    @property
    def name(self) -> str:
        """The whole name."""
        return self.path


class OptimizerView:
    """An optimizer of tf_keras: its variables, the learning rate included."""

    def __init__(self, optimizer: Any, weights: list[VariableView]):
        self.optimizer = optimizer
        self.name = str(getattr(optimizer, "name", type(optimizer).__name__))
        self.built = True
        self._names = {v.variable.name.partition(":")[0]: v.path for v in weights}
        rate = optimizer.learning_rate
        own = [rate] if isinstance(rate, tf.Variable) else []
        self.iterations = VariableView(optimizer.iterations, "iterations")
        self.variables = [SlotView(v, self._name(v)) for v in [*optimizer.variables, *own]]

    def _name(self, slot: Any) -> str:
        """`m/dense/kernel` becomes `dense_kernel_m`: the longest name of a weight wins."""
        name: str = slot.name.partition(":")[0]
        fits = [n for n in self._names if name.endswith(f"/{n}")]
        if not fits:
            return name
        of = max(fits, key=len)
        kind = name[: -len(of) - 1].rpartition("/")[2]
        if kind == "accumulator":  # Ftrl divides by it, so it is no slot to be zeroed
            return name
        return f"{self._names[of].replace('/', '_')}_{kind}"


class ModelView:
    """A built and compiled tf_keras model. What it does not know it asks the model.

    Args:
        model: The tf_keras model, its optimizer built.

    Example:

    >>> from keras_lottery.tfmot.importing import load
    >>> tfmot, keras = load()
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="out")])
    >>> model = tfmot.sparsity.keras.prune_low_magnitude(model)
    >>> model.compile("adam", "mse")
    >>> [v.path for v in ModelView(model).weights]
    ['out/kernel', 'out/bias']
    """

    def __init__(self, model: Any):
        self.model = model
        self.masks: dict[int, Any] = {}
        added: set[int] = set()
        for wrapper in wrappers(model):
            added.add(id(wrapper.pruning_step))
            for weight, mask, threshold in wrapper.pruning_vars:
                self.masks[id(weight)] = mask
                added |= {id(mask), id(threshold)}
        self.weights = [VariableView(v, path_of(v)) for v in model.weights if id(v) not in added]
        trainable = {id(v) for v in model.trainable_weights}
        self.variables = self.weights
        self.trainable_variables = [v for v in self.weights if id(v.variable) in trainable]
        self.optimizer = OptimizerView(model.optimizer, self.weights)

    @property
    def stop_training(self) -> Any:
        """Whether `fit` stops after this batch or epoch."""
        return self.model.stop_training

    @stop_training.setter
    def stop_training(self, value: Any) -> None:
        self.model.stop_training = value

    @property
    def steps_per_execution(self) -> int:
        """Batches between two pauses of `fit`."""
        return int(self.model.steps_per_execution.numpy())

    @property
    def compiled(self) -> bool:
        """True, since it has an optimizer."""
        return True

    def mask_of(self, view: VariableView) -> Any:
        """The mask variable that tfmot keeps for a weight, or `None`."""
        return self.masks.get(id(view.variable))

    def compute_loss(self, x: Any, y: Any, y_pred: Any) -> Any:
        """The compiled loss of a batch, with regularizers."""
        x, y = tf.nest.map_structure(tf.convert_to_tensor, (x, y))
        return self.model.compute_loss(x=x, y=y, y_pred=y_pred)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["model"], name)


def embeddings(model: Any) -> Iterator[int]:
    """Ids of the weights that embedding layers hold."""
    for layer in model.submodules:
        if any(cls.__name__ == "Embedding" for cls in type(layer).__mro__):
            yield from (id(v) for v in layer.weights)
