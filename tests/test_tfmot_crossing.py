"""Tickets go from tf_keras models that tfmot wraps to Keras 3 models and back, bit for bit."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_lottery as kl
from keras_lottery import weights
from keras_lottery.tfmot import crossing, importing
from keras_lottery.tfmot.wrapping import wrap

tfmot, tf_keras = importing.load()
T = tf_keras.layers


def dense(lib):
    layers = lib.layers
    return lib.Sequential(
        [lib.Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(2)]
    )


def conv(lib):
    layers = lib.layers
    return lib.Sequential(
        [
            lib.Input((6, 6, 2)),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(2),
            layers.Conv2DTranspose(3, 2),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def recurrent(lib):
    layers = lib.layers
    return lib.Sequential(
        [
            lib.Input((4, 3)),
            layers.LSTM(2, return_sequences=True),
            layers.GRU(3, reset_after=True),
            layers.Dense(2),
        ]
    )


def attention(lib):
    x = lib.Input((4, 8))
    h = lib.layers.MultiHeadAttention(2, 4)(x, x)
    h = lib.layers.LayerNormalization()(h)
    return lib.Model(x, lib.layers.Dense(2)(lib.layers.Flatten()(h)))


def nested(lib):
    inner = lib.Sequential([lib.Input((5,)), lib.layers.Dense(4), lib.layers.Dense(3)])
    return lib.Sequential([lib.Input((4,)), lib.layers.Dense(5), inner, lib.layers.Dense(2)])


def swapped(lib):
    """Layers of one shape and of given names; Keras 3's are created in the other order."""
    x = lib.Input((3,))
    first, second = ("a", "b") if lib is tf_keras else ("b", "a")
    h = {n: lib.layers.Dense(3, name=n)(x) for n in (first, second)}
    order = [h[first], h[second]]
    return lib.Model(x, lib.layers.Concatenate()(order))


BUILDERS = [dense, conv, recurrent, attention, nested, swapped]


def wrapped(build, seed=0):
    """A wrapped tf_keras model of random weights, statistics and tfmot masks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "tfmot cannot prune the layer 'depthwise_conv2d")
        model = wrap(build(tf_keras))
    rng = np.random.default_rng(seed)
    for variable in crossing._weights(model).values():
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    for mask in crossing._mask_variables(model).values():
        mask.assign(rng.integers(0, 2, mask.shape))
    return model


def assert_same(ticket, other):
    for one, two in ((ticket.weights, other.weights), (ticket.masks, other.masks)):
        assert list(one) == list(two)
        assert all(np.array_equal(value, two[path]) for path, value in one.items())
        assert all(value.dtype == two[path].dtype for path, value in one.items())


def test_masks_and_weights_are_those_of_the_wrapper():
    model = tf_keras.Sequential([tf_keras.Input((2,)), T.Dense(2, name="out")])
    model = tfmot.sparsity.keras.prune_low_magnitude(model)
    layer = model.layers[0]
    layer.layer.kernel.assign([[1.0, 2.0], [3.0, 4.0]])
    layer.pruning_vars[0][1].assign([[1.0, 0.0], [0.0, 1.0]])
    ticket = crossing.ticket_of(model)
    assert ticket.masks["out/kernel"].tolist() == [[True, False], [False, True]]
    assert ticket.weights["out/kernel"].tolist() == [[1, 0], [0, 4]]
    assert list(ticket.weights) == ["out/kernel", "out/bias"]
    assert layer.layer.kernel.numpy().tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("build", BUILDERS)
def test_there_and_back_bit_for_bit(build, tmp_path):
    model = wrapped(build)
    ticket = crossing.ticket_of(model)
    assert 0 < ticket.density < 1
    ticket.save(tmp_path / "ticket.safetensors")
    ticket = kl.Ticket.load(tmp_path / "ticket.safetensors")
    here = build(keras)
    handle = crossing.to_keras3(ticket, here)
    assert len(handle.masks) == len(ticket.masks)
    there = kl.Ticket.of(here, handle.masks)
    fresh = wrapped(build, seed=1)
    crossing.put(there, fresh)
    # Equal names only where the layers' are given; the order of the variables is the same.
    again = crossing.ticket_of(fresh)
    for one, two in ((ticket.weights, again.weights), (ticket.masks, again.masks)):
        for value, other in zip(one.values(), two.values(), strict=True):
            assert value.tobytes() == other.tobytes() and value.shape == other.shape


@pytest.mark.parametrize("build", BUILDERS[:-1])
def test_both_models_compute_the_same(build):
    model = wrapped(build)
    there = tfmot.sparsity.keras.strip_pruning(model)
    crossing.put(crossing.ticket_of(model), there)
    here = build(keras)
    crossing.to_keras3(crossing.ticket_of(there), here)
    x = np.random.default_rng(0).normal(size=(2, *here.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(here(x), there(x), rtol=1e-4, atol=1e-4)


def test_the_zeros_of_a_stripped_model_are_what_is_pruned():
    model = wrapped(recurrent)
    before = crossing.ticket_of(model)
    crossing.put(before, model)
    after = crossing.ticket_of(tfmot.sparsity.keras.strip_pruning(model))
    assert_same(before, after)


def test_layers_of_equal_names_match_whatever_their_order():
    ticket = crossing.ticket_of(wrapped(swapped))
    here = swapped(keras)
    assert here.weights[0].path == "b/kernel"
    crossing.to_keras3(ticket, here)
    for name in "ab":
        kernel = here.get_layer(name).kernel.numpy()
        np.testing.assert_array_equal(kernel, ticket.weights[f"{name}/kernel"])


def test_weights_that_tf_keras_builds_in_another_order_match_by_name():
    ticket = kl.Ticket(
        {}, {"cell/recurrent": np.ones((2, 2)), "cell/kernel": np.zeros((2, 2), np.float32)}
    )

    class Cell(L.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(2, 2), name="kernel")
            self.recurrent = self.add_weight(shape=(2, 2), name="recurrent")

        def call(self, x):
            return x @ self.kernel @ self.recurrent

    model = keras.Sequential([keras.Input((2,)), Cell(name="cell")])
    crossing.to_keras3(ticket, model)
    assert [v.numpy().mean() for v in model.weights] == [0, 1]


def test_a_crossed_ticket_trains_sparse_and_keeps_its_masks():
    here = dense(keras)
    ticket = crossing.ticket_of(wrapped(dense))
    handle = crossing.to_keras3(ticket, here)
    here.compile("sgd", "mse")
    here.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0)
    found = weights.read(weights.all_weights(here))
    for path, mask in handle.masks.items():
        np.testing.assert_array_equal(found[path] != 0, mask)


def test_a_ticket_put_into_a_wrapped_model_holds_in_its_forward_pass():
    model = wrapped(dense)
    ticket = crossing.ticket_of(model)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    stripped = dense(tf_keras)
    crossing.put(ticket, stripped)
    fresh = wrapped(dense, seed=3)
    crossing.put(ticket, fresh)
    np.testing.assert_allclose(fresh(x, training=False), stripped(x), rtol=1e-6)
    for path, mask in crossing._mask_variables(fresh).items():
        position = list(crossing._mask_variables(fresh)).index(path)
        np.testing.assert_array_equal(mask.numpy() == 1, list(ticket.masks.values())[position])


def test_wrappers_without_a_mask_in_the_ticket_are_alive():
    ticket = crossing.ticket_of(wrapped(dense))
    first = next(iter(ticket.masks))
    part = kl.Ticket({first: ticket.masks[first]}, ticket.weights)
    model = wrapped(dense, seed=5)
    crossing.put(part, model)
    found = list(crossing.ticket_of(model).masks.values())
    np.testing.assert_array_equal(found[0], ticket.masks[first])
    assert found[1].all() and found[1].size


def test_the_wrong_kind_of_model_is_refused():
    ticket = crossing.ticket_of(wrapped(dense))
    for call in (crossing.ticket_of, lambda m: crossing.put(ticket, m)):
        with pytest.raises(ValueError, match=r"tf_keras .*Received: Sequential .* of keras"):
            call(dense(keras))
    with pytest.raises(ValueError, match=r"Expected a Keras 3 model.*of tf_keras.*put"):
        crossing.to_keras3(ticket, dense(tf_keras))


def test_models_without_weights_or_masks_are_refused():
    bare = tf_keras.Sequential([T.Dense(2)])
    with pytest.raises(ValueError, match="is not built"):
        crossing.ticket_of(bare)
    with pytest.raises(ValueError, match="is not built"):
        crossing.to_keras3(crossing.ticket_of(wrapped(dense)), keras.Sequential([L.Dense(2)]))
    norm = tf_keras.Sequential([tf_keras.Input((2,)), T.BatchNormalization()])
    norm = tfmot.sparsity.keras.prune_low_magnitude(norm)
    for call in (crossing.ticket_of, lambda m: crossing.put(kl.Ticket({}, {}), m)):
        with pytest.raises(ValueError, match="keeps no mask in any"):
            call(norm)


def test_another_architecture_is_refused_and_nothing_is_written():
    ticket = crossing.ticket_of(wrapped(dense))
    model, here = wrapped(conv), conv(keras)
    before = [v.numpy() for v in (*model.weights, *here.weights)]
    for call in (crossing.put, crossing.to_keras3):
        with pytest.raises(ValueError, match="First mismatch: it has"):
            call(ticket, model if call is crossing.put else here)
    short = tf_keras.Sequential([tf_keras.Input((4,)), T.Dense(3)])
    with pytest.raises(ValueError, match="it has 8 variables, the model 2"):
        crossing.put(ticket, short)
    after = [v.numpy() for v in (*model.weights, *here.weights)]
    assert all(map(np.array_equal, before, after))


def test_a_pruned_layer_without_a_wrapper_is_refused():
    plain = dense(tf_keras)
    wrapper = tfmot.sparsity.keras.prune_low_magnitude(plain.layers[0])
    partly = tf_keras.Sequential([tf_keras.Input((4,)), wrapper, *plain.layers[1:]])
    before = [v.numpy() for v in partly.weights]
    with pytest.raises(ValueError, match="tfmot keeps no mask for it"):
        crossing.put(crossing.ticket_of(wrapped(dense)), partly)
    assert all(map(np.array_equal, before, [v.numpy() for v in partly.weights]))
