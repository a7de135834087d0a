"""The LiteRT file computes what the model computes, or there is none."""

import os
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from zoo import MODELS

import keras_lottery as kl
from keras_lottery import enforcement, weights, wrappers
from keras_lottery.export import tflite
from keras_lottery.export.tflite import litert


def chain(shape, *layers, **kwargs):
    return keras.Sequential([keras.Input(shape, **kwargs), *layers])


def interpret(path):
    """The file as a function of its inputs, in a fresh interpreter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(model_path=str(path))
    return interpreter.get_signature_runner("serving_default")


def run(path, x):
    runner = interpret(path)
    (name,) = runner.get_input_details()
    return runner(**{name: x})["output_0"]


def data(shape, n=5):
    return np.random.default_rng(7).normal(size=(n, *shape)).astype("float32")


def sparsify(model, density, axis=-2, block=1):
    """Keeps a random part of every kernel, in blocks along an axis."""
    rng = np.random.default_rng(3)
    for variable in weights.prunable(model, filters="").values():
        shape = list(variable.shape)
        shape[axis] = -(-shape[axis] // block)
        kept = np.repeat(rng.random(shape) < density, block, axis)
        variable.assign(variable.numpy() * kept.take(range(variable.shape[axis]), axis))
    return model


def refused(error, match, tmp_path, model, **kwargs):
    with pytest.raises(error, match=match):
        litert(model, tmp_path / "m.tflite", **kwargs)
    assert os.listdir(tmp_path) == []


# Small and exact --------------------------------------------------------------------------


def test_four_weights_by_hand(tmp_path):
    model = chain((4,), L.Dense(1))
    model.set_weights([np.array([[2.0], [0.0], [0.0], [-1.0]]), np.array([0.5])])
    path = litert(model, tmp_path / "m.tflite")
    assert path == tmp_path / "m.tflite" and os.listdir(tmp_path) == ["m.tflite"]
    x = np.array([[1, 5, 5, 1], [0, 5, 5, 2]], "float32")
    assert run(path, x).tolist() == [[1.5], [-1.5]]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"dtype": "int4"}, r"one of \['float32', 'float16', 'int8'\]. Received: 'int4'"),
        ({"dtype": None}, "Received: None"),
        ({"dtype": "int8"}, r"sparse int8.*failed to delegate CONV_2D.*sparse=False"),
        ({"batch_size": 0}, "integer > 0 or None. Received: 0"),
        ({"batch_size": True}, "Received: True"),
        ({"batch_size": 1.0}, "Received: 1.0"),
    ],
)
def test_bad_options_are_told(tmp_path, options, match):
    refused(ValueError, match, tmp_path, chain((4,), L.Dense(1)), **options)


def test_the_path_and_the_model_are_checked_first(tmp_path):
    with pytest.raises(ValueError, match=r"ends in '.tflite'"):
        litert(chain((4,), L.Dense(1)), tmp_path / "m.lite")
    refused(ValueError, "has no weights yet", tmp_path, keras.Sequential([L.Dense(1)]))
    target = tmp_path / "m.tflite"
    target.write_bytes(b"old")
    with pytest.raises(ValueError, match="exists already"):
        litert(chain((4,), L.Dense(1)), target)
    assert target.read_bytes() == b"old"
    model = chain((4,), L.Dense(1))
    litert(model, target, overwrite=True)
    assert np.allclose(run(target, data((4,))), model(data((4,))), atol=1e-6)


# Models -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MODELS if name != "attention"])
def test_every_kind_of_model_computes_the_same_at_every_batch_size(tmp_path, name):
    model = MODELS[name]()
    masks = kl.prune(model, 0.5).masks
    path = litert(model, tmp_path / "m.tflite")
    for n in (1, 5):
        assert np.allclose(run(path, data((8, 8, 1), n)), model(data((8, 8, 1), n)), atol=1e-5)
    kept = enforcement.enforced_masks(model)
    assert all(np.array_equal(kept[p], masks[p]) for p in masks)


def test_masked_layers_are_gone(tmp_path):
    model = chain((8,), wrappers.Masked(L.Dense(4)), L.Dense(2))
    layer = model.layers[0]
    layer.masks = {p: np.arange(32).reshape(8, 4) % 3 == 0 for p in layer.masks}
    path = litert(model, tmp_path / "m.tflite")
    assert np.allclose(run(path, data((8,))), model(data((8,))), atol=1e-6)
    assert isinstance(model.layers[0], wrappers.Masked)


def test_recurrent_and_attention_layers_need_a_batch_size(tmp_path):
    model = MODELS["attention"]()
    named = rf"TensorListReserve in the layer '{model.layers[-2].name}'.*`batch_size=1`.*unroll"
    refused(ValueError, named, tmp_path, model)
    path = litert(model, tmp_path / "m.tflite", batch_size=2)
    assert np.allclose(run(path, data((8, 8, 1), 2)), model(data((8, 8, 1), 2)), atol=1e-5)


def test_an_unrolled_layer_takes_any_batch(tmp_path):
    model = chain((4, 3), L.GRU(5, unroll=True))
    path = litert(model, tmp_path / "m.tflite")
    assert np.allclose(run(path, data((4, 3))), model(data((4, 3))), atol=1e-5)


def two_inputs():
    x, z = keras.Input((4,), name="image size"), keras.Input((3,), name="age")
    h = L.Concatenate()([L.Dense(5)(x), z])
    return x, z, L.Dense(2)(h), L.Dense(2)(h)


def test_inputs_and_outputs_in_lists_have_names(tmp_path):
    x, z, a, b = two_inputs()
    model = keras.Model([x, z], [a, b])
    runner = interpret(litert(model, tmp_path / "m.tflite"))
    batch = [data((4,)), data((3,))]
    found = runner(image_size=batch[0], age=batch[1])
    expected = dict(zip(["output_0", "output_1"], model(batch), strict=True))
    assert found.keys() == expected.keys()
    assert all(np.allclose(found[name], expected[name], atol=1e-6) for name in found)


def test_inputs_and_outputs_in_dicts_have_their_keys(tmp_path):
    z, x, a, b = two_inputs()
    model = keras.Model({"image size": z, "age": x}, {"b": b, "a": [a, z]})
    runner = interpret(litert(model, tmp_path / "m.tflite"))
    batch = {"image size": data((4,)), "age": data((3,))}
    found = runner(image_size=batch["image size"], age=batch["age"])
    expected = model(batch)
    assert found.keys() == {"a_0", "a_1", "b"}
    assert np.allclose(found["b"], expected["b"], atol=1e-6)
    assert np.allclose(found["a_0"], expected["a"][0], atol=1e-6)
    assert np.array_equal(found["a_1"], batch["image size"])


def test_unknown_sides_stay_unknown(tmp_path):
    model = chain((None, None, 3), L.Conv2D(4, 3), L.GlobalAveragePooling2D())
    path = litert(model, tmp_path / "m.tflite")
    for side in (5, 9):
        x = data((side, side + 1, 3))
        assert np.allclose(run(path, x), model(x), atol=1e-5)


def test_a_fixed_batch_stays_fixed(tmp_path):
    model = chain((3,), L.Dense(2), batch_size=2)
    runner = interpret(litert(model, tmp_path / "m.tflite"))
    (details,) = runner.get_input_details().values()
    assert details["shape_signature"].tolist() == [2, 3]


class TwoTowers(keras.Model):
    """A subclassed model of a dict of integers and floats."""

    def __init__(self):
        super().__init__()
        self.embed, self.flat, self.out = L.Embedding(9, 4), L.Flatten(), L.Dense(2)

    def call(self, x, training=True):
        assert not training
        return {"y": self.out(self.flat(self.embed(x["word"]))), "same": x["size"]}


def test_a_subclassed_model_takes_the_form_of_the_batch_to_check(tmp_path):
    batch = {"word": np.array([[8, 1, 2]] * 4, "int32"), "size": data((2,), 4)}
    model = TwoTowers()
    refused(ValueError, "no weights yet", tmp_path, model)
    model(batch, training=False)
    runner = interpret(litert(model, tmp_path / "m.tflite", check=batch))
    assert runner.get_input_details()["word"]["dtype"] == np.int32
    found = runner(**batch)
    assert np.allclose(found["y"], model(batch, training=False)["y"], atol=1e-6)
    assert np.array_equal(found["same"], batch["size"])


class NotBuiltByACall(keras.Model):
    def __init__(self):
        super().__init__()
        self.built = True

    def call(self, x):
        return x


def test_inputs_that_cannot_be_known_are_asked_for(tmp_path):
    refused(ValueError, r"inputs of 'asked' are not known.*check=batch", tmp_path, asked())
    path = litert(asked(), tmp_path / "m.tflite", check=data((3,)))
    assert np.array_equal(run(path, data((3,))), data((3,)))


def asked():
    model = NotBuiltByACall()
    model.name = "asked"
    return model


def test_a_model_on_two_devices(tmp_path):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = chain((8,), L.Dense(4), L.BatchNormalization())
        path = litert(model, tmp_path / "m.tflite")
    assert np.allclose(run(path, data((8,))), model(data((8,))), atol=1e-6)


# Size -------------------------------------------------------------------------------------

KINDS = {
    "dense": lambda: chain((128,), L.Dense(64)),
    "conv1d": lambda: chain((8, 32), L.Conv1D(64, 3)),
    "conv2d": lambda: chain((4, 4, 32), L.Conv2D(64, 3)),
    "transposed": lambda: chain((4, 4, 32), L.Conv2DTranspose(64, 3)),
    "depthwise": lambda: chain((4, 4, 512), L.DepthwiseConv2D(3)),
    "einsum": lambda: chain((4, 64), L.EinsumDense("abc,cde->abde", (None, 4, 32))),
    "gru": lambda: chain((2, 32), L.GRU(64), batch_size=1),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_tenth_of_the_weights_takes_a_third_of_the_file(tmp_path, name):
    model = sparsify(KINDS[name](), 0.1)
    dense = os.path.getsize(litert(model, tmp_path / "d.tflite", sparse=False))
    sparse = os.path.getsize(litert(model, tmp_path / "s.tflite"))
    assert dense >= 4 * model.count_params()
    assert sparse < (0.5 if name == "gru" else 0.35) * dense


@pytest.mark.parametrize(
    "build",
    [
        lambda: chain((3,), L.Embedding(500, 32), L.Flatten(), dtype="int32"),
        lambda: chain((4, 4, 4, 16), L.Conv3D(32, 3)),
        lambda: chain((128,), L.Dense(64)),
    ],
    ids=["embedding", "conv3d", "three quarters alive"],
)
def test_what_does_not_get_smaller(tmp_path, build):
    model = build()
    sparsify(model, 0.75 if isinstance(model.layers[0], L.Dense) else 0.1)
    sizes = [
        os.path.getsize(litert(model, tmp_path / f"{sparse}.tflite", sparse=sparse))
        for sparse in (False, True)
    ]
    assert sizes[1] == pytest.approx(sizes[0], abs=64)


@pytest.mark.parametrize(("dtype", "part", "atol"), [("float16", 0.5, 2e-3), ("int8", 0.25, 0.1)])
def test_smaller_dtypes(tmp_path, dtype, part, atol):
    model = chain((256,), L.Dense(128))
    path = litert(model, tmp_path / "m.tflite", dtype=dtype, sparse=False)
    assert os.path.getsize(path) == pytest.approx(part * 4 * model.count_params(), rel=0.1)
    found, expected = run(path, data((256,))), np.array(model(data((256,))))
    assert 0 < np.abs(found - expected).max() < atol * np.abs(expected).max()


def test_float16_is_sparse_too(tmp_path):
    model = sparsify(chain((8, 8, 16), L.Conv2D(64, 3), L.Flatten(), L.Dense(8)), 0.1)
    dense = litert(model, tmp_path / "d.tflite", dtype="float16", sparse=False)
    sparse = litert(model, tmp_path / "s.tflite", dtype="float16")
    assert os.path.getsize(sparse) < 0.4 * os.path.getsize(dense)
    assert np.allclose(run(sparse, data((8, 8, 16))), run(dense, data((8, 8, 16))), atol=1e-6)


# What LiteRT cannot do, or does wrongly ---------------------------------------------------


def test_the_reason_against_sparse_int8_is_true(tmp_path, monkeypatch):
    monkeypatch.setattr(tflite, "_check_options", lambda *args: None)
    model = sparsify(chain((8, 8, 32), L.Conv2D(64, 3)), 0.3)
    refused(RuntimeError, "failed to delegate CONV_2D", tmp_path, model, dtype="int8")


@pytest.mark.parametrize(
    ("inputs", "dtype"), [(30, "float32"), (30, "float16"), (32, "float16")], ids=str
)
def test_blocks_that_litert_reads_wrongly_are_refused(tmp_path, inputs, dtype):
    model = sparsify(chain((inputs,), L.Dense(16)), 0.3, block=4)
    match = rf"weights of '.*', of shape \[16, {inputs}\].*blocks of 4 inputs.*sparse=False"
    refused(ValueError, match, tmp_path, model, dtype=dtype)
    litert(model, tmp_path / "m.tflite", dtype=dtype, sparse=False)


def test_the_comparison_finds_misread_blocks_too(tmp_path, monkeypatch):
    monkeypatch.setattr(tflite, "_refuse_misread", lambda *args: None)
    model = sparsify(chain((30,), L.Dense(16)), 0.3, block=4)
    refused(
        RuntimeError, "'output_0' differs.* 0.0001 of it is allowed in float32", tmp_path, model
    )


def test_blocks_that_divide_the_inputs_are_written(tmp_path):
    model = sparsify(chain((32,), L.Dense(16)), 0.3, block=4)
    path = litert(model, tmp_path / "m.tflite")
    assert np.allclose(run(path, data((32,))), model(data((32,))), atol=1e-6)


@pytest.mark.parametrize("layer", [L.Conv1DTranspose, L.Conv2DTranspose])
def test_sparse_float16_transposed_convolutions_are_refused(tmp_path, layer):
    shape = (8, 16) if layer is L.Conv1DTranspose else (8, 8, 16)
    inner = sparsify(chain(shape, layer(32, 3, name="up"), L.ReLU()), 0.3)
    model = chain(shape, inner, L.Dense(4))
    match = "weights of 'up'.*float16 weights of transposed convolutions.*sparse=False"
    refused(ValueError, match, tmp_path, model, dtype="float16")
    litert(model, tmp_path / "m.tflite", dtype="float16", sparse=False)


def test_a_weight_too_large_for_float16_is_caught(tmp_path):
    model = chain((4,), L.Dense(1))
    model.set_weights([np.array([[1e6], [1.0], [1.0], [1.0]]), np.zeros(1)])
    refused(RuntimeError, "differs from the model's by", tmp_path, model, dtype="float16")
    litert(model, tmp_path / "m.tflite")


def test_real_inputs_find_what_random_ones_do_not(tmp_path):
    embed = L.Embedding(5, 1)
    model = chain((1,), embed, dtype="int32")
    embed.set_weights([np.array([[1.0], [2.0], [3.0], [4.0], [1e6]])])
    litert(model, tmp_path / "m.tflite", dtype="float16")
    os.remove(tmp_path / "m.tflite")
    check = np.array([[0], [4]])
    refused(RuntimeError, "differs", tmp_path, model, dtype="float16", check=check)


@pytest.mark.parametrize(
    ("check", "match"),
    [([np.ones((2, 4))] * 2, "hold 1 arrays. Received: 2"), (np.ones((2, 3)), r"\(1, 3\).*others")],
)
def test_a_batch_that_does_not_fit_is_told(tmp_path, check, match):
    refused(ValueError, match, tmp_path, chain((4,), L.Dense(2)), check=check)


class Inverse(L.Layer):
    def call(self, x):
        return keras.ops.inv(x)


def test_missing_operations_and_their_layers_are_named(tmp_path):
    inner = chain((3, 3), L.Dense(3), Inverse(name="turn"))
    model = chain((3, 3), L.Dense(3), inner)
    refused(ValueError, r"MatrixInverse in the layer 'turn'\. Replace", tmp_path, model)


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_a_model_of_another_precision_is_told_so(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    model = chain((4,), L.Dense(2, name="out"))
    match = rf"MatMul in the layer 'out'.*computes in {policy[-7:]}: build it under the float32"
    refused(ValueError, match, tmp_path, model)


def test_strings_are_refused(tmp_path):
    model = chain((1,), L.StringLookup(vocabulary=["a"]), dtype="string")
    refused(ValueError, "takes no strings", tmp_path, model)


class Eager(L.Layer):
    def call(self, x):
        return x if float(keras.ops.max(x)) > 0 else -x

    def compute_output_shape(self, shape):
        return shape


def test_a_layer_that_needs_values_cannot_be_traced(tmp_path):
    model = asked()
    model.call = Eager()
    refused(ValueError, "'asked' cannot be traced", tmp_path, model, check=data((3,)))
