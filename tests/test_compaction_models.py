"""Layers called twice, models in models, and what stays whole and why."""

import keras
import numpy as np
import pytest
from keras import layers as L
from test_compaction_rules import alive, batch, chain, fill, kill, shapes, small

from keras_lottery.compaction.planning import plan
from keras_lottery.compaction.rebuilding import rebuild

Input, Model = keras.Input, keras.Model


def left(model):
    return plan(model, alive).context.left


def width(model, name):
    return model.get_layer(name).output.shape[-1]


# Layers called twice --------------------------------------------------------------------------


def test_inputs_of_a_shared_layer_lose_the_same_channels():
    x, y = Input((3,)), Input((3,))
    shared = L.Dense(2, name="shared")
    a, b = L.Dense(4, name="a")(x), L.Dense(4, name="b")(y)
    model = Model([x, y], L.Dense(1)(shared(a) - shared(b)))
    fill(model)
    kill(shared, inputs=[1])
    kill(model.get_layer("a"), outputs=[2], bias=1)  # constant in one of the calls only
    made = small(model)
    assert (width(made, "a"), width(made, "b")) == (3, 3)
    assert shapes(made.get_layer("shared"))[0] == (3, 2)


def test_what_one_call_of_a_shared_layer_keeps_the_other_keeps_too():
    x = Input((3,))
    shared = L.Dense(2, name="shared")
    a, b = L.Dense(4, name="a")(x), L.Dense(4, name="b")(x)
    model = Model(x, L.Concatenate()([shared(a), shared(b), L.Dense(1, name="other")(a)]))
    fill(model)
    kill(shared, inputs=[1, 2])
    kill(model.get_layer("other"), inputs=[0, 2])
    made = small(model)
    assert (width(made, "a"), width(made, "b")) == (3, 3)


def test_constants_that_differ_between_the_calls_of_a_layer_stay():
    x = Input((3,))
    shared = L.Dense(2)
    a, b = L.Dense(4, name="a")(x), L.Dense(4, name="b")(x)
    model = Model(x, shared(a) * shared(b))
    fill(model)
    kill(model.get_layer("a"), outputs=[2], bias=1)
    kill(model.get_layer("b"), outputs=[2], bias=5)
    assert width(small(model), "a") == 4


def test_layers_without_weights_tie_nothing_together():
    x = Input((3,))
    relu, add = L.ReLU(), L.Add()
    a, b, c = (L.Dense(4, name=name)(x) for name in "abc")
    joined = L.Concatenate()([add([relu(a), relu(b)]), add([c, c, c])])
    model = Model(x, L.Dense(1, name="out")(joined))
    fill(model)
    kill(model.get_layer("out"), inputs=[0, 5, 6])
    made = small(model)
    assert [width(made, name) for name in "abc"] == [3, 3, 2]


def test_a_reshape_called_on_two_sizes():
    x = Input((3,))
    reshape = L.Reshape((-1, 4))
    a, b = L.Dense(8, name="a")(x), L.Dense(16, name="b")(x)
    conv = L.Conv1D(2, 1, name="conv")
    model = Model(x, L.Concatenate(axis=1)([conv(reshape(a)), conv(reshape(b))]))
    fill(model)
    kill(conv, inputs=[3])
    made = small(model)
    assert (width(made, "a"), width(made, "b")) == (6, 12)


@pytest.mark.parametrize("first", [True, False])
def test_a_layer_left_at_one_call_is_left_at_all(first):
    x = Input((3,))
    norm = L.BatchNormalization(name="norm")
    a, b = L.Dense(4, name="a")(x), L.Dense(4, name="b")(x)
    calls = [lambda: norm(a, training=True), lambda: norm(b)]
    outputs = [L.Dense(1)(call()) for call in (calls if first else calls[::-1])]
    model = Model(x, outputs)
    fill(model)
    for layer in model.layers[-2:]:
        kill(layer, inputs=[0, 1])
    made = rebuild(plan(model, alive)).model
    assert (width(made, "a"), width(made, "b")) == (4, 4)
    assert left(model) == {"norm": "it is called with training"}
    for old, new in zip(model.weights, made.weights, strict=True):
        assert np.array_equal(old.numpy(), new.numpy())


# Models in models -----------------------------------------------------------------------------


def encoder(name="encoder"):
    return keras.Sequential([Input((4,)), L.Dense(5, "relu"), L.Dense(3)], name=name)


def test_units_go_inside_a_nested_model_and_across_its_border():
    inner = encoder()
    model = chain((2,), L.Dense(4), inner, L.Dense(1))
    fill(model)
    kill(inner.layers[0], inputs=[0], outputs=[1], bias=3)
    kill(model.layers[-1], inputs=[2])
    made = small(model)
    nested = made.get_layer("encoder")
    assert isinstance(nested, keras.Sequential)
    assert made.layers[0].units == 3
    assert nested.input_shape == (None, 3)
    assert [x.units for x in nested.layers] == [4, 2]


def test_a_nested_model_called_twice_is_one_model():
    x, y = Input((2,)), Input((2,))
    inner, first = encoder(), L.Dense(4)
    model = Model([x, y], L.Dense(1)(L.Concatenate()([inner(first(x)), inner(first(y))])))
    fill(model)
    kill(inner.layers[0], inputs=[0])
    kill(inner.layers[1], inputs=[1, 2])
    made = small(model)
    assert [layer.name for layer in made.layers].count("encoder") == 1
    assert made.get_layer("encoder").layers[0].units == 3


def test_what_goes_into_a_nested_model_keeps_one_width():
    x = Input((2,))
    inner = encoder()
    a, b = L.Dense(4, name="a")(x), L.Dense(4, name="b")(x)
    model = Model(x, L.Concatenate()([inner(a), inner(b), L.Dense(1, name="other")(a)]))
    fill(model)
    kill(inner.layers[0], inputs=[1, 2])
    kill(model.get_layer("other"), inputs=[0, 2])
    made = small(model)
    assert made.get_layer("encoder").input_shape == (None, 3)
    assert (width(made, "a"), width(made, "b")) == (3, 3)


def test_a_nested_model_without_weights_keeps_one_width_too():
    inside = Input((4,))
    inner = Model(inside, L.ReLU()(inside))
    x = Input((3,))
    a, b = L.Dense(4, name="a")(x), L.Dense(4, name="b")(x)
    model = Model(x, [L.Dense(1, name="out")(inner(a)), L.Dense(1, name="other")(inner(b))])
    fill(model)
    kill(model.get_layer("out"), inputs=[0, 1])
    kill(model.get_layer("other"), inputs=[1, 2])
    made = small(model)
    assert (width(made, "a"), width(made, "b")) == (3, 3)


def test_a_model_in_a_model_in_a_model():
    inner = encoder()
    middle = keras.Sequential([Input((4,)), inner, L.Dense(3)], name="middle")
    x = Input((4,))
    model = Model(x, L.Dense(1)(L.Add()([middle(x), inner(x)])))
    fill(model)
    kill(inner.layers[1], inputs=[0, 1])
    made = small(model)
    assert made.get_layer("middle").get_layer("encoder") is made.get_layer("encoder")
    assert made.get_layer("encoder").layers[0].units == 3


def by_name():
    a, b = Input((4,), name="z"), Input((4,), name="a")
    return Model({"z": a, "a": b}, {"sum": L.Dense(3)(L.Concatenate()([L.Dense(2)(a), b]))})


def test_a_nested_model_with_named_inputs_and_outputs():
    x, y = Input((2,)), Input((2,))
    inner, a, b = by_name(), L.Dense(4, name="za"), L.Dense(4, name="ab")
    model = Model([x, y], L.Dense(2)(inner({"z": a(x), "a": b(y)})["sum"]))
    fill(model)
    kill(inner.layers[-1], inputs=[2, 3])  # behind the two of "z", the first two of "a"
    made = small(model)
    assert (width(made, "za"), width(made, "ab")) == (4, 2)


def test_a_model_keeps_the_names_of_its_inputs_and_outputs():
    model = by_name()
    fill(model)
    kill(model.layers[-1], inputs=[1])
    x = {"z": np.ones((3, 4), "float32"), "a": np.zeros((3, 4), "float32")}
    made = small(model, x)
    assert set(made.output) == {"sum"} and set(made.input) == {"z", "a"}
    assert {t.name for t in made.inputs} == {"z", "a"}


def test_a_nested_model_given_its_inputs_in_another_form_is_left():
    a, b = Input((4,), name="z"), Input((4,), name="a")
    inner = Model([a, b], L.Dense(3)(L.Concatenate()([L.Dense(2)(a), b])), name="inner")
    x, y = Input((2,)), Input((2,))
    model = Model([x, y], L.Dense(1)(inner({"z": L.Dense(4)(x), "a": L.Dense(4)(y)})))
    fill(model)
    kill(inner.layers[-1], inputs=[2, 3])
    assert left(model) == {"inner": "its inputs are not given in its own order"}
    small(model)


def test_a_nested_model_called_in_training_is_left():
    inner = keras.Sequential([Input((4,)), L.Dense(5), L.BatchNormalization()], name="inner")
    x = Input((4,))
    model = Model(x, L.Dense(2)(inner(x, training=True)))
    fill(model)
    kill(inner.layers[0], outputs=[1], bias=3)
    assert left(model) == {"inner": "it is called with training"}
    made = rebuild(plan(model, alive)).model
    x = batch(model)
    np.testing.assert_allclose(made(x), model(x), atol=1e-5)


def test_a_frozen_nested_model_stays_frozen():
    inner = encoder()
    inner.trainable = False
    inner.layers[0].trainable = True  # has no effect under a frozen model
    x = Input((4,))
    model = Model(x, L.Dense(2)(inner(x, training=False)))
    fill(model)
    kill(inner.layers[1], inputs=[0])
    made = small(model)
    assert made.get_layer("encoder").layers[0].units == 4
    assert len(made.trainable_weights) == 2


@pytest.mark.parametrize(("length", "kept"), [(None, 4), (6, 5)])
def test_a_nested_model_called_on_an_unknown_length_is_left_at_all_calls(length, kept):
    inner = keras.Sequential([Input((length, 4)), L.Conv1D(5, 1), L.Conv1D(3, 2)], name="inner")
    x, y = Input((6, 4)), Input((None, 4))
    model = Model([x, y], [inner(L.Dense(4, name="before")(x)), L.Dense(2)(inner(y))])
    fill(model)
    kill(inner.layers[1], inputs=[0])
    kill(inner.layers[0], inputs=[0])
    why = {"inner": "it is called on another shape than it was made for"}
    assert left(model) == ({} if length is None else why)
    x = [np.ones((2, 6, 4), "float32"), np.ones((2, 6, 4), "float32")]
    assert small(model, x).get_layer("inner").layers[0].filters == kept


def test_a_nested_model_of_any_width_keeps_it_open():
    inside = Input((None,))
    inner = Model(inside, L.ReLU()(inside), name="inner")
    x = Input((3,))
    a, b = L.Dense(4, name="a")(x), L.Dense(6, name="b")(x)
    model = Model(x, [L.Dense(1, name="out")(inner(a)), L.Dense(1)(inner(b))])
    fill(model)
    kill(model.get_layer("out"), inputs=[0])
    made = small(model)
    assert (width(made, "a"), width(made, "b")) == (3, 6)
    assert made.get_layer("inner").input_shape == (None, None)


# What stays whole, and why --------------------------------------------------------------------


class Doubled(L.Layer):
    def call(self, x):
        return 2 * x


class OwnDense(L.Dense):
    def call(self, x):
        return super().call(x) + 1


class OwnSequential(keras.Sequential):
    def call(self, x, training=None, mask=None):
        return super().call(x) + 1


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (Doubled, "no rule for Doubled"),
        (lambda: L.Lambda(lambda x: x * WEIGHT), "no rule for Lambda"),
        (L.LayerNormalization, "no rule for LayerNormalization"),
        (lambda: OwnDense(4), "no rule for OwnDense"),
        (lambda: L.TimeDistributed(L.Dense(4)), "no rule for TimeDistributed"),
        (lambda: L.LSTM(4, return_sequences=True), "no rule for LSTM"),
        (lambda: L.Bidirectional(L.GRU(2, return_sequences=True)), "no rule for Bidirectional"),
        (lambda: OwnSequential([Input((3, 4)), L.Dense(4)]), "no rule for OwnSequential"),
        (lambda: L.Activation("softmax"), "its activation mixes channels or is unknown"),
        (lambda: L.PReLU(shared_axes=[1, 2]), "its slopes are shared by channels"),
        (lambda: L.BatchNormalization(axis=1), "it normalizes another axis than the last"),
    ],
)
def test_the_neighbours_of_a_layer_that_is_not_understood_stay(layer, why):
    made_layer = layer()
    model = chain((3, 2), L.Dense(4), made_layer, L.Dense(5), L.Dense(1))
    fill(model)
    kill(model.layers[0], outputs=[0], bias=0)
    kill(model.layers[2], inputs=[1])
    kill(model.layers[3], inputs=[2])
    assert left(model) == {made_layer.name: why}
    made = small(model)
    assert [made.layers[0].units, made.layers[2].units] == [4, 4]


WEIGHT = 3.0


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        (lambda x: x[:, 1:], "no rule for GetItem"),
        (lambda x: x * 2.0, "it is called with constants"),
        (lambda x: keras.ops.average(x, axis=1), "no rule for Average"),
        (lambda x: L.Dropout(0.0, name="op")(x, training=True), "it is called with training"),
    ],
)
def test_operations_that_are_not_understood_leave_their_neighbours(operation, why):
    x = Input((2, 3))
    model = Model(x, L.Dense(1)(operation(L.Dense(4, name="before")(x))))
    fill(model)
    kill(model.layers[-1], inputs=[0])
    assert list(left(model).values()) == [why]
    assert width(small(model), "before") == 4


class Add(keras.Operation):
    """Of the name of one of Keras's own."""

    def call(self, x, y):
        return keras.ops.flip(x, -1) + y

    def compute_output_spec(self, x, y):
        return keras.KerasTensor(x.shape, x.dtype)


def test_an_operation_of_the_user_is_not_understood_by_its_name():
    x = Input((3,))
    y = L.Dense(4, name="before")(x)
    model = Model(x, L.Dense(1)(Add()(y, y)))
    fill(model)
    kill(model.layers[-1], inputs=[0])
    assert width(small(model), "before") == 4


def test_a_nested_model_that_casts_its_input_is_left():
    inside = Input((3,), dtype="int32")
    inner = Model(inside, L.Dense(2)(L.Flatten()(inside)), name="inner")
    x = Input((3,))
    model = Model(x, inner(L.Dense(3, "sigmoid", name="before")(x)))
    fill(model)
    kill(model.get_layer("before"), outputs=[0], bias=3)
    assert left(model) == {"inner": "it is called on another dtype than it was made for"}
    assert width(small(model), "before") == 3


def test_masks_of_positions_pass_by():
    words = Input((5,), dtype="int32")
    x = L.Embedding(6, 4, mask_zero=True, name="table")(words)
    x = L.Dense(3, name="dense")(L.BatchNormalization()(x))
    model = Model(words, L.Dense(2, name="out")(L.GlobalAveragePooling1D()(x)))
    fill(model)
    kill(model.get_layer("dense"), inputs=[1])
    kill(model.get_layer("out"), inputs=[0])
    made = small(model, np.array([[1, 2, 0, 0, 0], [0, 3, 4, 5, 0]]))
    assert (width(made, "table"), width(made, "dense")) == (3, 2)
    assert left(model) == {}
