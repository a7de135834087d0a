"""What the smaller model keeps of the one that it was made of, which is left as it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from test_compaction_rules import alive, batch, chain, fill, give, kill, near, shapes, small

from keras_lottery import enforcement
from keras_lottery.compaction.planning import plan
from keras_lottery.compaction.rebuilding import rebuild

Input, Model = keras.Input, keras.Model
WEIGHT = 3.0


def test_the_model_itself_is_left_as_it_was():
    model = chain((3,), L.Dense(4, name="hidden"), L.Dense(2))
    fill(model)
    kill(model.layers[1], inputs=[0])
    masks = {v.path: v.numpy() != 0 for v in model.weights if v.name == "kernel"}
    enforcement.enforce(model, masks)
    before = [w.numpy() for w in model.weights]
    small(model)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.weights, strict=True))
    features = Model(model.inputs[0], model.get_layer("hidden").output)
    assert features(batch(model)).shape == (4, 4)
    model.compile("sgd", "mse")
    model.fit(batch(model), np.ones((4, 2)), verbose=0)
    assert not model.layers[1].kernel.numpy()[0].any()
    assert model.layers[1].kernel.numpy()[1:].all()


def test_names_and_settings_are_kept():
    x = Input((3,), name="pixels")
    hidden = L.Dense(4, "relu", name="hidden", kernel_regularizer="l2", trainable=False)
    model = Model(x, L.Dense(2, name="out", kernel_initializer="he_normal")(hidden(x)), name="net")
    fill(model)
    kill(model.layers[-1], inputs=[0])
    made = small(model)
    assert (made.name, made.inputs[0].name) == ("net", "pixels")
    assert [layer.name for layer in made.layers] == ["pixels", "hidden", "out"]
    assert isinstance(made.get_layer("hidden").kernel_regularizer, keras.regularizers.L2)
    assert isinstance(made.get_layer("out").kernel_initializer, keras.initializers.HeNormal)
    assert not made.get_layer("hidden").trainable


def test_sparse_inputs_stay_sparse():
    x = Input((3,), sparse=True)
    model = Model(x, L.Dense(2)(L.Dense(4)(x)))
    fill(model)
    kill(model.layers[-1], inputs=[1])
    assert rebuild(plan(model, alive)).model.inputs[0].sparse


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_float16", 2e-3), ("float64", 1e-6), ("bfloat16", 2e-2)]
)
def test_other_dtypes(policy, tolerance):
    keras.config.set_dtype_policy(policy)
    inner = keras.Sequential([Input((3,)), L.Dense(4, "sigmoid"), L.Dense(3)])
    model = chain((3,), L.Dense(3, "relu"), inner, L.BatchNormalization(), L.Dense(2))
    fill(model)
    kill(inner.layers[0], outputs=[1], bias=1)
    kill(inner.layers[1], inputs=[2])
    keras.config.set_dtype_policy("float32")
    made = rebuild(plan(model, alive)).model
    x = batch(model).astype(model.inputs[0].dtype)
    a, b = (np.array(m(x)).astype("float64") for m in (model, made))
    np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * np.abs(a).max())
    assert made.layers[1].layers[0].units == 2
    assert [w.dtype for w in made.weights] == [w.dtype for w in model.weights]
    assert made.layers[0].dtype_policy.name == policy


def test_functions_of_the_user_need_no_registration():
    def clipped(x):
        return keras.ops.clip(x, 0, 1)

    model = chain((3,), L.Dense(4), L.Dense(3, clipped), L.Lambda(lambda x: x * WEIGHT))
    fill(model)
    kill(model.layers[1], inputs=[0])
    assert small(model).layers[0].units == 3


def test_initializers_made_for_the_whole_shape_are_dropped():
    words = Input((3,), dtype="int32")
    table = np.arange(20).reshape(5, 4)
    x = L.Embedding(5, 4, embeddings_initializer=keras.initializers.Constant(table))(words)
    model = Model(words, L.Dense(1, bias_initializer=keras.initializers.Constant(0.5))(x))
    kill(model.layers[-1], inputs=[0])
    made = small(model, np.array([[0, 1, 4]]))
    assert shapes(made.layers[1]) == [(5, 3)]
    assert isinstance(made.layers[1].embeddings_initializer, keras.initializers.Zeros)
    assert made.layers[2].bias_initializer.value == 0.5


def test_what_preprocessing_learned_is_kept():
    normalization, lookup = L.Normalization(), L.StringLookup()
    normalization.adapt(np.array([[1.0], [5.0]]))
    lookup.adapt(np.array(["a", "b", "c"]))
    x, words = Input((1,)), Input((1,), dtype="string")
    table = L.Flatten()(L.Embedding(4, 3)(lookup(words)))
    model = Model([x, words], L.Dense(2)(L.Concatenate()([L.Dense(3)(normalization(x)), table])))
    kill(model.layers[-1], inputs=[0, 4])
    inputs = [tf.constant([[1.0], [9.0]]), tf.constant([["b"], ["z"]])]
    made = small(model, inputs)
    assert shapes(made.layers[-1])[0] == (4, 2)


@pytest.mark.filterwarnings("ignore:.*does not have a `get_config")
def test_a_layer_that_cannot_be_copied_is_named():
    class Scaled(L.Layer):
        def __init__(self, factor, **kwargs):
            super().__init__(**kwargs)
            self.factor = keras.ops.convert_to_tensor(factor)

        def call(self, x):
            return x * self.factor

        def get_config(self):
            raise NotImplementedError("no config")

    model = chain((3,), L.Dense(4), Scaled(2.0, name="scaled"))
    with pytest.raises(ValueError, match=r"The layer 'scaled' \(Scaled\) cannot be copied"):
        rebuild(plan(model, alive))


MODELS = {
    "dense": lambda: chain((6,), L.Dense(8, "relu"), L.Dense(8, "sigmoid"), L.Dense(3)),
    "groups": lambda: chain(
        (6, 4), L.Conv1D(8, 2, padding="same"), L.Conv1D(8, 1, groups=4), L.Flatten(), L.Dense(3)
    ),
    "attention": lambda: Model(
        x := Input((4, 6)), L.Dense(3)(L.MultiHeadAttention(3, 3)(y := L.Dense(5)(x), y))
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(4))
def test_a_second_time_changes_nothing(name, seed):
    model = MODELS[name]()
    fill(model, seed)
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if variable.name != "bias":
            array = variable.numpy() * (rng.random(variable.shape) < 0.5)
            array[..., rng.random(array.shape[-1]) < 0.4] = 0
            variable.assign(array)
    once = small(model)
    twice = small(once)
    assert once.count_params() < model.count_params()
    for a, b in zip(once.weights, twice.weights, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_a_constant_of_a_zero_row_leaves_no_trace():
    model = chain((2,), L.Dense(2), L.Dense(1, use_bias=False))
    give(model.layers[0], [[1, 0], [4, 0]], [7, 2])
    give(model.layers[1], [[1], [0]])
    made = small(model)
    assert not made.layers[1].use_bias
    near(made.layers[1].kernel, [[1]])
