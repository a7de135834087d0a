"""The border to Keras: what is prunable, by what path, and which slots belong to it."""

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_lottery as kl
from keras_lottery import weights


def chain(shape, *layers):
    x = y = keras.Input(shape)
    for layer in layers:
        y = layer(y)
    return keras.Model(x, y)


def shapes(model, filters=None):
    return {p: tuple(v.shape) for p, v in weights.prunable(model, filters).items()}


class Own(L.Layer):
    """A custom layer with a matrix and a vector of its own."""

    def build(self, input_shape):
        self.mixing = self.add_weight(shape=(input_shape[-1], 2), name="mixing")
        self.shift = self.add_weight(shape=(2,), name="shift")
        self.table = self.add_weight(shape=(3, 3), name="table", trainable=False)

    def call(self, x):
        return x @ self.mixing + self.shift


class Twins(keras.Model):
    """Two sublayers of one name, so two variables of one path."""

    def __init__(self):
        super().__init__(name="twins")
        self.one = L.Dense(3, use_bias=False, name="same")
        self.two = L.Dense(3, use_bias=False, name="same")

    def call(self, x):
        return self.two(self.one(x))


def twins():
    model = Twins()
    model(np.zeros((1, 3), np.float32))
    return model


# The default set --------------------------------------------------------------------------


def test_sequential_kernels_and_no_biases():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="a"), L.Dense(2, name="b")])
    assert list(shapes(model).values()) == [(4, 3), (3, 2)]
    assert [p.split("/")[-2:] for p in shapes(model)] == [["a", "kernel"], ["b", "kernel"]]


def test_functional_kernels_in_the_models_order():
    assert shapes(chain((4,), L.Dense(3, name="z"), L.Dense(2, name="a"))) == {
        "z/kernel": (4, 3),
        "a/kernel": (3, 2),
    }


def test_nested_models_are_walked():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(3), chain((3,), L.Dense(2))])
    assert list(shapes(chain((4,), inner, L.Dense(1))).values()) == [(4, 3), (3, 2), (2, 1)]


def test_a_shared_layer_counts_once():
    shared = L.Dense(4, name="shared")
    assert shapes(chain((4,), shared, shared, L.Dense(1, name="out"))) == {
        "shared/kernel": (4, 4),
        "out/kernel": (4, 1),
    }


class Tied(keras.Model):
    """One variable, held by two layers of the model."""

    def __init__(self):
        super().__init__(name="tied")
        self.one = L.Dense(4, use_bias=False, name="one")
        self.holder = [self.one, L.TimeDistributed(self.one)]

    def call(self, x):
        return self.holder[1](self.one(x))


def test_a_variable_held_twice_counts_once():
    model = Tied()
    model(np.zeros((1, 5, 4), np.float32))
    assert len(shapes(model)) == 1


def test_a_custom_layers_own_trainable_matrix():
    assert shapes(chain((4,), Own(name="own"))) == {"own/mixing": (4, 2)}


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (L.LSTM(2), (5, 3), {"kernel": (3, 8), "recurrent_kernel": (2, 8)}),
        (L.GRU(2), (5, 3), {"kernel": (3, 6), "recurrent_kernel": (2, 6)}),  # its bias is (2, 6)
        (L.GRU(2, reset_after=False), (5, 3), {"kernel": (3, 6), "recurrent_kernel": (2, 6)}),
        (L.SimpleRNN(2), (5, 3), {"kernel": (3, 2), "recurrent_kernel": (2, 2)}),
        (L.EinsumDense("abc,cd->abd", (5, 4), bias_axes="bd"), (5, 3), {"kernel": (3, 4)}),
        (L.EinsumDense("ab,bcd->acd", (4, 2), bias_axes="cd"), (3,), {"kernel": (3, 4, 2)}),
        (L.Conv1D(4, 2), (5, 3), {"kernel": (2, 3, 4)}),
        (L.Conv2D(4, 3), (6, 6, 2), {"kernel": (3, 3, 2, 4)}),
        (L.Conv2DTranspose(4, 3), (6, 6, 2), {"kernel": (3, 3, 4, 2)}),
        (L.DepthwiseConv2D(3), (6, 6, 2), {"kernel": (3, 3, 2, 1)}),
        (
            L.SeparableConv2D(4, 3),
            (6, 6, 2),
            {"depthwise_kernel": (3, 3, 2, 1), "pointwise_kernel": (1, 1, 2, 4)},
        ),
        (L.SpectralNormalization(L.Dense(4)), (3,), {"kernel": (3, 4)}),
        (L.TimeDistributed(L.Dense(4)), (5, 3), {"kernel": (3, 4)}),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, L.Layer) else "",
)
def test_layers_of_every_kind(layer, shape, expected):
    found = shapes(chain(shape, layer))
    assert {p.split("/")[-1]: s for p, s in found.items()} == expected


def test_both_directions_of_a_bidirectional_layer():
    assert sorted(shapes(chain((5, 3), L.Bidirectional(L.LSTM(2)))).values()) == [
        (2, 8),
        (2, 8),
        (3, 8),
        (3, 8),
    ]


def test_attention_projections_and_none_of_their_matrix_biases():
    x = keras.Input((4, 6))
    model = keras.Model(x, L.MultiHeadAttention(2, 3)(x, x))
    assert any(v.name == "bias" and len(v.shape) == 2 for v in model.variables)
    assert {p.split("/")[-2]: s for p, s in shapes(model).items()} == {
        "query": (6, 2, 3),
        "key": (6, 2, 3),
        "value": (6, 2, 3),
        "attention_output": (2, 3, 6),
    }


class TokenEmbedding(L.Embedding):
    """A subclass is spared like its base."""


class RootMeanNorm(L.Layer):
    """A third-party normalization with a matrix scale."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=input_shape[1:], name="scale")

    def call(self, x):
        return x * self.scale


class Renamed(L.LayerNormalization):
    """A normalization by its base, not by its name."""


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.Embedding(7, 3), (4,)),
        (TokenEmbedding(7, 3), (4,)),
        (L.BatchNormalization(), (4, 3)),
        (L.LayerNormalization(axis=[1, 2]), (4, 3)),
        (Renamed(axis=[1, 2]), (4, 3)),
        (L.GroupNormalization(3), (4, 3)),
        (RootMeanNorm(), (4, 3)),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, L.Layer) else "",
)
def test_embeddings_and_normalizations_are_spared(layer, shape):
    assert shapes(chain(shape, layer, L.Dense(2, name="out"))) == {"out/kernel": (3, 2)}


def test_frozen_weights_are_not_prunable():
    model = chain((4,), L.Dense(3, name="a", trainable=False), L.Dense(2, name="b"))
    assert list(shapes(model)) == ["b/kernel"]
    model.get_layer("a").trainable = True
    assert list(shapes(model)) == ["a/kernel", "b/kernel"]


# Filters ----------------------------------------------------------------------------------


def small():
    return chain(
        (4,),
        L.Embedding(9, 3, name="words"),
        L.Flatten(),
        L.Dense(3, name="a"),
        L.Dense(2, name="b"),
    )


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("a/", ["a/kernel"]),
        ("kernel", ["a/kernel", "b/kernel"]),
        ("^b", ["b/kernel"]),
        (["b/", "a/ker"], ["a/kernel", "b/kernel"]),
        (("words",), ["words/embeddings"]),
        (".", ["words/embeddings", "a/kernel", "b/kernel"]),
        (lambda p, v: p == "b/bias", ["b/bias"]),
        (lambda p, v: v.shape == (3, 2), ["b/kernel"]),
    ],
)
def test_filters_are_a_regex_a_list_of_them_or_a_callable(filters, expected):
    assert list(shapes(small(), filters)) == expected


@pytest.mark.parametrize("filters", ["nothing", [], ["x", "y"], lambda p, v: False])
def test_selecting_nothing_lists_the_candidates(filters):
    with pytest.raises(ValueError, match=r"selects nothing.*words/embeddings.*a/kernel.*b/bias"):
        weights.prunable(small(), filters)


def test_a_model_without_prunable_weights_lists_the_candidates():
    model = chain((4, 3), L.BatchNormalization(name="norm"))
    with pytest.raises(ValueError, match=r"nothing can be pruned.*norm/gamma.*norm/beta"):
        weights.prunable(model)


@pytest.mark.parametrize("model", [keras.Sequential([L.Dense(2)]), Twins()], ids=type)
def test_an_unbuilt_model_is_told_how_to_build_it(model):
    with pytest.raises(ValueError, match=rf"'{model.name}'.*keras\.Input.*build"):
        weights.prunable(model)


# Paths ------------------------------------------------------------------------------------


def test_variables_of_one_path_are_numbered_in_the_models_order():
    model = twins()
    found = weights.prunable(model)
    assert list(found) == ["twins/same/kernel", "twins/same/kernel:2"]
    assert found["twins/same/kernel"] is model.one.kernel
    assert found["twins/same/kernel:2"] is model.two.kernel
    assert weights.prunable(model, ":2")["twins/same/kernel:2"] is model.two.kernel


def test_all_weights_are_weights_and_statistics_without_seeds():
    model = chain((4,), L.BatchNormalization(name="norm"), L.Dropout(0.5), L.Dense(2, name="out"))
    everything, kept = weights.all_variables(model), weights.all_weights(model)
    assert [id(v) for v in kept.values()] == [id(v) for v in model.weights]
    assert sorted(kept) == sorted(
        ["norm/gamma", "norm/beta", "norm/moving_mean", "norm/moving_variance"]
        + ["out/kernel", "out/bias"]
    )
    assert len(everything) == len(kept) + 1


def test_read_copies_and_write_assigns_what_is_given():
    model = chain((4,), L.Dense(2, name="out"))
    named = weights.all_weights(model)
    values = weights.read(named)
    values["out/kernel"] = values["out/kernel"] + 1
    assert not np.array_equal(values["out/kernel"], named["out/kernel"].numpy())
    weights.write(named, {"out/kernel": values["out/kernel"], "unknown": values["out/bias"]})
    assert np.array_equal(values["out/kernel"], named["out/kernel"].numpy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_not_finite_finds_nan_and_inf_of_every_precision(dtype):
    layer = L.Dense(2, dtype=dtype, name="out")
    chain((3,), layer)
    assert weights.not_finite(weights.read({"k": layer.kernel, "b": layer.bias})) == []
    layer.bias.assign([0.0, float("nan")])
    assert weights.not_finite(weights.read({"k": layer.kernel, "b": layer.bias})) == ["b"]
    counted = {"i": np.array([1, 2]), "m": np.array([True])}
    assert weights.not_finite(counted) == []


# Optimizer slots --------------------------------------------------------------------------

OPTIMIZERS = {
    "adam": (lambda: keras.optimizers.Adam(), {"momentum", "velocity"}),
    "momentum": (lambda: keras.optimizers.SGD(momentum=0.9), {"momentum"}),
    "plain": (lambda: keras.optimizers.SGD(), set()),
    "ema": (lambda: keras.optimizers.AdamW(use_ema=True), {"momentum", "velocity", "average"}),
    "amsgrad": (
        lambda: keras.optimizers.Adam(amsgrad=True),
        {"momentum", "velocity", "velocity_hat"},
    ),
    "muon": (lambda: keras.optimizers.Muon(exclude_layers=[]), {"momentum"}),
    "scaled": (
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
        {"momentum", "velocity"},
    ),
    "scaled_ema": (
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(use_ema=True)),
        {"average"},
    ),
    "accumulated": (
        lambda: keras.optimizers.SGD(momentum=0.9, gradient_accumulation_steps=2),
        {"momentum", "gradient_accumulator"},
    ),
}


def prefixed():
    """Layers whose names, and so whose slots' names, begin with one another."""
    return chain(
        (4,),
        *[L.Dense(4, use_bias=False, name=n) for n in ("a", "a_kernel", "a_kernel_momentum", "b")],
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("build", [prefixed, twins], ids=["prefixes", "duplicates"])
def test_every_variable_gets_all_of_its_own_slots(build, name):
    make, kinds = OPTIMIZERS[name]
    model = build()
    variables = model.trainable_variables
    for moved in range(len(variables)):
        optimizer = make()
        optimizer.build(variables)
        found = weights.slots(optimizer, weights.prunable(model))
        assert [set(slots) for slots in found.values()] == [kinds] * len(variables)
        gradients = [keras.ops.full(v.shape, float(i == moved)) for i, v in enumerate(variables)]
        optimizer.apply(gradients, variables)
        for i, slots in enumerate(found.values()):
            for kind, slot in slots.items():
                value = slot.numpy()
                if kind == "average":  # of one step: the weight itself
                    assert np.allclose(value, variables[i].numpy(), atol=1e-6)
                elif name == "accumulated" and kind == "momentum":  # waits for the second
                    assert not value.any()
                else:
                    assert value.any() == (i == moved), slot.path


def train(model):
    rng = np.random.default_rng(0)
    n = model.trainable_variables[0].shape[0]
    x, y = rng.normal(size=(2, 32, n)).astype("float32")
    model.fit(x, y, batch_size=8, verbose=0)


@pytest.mark.parametrize(
    ("build", "masked"),
    [(twins, 0), (twins, 1), (prefixed, 0), (prefixed, 1), (prefixed, 2), (prefixed, 3)],
)
def test_masks_on_one_of_similar_paths_zero_its_slots_and_no_others(build, masked):
    model = build()
    model.compile(keras.optimizers.Adam(0.01), "mse")
    train(model)
    path, variable = list(weights.prunable(model).items())[masked]
    mask = np.eye(*variable.shape, dtype=bool)
    before = [v.numpy() for v in model.optimizer.variables]
    kl.enforce(model, {path: mask})
    changed = [
        not np.array_equal(a, v.numpy())
        for a, v in zip(before, model.optimizer.variables, strict=True)
    ]
    # Iteration and rate, then momentum and velocity of each variable in order.
    assert np.flatnonzero(changed).tolist() == [2 + 2 * masked, 3 + 2 * masked]
    train(model)
    assert not variable.numpy()[~mask].any()
    for slot in model.optimizer.variables[2 + 2 * masked :][:2]:
        assert np.array_equal(slot.numpy() != 0, mask)
