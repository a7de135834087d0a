"""Alive first-layer weights of each pixel."""

import keras
import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L

from keras_lottery import Ticket, weights
from keras_lottery.analysis.pixels import alive_per_pixel


def kernels(model, keep=lambda shape: np.ones(shape, bool)):
    return {p: keep(tuple(v.shape)) for p, v in weights.prunable(model).items()}


def test_four_pixels_by_hand():
    kernel = np.array([[1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1]], bool)
    found = alive_per_pixel({"w": kernel}, (2, 2))
    assert found.tolist() == [[3, 1], [0, 2]] and found.dtype == np.int64


def test_channels_are_summed():
    kernel = np.array([[1, 1], [1, 0], [0, 0], [0, 0], [0, 1], [0, 0]], bool)
    assert alive_per_pixel({"w": kernel}, (1, 3, 2)).tolist() == [[3, 0, 1]]
    assert alive_per_pixel({"w": kernel}, (3, 1, 2)).tolist() == [[3], [0], [1]]


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(1, 5)] * 4), st.integers(0, 10**6))
def test_each_alive_weight_is_counted_at_its_pixel(sizes, seed):
    height, width, channels, units = sizes
    kernel = np.random.default_rng(seed).random(sizes) < 0.4
    flat = kernel.reshape(-1, units)
    found = alive_per_pixel({"w": flat}, (height, width, channels))
    assert np.array_equal(found, kernel.sum(axis=(2, 3)))


def test_a_pixel_is_where_the_model_reads_it():
    model = keras.Sequential([keras.Input((3, 4, 2)), L.Flatten(), L.Dense(5, use_bias=False)])
    image = np.zeros((1, 3, 4, 2))
    image[0, 1, 2] = 1
    kernel = model.layers[1].kernel
    kernel.assign(np.ones(kernel.shape))
    reads = model(image).numpy().sum() / 2
    masks = kernels(model, lambda shape: np.zeros(shape, bool))
    masks[kernel.path][2 * (4 + 2)] = True
    picture = alive_per_pixel(Ticket.of(model, masks), (3, 4, 2))
    assert reads == picture.sum() == picture[1, 2] == 5


def test_the_first_layer_that_reads_the_image_is_taken_or_the_one_named():
    masks = {"a": np.ones((4, 3), bool), "b": np.ones((4, 2), bool)}
    assert alive_per_pixel(masks, (2, 2)).max() == 3
    assert alive_per_pixel(masks, (2, 2), path="b").max() == 2


def test_a_dense_layer_beside_a_convolution_is_found():
    x = keras.Input((8, 8, 1))
    h = L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(x))
    y = L.Concatenate()([h, L.Dense(6, name="beside")(L.Flatten()(x))])
    masks = kernels(keras.Model(x, L.Dense(3)(y)))
    assert np.array_equal(alive_per_pixel(masks, (8, 8, 1)), np.full((8, 8), 6))


def test_a_convolution_belongs_to_no_pixel():
    masks = kernels(zoo.conv())
    with pytest.raises(ValueError, match=r"shape \(64, units\).*a convolution's"):
        alive_per_pixel(masks, (8, 8, 1))
    with pytest.raises(ValueError, match=r"Received: \(3, 3, 1, 4\). It is a convolution's"):
        alive_per_pixel(masks, (8, 8, 1), path=next(iter(masks)))


def test_a_wrong_shape_or_path_is_refused():
    masks = {"w": np.ones((4, 3), bool)}
    with pytest.raises(ValueError, match=r"\(9, units\).*\(4, 3\).*Does `input_shape` fit"):
        alive_per_pixel(masks, (3, 3))
    with pytest.raises(ValueError, match=r"\(9, units\).*Received: \(4, 3\)"):
        alive_per_pixel(masks, (3, 3), path="w")
    with pytest.raises(ValueError, match=r"`path` must be one of \['w'\]. Received: 'v'"):
        alive_per_pixel(masks, (2, 2), path="v")
    for shape in [(4,), (None, 2, 2), (1, 2, 2, 1), ()]:
        with pytest.raises(ValueError, match=r"`input_shape` must be \(height, width\)"):
            alive_per_pixel(masks, shape)
