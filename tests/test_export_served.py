"""Sparse SavedModels as those meet them who have TensorFlow and nothing else."""

import itertools
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import keras_lottery as kl

RNG = np.random.default_rng(0)


def sparse(model, density=0.1):
    """The model with its smallest weights zeroed, each prunable array to the same density."""
    kl.prune(model, density=density, scope="layerwise")
    return kl.strip(model)


def mlp():
    return sparse(
        keras.Sequential(
            [keras.Input((40,), name="x"), L.Dense(300, "relu"), L.Dense(100, "relu"), L.Dense(3)]
        )
    )


def run_python(code, folder):
    """Runs code in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


TF2 = """
import sys, numpy as np, tensorflow as tf
served = tf.saved_model.load("served")
x = np.load("x.npy")
np.save("serve.npy", served.serve(x))
np.save("signature.npy", served.signatures["serving_default"](x=tf.constant(x))["output_0"])
assert "keras_lottery" not in sys.modules
"""
TF1 = """
import sys, numpy as np, tensorflow as tf
x = np.load("x.npy")
for turn in range(2):
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], "served")
        signature = meta.signature_def["serving_default"]
        feed = {signature.inputs["x"].name: x}
        np.save("tf1.npy", session.run(signature.outputs["output_0"].name, feed))
assert "keras_lottery" not in sys.modules
"""


def test_plain_tensorflow_serves_the_same_bits_in_a_process_of_its_own(tmp_path):
    model, x = mlp(), RNG.normal(size=(5, 40)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    kl.export.saved_model(model, tmp_path / "served")
    run_python(TF2, tmp_path)
    right = tf.function(model)(x).numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "serve.npy"), right)
    np.testing.assert_array_equal(np.load(tmp_path / "signature.npy"), right)


def test_the_loader_of_tensorflow_1_that_servers_use_gives_the_same(tmp_path):
    model, x = mlp(), RNG.normal(size=(5, 40)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    kl.export.saved_model(model, tmp_path / "served")
    run_python(TF1, tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "tf1.npy"), model(x), rtol=1e-6, atol=1e-6)


def test_the_folder_is_a_fraction_of_what_keras_exports(tmp_path):
    model = mlp()
    kl.export.saved_model(model, tmp_path / "sparse")
    model.export(str(tmp_path / "dense"), verbose=False)
    weights = 40 * 300 + 300 * 100 + 300
    variables = folder_bytes(tmp_path / "sparse" / "variables")
    assert variables < 0.1 * weights * (4 + 1) + 403 * 4 + 2000
    assert folder_bytes(tmp_path / "sparse") < 0.25 * folder_bytes(tmp_path / "dense")


def folder_bytes(folder):
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("density", [0.5, 0.2, 0.1, 0.05, 0.02, 0.01])
def test_the_variables_stay_within_a_tenth_of_the_entropy_bound(tmp_path, density):
    layers = [L.Dense(300, "relu"), L.Dense(100, "relu"), L.Dense(10)]
    model = sparse(keras.Sequential([keras.Input((784,)), *layers]), density)
    kl.export.saved_model(model, tmp_path / "served")
    bits = 0.0
    for v in model.weights:
        array = v.numpy()
        if array.ndim < 2:
            bits += 8 * array.nbytes
            continue
        p = np.count_nonzero(array) / array.size
        bits += array.size * (-p * np.log2(p) - (1 - p) * np.log2(1 - p) + 32 * p)
    assert folder_bytes(tmp_path / "served" / "variables") <= 1.10 * bits / 8
    beside = folder_bytes(tmp_path / "served") - folder_bytes(tmp_path / "served" / "variables")
    assert beside <= 100_000


def test_several_inputs_and_outputs_keep_their_names_and_any_batch(tmp_path):
    a, b = keras.Input((4,), name="a"), keras.Input((None, 3), name="b")
    x = L.Dense(64, "relu")(a)
    y = L.LSTM(16)(b)
    outputs = {"sum": L.Dense(2)(L.Concatenate()([x, y])), "seen": L.Dense(2)(y)}
    model = sparse(keras.Model({"a": a, "b": b}, outputs))
    served = tf.saved_model.load(kl.export.saved_model(model, tmp_path / "served"))
    signature = served.signatures["serving_default"]
    for batch, steps in [(1, 2), (3, 5)]:
        x = {
            "a": RNG.normal(size=(batch, 4)).astype("float32"),
            "b": RNG.normal(size=(batch, steps, 3)).astype("float32"),
        }
        right = tf.function(model)(x)
        for found in (served.serve(x), signature(**{k: tf.constant(v) for k, v in x.items()})):
            assert set(found) >= {"sum", "seen"}
            np.testing.assert_array_equal(found["sum"], right["sum"])
            np.testing.assert_array_equal(found["seen"], right["seen"])


def test_named_signatures_share_the_weights_that_are_stored_once(tmp_path):
    model = mlp()
    features = keras.Model(model.inputs, model.layers[1].output)
    alone = kl.export.saved_model(model, tmp_path / "alone")
    both = kl.export.saved_model(
        model,
        tmp_path / "both",
        signatures={
            "features": features,
            "doubled": (lambda x: 2 * model(x), [tf.TensorSpec((None, 40), tf.float32, "x")]),
        },
    )
    sizes = [folder_bytes(path / "variables") for path in (alone, both)]
    assert sizes[1] <= sizes[0] + 500
    served = tf.saved_model.load(both)
    x = tf.constant(RNG.normal(size=(3, 40)), tf.float32)
    assert set(served.signatures) == {"serving_default", "features", "doubled"}
    (found,) = served.signatures["features"](x).values()
    np.testing.assert_array_equal(found, tf.function(features)(x))
    np.testing.assert_allclose(served.doubled(x), 2 * model(x), rtol=1e-6)


def attention():
    x = inputs = keras.Input((6, 32))
    x = L.Add()([x, L.MultiHeadAttention(4, 16)(x, x)])
    return keras.Model(inputs, L.Dense(2)(L.LayerNormalization()(x)))


def text():
    inputs = keras.Input((7,), dtype="int32")
    return keras.Model(inputs, L.Dense(2)(L.GRU(32)(L.Embedding(50, 32)(inputs))))


def convolutions():
    layers = [L.Conv2D(32, 3), L.BatchNormalization(), L.DepthwiseConv2D(3), L.Dropout(0.5)]
    layers += [L.Conv2DTranspose(16, 3), L.SeparableConv2D(32, 3), L.Flatten(), L.Dense(3)]
    return keras.Sequential([keras.Input((12, 12, 3)), *layers])


def siamese():
    one, other = keras.Input((20,)), keras.Input((20,))
    inner = keras.Sequential([keras.Input((20,)), L.Dense(64, "relu"), L.Dense(32)])
    return keras.Model([one, other], L.Dense(1)(L.Subtract()([inner(one), inner(other)])))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = L.Dense(64, "relu"), L.Dense(3)

    def call(self, x):
        return self.out(self.hidden(x))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 30), "float32"))
    return model


def inputs_of(model):
    if isinstance(model, Subclassed):
        return RNG.normal(size=(3, 30)).astype("float32")
    arrays = [
        RNG.integers(0, 50, (3, *t.shape[1:])).astype("int32")
        if "int" in t.dtype
        else RNG.normal(size=(3, *t.shape[1:])).astype("float32")
        for t in model.inputs
    ]
    return arrays if len(arrays) > 1 else arrays[0]


KINDS = [attention, text, convolutions, siamese, subclassed]


@pytest.mark.parametrize("storage", [None, "float16", "bfloat16"])
@pytest.mark.parametrize("build", KINDS)
def test_every_kind_of_model_comes_back(tmp_path, build, storage):
    model = sparse(build())
    x = inputs_of(model)
    path = kl.export.saved_model(model, tmp_path / "served", storage=storage)
    if storage:
        for v in model.weights:
            if v.dtype == "float32" and len(v.shape) >= 2:
                v.assign(tf.cast(tf.cast(v.value, storage), "float32"))
    served = tf.saved_model.load(path)
    np.testing.assert_array_equal(served.serve(x), tf.function(model)(x))


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "bfloat16", "float64"])
def test_weights_of_every_precision_come_back(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    model = sparse(keras.Sequential([keras.Input((40,)), L.Dense(64, "relu"), L.Dense(3)]))
    x = tf.cast(RNG.normal(size=(3, 40)), model.inputs[0].dtype)
    served = tf.saved_model.load(kl.export.saved_model(model, tmp_path / "served"))
    np.testing.assert_array_equal(served.serve(x), tf.function(model)(x))


def test_two_models_and_one_loaded_twice_do_not_disturb_each_other(tmp_path):
    first, second = mlp(), mlp()
    paths = [kl.export.saved_model(m, tmp_path / n) for m, n in ((first, "a"), (second, "b"))]
    x = RNG.normal(size=(3, 40)).astype("float32")
    served = [tf.saved_model.load(p) for p in (paths[0], paths[1], paths[0])]
    right = [tf.function(m)(x).numpy() for m in (first, second, first)]
    for order in itertools.permutations(range(3)):
        for i in order:
            np.testing.assert_array_equal(served[i].serve(x), right[i])
    del served[2]
    np.testing.assert_array_equal(served[0].serve(x), right[0])


def test_a_model_under_a_strategy_is_saved_inside_and_outside_its_scope(tmp_path):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = keras.Sequential([keras.Input((40,)), L.Dense(64, "relu"), L.Dense(3)])
        sparse(model)
        kl.export.saved_model(model, tmp_path / "inside")
    kl.export.saved_model(model, tmp_path / "outside")
    x = RNG.normal(size=(3, 40)).astype("float32")
    for name in ("inside", "outside"):
        served = tf.saved_model.load(tmp_path / name)
        np.testing.assert_allclose(served.serve(x), model(x), rtol=1e-6)


def test_masks_stay_in_force_and_masked_layers_are_taken_out(tmp_path):
    model = keras.Sequential([keras.Input((40,)), L.Dense(64), kl.wrappers.Masked(L.Dense(3))])
    path = model.layers[0].kernel.path
    handle = kl.enforce(model, {path: RNG.random((40, 64)) < 0.1})
    before = [v.numpy() for v in model.weights]
    served = tf.saved_model.load(kl.export.saved_model(model, tmp_path / "served"))
    x = RNG.normal(size=(3, 40)).astype("float32")
    np.testing.assert_allclose(served.serve(x), model(x), rtol=1e-5)
    assert (handle.masks[path].mean()) < 0.2
    for a, b in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_a_loaded_model_saved_again_still_works(tmp_path):
    model, x = mlp(), RNG.normal(size=(3, 40)).astype("float32")
    served = tf.saved_model.load(kl.export.saved_model(model, tmp_path / "served"))
    tf.saved_model.save(served, str(tmp_path / "again"), signatures=served.signatures)
    again = tf.saved_model.load(str(tmp_path / "again"))
    np.testing.assert_array_equal(again.serve(x), tf.function(model)(x))


# What is damaged fails when it is loaded ------------------------------------------------------


def shards(path):
    return next((path / "variables").glob("variables.data-*"))


def test_a_flipped_byte_of_the_weights_fails_at_load_wherever_it_is(tmp_path):
    path = kl.export.saved_model(mlp(), tmp_path / "served")
    whole = shards(path).read_bytes()
    for place in np.linspace(0, len(whole) - 1, 12).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        shards(path).write_bytes(damaged)
        with pytest.raises((tf.errors.OpError, ValueError)):
            tf.saved_model.load(path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", ["saved_model.pb", "variables.index", "variables.data"])
def test_a_truncated_file_fails_at_load(tmp_path, name, share):
    path = kl.export.saved_model(mlp(), tmp_path / "served")
    (file,) = (p for p in path.rglob("*") if p.name.startswith(name))
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises((tf.errors.OpError, OSError, ValueError, LookupError, AttributeError)):
        tf.saved_model.load(path).serve  # noqa: B018


def test_the_weights_of_another_model_in_the_folder_fail_at_load(tmp_path):
    one, other = (kl.export.saved_model(mlp(), tmp_path / name) for name in ("one", "other"))
    shutil.rmtree(one / "variables")
    shutil.copytree(other / "variables", one / "variables")
    with pytest.raises((tf.errors.OpError, ValueError)):
        tf.saved_model.load(one)


# What is refused --------------------------------------------------------------------------------


def test_what_is_there_is_replaced_only_if_asked_and_only_after_success(tmp_path):
    path = kl.export.saved_model(mlp(), tmp_path / "served")
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match="exists already"):
        kl.export.saved_model(mlp(), path)
    with pytest.raises(ValueError, match=r"too large for `storage='float16'`"):
        kl.export.saved_model(huge(), path, overwrite=True, storage="float16")
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    model = mlp()
    kl.export.saved_model(model, path, overwrite=True)
    x = np.ones((2, 40), "float32")
    served = tf.saved_model.load(path)
    np.testing.assert_array_equal(served.serve(x), tf.function(model)(x))
    assert os.listdir(tmp_path) == ["served"]


def huge():
    model = mlp()
    model.layers[0].kernel.assign(model.layers[0].kernel.numpy() * 1e7)
    return model


class Numpy(L.Layer):
    def call(self, x):
        return tf.numpy_function(lambda a: a, [x], tf.float32)

    def compute_output_shape(self, shape):
        return shape


class Eager(Numpy):
    def call(self, x):
        return x * float(keras.ops.sum(x))


def test_python_code_in_a_layer_is_refused_and_nothing_is_left(tmp_path):
    for layer, words in ((Numpy(), "PyFunc|Python"), (Eager(name="own"), "own")):
        model = keras.Sequential([keras.Input((40,)), L.Dense(64), layer])
        with pytest.raises(ValueError, match=words):
            kl.export.saved_model(model, tmp_path / "served")
        assert os.listdir(tmp_path) == []


def test_unbuilt_models_unknown_storage_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has no weights yet"):
        kl.export.saved_model(keras.Sequential([L.Dense(3)]), tmp_path / "served")
    with pytest.raises(ValueError, match="`storage` must be one of"):
        kl.export.saved_model(mlp(), tmp_path / "served", storage="int8")
    with pytest.raises(ValueError, match="does not exist"):
        kl.export.saved_model(mlp(), tmp_path / "missing" / "served")
    assert os.listdir(tmp_path) == []
