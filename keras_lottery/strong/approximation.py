"""The random network as a Keras model, with its masks, and how near it comes to its target."""

from dataclasses import dataclass
from typing import Any, cast

import keras

from keras_lottery import weights
from keras_lottery.compaction.copying import copy_adapted, copy_layer
from keras_lottery.masks import Array, Masks
from keras_lottery.strong import bounds, layers
from keras_lottery.strong.gadgets import Gadget
from keras_lottery.strong.subsets import Floats
from keras_lottery.tickets import Ticket


@dataclass(frozen=True)
class Approximation:
    """A pruned random network and how near it comes to its target.

    Attributes:
        model: The random Keras model with its masks enforced; not compiled. `kl.strip` makes
            it a model of which Keras alone knows.
        ticket: Its masks, over kernels and biases, and its alive weights.
        errors: Name of a target's layer to a float64 array: how far each weight is off. Its
            shape is the kernel's with one dimension in front: under the ReLU structure of size
            2, for inputs x >= 0 and x < 0.
        bias_errors: Name to float64 array of the bias's shape, empty without a bias.
        kept: Name to alive weights of the second random layer for each weight of the target.
        candidates: Name to the number of candidates, which `widen=True` may have raised.
        missing: Name to how many weights have no subset within tolerance; not 0 only with
            `on_missing="nearest"`.
        target: The model that is approximated.
    """

    model: keras.Model
    ticket: Ticket
    errors: dict[str, Floats]
    bias_errors: dict[str, Floats]
    kept: dict[str, float]
    candidates: dict[str, int]
    missing: dict[str, int]
    target: keras.Model

    def bound(self, x: Any) -> Any:
        """The largest possible |model(x) - target(x)|, from the weights' errors.

        Elementwise: a layer adds `sum |W| e` for errors e of its inputs and `sum E |x|` for the
        errors E of its weights; activations, pooling and the like carry what is between them.
        Arithmetic in float32 adds its rounding, which is not counted.

        Args:
            x: Inputs of the target, as arrays with a batch dimension.

        Returns:
            Float array of the shape of the outputs, or a structure of them.

        Raises:
            ValueError: If a layer is neither monotone nor known; names it.

        Example:

        >>> import numpy as np
        >>> from keras_lottery.strong import approximate
        >>> half = keras.initializers.Constant(0.5)
        >>> layer = keras.layers.Dense(2, kernel_initializer=half)
        >>> found = approximate(keras.Sequential([keras.Input((3,)), layer]), tolerance=0.01)
        >>> bool(found.bound(np.array([[1.0, -1.0, 1.0]])).max() <= 0.031)
        True
        """
        named = layers.targets(self.target)
        errors = {id(named[n]): (self.errors[n], self.bias_errors[n]) for n in named}
        return bounds.largest_difference(self.target, errors, x)


def assemble(
    target: keras.Model,
    named: dict[str, keras.layers.Layer],
    found: dict[str, Gadget],
    metadata: dict[str, Any],
) -> Approximation:
    """Builds the random network, writes the draw into it and enforces the masks.

    Args:
        target: A built Sequential or functional model.
        named: Its layers to replace, by name.
        found: The `Gadget` of each of them.
        metadata: For the ticket.
    """
    model, pairs = _random_model(target, named, found)
    masks: Masks = {}
    for name, pair in pairs.items():
        masks |= _write(pair, found[name])
    ordered = {p: masks[p] for p in weights.all_weights(model) if p in masks}
    ticket = Ticket.of(model, ordered, metadata)
    ticket.apply(model)
    return Approximation(
        model,
        ticket,
        {n: g.errors.reshape(-1, *_kernel_shape(named[n])) for n, g in found.items()},
        {n: g.bias_errors for n, g in found.items()},
        {n: g.kept for n, g in found.items()},
        {n: g.shape.n for n, g in found.items()},
        {n: g.missing for n, g in found.items()},
        target,
    )


def _random_model(
    target: keras.Model, named: dict[str, keras.layers.Layer], found: dict[str, Gadget]
) -> tuple[keras.Model, dict[str, keras.Sequential]]:
    """The target with two layers in the place of one, and these pairs by name."""
    names = {id(layer): name for name, layer in named.items()}
    made: dict[int, tuple[Any, Any]] = {}  # a layer may stand in several models of the target

    def counterpart(layer: Any) -> Any:
        if id(layer) not in made:
            shape = found[names[id(layer)]].shape if id(layer) in names else None
            new = (
                layers.two_layers(layer, shape.units, shape.structure)
                if shape
                else copy_layer(layer, None)
            )
            made[id(layer)] = (layer, new)
        return made[id(layer)][1]

    model = keras.models.clone_model(target, clone_function=counterpart, recursive=True)
    if not model.built:
        model.build(target.input_shape)
    for old, new in made.values():
        if id(old) not in names:
            new.set_weights(old.get_weights())
            copy_adapted(old, new)
    pairs = {name: made[key][1] for key, name in names.items()}
    return cast(keras.Model, model), pairs


def _kernel_shape(layer: Any) -> tuple[int, ...]:
    return tuple(layer.kernel.shape)


def _write(pair: keras.Sequential, gadget: Gadget) -> Masks:
    """Writes the draw into both layers; returns their masks by path."""
    masks: Masks = {}
    hidden, out = pair.layers
    parts = (
        (hidden, "kernel", "first"),
        (hidden, "bias", "first_bias"),
        (out, "kernel", "second"),
        (out, "bias", "second_bias"),
    )
    for layer, variable_name, part in parts:
        variable = getattr(layer, variable_name)
        if variable is None:
            continue
        values: Array = getattr(gadget.drawn, part)
        variable.assign(values.reshape(variable.shape))
        masks[variable.path] = getattr(gadget.masks, part).reshape(tuple(variable.shape))
    return masks
