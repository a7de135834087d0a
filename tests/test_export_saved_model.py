"""The sparse SavedModel: what it holds, what it keeps from the model, what it refuses.

`test_export_served.py` looks at the same files from outside, as plain TensorFlow does.
"""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from zoo import MODELS

import keras_lottery as kl
from keras_lottery import weights
from keras_lottery.export import packing
from keras_lottery.export.coding import entropy_bound
from keras_lottery.export.sparse_saved_model import saved_model

RNG = np.random.default_rng(0)


def chain(shape, *layers, **kwargs):
    return keras.Sequential([keras.Input(shape, **kwargs), *layers])


def small(density=0.2):
    model = chain((64,), L.Dense(80, "relu"), L.Dense(33))
    kl.prune(model, density)
    return model


def draw(*shape):
    return tf.constant(RNG.normal(size=shape).astype("float32"))


def called(model, *inputs):
    """What the Keras model computes in a graph."""
    return tf.function(lambda *x: model(*x, training=False))(*inputs)


def assert_same(given, expected):
    keras.tree.assert_same_structure(given, expected)
    for a, b in zip(keras.tree.flatten(given), keras.tree.flatten(expected), strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a.numpy(), b.numpy())


def nbytes(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def assert_exports(model, path, *inputs, **kwargs):
    loaded = tf.saved_model.load(saved_model(model, path, **kwargs))
    assert_same(loaded.serve(*inputs), called(model, *inputs))
    return loaded


# The same outputs -------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_loaded_model_gives_the_same_bits(name, tmp_path):
    model = MODELS[name]()
    kl.prune(model, 0.3)
    assert_exports(model, tmp_path / "m", draw(5, 8, 8, 1))


def test_sequences_of_any_length(tmp_path):
    model = chain((None,), L.Embedding(50, 24), L.GRU(20), L.Dense(9), dtype="int32")
    kl.prune(model, 0.2, scope="layerwise", filters=".")
    loaded = assert_exports(model, tmp_path / "m", tf.constant([[1, 2, 49, 0]]))
    tokens = tf.constant([[1, 2], [3, 4]])
    assert_same(loaded.serve(tokens), called(model, tokens))


@pytest.mark.parametrize("endpoint", ["serve", "serving_default"])
def test_it_loads_as_a_keras_layer(endpoint, tmp_path):
    model, x = small(), draw(3, 64)
    layer = L.TFSMLayer(str(saved_model(model, tmp_path / "m")), call_endpoint=endpoint)
    found = layer(x)
    assert_same(found if endpoint == "serve" else found["output_0"], called(model, x))


def test_a_loaded_model_can_be_saved_again_also_by_keras(tmp_path):
    model, x = small(), draw(3, 64)
    loaded = tf.saved_model.load(saved_model(model, tmp_path / "m"))
    wrapper = tf.Module()
    wrapper.inner = loaded
    wrapper.serve = tf.function(loaded.serve, input_signature=[tf.TensorSpec((None, 64))])
    tf.saved_model.save(wrapper, str(tmp_path / "again"))
    layer = L.TFSMLayer(str(tmp_path / "m"), call_endpoint="serve")
    chain((64,), layer).export(tmp_path / "keras", verbose=False)
    for name in ("again", "keras"):
        again = tf.saved_model.load(str(tmp_path / name))
        assert_same(again.serve(x), called(model, x))
    assert_same(loaded.serve(x), called(model, x))
    assert_same(layer(x), called(model, x))


def test_weights_are_decoded_when_the_model_is_loaded_and_not_in_a_call(tmp_path):
    loaded = tf.saved_model.load(saved_model(small(), tmp_path / "m"))
    graph = loaded.signatures["serving_default"].graph.as_graph_def()
    operations = {node.op for f in graph.library.function for node in f.node_def}
    assert "MatMul" in operations
    assert not operations & {"SparseToDense", "Cumsum", "Where", "Fingerprint"}


def test_a_compiled_call_gives_the_same(tmp_path):
    model, x = small(), draw(3, 64)
    loaded = tf.saved_model.load(saved_model(model, tmp_path / "m"))
    fast = tf.function(loaded.serve, jit_compile=True)
    np.testing.assert_allclose(fast(x), called(model, x), rtol=1e-4, atol=1e-5)


# Inputs, outputs and signatures -----------------------------------------------------------


def test_dicts_and_lists_come_as_model_export_gives_them(tmp_path):
    a, b = keras.Input((8,), name="a"), keras.Input((None, 6), name="b")
    h = L.Concatenate()([L.Dense(20)(a), L.LSTM(20)(b)])
    outputs = {"x": L.Dense(30)(h), "y": L.Dense(2)(h)}
    for i, model in enumerate(
        [keras.Model({"a": a, "b": b}, outputs), keras.Model([a, b], [*outputs.values(), h])]
    ):
        kl.prune(model, 0.2)
        inputs = [draw(3, 8), draw(3, 5, 6)]
        loaded = assert_exports(
            model, tmp_path / f"{i}", inputs if i else dict(zip("ab", inputs, strict=True))
        )
        model.export(tmp_path / f"keras{i}", verbose=False)
        by_keras = tf.saved_model.load(str(tmp_path / f"keras{i}"))
        ours, theirs = (m.signatures["serving_default"] for m in (loaded, by_keras))
        assert ours.structured_input_signature == theirs.structured_input_signature
        assert ours.structured_outputs.keys() == theirs.structured_outputs.keys()


class Two(keras.Model):
    def __init__(self):
        super().__init__()
        self.a, self.b = L.Dense(30), L.Dense(30)

    def call(self, x, y):
        return self.a(x) + self.b(y)


def test_several_arguments_are_described_by_the_input_signature(tmp_path):
    model = Two()
    model(draw(2, 10), draw(2, 20))
    kl.prune(model, 0.2)
    specs = [tf.TensorSpec((None, 10)), keras.InputSpec(shape=(None, 20), dtype="float32")]
    assert_exports(model, tmp_path / "m", draw(3, 10), draw(3, 20), input_signature=specs)
    with pytest.raises(ValueError, match=r"input_signature.*missing a required argument"):
        saved_model(model, tmp_path / "n")
    with pytest.raises(ValueError, match=r"Expected an `input_signature`.*'float32'"):
        saved_model(model, tmp_path / "n", input_signature=["float32"])


class Sum(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(30)

    def call(self, x):
        return self.dense(x["a"]) + self.dense(x["b"])


def test_a_subclassed_model_is_known_by_its_call(tmp_path):
    model = Sum()
    model({"a": draw(2, 20), "b": draw(2, 20)})
    kl.prune(model, 0.2)
    assert_exports(model, tmp_path / "m", {"a": draw(3, 20), "b": draw(3, 20)})
    unknown = Sum()
    unknown.dense.build((None, 20))
    unknown.built = True
    with pytest.raises(ValueError, match=r"inputs of the model .* are not known.*TensorSpec"):
        saved_model(unknown, tmp_path / "n")


def test_signatures_have_names_and_forms(tmp_path):
    model = small()
    for name in ("serve", "serving_default", "no name", "variables", "packed"):
        with pytest.raises(ValueError, match=f"cannot have the name {name!r}"):
            saved_model(model, tmp_path / "m", {name: model})
    with pytest.raises(ValueError, match="a Keras model, or a pair"):
        saved_model(model, tmp_path / "m", {"more": model.call})
    masked = chain((64,), kl.wrappers.Masked(L.Dense(8)))
    for given in ((masked, {"more": model}), (model, {"more": masked})):
        with pytest.raises(ValueError, match=r"kl\.strip"):
            saved_model(given[0], tmp_path / "m", given[1])
    assert not os.listdir(tmp_path)


# Weights and states -----------------------------------------------------------------------

SHAPES = [(), (1,), (7,), (16,), (3, 5), (16, 4), (71, 67), (33, 13), (100, 48), (0, 3), (9,)]
DTYPES = ["float32", "float32", "float16", "float64"]


class Holder(keras.Model):
    def build(self, shape):
        self.held = [
            self.add_weight(shape=s, dtype=DTYPES[i % 4], name=f"w{i}")
            for i, s in enumerate(SHAPES * 2)
        ]

    def call(self, x):
        return [keras.ops.convert_to_tensor(weight) for weight in self.held] + [x]


@pytest.mark.parametrize("size", [1 << 22, 700])
def test_every_bit_of_every_weight_comes_back_whatever_its_size(size, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_SLAB", size)
    model = Holder()
    model.build((None, 1))
    for i, weight in enumerate(model.held):
        old = weight.numpy()
        bits = RNG.integers(0, 256, old.nbytes, "uint8").view(old.dtype)
        bits[RNG.random(bits.size) < 0.7] = -0.0 if i == 6 else 0
        weight.assign(bits.reshape(old.shape))
    path = saved_model(model, tmp_path / "m", input_signature=[tf.TensorSpec((None, 1))])
    loaded = tf.saved_model.load(path)
    for weight, value in zip(model.held, loaded.serve(tf.zeros((1, 1)))[:-1], strict=True):
        assert value.numpy().tobytes() == weight.numpy().tobytes()


def test_states_go_on_from_call_to_call(tmp_path):
    model = keras.Sequential(
        [keras.Input(batch_shape=(4, 5, 16)), L.LSTM(32, stateful=True), L.Dense(3)]
    )
    kl.prune(model, 0.2)
    loaded, x = tf.saved_model.load(saved_model(model, tmp_path / "m")), draw(4, 5, 16)
    found = [loaded.serve(x).numpy() for _ in range(3)]
    expected = [model(x, training=False).numpy() for _ in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(found[0], found[1])


class Noise(L.Layer):
    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(3)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)


def test_random_layers_draw_as_model_export_has_them_draw(tmp_path):
    model = chain((64,), L.Dense(80), L.Dropout(0.5), L.GaussianNoise(1.0), Noise())
    kl.prune(model, 0.2)
    model.export(tmp_path / "keras", verbose=False)
    ours = tf.saved_model.load(saved_model(model, tmp_path / "m"))
    theirs = tf.saved_model.load(str(tmp_path / "keras"))
    x = draw(2, 64)
    for _ in range(2):
        assert_same(ours.serve(x), theirs.serve(x))


class Scale(L.Layer):
    def __init__(self):
        super().__init__()
        self.by = tf.Variable([3.0])

    def call(self, x):
        return x * self.by


def test_lookup_tables_and_variables_of_tensorflow_are_saved_too(tmp_path):
    vectorize = L.TextVectorization(10, output_sequence_length=4)
    vectorize.adapt(["a b c d", "a b"])
    x = keras.Input((1,), dtype="string")
    h = L.Flatten()(L.Embedding(10, 30)(vectorize(x)))
    model = keras.Model(x, Scale()(L.Dense(40)(h)))
    kl.prune(model, 0.2)
    assert_exports(model, tmp_path / "m", tf.constant([["a c"], ["zz b"]]))


def test_a_strategy_loads_it_in_its_scope_and_runs_it_on_each_device(tmp_path):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = small()
        loaded = tf.saved_model.load(saved_model(model, tmp_path / "m"))
    x = draw(3, 64)
    results = strategy.experimental_local_results(strategy.run(loaded.serve, (x,)))
    assert len(results) == 2
    for result in results:
        assert_same(result, called(model, x))


def test_a_model_without_zeros_is_stored_as_tensorflow_stores_it(tmp_path):
    model = chain((64,), L.Dense(80), L.Dense(9))
    for variable in model.variables:
        variable.assign(RNG.normal(size=variable.shape))
    loaded = assert_exports(model, tmp_path / "m", draw(3, 64))
    assert not hasattr(loaded, "unpacker")


# Size -------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.5, 0.2, 0.1, 0.05, 0.02, 0.01])
@pytest.mark.filterwarnings("ignore:Global pruning would have left")
def test_a_globally_pruned_lenet_takes_little_more_than_the_entropy(density, tmp_path):
    model = chain((784,), L.Dense(300, "relu"), L.Dense(100, "relu"), L.Dense(10))
    masks = kl.prune(model, density, scope="global").masks
    for layer in model.layers:
        layer.bias.assign(RNG.normal(size=layer.bias.shape))
    path = saved_model(model, tmp_path / "m")
    values = weights.read(weights.all_weights(model))
    bound = entropy_bound([values[p] for p in masks])
    bound += sum(v.nbytes for p, v in values.items() if p not in masks)
    assert nbytes(path / "variables") < 1.1 * bound
    assert nbytes(path) - nbytes(path / "variables") < 100_000


def test_only_codes_and_values_are_among_the_saved_variables(tmp_path):
    path = saved_model(small(), tmp_path / "m")
    saved = {name for name, _ in tf.train.list_variables(str(path / "variables/variables"))}
    assert saved == {"packed/.ATTRIBUTES/VARIABLE_VALUE", "_CHECKPOINTABLE_OBJECT_GRAPH"}


def test_a_tensorflow_that_saves_the_dense_weights_too_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_without_value", lambda variable: variable)
    with pytest.raises(RuntimeError, match="saves the dense weights too"):
        saved_model(small(), tmp_path / "m")
    assert not os.listdir(tmp_path)


def test_a_dense_model_can_be_stored_in_half(tmp_path):
    model = chain((64,), L.Dense(80, use_bias=False))
    path = saved_model(model, tmp_path / "m", storage="float16")
    assert nbytes(path / "variables") < 2 * 64 * 80 + 1000


def test_a_weight_too_large_for_half_is_named(tmp_path):
    model = small()
    model.layers[1].kernel.assign(1e6 * np.ones((80, 33)))
    path = model.layers[1].kernel.path
    with pytest.raises(ValueError, match=f"{path}' holds 1000000.0.*float16.*bfloat16"):
        saved_model(model, tmp_path / "m", storage="float16")
    assert not os.listdir(tmp_path)


# Failures ---------------------------------------------------------------------------------


def test_other_weights_are_refused_when_it_is_loaded_with_the_reason(tmp_path):
    one, other = small(), small()
    other.layers[0].kernel.assign(one.layers[0].kernel.numpy() * 2)
    other.layers[1].kernel.assign(one.layers[1].kernel.numpy())
    paths = [saved_model(model, tmp_path / name) for model, name in ((one, "a"), (other, "b"))]
    os.rename(paths[0] / "variables", tmp_path / "old")
    os.rename(paths[1] / "variables", paths[0] / "variables")
    with pytest.raises(tf.errors.InvalidArgumentError, match="belong to another SavedModel"):
        tf.saved_model.load(paths[0])


def test_a_failure_while_saving_leaves_what_was_there(tmp_path, monkeypatch):
    model, x = small(), draw(3, 64)
    path = saved_model(model, tmp_path / "m")

    def fail(root, folder, **kwargs):
        os.makedirs(folder)
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(tf.saved_model, "save", fail)
        saved_model(small(), path, overwrite=True)
    assert os.listdir(tmp_path) == ["m"]
    loaded = tf.saved_model.load(path)
    assert_same(loaded.serve(x), called(model, x))


class NeedsValues(L.Layer):
    def call(self, x):
        return x * float(keras.ops.convert_to_numpy(x).sum())


def test_the_layer_that_cannot_be_traced_is_named(tmp_path):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.values, self.dense = NeedsValues(name="eager"), L.Dense(3)

        def build(self, shape):
            self.dense.build(shape)

        def call(self, x):
            return self.dense(self.values(x))

    model = Model()
    model(np.ones((2, 4), "float32"))
    with pytest.raises(ValueError, match=r"in the layer 'eager' \(NeedsValues\)"):
        saved_model(model, tmp_path / "m")
    assert not os.listdir(tmp_path)
