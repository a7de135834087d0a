"""Multiply-adds by hand, for every kind of layer."""

import keras
import numpy as np
import pytest
import zoo
from keras import layers as L

from keras_lottery import weights
from keras_lottery.analysis.anatomy import anatomy
from keras_lottery.analysis.counting import uses
from keras_lottery.export.artefacts import flops


def macs(model):
    """Multiply-adds of each kernel."""
    found = uses(model)
    kernels = [v for v in model.trainable_variables if len(v.shape) > 1 and v.name != "bias"]
    times = [(found[id(v)], int(np.prod(tuple(v.shape)))) for v in kernels]
    return [None if n is None else n * size for n, size in times]


def of(layer, *shape):
    return macs(keras.Sequential([keras.Input(shape), layer]))


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (lambda: L.Dense(3), (4,), 4 * 3),
        (lambda: L.Dense(3), (5, 7, 4), 5 * 7 * 4 * 3),
        (lambda: L.Conv2D(4, 3), (8, 8, 2), 6 * 6 * 9 * 2 * 4),
        (lambda: L.Conv2D(4, 3, padding="same"), (8, 8, 2), 8 * 8 * 9 * 2 * 4),
        (lambda: L.Conv2D(4, 3, strides=2, padding="same"), (9, 9, 2), 5 * 5 * 9 * 2 * 4),
        (lambda: L.Conv2D(4, 3, dilation_rate=2), (8, 8, 2), 4 * 4 * 9 * 2 * 4),
        (lambda: L.Conv2D(4, 3, groups=2), (8, 8, 2), 6 * 6 * 9 * 1 * 4),
        (lambda: L.Conv1D(4, 3, padding="causal"), (8, 2), 8 * 3 * 2 * 4),
        (lambda: L.Conv3D(2, 2), (4, 4, 4, 3), 27 * 8 * 3 * 2),
        (lambda: L.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 5), 6 * 6 * 9 * 5 * 2),
        (lambda: L.Conv2DTranspose(4, 2, strides=2), (3, 3, 5), 3 * 3 * 4 * 5 * 4),
        (lambda: L.EinsumDense("abc,cd->abd", (None, 6)), (5, 4), 5 * 4 * 6),
        (lambda: L.EinsumDense("...c,cde->...de", (2, 6)), (5, 4), 5 * 4 * 2 * 6),
        (lambda: L.EinsumDense("abc,bcd->ad", (6,)), (5, 4), 5 * 4 * 6),
        (lambda: L.Conv2D(4, 3, data_format="channels_first"), (2, 8, 8), 6 * 6 * 9 * 2 * 4),
    ],
)
def test_one_layer_as_counted_by_hand(layer, shape, expected):
    assert of(layer(), *shape) == [expected]


def test_a_separable_convolution_multiplies_twice():
    assert of(L.SeparableConv2D(4, 3), 8, 8, 5) == [36 * 9 * 5, 36 * 5 * 4]


def test_a_recurrent_layer_multiplies_at_each_step():
    assert of(L.LSTM(5), 7, 3) == [7 * 3 * 20, 7 * 5 * 20]
    assert of(L.GRU(5), 7, 3) == [7 * 3 * 15, 7 * 5 * 15]


def test_an_attention_projects_each_position():
    x, y = keras.Input((6, 8)), keras.Input((4, 8))
    model = keras.Model([x, y], L.MultiHeadAttention(2, 3)(x, y))
    assert macs(model) == [6 * 48, 4 * 48, 4 * 48, 6 * 48]


def test_an_embedding_looks_up():
    model = keras.Sequential([keras.Input((4,), dtype="int32"), L.Embedding(10, 3), L.Dense(2)])
    assert macs(model) == [0, 4 * 3 * 2]


def test_a_shared_layer_counts_at_each_call():
    x = keras.Input((5, 3))
    twice = L.Dense(3)
    model = keras.Model(x, twice(L.AveragePooling1D(5)(twice(x))))
    assert macs(model) == [(5 + 1) * 9]


def test_a_nested_model_counts_at_each_call():
    inner = keras.Sequential([keras.Input((3,)), L.Dense(3)])
    x = keras.Input((3,))
    assert macs(keras.Model(x, inner(inner(x)))) == [2 * 9]


def test_what_is_not_known_is_none():
    assert macs(zoo.custom()) == [None, 12 * 3]
    assert of(L.Conv2D(4, 3), None, None, 2) == [None]
    assert of(L.Dense(2), None, 4) == [None]
    assert of(L.LSTM(2), None, 4) == [None, None]
    assert uses(zoo.subclassed()) == {}


def test_a_layer_that_computes_otherwise_is_not_known():
    class Own(L.Dense):
        def call(self, x):
            return super().call(super().call(x))

    class Renamed(L.Dense):
        pass

    assert of(Own(3), 3) == [None]
    assert of(Renamed(3), 3) == [9]


def test_a_convolutional_network_agrees_with_tensorflows_profiler():
    model = keras.Sequential(
        [keras.Input((8, 8, 2)), L.Conv2D(4, 3, use_bias=False), L.Conv2D(3, 3, 2, use_bias=False),
         L.Flatten(), L.Dense(5, use_bias=False)]
    )  # fmt: skip
    assert sum(macs(model)) == 36 * 72 + 4 * 108 + 60
    assert flops(model) == anatomy(model).flops == 2 * (36 * 72 + 4 * 108 + 60)


def test_parameters_and_operations_of_the_alive_weights():
    model = keras.Sequential([keras.Input((4, 4, 1)), L.Conv2D(2, 3), L.Flatten(), L.Dense(3)])
    conv, dense = weights.prunable(model)
    mask = np.zeros((3, 3, 1, 2), bool)
    mask[0] = True
    found = anatomy(model, {conv: mask})
    assert (found.parameters, found.parameters_alive) == (18 + 2 + 24 + 3, 6 + 2 + 24 + 3)
    assert (found.flops, found.flops_alive) == (2 * (4 * 18 + 24), 2 * (4 * 6 + 24))
    both = anatomy(model, {conv: mask, dense: np.zeros((8, 3), bool)})
    assert (both.parameters_alive, both.flops_alive) == (6 + 2 + 3, 2 * 4 * 6)
    assert both.flops == found.flops
