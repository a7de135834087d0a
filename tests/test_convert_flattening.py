"""In which order a layer reads an image: seen, or asked for, never guessed."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops
from test_convert import draw, sequential

from keras_lottery import convert

WEIGHT = np.arange(8.0)[None]
PERMUTED = [0, 4, 1, 5, 2, 6, 3, 7]  # (c, h, w) = (2, 2, 2) read as (h, w, c)


def rows(flatten, shape=(2, 2, 2)):
    """The rows of a Dense layer behind `flatten`, of a torch weight 0, 1, 2, ..."""
    image = keras.Input(shape)
    model = keras.Model(image, L.Dense(1, use_bias=False)(flatten(image)))
    ticket = convert.from_torch_prune(model, {"fc.weight": WEIGHT})
    return next(iter(ticket.weights.values())).ravel().tolist()


@pytest.mark.parametrize(
    "flatten",
    [
        L.Flatten(),
        L.Reshape((-1,)),
        L.Lambda(lambda x: ops.reshape(x, (-1, 8))),
        lambda x: ops.reshape(x, (-1, 8)),
        lambda x: L.Flatten()(L.Reshape((4, 2))(x)),
        lambda x: L.Flatten()(L.Activation("relu")(L.Reshape((4, 2))(x))),
        lambda x: L.Flatten()(L.Reshape((2, 2, 2))(L.Flatten()(x))),
    ],
)
def test_rows_are_permuted_whatever_flattened_the_image(flatten):
    assert rows(flatten) == PERMUTED


def test_rows_stay_where_nothing_is_flattened():
    pooled = keras.Input((2, 2, 8))
    for pool in (L.GlobalAveragePooling2D(), lambda x: ops.mean(x, (1, 2))):
        squeezed = L.Reshape((1, 1, 8))(pool(pooled))
        model = keras.Model(pooled, L.Dense(1, use_bias=False)(squeezed))
        ticket = convert.from_torch_prune(model, {"fc.weight": WEIGHT})
        assert ticket.metadata["rows_permuted"] == []
    assert rows(L.Flatten(), (4, 2)) == list(range(8))
    assert rows(lambda x: L.Flatten()(L.Reshape((2, 4, 1))(x)), (2, 4)) == list(range(8))


@pytest.mark.parametrize(
    "hide",
    [
        L.Reshape((2, 4)),
        L.Reshape((1, 8)),
        lambda x: L.Reshape((1, 8))(L.Flatten()(x)),
        lambda x: L.Flatten()(L.Permute((3, 1, 2))(x)),
        lambda x: L.Flatten()(ops.transpose(x, (0, 3, 1, 2))),
        lambda x: L.Concatenate()([L.Flatten()(x), L.Flatten()(x)]),
        L.Lambda(lambda x: ops.reshape(x[:, :1], (-1, 4))),
    ],
)
def test_an_order_that_cannot_be_seen_is_refused(hide):
    image = keras.Input((2, 2, 2))
    model = keras.Model(image, L.Dense(1, use_bias=False, name="head")(hide(image)))
    weight = {"fc.weight": draw(1, model.get_layer("head").kernel.shape[0])}
    with pytest.raises(ValueError, match=r"'head' reads what .*Give `flattened="):
        convert.from_torch_prune(model, weight)
    assert convert.from_torch_prune(model, weight, flattened={}).density == 1


def test_a_dense_layer_whose_outputs_become_an_image_is_refused():
    model = sequential((3,), L.Dense(8), L.Reshape((2, 2, 2)), L.Conv2D(1, 1))
    with pytest.raises(ValueError, match="makes an image of, and in which order"):
        convert.from_torch_prune(model, {})
    image = (L.Rescaling(0.5), L.Reshape((2, 2, 2)))
    data = sequential((8,), *image, L.Conv2D(1, 1, use_bias=False))
    assert convert.from_torch_prune(data, {"0.weight": draw(1, 2, 1, 1)}).density == 1


class Block(L.Layer):
    def __init__(self, *inside):
        super().__init__(name="block")
        self.inside = list(inside)

    def call(self, x):
        for layer in self.inside:
            x = layer(x)
        return x


def test_a_layer_that_hides_a_dense_layer_asks_for_the_flattened_shape():
    image = keras.Input((2, 2, 2))
    block = Block(L.Flatten(), L.Dense(1, use_bias=False, name="inner"))
    model = keras.Model(image, block(image))
    with pytest.raises(ValueError, match=r"graph of the layer 'block' cannot be seen.*`flattened="):
        convert.from_torch_prune(model, {"fc.weight": WEIGHT})
    ticket = convert.from_torch_prune(model, {"fc.weight": WEIGHT}, flattened={"inner": (2, 2, 2)})
    assert next(iter(ticket.weights.values())).ravel().tolist() == PERMUTED


def test_a_layer_that_hides_a_flattening_is_refused_where_a_dense_layer_reads_it():
    hidden = Block(L.Conv2D(2, 1, use_bias=False), L.Flatten())
    model = sequential((2, 2, 2), hidden, L.Dense(1, use_bias=False, name="head"))
    with pytest.raises(ValueError, match="'head' reads what 'block' makes of an image"):
        convert.from_torch_prune(model, {})


def test_a_layer_that_hides_dense_layers_only_is_converted():
    model = sequential((8,), Block(L.Dense(1, use_bias=False)))
    kernel = next(iter(convert.from_torch_prune(model, {"fc.weight": WEIGHT}).weights.values()))
    assert kernel.ravel().tolist() == list(range(8))
