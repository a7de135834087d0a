"""How signals pass through a network: correlations of its layers, norms of its gradients."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_lottery import criteria, weights
from keras_lottery.analysis.batches import as_tensors, check_finite, length_of
from keras_lottery.analysis.values import check_built
from keras_lottery.masks import Path
from keras_lottery.settings import check_integer
from keras_lottery.summary import alive


def information_flow(
    model: keras.Model, x: Any, batch_size: int = 256
) -> dict[tuple[str, str], float]:
    """Mean correlation of the activations of each two consecutive weight layers.

    Activations are z-scored, unit by unit, over the examples; the value is the mean of
    the signed correlations of every unit of one layer with every unit of the next. A unit
    of a convolution or a sequence is a channel, averaged over its positions; a unit with
    the same activation for every example counts with correlation 0.

    Two networks `a` and `b` of one architecture are as far apart as the vectors of their
    values: `np.linalg.norm(np.subtract(list(a.values()), list(b.values())))`; the paper
    ends a training when this is below 0.11.

    Args:
        model: A Sequential or functional model. Weight layers are those of `model.layers`
            that hold a prunable weight, in that order; a nested model counts as one, and a
            layer that is used more than once counts at its first use.
        x: At least two inputs, an array or what else `model.predict` takes in memory.
        batch_size: Integer, at least 1, how many examples are computed at once.

    Returns:
        Dict of the names of two consecutive layers to a float in [-1, 1].

    Raises:
        ValueError: If the model is of another kind, not built or has fewer than two weight
            layers, or if there are fewer than two examples, or a NaN or an Inf among them.
        TypeError: If `model` is no Keras model.

    Source: Information Consistent Pruning, 2501.15592.

    Example:

    >>> dense = dict(use_bias=False, kernel_initializer="ones")
    >>> model = keras.Sequential([
    ...     keras.Input((1,)), keras.layers.Dense(2, name="a", **dense),
    ...     keras.layers.Dense(1, name="b", **dense)])
    >>> flow = information_flow(model, np.array([[1.0], [2.0], [4.0]]))
    >>> {pair: round(value, 6) for pair, value in flow.items()}
    {('a', 'b'): 1.0}
    """
    check_integer("batch_size", batch_size, least=1)
    layers = _weight_layers(model)
    _check_examples("A correlation", 2, x)
    found = _activations(model, layers).predict(x, batch_size=batch_size, verbose=0)
    signals = [_signal(np.asarray(a, np.float64)) for a in found]
    names = [layer.name for layer in layers]
    return {
        (names[i], names[i + 1]): float(np.mean(signals[i] * signals[i + 1]))
        for i in range(len(layers) - 1)
    }


def gradient_flow(model: keras.Model, x: Any, y: Any) -> dict[Path, float]:
    """L2 norm of the loss's gradient over the alive weights of each path.

    The norm of the whole network is `np.linalg.norm(list(norms.values()))`. Alive are what
    the enforced masks say, else the prunable weights that are not 0.

    Args:
        model: A compiled model, computed as in inference.
        x: A batch of inputs; all of it is computed at once.
        y: Its targets.

    Returns:
        Dict of path to float, at least 0.

    Raises:
        ValueError: If the model is not built, not compiled or has nothing to prune, or if
            there is no example, or a NaN or an Inf among them.
        TypeError: If `model` is no Keras model.

    Source: Information Consistent Pruning, 2501.15592.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.array([[1.0], [0.0]])])
    >>> model.compile(loss="mse")  # loss = (a + 2 b)**2 = 1 at a = 1, b = 0: dloss/da = 2
    >>> list(gradient_flow(model, np.array([[1.0, 2.0]]), np.array([[0.0]])).values())
    [2.0]
    """
    check_built(model)
    _check_examples("A gradient", 1, x, y)
    masks = alive(model)
    named = weights.all_weights(model)
    values = weights.read({p: named[p] for p in masks})
    sizes = criteria.gradient(criteria.State(values, values, masks, model, (x, y)))
    return {p: float(np.linalg.norm(sizes[p][masks[p]].astype(np.float64))) for p in masks}


def _check_examples(what: str, least: int, *batch: Any) -> None:
    tensors = [as_tensors(entry) for entry in batch]
    n = length_of(tensors[0], "x")
    if n < least:
        words = "one example" if least == 1 else "two examples"
        raise ValueError(f"{what} needs at least {words}. Received: {n} in `x`")
    check_finite(tensors, "the examples")


def _weight_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of `model.layers` that hold a prunable weight; checked."""
    check_built(model)
    if not _has_graph(model):
        raise ValueError(
            "The layers' activations can be read from Sequential and functional models only. "
            f"Received: {type(model).__name__}"
        )
    chosen = {id(v) for v in weights.prunable(model).values()}
    layers = [
        layer for layer in model.layers if any(id(v) in chosen for v in layer.trainable_variables)
    ]
    if len(layers) < 2:
        raise ValueError(
            f"Expected at least two layers with prunable weights in {model.name!r}. Received: "
            f"{[layer.name for layer in layers]}"
        )
    return layers


def _has_graph(model: keras.Model) -> bool:
    """Whether the model knows its inputs and outputs as symbols, as subclassed ones do not."""
    try:
        return bool(model.inputs) and bool(model.outputs)
    except (AttributeError, ValueError):
        return False


def _activations(model: keras.Model, layers: list[keras.layers.Layer]) -> keras.Model:
    """From the model's inputs to the outputs of `layers`."""
    try:
        return keras.Model(model.inputs, [_first(layer.output) for layer in layers])
    except (AttributeError, ValueError):  # `output` belongs to another model that used the layer
        return _called_again(model, layers)


def _called_again(model: keras.Model, layers: list[keras.layers.Layer]) -> keras.Model:
    outputs: dict[str, Any] = {}

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        result = layer(*args, **kwargs)
        outputs.setdefault(layer.name, _first(result))
        return result

    if isinstance(model, keras.Sequential):
        first = model.inputs[0]
        inputs = signal = keras.Input(batch_shape=first.shape, dtype=first.dtype)
        for layer in model.layers:
            signal = call(layer, signal)
    else:
        same = keras.models.clone_model(model, clone_function=lambda a: a, call_function=call)
        inputs = same.inputs
    return keras.Model(inputs, [outputs[layer.name] for layer in layers])


def _first(outputs: Any) -> Any:
    return keras.tree.flatten(outputs)[0]


def _signal(activations: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean z-score of a layer's units, one an example.

    The mean of all correlations between two layers is the mean product of these.
    """
    units = activations.reshape(len(activations), -1, activations.shape[-1]).mean(axis=1)
    centered = units - units.mean(axis=0)
    spread = centered.std(axis=0)
    constant = spread <= 1e-6 * np.abs(units).max(axis=0)
    scores = np.where(constant, 0.0, centered / np.where(constant, 1.0, spread))
    return np.asarray(scores.mean(axis=1))
