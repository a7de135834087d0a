"""Exported files as things that are weighed, loaded and run."""

import gzip

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from keras_lottery import export
from keras_lottery.export import measure
from keras_lottery.export.artefacts import Artefact, Program, flops, keras_model, random_inputs


def chain(shape, *layers, **kwargs):
    return keras.Sequential([keras.Input(shape, **kwargs), *layers])


# FLOPs ----------------------------------------------------------------------------------

COUNTED = {
    "12 products, 12 sums": ((4,), L.Dense(3, use_bias=False), 2 * 4 * 3),
    "a bias is 3 sums more": ((4,), L.Dense(3), 2 * 4 * 3 + 3),
    "at each of 5 places": ((5, 4), L.Dense(3, use_bias=False), 5 * 2 * 4 * 3),
    "conv": ((8, 8, 2), L.Conv2D(5, 3, use_bias=False), 6 * 6 * 5 * 2 * 3 * 3 * 2),
    "conv with bias": ((8, 8, 2), L.Conv2D(5, 3), 6 * 6 * 5 * (2 * 3 * 3 * 2 + 1)),
    "strides": ((8, 8, 2), L.Conv2D(5, 3, 2, "same", use_bias=False), 4 * 4 * 5 * 2 * 3 * 3 * 2),
    "groups": ((8, 8, 4), L.Conv2D(6, 3, groups=2, use_bias=False), 6 * 6 * 6 * 2 * 3 * 3 * 2),
    "depthwise": ((8, 8, 2), L.DepthwiseConv2D(3, use_bias=False), 6 * 6 * 2 * 2 * 3 * 3),
    "unknown sides are 16": (
        (None, None, 2),
        L.Conv2D(5, 3, use_bias=False),
        14 * 14 * 5 * 2 * 3 * 3 * 2,
    ),
}


@pytest.mark.parametrize(("shape", "layer", "expected"), COUNTED.values(), ids=COUNTED.keys())
def test_flops_are_those_counted_by_hand(shape, layer, expected):
    config = layer.get_config()  # a fresh layer, since the parameter outlives the test
    assert flops(chain(shape, type(layer).from_config(config))) == expected


def test_flops_count_zeros_and_every_layer():
    model = chain((4,), L.Dense(3, use_bias=False), L.Dense(2, use_bias=False))
    model.set_weights([0 * w for w in model.get_weights()])
    assert flops(model) == 2 * 4 * 3 + 2 * 3 * 2


class Positive(L.Layer):
    """Those examples whose first feature is positive."""

    def call(self, x):
        return tf.boolean_mask(x, x[:, 0] > 0)

    def compute_output_shape(self, shape):
        return shape


def test_flops_of_shapes_that_only_the_data_tell_are_not_known(capfd):
    assert flops(chain((4,), Positive(), L.Dense(3))) is None
    assert capfd.readouterr().err == ""


def test_counting_leaves_tensorflow_as_it_was():
    level = tf.get_logger().level
    flops(chain((4,), L.Dense(3)))
    assert not tf.config.functions_run_eagerly()
    assert tf.get_logger().level == level


# Bytes ----------------------------------------------------------------------------------


def test_a_file_weighs_what_it_holds(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"abc" * 1000)
    found = Artefact.at(tmp_path / "a.tflite")
    assert (found.kind, found.bytes) == ("litert", 3000)
    assert found.gzipped == len(gzip.compress(b"abc" * 1000, 6)) < 100


def test_a_folder_weighs_the_sum_of_its_files(tmp_path):
    folder = tmp_path / "model"
    (folder / "variables" / "deep").mkdir(parents=True)
    contents = {"saved_model.pb": b"a" * 500, "variables/v": b"b" * 70, "variables/deep/w": b"c"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    found = Artefact.at(str(folder))
    assert (found.kind, found.bytes) == ("saved_model", 571)
    assert found.gzipped == sum(len(gzip.compress(c, 6)) for c in contents.values())


@pytest.mark.parametrize("name", ["no.keras", "model.h5", "model", ".", ""])
def test_a_path_without_an_artefact_is_refused_by_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.h5").write_bytes(b"")
    (tmp_path / "model").mkdir()
    with pytest.raises(
        ValueError, match=r"\.keras file, a SavedModel folder or a \.tflite"
    ) as told:
        measure(name, verbose=0)
    assert repr(name or ".") in str(told.value)
    assert ("does not exist" in str(told.value)) == (name == "no.keras")


# Inputs ---------------------------------------------------------------------------------


def test_random_inputs_suit_their_dtype():
    specs = {
        "f": tf.TensorSpec((None, 3), tf.float16),
        "i": tf.TensorSpec((None, None), tf.int64),
        "b": tf.TensorSpec((None,), tf.bool),
    }
    found = random_inputs(specs, batch=5)
    assert {k: (v.shape, v.dtype.name) for k, v in found.items()} == {
        "f": ((5, 3), "float16"),
        "i": ((5, 16), "int64"),
        "b": ((5,), "bool"),
    }
    assert set(found["i"].ravel()) == {0, 1}
    np.testing.assert_array_equal(found["i"], random_inputs(specs, batch=5)["i"])


def test_random_strings_are_refused():
    with pytest.raises(ValueError, match="'word' takes strings: pass some"):
        random_inputs({"word": tf.TensorSpec((None,), tf.string)}, batch=1)


def test_inputs_of_other_names_are_matched_in_their_order_and_cast():
    specs = {f"keras_tensor_{i}": tf.TensorSpec((None,), tf.int32) for i in (9, 10, 11)}
    x = {f"input_{i}": np.full(2, float(i)) for i in (100, 98, 99)}
    found = Program(specs, lambda x: []).fitted(x)
    assert {name: v[0] for name, v in found.items()} == dict(zip(specs, (98, 99, 100), strict=True))
    assert {v.dtype.name for v in found.values()} == {"int32"}


def test_inputs_keep_their_names_where_those_are_the_same():
    specs = {name: tf.TensorSpec((None,)) for name in ("b", "a")}
    x = {"a": np.array([1.0]), "b": np.array([2.0])}
    assert Program(specs, lambda x: []).fitted(x) == {"b": 2.0, "a": 1.0}


# Loading --------------------------------------------------------------------------------


@pytest.fixture
def model():
    return chain((4,), L.Dense(64), L.Dense(3))


@pytest.mark.parametrize("cut", [0, 5, 0.5, -1])
def test_a_truncated_keras_file_is_named(tmp_path, model, cut):
    path = export.keras(model, tmp_path / "m.keras")
    content = path.read_bytes()
    path.write_bytes(content[: cut if isinstance(cut, int) else int(len(content) * cut)])
    with pytest.raises(ValueError, match=r"Cannot load '.*m\.keras'"):
        Artefact.at(path).load()


def test_a_keras_file_of_an_unknown_layer_is_named(tmp_path):
    path = export.keras(chain((4,), Positive()), tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"(?s)Cannot load '.*m\.keras'.*Positive"):
        keras_model(path)


def flip(path):
    """Changes one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DATA = "variables/variables.data-00000-of-00001"


@pytest.mark.parametrize("sparse", [False, True], ids=["plain", "sparse"])
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("saved_model.pb", truncate),
        ("variables/variables.index", truncate),
        (DATA, truncate),
        (DATA, flip),
        (DATA, lambda path: path.unlink()),
    ],
)
def test_a_truncated_or_tampered_saved_model_fails_when_it_is_loaded(
    tmp_path, model, sparse, name, damage
):
    folder = tmp_path / "m"
    if sparse:
        export.saved_model(model, folder)
    else:
        model.export(str(folder), verbose=False)
    assert Artefact.at(folder).load().inputs
    damage(folder / name)
    with pytest.raises(ValueError, match=r"Cannot load '.*m'"):
        Artefact.at(folder).load()


def test_a_saved_model_without_the_signature_for_serving_is_named(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "m"))
    with pytest.raises(ValueError, match=r"Cannot load '.*m'.*serving_default"):
        Artefact.at(tmp_path / "m").load()


def test_a_file_that_is_no_litert_model_is_named(tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"hello" * 100)
    with pytest.raises(ValueError, match=r"Cannot load '.*m\.tflite'"):
        Artefact.at(tmp_path / "m.tflite").load()


def test_loading_a_litert_file_unpacks_its_weights(tmp_path, model, monkeypatch):
    path = export.litert(model, tmp_path / "m.tflite")
    allocate, calls = tf.lite.Interpreter.allocate_tensors, []
    monkeypatch.setattr(
        tf.lite.Interpreter, "allocate_tensors", lambda self: calls.append(1) or allocate(self)
    )
    program = Artefact.at(path).load()
    assert calls == [1]
    x = random_inputs(program.inputs, batch=2)
    assert program.call(x)[0].shape == (2, 3)


def test_a_loaded_program_gives_its_numbered_outputs_in_their_order(tmp_path):
    inputs = keras.Input((1,))
    constants = [L.Dense(1, use_bias=False, kernel_initializer=keras.initializers.Constant(i))
                 for i in range(12)]  # fmt: skip
    model = keras.Model(inputs, [layer(inputs) for layer in constants])
    for path in (
        export.saved_model(model, tmp_path / "m"),
        export.litert(model, tmp_path / "m.tflite"),
    ):
        program = Artefact.at(path).load()
        outputs = program.call(program.fitted({"x": np.ones((1, 1))}))
        assert [float(o[0, 0]) for o in outputs] == list(range(12))
