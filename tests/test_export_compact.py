"""`kl.export.compact`: its report, its errors, and rounding on realistic models."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_lottery as kl
from keras_lottery.export.compacting import CompactReport, LayerChange, compact

Input, Model = keras.Input, keras.Model


def pruned():
    """4 inputs, of which one is read by nothing; 3 hidden units, of which one is read."""
    model = keras.Sequential(
        [Input((4,), name="x"), L.Dense(3, "relu", name="hidden"), L.Dense(2, name="out")]
    )
    kernel = np.ones((4, 3), "float32")
    kernel[2] = 0
    model.layers[0].kernel.assign(kernel)
    model.layers[1].kernel.assign([[1, 2], [0, 0], [0, 0]])
    return model


def same(model, small, x):
    a, b = np.array(model(x)), np.array(small(x))
    np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * np.abs(a).max())


X = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")


# What it returns and prints -------------------------------------------------------------------


def test_it_returns_a_smaller_plain_model():
    model = pruned()
    small = kl.export.compact(model, verbose=0)
    assert type(small) is keras.Sequential
    assert small.count_params() == 4 + 1 + 2 + 2
    same(model, small, X)


def test_the_report_by_hand():
    _, report = compact(pruned(), verbose=0, return_report=True)
    assert report == CompactReport(
        parameters=(23, 9),
        layers=[
            LayerChange("hidden", units=(3, 1), parameters=(15, 5)),
            LayerChange("out", units=(2, 2), parameters=(8, 4)),
        ],
        left={},
        dead_inputs={},
    )


def test_it_prints_the_report(capsys):
    compact(pruned(), input_features=True)
    assert capsys.readouterr().out.splitlines() == [
        "23 parameters before, 9 after (39.1%)",
        "  hidden: 3 -> 1 channels, 15 -> 5 parameters",
        "  out: 2 -> 2 channels, 8 -> 4 parameters",
        "  input x: 1 of 4 features are read by nothing alive",
    ]


def test_it_prints_why_a_layer_was_left(capsys):
    x = Input((4,))
    compact(Model(x, L.Dense(1)(L.LayerNormalization(name="norm")(L.Dense(3)(x)))))
    out = capsys.readouterr().out
    assert "  norm and its neighbours left: no rule for LayerNormalization" in out


def test_verbose_0_is_silent(capsys):
    compact(pruned(), verbose=0)
    assert capsys.readouterr().out == ""


def test_a_model_with_nothing_to_remove_is_copied():
    model = keras.Sequential([Input((4,)), L.Dense(3), L.Dense(2)])
    small, report = compact(model, verbose=0, return_report=True)
    assert small is not model and report.parameters == (23, 23) and report.layers == []


# Dead inputs ----------------------------------------------------------------------------------


def test_dead_inputs_are_reported_and_not_removed():
    small, report = compact(pruned(), input_features=True, verbose=0, return_report=True)
    assert report.dead_inputs["x"].tolist() == [False, False, True, False]
    assert small.input_shape == (None, 4)


def test_dead_inputs_of_images_are_pixels():
    model = keras.Sequential([Input((2, 3, 1), name="x"), L.Flatten(), L.Dense(4), L.Dense(1)])
    kernel = np.ones((6, 4), "float32")
    kernel[[1, 5]] = 0
    kernel[4, 1:] = 0  # read only by unit 0, which nothing reads
    model.layers[1].kernel.assign(kernel)
    model.layers[2].kernel.assign([[0], [1], [1], [1]])
    _, report = compact(model, input_features=True, verbose=0, return_report=True)
    dead = [[False, True, False], [False, True, True]]
    assert report.dead_inputs["x"][..., 0].tolist() == dead


def test_dead_inputs_of_a_shared_encoder_are_pixels_too():
    encoder = keras.Sequential([Input((2, 2)), L.Flatten(), L.Dense(3)])
    x, y = Input((2, 2), name="x"), Input((2, 2), name="y")
    model = Model([x, y], L.Dense(1)(encoder(x) - encoder(y)))
    encoder.layers[1].kernel.assign(np.ones((4, 3)) * [[1], [0], [1], [1]])
    _, report = compact(model, input_features=True, verbose=0, return_report=True)
    dead = [[False, True], [False, False]]
    assert {name: d.tolist() for name, d in report.dead_inputs.items()} == {"x": dead, "y": dead}


def test_dead_inputs_of_convolutions_are_channels():
    model = keras.Sequential([Input((None, None, 3), name="x"), L.Conv2D(2, 3)])
    kernel = model.layers[0].kernel.numpy()
    kernel[:, :, 1] = 0
    model.layers[0].kernel.assign(kernel)
    _, report = compact(model, input_features=True, verbose=0, return_report=True)
    assert report.dead_inputs["x"].tolist() == [[[False, True, False]]]


# Every kind of model it may be given -------------------------------------------------------------


def test_masks_in_force_are_followed_and_stay_in_force():
    model = keras.Sequential([Input((4,)), L.Dense(8, "relu"), L.Dense(2)])
    masks = {v.path: np.ones(v.shape, bool) for v in model.weights if v.name == "kernel"}
    masks[model.layers[1].kernel.path][2:] = False
    kl.enforce(model, masks)
    small = compact(model, verbose=0)
    assert small.layers[0].units == 2
    same(model, small, X)
    model.compile("adam", "mse")
    model.fit(X, np.ones((5, 2)), verbose=0)
    assert not model.layers[1].kernel.numpy()[2:].any()


def test_masked_layers_are_taken_off():
    masked = kl.wrappers.Masked(L.Dense(8, "relu", name="hidden"))
    model = keras.Sequential([Input((4,)), masked, L.Dense(2)])
    mask = np.zeros((4, 8), bool)
    mask[:, :3] = True
    masked.masks = dict.fromkeys(masked.masks, mask)
    small = compact(model, verbose=0)
    assert type(small.layers[0]) is L.Dense and small.layers[0].units == 3
    same(model, small, X)


def test_a_compiled_model_gives_an_uncompiled_one():
    def loss(y, p):
        return keras.ops.mean(keras.ops.abs(y - p))

    model = pruned()
    model.compile("adam", loss, metrics=[loss])
    model.fit(X, np.ones((5, 2)), verbose=0)
    small = compact(model, verbose=0)
    assert not small.compiled
    same(model, small, X)


def test_a_functional_model_of_an_own_class_becomes_a_plain_one():
    class Own(keras.Model):
        def train_step(self, data):
            raise AssertionError

    x = Input((4,))
    model = Own(x, L.Dense(2)(L.Dense(3)(x)))
    assert type(compact(model, verbose=0)) is type(Model(x, x))


LOAD = """
import sys, numpy as np, keras
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[2], model(np.load(sys.argv[3])))
assert not any(name.startswith("keras_lottery") for name in sys.modules)
"""


def test_a_saved_small_model_loads_without_this_package(tmp_path):
    model = pruned()
    small = compact(model, verbose=0)
    small.save(tmp_path / "small.keras")
    np.save(tmp_path / "x.npy", X)
    paths = [str(tmp_path / name) for name in ("small.keras", "out.npy", "x.npy")]
    subprocess.run([sys.executable, "-c", LOAD, *paths], check=True, capture_output=True)
    assert np.array_equal(np.load(tmp_path / "out.npy"), np.array(small(X)))


# Errors ---------------------------------------------------------------------------------------


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_a_subclassed_model_is_refused():
    model = Subclassed()
    model(X)
    with pytest.raises(ValueError, match="subclassed Subclassed, whose graph cannot be seen"):
        compact(model)


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="has no weights yet"):
        compact(keras.Sequential([L.Dense(2)]))


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match=r"Expected a `keras\.Model`"):
        compact(L.Dense(2))


# Realistic models: rounding -------------------------------------------------------------------


def vgg():
    layers = []
    for n in (16, 32, 64):
        layers += [L.Conv2D(n, 3, padding="same", activation="relu"), L.Conv2D(n, 3)]
        layers += [L.BatchNormalization(), L.ReLU(), L.MaxPooling2D(2, padding="same")]
    ends = [L.Flatten(), L.Dense(128, "relu"), L.Dropout(0.5), L.Dense(10)]
    return keras.Sequential([Input((32, 32, 3)), *layers, *ends])


def resnet():
    x = Input((32, 32, 3))
    y = L.Conv2D(16, 3, padding="same", use_bias=False)(x)
    for n, strides in ((16, 1), (32, 2), (64, 2)):
        z = L.BatchNormalization()(L.Conv2D(n, 3, strides, "same", use_bias=False)(y))
        z = L.Conv2D(n, 3, padding="same", use_bias=False)(L.ReLU()(z))
        z = L.BatchNormalization()(z)
        y = L.ReLU()(L.Add()([z, L.Conv2D(n, 1, strides)(y)]))
    return Model(x, L.Dense(10)(L.GlobalAveragePooling2D()(y)))


def trained_like(model, rng):
    """Weights, statistics and dead channels of the sizes that training leaves."""
    for v in model.weights:
        shape = tuple(v.shape)
        if v.path.endswith("variance"):
            value = np.exp(rng.normal(-1, 1.5, shape))
        elif v.path.endswith("gamma"):
            value = rng.normal(1, 0.3, shape)
        elif len(shape) == 1:
            value = rng.normal(0, 0.3, shape)
        else:
            value = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
            value[..., rng.random(shape[-1]) < 0.3] = 0
            value[..., rng.random(shape[-2]) < 0.2, :] = 0
        v.assign(value)


@pytest.mark.parametrize("make", [vgg, resnet])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2])
def test_realistic_models_differ_by_rounding_only(make, scale):
    model, rng = make(), np.random.default_rng(0)
    trained_like(model, rng)
    small = compact(model, verbose=0)
    assert small.count_params() < 0.7 * model.count_params()
    same(model, small, (rng.normal(size=(4, 32, 32, 3)) * scale).astype("float32"))
