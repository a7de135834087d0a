"""A plain .keras file, and what every export checks first."""

import io
import json
import os
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L
from zoo import MODELS, Block, Scaled

import keras_lottery as kl
from keras_lottery import enforcement, weights, wrappers
from keras_lottery.export import keras_file
from keras_lottery.export.keras_file import keras as export
from keras_lottery.export.targets import checked_target, exportable


class Subclassed(keras.Model):
    """As plain Keras saves and loads it: with arguments, in a list and a dict."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.flat = L.Flatten()
        self.hidden = [Block(), {"inner": Block()}]
        self.out = L.Dense(units)

    def call(self, x):
        return self.out(self.hidden[1]["inner"](self.hidden[0](self.flat(x))))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 8, 8, 1), "float32"))
    return model


CUSTOM = {cls.__name__: cls for cls in (Scaled, Block, Subclassed)}
BUILDERS = {**MODELS, "subclassed": subclassed}


def data(shape, n=8):
    return np.random.default_rng(1).normal(size=(n, *shape)).astype("float32")


def small():
    return keras.Sequential([keras.Input((4,)), L.Dense(8, "relu"), L.Dense(2)])


def trained(optimizer="adam", build=small):
    model = build()
    model.compile(optimizer, "mse", metrics=["mae"])
    model.fit(data((4,)), data((2,)), verbose=0)
    return model


def wrapped():
    model = keras.Sequential([keras.Input((4,)), wrappers.Masked(L.Dense(3)), L.Dense(2)])
    layer = model.layers[0]
    layer.masks = {p: np.arange(m.size).reshape(m.shape) % 2 == 0 for p, m in layer.masks.items()}
    return model


def load(path, **kwargs):
    return keras.saving.load_model(path, custom_objects=CUSTOM, **kwargs)


def parts(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def groups(path):
    found = []
    with h5py.File(io.BytesIO(parts(path)["model.weights.h5"])) as file:
        file.visit(found.append)
    return found


def same_bits(a, b):
    return len(a) == len(b) and all(
        x.numpy().tobytes() == y.numpy().tobytes() for x, y in zip(a, b, strict=True)
    )


# The target -------------------------------------------------------------------------------


def test_a_free_path_in_a_folder_is_accepted(tmp_path):
    for kind in (str, lambda p: p):
        assert checked_target(kind(tmp_path / "m.keras"), ".keras") == tmp_path / "m.keras"
        assert checked_target(kind(tmp_path / "folder")) == tmp_path / "folder"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["m.h5", "m", "m.keras.zip", "m.KERAS"])
def test_another_suffix_is_refused_with_the_expected_one(tmp_path, name):
    with pytest.raises(ValueError, match=rf"ends in '.keras'. Received: .*{name}"):
        checked_target(tmp_path / name, ".keras")


@pytest.mark.parametrize("path", ["", ".", "..", "/"])
def test_a_path_without_a_name_is_refused(path):
    with pytest.raises(ValueError, match="a name at its end"):
        checked_target(path, overwrite=True)


def test_a_missing_folder_is_told_and_not_made(tmp_path):
    with pytest.raises(ValueError, match=r"folder .*missing' does not exist: make it"):
        checked_target(tmp_path / "missing" / "m.keras", ".keras")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="does not exist"):
        checked_target(tmp_path / "file" / "m.keras", ".keras")
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(ValueError, match="cannot be written: choose another"):
        checked_target(tmp_path / "m.keras", ".keras")


@pytest.mark.parametrize("suffix", [".keras", None])
def test_what_exists_is_refused_unless_it_may_be_replaced(tmp_path, suffix):
    target = tmp_path / f"m{suffix or ''}"
    target.mkdir() if suffix is None else target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"exists already.*overwrite=True"):
        checked_target(target, suffix)
    assert checked_target(target, suffix, overwrite=True) == target


def test_a_file_never_replaces_a_folder_nor_the_reverse(tmp_path):
    (tmp_path / "m.keras").mkdir()
    with pytest.raises(ValueError, match="is a folder and would be replaced by a file"):
        checked_target(tmp_path / "m.keras", ".keras", overwrite=True)
    (tmp_path / "m").write_bytes(b"")
    with pytest.raises(ValueError, match="is a file and would be replaced by a folder"):
        checked_target(tmp_path / "m", overwrite=True)


# The model --------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", [None, "m.keras", L.Dense(2)])
def test_only_keras_models_are_exportable(thing):
    with pytest.raises(ValueError, match=r"Expected a `keras.Model`. Received"):
        exportable(thing)


def test_a_model_that_is_not_built_is_told():
    with pytest.raises(ValueError, match=r"has no weights yet.*keras.Input"):
        exportable(keras.Sequential([L.Dense(2)]))


def test_an_enforced_model_is_exported_as_it_is_under_its_masks():
    model = small()
    masks = kl.prune(model, 0.5).masks
    assert exportable(model) is model
    kept = enforcement.enforced_masks(model)
    assert all(np.array_equal(kept[p], masks[p]) for p in masks)


def test_unwrapped_makes_a_copy_and_leaves_the_model_alone():
    model = wrapped()
    output = np.array(model(data((4,))))
    kl.prune(model, 0.5, filters="dense", scope=kl.scopes.Global(min_layer_density=0.0))
    before = [v.numpy() for v in model.variables]
    plain = wrappers.unwrapped(model)
    assert [type(layer) for layer in plain.layers] == [L.Dense, L.Dense]
    assert np.allclose(plain(data((4,))), model(data((4,))), atol=1e-6)
    assert not np.allclose(plain(data((4,))), output, atol=1e-3)
    assert isinstance(model.layers[0], wrappers.Masked)
    assert enforcement.enforced_masks(model) is not None
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables, strict=True))


# The file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("compress", [False, True])
def test_every_kind_of_model_comes_back_bit_for_bit(tmp_path, name, compress):
    model = BUILDERS[name]()
    kl.prune(model, 0.5)
    model.compile("adam", "mse")
    model.fit(data((8, 8, 1)), data((3,)), verbose=0)
    path = export(model, tmp_path / "m.keras", compress=compress)
    assert path == tmp_path / "m.keras"
    assert os.listdir(tmp_path) == ["m.keras"]
    again = load(path)
    assert not again.compiled and getattr(again, "optimizer", None) is None
    assert same_bits(again.weights, model.weights)
    assert np.array_equal(again(data((8, 8, 1))), model(data((8, 8, 1))))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(width=32), min_size=4, max_size=4))
def test_any_float_comes_back_bit_for_bit(tmp_path_factory, values):
    model = keras.Sequential([keras.Input((2,)), L.Dense(2, use_bias=False)])
    model.set_weights([np.array(values, "float32").reshape(2, 2)])
    path = export(model, tmp_path_factory.mktemp("any") / "m.keras", compress=True)
    assert same_bits(load(path).weights, model.weights)


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16", "float64"])
def test_every_precision_comes_back(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    model = small()
    again = load(export(model, tmp_path / "m.keras"))
    assert again.dtype_policy.name == policy
    assert same_bits(again.weights, model.weights)


def test_masks_stay_in_force_on_the_exported_model(tmp_path):
    model = trained()
    pruned = {p: ~m for p, m in kl.prune(model, 0.3).masks.items()}
    export(model, tmp_path / "m.keras")
    model.fit(data((4,)), data((2,)), epochs=3, verbose=0)
    named = weights.all_weights(model)
    assert all(not named[p].numpy()[gone].any() for p, gone in pruned.items())
    assert all(named[p].numpy()[~gone].all() for p, gone in pruned.items())


def test_masked_layers_are_gone_from_the_file(tmp_path):
    model = wrapped()
    again = load(export(model, tmp_path / "m.keras"))
    assert [type(layer) for layer in again.layers] == [L.Dense, L.Dense]
    assert np.allclose(again(data((4,))), model(data((4,))), atol=1e-6)
    assert (again.layers[0].kernel.numpy() == 0).sum() == 6


def test_a_model_on_two_devices_is_exported(tmp_path):
    # Not by collectives: Keras's clear_session makes their keys meet those of other tests.
    reduction = tf.distribute.ReductionToOneDevice()
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], reduction).scope():
        model = trained()
        export(model, tmp_path / "in.keras")
    export(model, tmp_path / "out.keras")
    for name in ("in", "out"):
        assert same_bits(load(tmp_path / f"{name}.keras").weights, model.weights)


WITHOUT_THE_PACKAGE = """
import sys
import keras, numpy as np
for name in sys.argv[2:]:
    model = keras.saving.load_model(f"{sys.argv[1]}/{name}.keras")
    saved = np.load(f"{sys.argv[1]}/{name}.npz")
    assert np.array_equal(model(saved["x"]), saved["y"]), name
assert not any(name.startswith("keras_lottery") for name in sys.modules)
print("plain")
"""


def test_the_files_load_without_this_package(tmp_path):
    enforced = trained(keras.optimizers.Muon())
    kl.prune(enforced, 0.3)
    models = {"enforced": enforced, "wrapped": wrapped()}
    models |= {n: MODELS[n]() for n in ("sequential", "functional", "nested", "conv", "attention")}
    for name, model in models.items():
        x = data(model.input_shape[1:])
        y = np.array(exportable(model)(x))
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
        export(model, tmp_path / f"{name}.keras", compress=name != "conv")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(tmp_path), *models],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip().endswith("plain"), done.stderr


# Optimizer and size -----------------------------------------------------------------------


def test_optimizer_and_compile_information_are_left_out(tmp_path):
    path = export(trained(), tmp_path / "m.keras")
    assert "compile_config" not in json.loads(parts(path)["config.json"])
    assert "layers/dense/vars/0" in groups(path)
    assert not any("optimizer" in name for name in groups(path))


def test_an_adam_is_two_thirds_of_the_file(tmp_path):
    def build():
        return keras.Sequential([keras.Input((4,)), L.Dense(20_000), L.Dense(2)])

    model = trained(build=build)
    sizes = [
        os.path.getsize(export(model, tmp_path / f"{keep}.keras", optimizer=keep))
        for keep in (True, False)
    ]
    assert sizes[0] / sizes[1] == pytest.approx(3, abs=0.1)
    assert sizes[1] == pytest.approx(4 * model.count_params(), rel=0.05)


def test_models_inside_the_model_are_not_compiled_either(tmp_path):
    inner = trained()
    loss_scale = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(momentum=0.9))
    model = trained(
        loss_scale, lambda: keras.Sequential([keras.Input((4,)), L.Dense(4), inner, L.Dense(2)])
    )
    path = export(model, tmp_path / "m.keras")
    assert not any("optimizer" in name for name in groups(path))
    again = load(path)
    assert not again.layers[1].compiled
    assert np.array_equal(again(data((4,))), model(data((4,))))


class Holder(L.Layer):
    """Holds a layer under the name that Keras gives optimizers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.optimizer = L.Dense(3)

    def build(self, shape):
        self.optimizer.build(shape)

    def call(self, x):
        return self.optimizer(x)


def test_a_layer_that_is_called_optimizer_is_kept(tmp_path):
    model = trained(build=lambda: keras.Sequential([keras.Input((4,)), Holder(), L.Dense(2)]))
    path = export(model, tmp_path / "m.keras")
    again = keras.saving.load_model(path, custom_objects={"Holder": Holder})
    assert np.array_equal(again(data((4,))), model(data((4,))))


def test_training_goes_on_from_a_file_with_its_optimizer(tmp_path):
    model = trained()
    again = load(export(model, tmp_path / "m.keras", optimizer=True, compress=True))
    assert int(again.optimizer.iterations) == 1
    for each in (model, again):
        each.fit(data((4,)), data((2,)), epochs=2, shuffle=False, verbose=0)
    assert same_bits(again.weights, model.weights)


def test_the_optimizer_of_a_wrapped_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds `Masked` layers.*optimizer=False"):
        export(wrapped(), tmp_path / "m.keras", optimizer=True)
    assert os.listdir(tmp_path) == []


def test_zeros_cost_little_in_a_compressed_file(tmp_path):
    model = keras.Sequential([keras.Input((300,)), L.Dense(300)])
    dense = os.path.getsize(export(model, tmp_path / "dense.keras", compress=True))
    kl.prune(model, 0.1)
    plain = os.path.getsize(export(model, tmp_path / "plain.keras"))
    sparse = os.path.getsize(export(model, tmp_path / "sparse.keras", compress=True))
    assert plain > 360_000
    assert dense > 0.85 * plain
    assert sparse < 0.2 * plain


def test_what_keras_would_take_for_an_attack_is_not_deflated(tmp_path, monkeypatch):
    model = keras.Sequential([keras.Input((300,)), L.Dense(300)])
    model.set_weights([np.zeros((300, 300)), np.zeros(300)])
    small_file = export(model, tmp_path / "small.keras", compress=True)
    assert os.path.getsize(small_file) < 3600
    monkeypatch.setattr(keras_file, "_LARGE", 300_000)
    large_file = export(model, tmp_path / "large.keras", compress=True)
    with zipfile.ZipFile(large_file) as archive:
        kinds = {i.filename: i.compress_type for i in archive.infolist()}
    assert kinds["model.weights.h5"] == zipfile.ZIP_STORED
    assert kinds["config.json"] == zipfile.ZIP_DEFLATED
    assert same_bits(load(large_file).weights, model.weights)


# Failures ---------------------------------------------------------------------------------


class Unsaved(L.Layer):
    """Its argument is no data, and it has no `get_config` that says otherwise."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


class Unserializable(L.Layer):
    def call(self, x):
        return x

    def get_config(self):
        return {**super().get_config(), "lock": object()}


@pytest.mark.parametrize(
    "layer", [lambda: Unsaved(lambda x: x, name="odd"), lambda: Unserializable(name="odd")]
)
def test_a_layer_that_cannot_be_saved_is_named(tmp_path, layer):
    inner = keras.Sequential([keras.Input((3,)), layer(), L.Dense(2)])
    model = keras.Sequential([keras.Input((4,)), L.Dense(3), inner])
    (tmp_path / "m.keras").write_bytes(b"old")
    with pytest.raises(ValueError, match=r"of its layers: 'odd' of Uns\w+\. .*get_config"):
        export(model, tmp_path / "m.keras", overwrite=True)
    assert (tmp_path / "m.keras").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.keras"]


def test_nothing_is_overwritten_unless_asked(tmp_path):
    target = tmp_path / "m.keras"
    target.write_bytes(b"old")
    with pytest.raises(ValueError, match="exists already"):
        export(small(), target)
    assert target.read_bytes() == b"old"
    model = small()
    assert same_bits(load(export(model, target, overwrite=True)).weights, model.weights)
