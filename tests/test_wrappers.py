"""Masked computes with masked weights; strip leaves a plain Keras model."""

import inspect
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import keras_lottery as kl
from keras_lottery import enforcement, strong, weights
from keras_lottery.experiments import models
from keras_lottery.experiments.optimizers import WarmupThenDrops
from keras_lottery.wrappers import Masked


def chain(shape, *layers):
    x = y = keras.Input(shape)
    for layer in layers:
        y = layer(y)
    return keras.Model(x, y)


def draw(shapes, seed=0, density=0.5):
    rng = np.random.default_rng(seed)
    return {p: rng.random(s) < density for p, s in shapes.items()}


def mask(layer, **kwargs):
    """Gives a built `Masked` layer random masks."""
    layer.masks = draw({p: m.shape for p, m in layer.masks.items()}, **kwargs)
    return layer


def data(shape, n=8):
    return np.random.default_rng(1).normal(size=(n, *shape)).astype("float32")


def mask_weights(layer):
    """The reference: the same masks multiplied into the layer's own weights."""
    for variable, kept in zip(
        weights.prunable(layer.layer).values(), layer.masks.values(), strict=True
    ):
        variable.assign(variable.numpy() * kept)


def is_masked(model):
    return any(isinstance(layer, Masked) for layer in weights.sublayers(model))


def block():
    return chain((6,), L.Dense(5, "relu"), L.BatchNormalization(), L.Dropout(0.5), L.Dense(4))


LAYERS = {
    "dense": (lambda: L.Dense(4), (6,)),
    "conv": (lambda: L.Conv2D(4, 3), (5, 5, 2)),
    "depthwise": (lambda: L.DepthwiseConv2D(3), (5, 5, 2)),
    "lstm": (lambda: L.LSTM(4), (5, 3)),
    "gru": (lambda: L.GRU(4, return_sequences=True), (5, 3)),
    "bidirectional": (lambda: L.Bidirectional(L.LSTM(4)), (5, 3)),
    "einsum": (lambda: L.EinsumDense("abc,cd->abd", (5, 4), bias_axes="d"), (5, 3)),
    "block": (block, (6,)),
}


# Forward and backward ---------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_the_output_is_that_of_the_layer_with_masked_weights(name):
    make, shape = LAYERS[name]
    layer = Masked(make())
    layer.build((None, *shape))
    mask(layer)
    x = data(shape)
    before = [v.numpy() for v in layer.layer.variables]
    masked = np.array(layer(x))
    assert all(
        np.array_equal(a, v.numpy()) for a, v in zip(before, layer.layer.variables, strict=True)
    )
    mask_weights(layer)
    assert np.array_equal(masked, np.array(layer.layer(x)))


@pytest.mark.parametrize("name", ["dense", "conv", "lstm", "block"])
def test_in_a_functional_model_and_under_fit(name):
    make, shape = LAYERS[name]
    layer = Masked(make())
    model = chain(shape, layer)
    assert model.output_shape == chain(shape, make()).output_shape
    mask(layer)
    mask_weights(layer)
    before = {p: v.numpy() for p, v in weights.prunable(layer.layer).items()}
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = data(shape)
    y = data(model.output_shape[1:])
    model.fit(x, y, epochs=2, batch_size=4, verbose=0)
    for (path, variable), kept in zip(
        weights.prunable(layer.layer).items(), layer.masks.values(), strict=True
    ):
        assert not variable.numpy()[~kept].any()
        assert (variable.numpy() != before[path])[kept].any()


def test_in_a_sequential_model():
    layer = Masked(L.Dense(4))
    model = keras.Sequential([keras.Input((6,)), layer, L.Dense(2)])
    mask(layer)
    hidden = model.layers[0](data((6,)))
    mask_weights(layer)
    assert np.array_equal(hidden, layer.layer(data((6,))))
    assert model(data((6,))).shape == (8, 2)


def test_around_attention_with_two_inputs():
    x, z = keras.Input((4, 6)), keras.Input((3, 6))
    layer = Masked(L.MultiHeadAttention(2, 3))
    model = keras.Model([x, z], layer(x, z))
    assert len(layer.masks) == 4
    mask(layer)
    batch = [data((4, 6)), data((3, 6))]
    masked = np.array(model(batch))
    mask_weights(layer)
    assert np.allclose(masked, layer.layer(*batch), atol=1e-6)


@pytest.mark.parametrize("regularizer", [None, "l2"])
@pytest.mark.parametrize("jit", [False, True])
def test_gradients_of_pruned_weights_are_zero(regularizer, jit):
    layer = Masked(L.Dense(4, kernel_regularizer=regularizer))
    model = chain((6,), L.Dense(6, "tanh"), layer)
    model.compile("sgd", "mse")
    mask(layer)
    x, y = tf.constant(data((6,))), tf.constant(data((4,)))
    run = tf.function(lambda: [*gradients_of(model, layer, x, y)], jit_compile=jit)
    for gradient, kept in zip(run(), layer.masks.values(), strict=True):
        assert not gradient.numpy()[~kept].any()
        assert gradient.numpy()[kept].all()


def gradients_of(model, layer, x, y):
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
    return tape.gradient(loss, [v.value for v in weights.prunable(layer.layer).values()])


def test_losses_of_the_layer_are_the_models():
    make = {"activity_regularizer": "l2", "kernel_regularizer": "l2", "kernel_initializer": "ones"}
    plain, wrapped = chain((6,), L.Dense(4, **make)), chain((6,), Masked(L.Dense(4, **make)))
    x = data((6,))
    plain(x), wrapped(x)
    assert np.allclose(sorted(map(float, wrapped.losses)), sorted(map(float, plain.losses)))


def test_statistics_and_seeds_are_updated():
    layer = Masked(block())
    model = chain((6,), layer)
    before = {p: v.numpy() for p, v in weights.all_variables(model).items()}
    model(data((6,)), training=False)
    assert all(
        np.array_equal(before[p], v.numpy()) for p, v in weights.all_variables(model).items()
    )
    one, two = (np.array(model(data((6,)), training=True)) for _ in range(2))
    assert not np.array_equal(one, two)
    changed = [
        p.split("/")[-1]
        for p, v in weights.all_variables(model).items()
        if not np.array_equal(before[p], v.numpy())
    ]
    assert sorted(changed) == ["moving_mean", "moving_variance", "seed_generator_state"]


def test_statistics_are_those_of_the_plain_layer():
    wrapped = chain((6,), Masked(L.BatchNormalization(), filters=lambda p, v: "gamma" in p))
    plain = chain((6,), L.BatchNormalization())
    for model in (wrapped, plain):
        model.compile("sgd", "mse")
        model.fit(data((6,)) + 3, data((6,)), epochs=2, shuffle=False, verbose=0)
    inner = wrapped.layers[1].layer
    assert np.allclose(inner.moving_mean.numpy(), plain.layers[1].moving_mean.numpy())
    assert np.allclose(inner.moving_variance.numpy(), plain.layers[1].moving_variance.numpy())


def test_timestep_masks_pass_through_without_a_warning():
    def build(wrap):
        return chain((4,), L.Embedding(5, 3, mask_zero=True), wrap(L.Dense(3)), wrap(L.LSTM(2)))

    wrapped, plain = build(Masked), build(lambda layer: layer)
    plain.set_weights([v.numpy() for v in wrapped.weights if v.dtype != "bool"])
    x = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    assert np.array_equal(wrapped(x), plain(x))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "bfloat16"])
def test_training_in_every_precision_and_compiled(jit, policy):
    keras.config.set_dtype_policy(policy)
    layer = Masked(L.Dense(4))
    model = chain((6,), layer, L.Dense(2))
    mask(layer)
    mask_weights(layer)
    assert keras.backend.standardize_dtype(model(data((6,))).dtype) == (
        "float16" if policy == "mixed_float16" else policy
    )
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit)
    before = layer.layer.kernel.numpy()
    model.fit(data((6,)), data((2,)), epochs=2, verbose=0)
    (kept,) = layer.masks.values()
    assert not layer.layer.kernel.numpy()[~kept].any()
    assert (layer.layer.kernel.numpy() != before)[kept].any()


# Masks ------------------------------------------------------------------------------------


def test_masks_start_alive_and_are_set_by_path():
    layer = Masked(L.LSTM(2))
    layer.build((None, 5, 3))
    assert [m.shape for m in layer.masks.values()] == [(3, 8), (2, 8)]
    assert all(m.all() and m.dtype == bool for m in layer.masks.values())
    wanted = draw({p: m.shape for p, m in layer.masks.items()})
    layer.masks = dict(reversed(wanted.items()))
    assert all(np.array_equal(layer.masks[p], wanted[p]) for p in wanted)


@pytest.mark.parametrize("change", [{}, {"nowhere": np.ones((6, 4), bool)}, "shape"])
def test_masks_of_other_paths_or_shapes_are_told(change):
    layer = Masked(L.Dense(4))
    layer.build((None, 6))
    (path,) = layer.masks
    bad = {path: np.ones((4, 6), bool)} if change == "shape" else change
    with pytest.raises(ValueError, match=r"Expected masks.*\(6, 4\).*Received"):
        layer.masks = bad
    assert layer.masks[path].all()


def test_filters_choose_the_masked_weights():
    layer = Masked(L.LSTM(2), filters="recurrent")
    layer.build((None, 5, 3))
    assert [m.shape for m in layer.masks.values()] == [(2, 8)]
    with pytest.raises(ValueError, match="selects nothing"):
        Masked(L.Dense(2), filters="nowhere").build((None, 3))


def test_masks_are_no_trainable_weights():
    layer = Masked(L.Dense(4))
    model = chain((6,), layer)
    assert [v.name for v in model.trainable_variables] == ["kernel", "bias"]


# Saving -----------------------------------------------------------------------------------


def saved_model():
    layer = mask_later = Masked(L.LSTM(4), filters=["kernel"])
    model = chain((5, 3), layer, Masked(L.Dense(3), name="own_name"), L.Dense(2))
    mask(mask_later)
    mask(model.get_layer("own_name"), seed=1)
    return model


def all_masks(model):
    return [m for layer in model.layers if isinstance(layer, Masked) for m in layer.masks.values()]


def test_a_keras_file_holds_masks_and_filters(tmp_path):
    model = saved_model()
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert len(all_masks(again)) == 3
    assert all(
        np.array_equal(a, b) for a, b in zip(all_masks(model), all_masks(again), strict=True)
    )
    assert again.layers[1].filters == ["kernel"]
    assert np.array_equal(model(data((5, 3))), again(data((5, 3))))


def test_a_weights_file_holds_masks(tmp_path):
    model = saved_model()
    output, masks = np.array(model(data((5, 3)))), all_masks(model)
    model.save_weights(tmp_path / "m.weights.h5")
    for layer in model.layers:
        if isinstance(layer, Masked):
            layer.masks = {p: np.ones_like(m) for p, m in layer.masks.items()}
    for variable in model.trainable_variables:
        variable.assign(variable + 1)
    model.load_weights(tmp_path / "m.weights.h5")
    assert all(np.array_equal(a, b) for a, b in zip(masks, all_masks(model), strict=True))
    assert np.array_equal(model(data((5, 3))), output)


def test_masks_of_a_loaded_layer_have_the_paths_they_had(tmp_path):
    model = saved_model()
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    for old, new in zip(model.layers[1:3], again.layers[1:3], strict=True):
        assert list(old.masks) == list(new.masks)
        new.masks = old.masks


def test_a_callable_filter_is_told_when_saving(tmp_path):
    model = chain((6,), Masked(L.Dense(2), filters=lambda p, v: v.name == "kernel"))
    with pytest.raises(ValueError, match=r"callable cannot be saved.*regex"):
        model.save(tmp_path / "m.keras")


def search():
    return strong.edge_popup(keras.Sequential([keras.Input((4,)), L.Dense(2)]))


# How those are made that cannot be made without arguments.
MADE = {
    "Masked": lambda: Masked(L.Dense(2)),
    "LearnedMask": lambda: search().learner,
    "StrongSearch": search,
    "WarmupThenDrops": lambda: WarmupThenDrops(0.1),
}


def registered():
    objects = keras.saving.get_custom_objects()
    return sorted(
        n for n, c in objects.items() if n.startswith("keras_lottery>") and inspect.isclass(c)
    )


def test_the_wrapper_is_registered():
    known = {*MADE, models.PositionEmbedding.__name__, "EdgePopup"}
    assert {f"keras_lottery>{name}" for name in known} <= set(registered())


@pytest.mark.parametrize("name", registered())
def test_the_config_of_every_registered_class_holds_its_arguments(name):
    cls = keras.saving.get_registered_object(name)
    arguments = {
        p.name
        for p in inspect.signature(cls.__init__).parameters.values()
        if p.name != "self" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    made = MADE.get(name.removeprefix("keras_lottery>"), cls)()
    config = made.get_config()
    assert arguments <= set(config)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(made))
    assert type(again) is cls
    assert again.get_config() == config


# Strip ------------------------------------------------------------------------------------


def test_strip_leaves_a_plain_model_of_equal_output():
    model = saved_model()
    plain = kl.strip(model)
    assert not is_masked(plain)
    assert [type(layer) for layer in plain.layers[1:]] == [L.LSTM, L.Dense, L.Dense]
    assert np.allclose(plain(data((5, 3))), model(data((5, 3))), atol=1e-6)
    kernels = weights.read(weights.prunable(plain)).values()
    for kernel, kept in zip(kernels, all_masks(model), strict=False):
        assert not kernel[~kept].any()


def test_strip_of_a_block_keeps_statistics():
    layer = Masked(block())
    model = chain((6,), layer, L.Dense(2))
    mask(layer)
    model(data((6,)), training=True)
    plain = kl.strip(model)
    assert not is_masked(plain)
    assert np.allclose(plain(data((6,))), model(data((6,))), atol=1e-6)


def test_strip_of_a_sequential_model_gives_one():
    layer = Masked(L.Dense(4))
    model = keras.Sequential([keras.Input((6,)), layer, L.Dense(2)])
    mask(layer)
    plain = kl.strip(model)
    assert isinstance(plain, keras.Sequential) and not is_masked(plain)
    assert np.allclose(plain(data((6,))), model(data((6,))), atol=1e-6)


def nested():
    return chain((6,), chain((6,), Masked(L.Dense(5)), L.Dense(4)), L.Dense(2))


def inside_another_wrapper():
    return chain((3, 6), L.TimeDistributed(Masked(L.Dense(4))), L.Dense(2))


def shared():
    layer = Masked(L.Dense(6))
    return chain((6,), layer, L.Dense(6), layer)


@pytest.mark.parametrize("build", [nested, inside_another_wrapper, shared])
def test_strip_finds_wrappers_at_every_depth(build):
    model = build()
    for layer in weights.sublayers(model):
        if isinstance(layer, Masked):
            mask(layer)
    x = data(model.input_shape[1:])
    output = np.array(model(x))
    plain = kl.strip(model)
    assert not is_masked(plain)
    assert np.allclose(plain(x), output, atol=1e-6)


def test_strip_of_an_enforced_model_is_the_same_object_without_hooks():
    model = chain((6,), L.Dense(4), L.Dense(2))
    kl.prune(model, 0.3)
    model.compile("adam", "mse")
    model.fit(data((6,)), data((2,)), verbose=0)
    kernels = [v.numpy() for v in weights.prunable(model).values()]
    zeros = sum(int((k == 0).sum()) for k in kernels)
    assert zeros == 32 - round(0.3 * 32)
    config = model.get_config()
    assert kl.strip(model) is model
    assert enforcement.enforced_masks(model) is None
    assert model.get_config() == config
    assert all(
        np.array_equal(a, v.numpy())
        for a, v in zip(kernels, weights.prunable(model).values(), strict=True)
    )
    assert all(v.constraint is None for v in model.trainable_variables)
    assert "apply" not in vars(model.optimizer) and "make_train_function" not in vars(model)
    model.fit(data((6,)), data((2,)), epochs=2, verbose=0)
    assert all(v.numpy().all() for v in weights.prunable(model).values())


def test_strip_of_an_untouched_model_changes_nothing():
    model = chain((6,), L.Dense(4))
    before = [v.numpy() for v in model.variables]
    assert kl.strip(model) is model
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables, strict=True))


def test_strip_of_a_model_both_enforced_and_wrapped():
    layer = Masked(L.Dense(4))
    model = chain((6,), layer, L.Dense(3), L.Dense(2))
    mask(layer)
    kl.prune(model, 0.5, filters="dense", scope=kl.scopes.Global(min_layer_density=0.0))
    output = np.array(model(data((6,))))
    plain = kl.strip(model)
    assert not is_masked(plain)
    assert enforcement.enforced_masks(model) is None
    assert np.allclose(plain(data((6,))), output, atol=1e-6)


WITHOUT_THE_PACKAGE = """
import sys
import keras, numpy as np
for folder in sys.argv[1:]:
    model = keras.models.load_model(folder + "/m.keras")
    assert np.allclose(model(np.load(folder + "/x.npy")), np.load(folder + "/y.npy"), atol=1e-5)
assert not any(name.startswith("keras_lottery") for name in sys.modules)
print("plain")
"""


def test_stripped_models_load_without_this_package(tmp_path):
    enforced = chain((6,), L.Dense(4), L.Dense(2))
    kl.prune(enforced, 0.3)
    enforced.compile(keras.optimizers.Muon(), "mse")
    enforced.fit(data((6,)), data((2,)), verbose=0)
    folders = []
    for name, model in {"wrapped": saved_model(), "enforced": enforced}.items():
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        plain, x = kl.strip(model), data(model.input_shape[1:])
        np.save(folders[-1] / "x.npy", x)
        np.save(folders[-1] / "y.npy", np.array(plain(x)))
        plain.save(folders[-1] / "m.keras")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PACKAGE, *map(str, folders)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip().endswith("plain"), done.stderr


def test_what_a_preprocessing_layer_adapted_to_survives_stripping():
    normalization = keras.layers.Normalization()
    normalization.adapt(np.arange(12, dtype="float32").reshape(4, 3) ** 2)
    model = keras.Sequential([keras.Input((3,)), normalization, kl.wrappers.Masked(L.Dense(2))])
    x = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(kl.strip(model)(x), model(x))


def test_pruned_weights_are_zeros_without_a_sign_once_stripped():
    layer = Masked(L.Dense(1, use_bias=False, kernel_initializer=keras.initializers.Constant(-1)))
    model = keras.Sequential([keras.Input((2,)), layer])
    layer.masks = {p: np.array([[True], [False]]) for p in layer.masks}
    (kernel,) = kl.strip(model).get_weights()
    assert np.signbit(kernel).tolist() == [[True], [False]]


def test_a_frozen_layer_keeps_its_pruned_weights_for_other_masks():
    layer = kl.wrappers.Masked(keras.layers.Dense(1, kernel_initializer="ones"))
    model = keras.Sequential([keras.Input((2,)), layer])
    (path,) = layer.masks
    layer.masks = {path: np.array([[True], [False]])}
    layer.layer.trainable = False
    assert float(model(np.ones((1, 2)))[0, 0]) == 1.0
    assert layer.layer.kernel.numpy().tolist() == [[1.0], [1.0]]
    layer.masks = {path: np.array([[True], [True]])}
    assert float(model(np.ones((1, 2)))[0, 0]) == 2.0
