"""`kl.tfmot.wrap`: what tfmot can prune is wrapped, and the rest is named."""

import numpy as np
import pytest

from keras_lottery import weights
from keras_lottery.tfmot import wrap
from keras_lottery.tfmot.callback import chosen
from keras_lottery.tfmot.importing import load
from keras_lottery.tfmot.views import ModelView, wrappers

tf_keras = load().keras
L = tf_keras.layers


def sequential(shape, *layers):
    return tf_keras.Sequential([tf_keras.Input(shape), *layers])


def test_wrap_skips_what_tfmot_cannot_prune_and_says_so():
    inner = sequential((6,), L.Dense(6, name="inner"))
    layers = [L.Reshape((6, 1)), L.Conv1D(2, 3, name="conv"), L.BatchNormalization(name="norm")]
    layers += [L.TimeDistributed(L.Dense(3), name="times"), L.Flatten()]
    model = sequential((6,), inner, *layers, L.Dense(3, name="out"))
    with pytest.warns(UserWarning, match="cannot prune the layer 'times' of class TimeDistributed"):
        wrapped = wrap(model)
    assert [w.layer.name for w in wrappers(wrapped)] == ["inner", "conv", "out"]
    x = np.ones((2, 6), np.float32)
    assert np.array_equal(wrapped(x), model(x))


def test_wrap_notes_the_layers_that_tfmot_would_silently_leave_dense():
    model = sequential((4, 4, 2), L.DepthwiseConv2D(2, name="depth"))
    with (
        pytest.warns(UserWarning, match="'depth' of class DepthwiseConv2D"),
        pytest.raises(ValueError, match=r"tfmot can prune no layer.*depth"),
    ):
        wrap(model)


def test_embeddings_are_pruned_only_if_asked_for():
    layers = [L.Embedding(5, 4, name="words"), L.Flatten(), L.Dense(2, name="out")]
    model = wrap(sequential((3,), *layers))
    model.compile("sgd", "mse")
    view = ModelView(model)
    found = {
        pattern: list(weights.prunable(view, chosen(view, pattern))) for pattern in (None, "words")
    }
    assert found == {None: ["out/kernel"], "words": ["words/embeddings"]}
