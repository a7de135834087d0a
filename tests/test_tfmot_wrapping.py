"""`kl.tfmot.wrap`: what tfmot can prune is wrapped, and the rest is named."""

import numpy as np
import pytest

from keras_lottery import weights
from keras_lottery.tfmot import LotteryCallback, wrap
from keras_lottery.tfmot.callback import chosen
from keras_lottery.tfmot.importing import load
from keras_lottery.tfmot.views import ModelView, wrappers
from keras_lottery.tfmot.wrapping import never

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


class Own(tf_keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_a_subclassed_model_is_told_to_wrap_its_layers_itself():
    own = Own()
    own(np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"'own' is a subclassed.*prune_low_magnitude"):
        wrap(own)
    with pytest.raises(ValueError, match=r"'own' is a subclassed.*prune_low_magnitude"):
        wrap(sequential((2,), Own(), L.Dense(2)))


def test_what_the_error_for_a_subclassed_model_proposes_works():
    model = Own()
    model.dense = load().tfmot.sparsity.keras.prune_low_magnitude(L.Dense(2), never())
    model(np.ones((1, 2)))
    model.compile("sgd", "mse")
    lottery = LotteryCallback(1, 0.5, verbose=0)
    x = np.random.default_rng(0).normal(size=(4, 2))
    model.fit(x, x, epochs=2, verbose=0, callbacks=[lottery])
    assert [r.density for r in lottery.rounds] == [1.0, 0.5]


def test_a_layer_used_in_an_inner_model_and_outside_gets_one_wrapper():
    shared = L.Dense(4, name="shared")
    inner_x, x = tf_keras.Input((4,)), tf_keras.Input((4,))
    inner = tf_keras.Model(inner_x, shared(inner_x))
    model = tf_keras.Model(x, L.Dense(2, name="out")(shared(inner(x))))
    wrapped = wrap(model)
    found = {id(w): w.layer.name for w in wrappers(wrapped)}
    assert sorted(found.values()) == ["out", "shared"]
    value = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    assert np.array_equal(wrapped(value), model(value))
    wrapped.compile("sgd", "mse")
    lottery = LotteryCallback(1, 0.5, scope="layerwise", verbose=0)
    wrapped.fit(value, value[:, :2], epochs=2, verbose=0, callbacks=[lottery])
    assert [float(np.mean(w.pruning_vars[0][1])) for w in wrappers(wrapped)] == [0.5] * 3
