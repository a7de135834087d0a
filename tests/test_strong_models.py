"""Searches in all kinds of models, compiled, distributed, saved; their tickets; bad input."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers as L
from sklearn.datasets import load_digits

import keras_lottery as kl
from keras_lottery import strong, wrappers

SEARCHES = {
    "edge_popup": strong.edge_popup,
    "global": lambda model: strong.edge_popup(model, scope="global", anneal=3),
    "biprop": strong.biprop,
    "iterand": lambda model: strong.iterand(model, every=2),
    "supermask": strong.supermask,
    "gem_miner": lambda model: strong.gem_miner(model, density=0.3, steps=6, every=2),
}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@keras.saving.register_keras_serializable(package="test_strong_models")
class Residual(keras.Model):
    """A subclassed model that can be copied and saved."""

    def __init__(self, units=12, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first, self.second, self.out = L.Dense(units), L.Dense(units, "relu"), L.Dense(3)
        self.drop = L.Dropout(0.2)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((None, self.units))
        self.out.build((None, self.units))
        self.built = True

    def call(self, x):
        x = self.first(x)
        return self.out(x + self.drop(self.second(x)))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def mlp(units=12):
    return keras.Sequential(
        [keras.Input((8,)), L.Dense(units, "relu"), L.BatchNormalization(), L.Dense(3)]
    )


def residual():
    model = Residual()
    model.build((None, 8))
    return model


def two_inputs():
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    shared = L.Dense(6, "relu")
    return keras.Model({"a": a, "b": b}, L.Dense(3)(shared(a) + shared(b)))


def data(shape=(8,), n=24):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, *shape)).astype("float32"), rng.integers(0, 3, n)


def train(search, x, y, epochs=1, rate=0.1, batch=8, **options):
    search.compile(keras.optimizers.SGD(rate, 0.9), LOSS, metrics=["accuracy"], **options)
    search.fit(x, y, epochs=epochs, batch_size=batch, verbose=0)
    return search


def kernels(search):
    return [v.numpy() for v in search.network.weights if "moving" not in v.path]


def outputs(model, x):
    return np.array(model(x, training=False))


# Models -----------------------------------------------------------------------------------

ZOO = {
    "sequential": zoo.sequential,
    "functional": zoo.functional,
    "nested": zoo.nested,
    "shared": zoo.shared,
    "custom": zoo.custom,
    "conv": zoo.conv,
}


@pytest.mark.parametrize("name", ZOO)
def test_a_ticket_of_any_graph_gives_the_searchs_outputs(name):
    model = ZOO[name]()
    x, y = data((8, 8, 1))
    search = strong.edge_popup(model, density=0.4)
    before = kernels(search)
    train(search, x, y)
    assert all(np.array_equal(a, b) for a, b in zip(before, kernels(search), strict=True))
    found = strong.ticket(search)
    assert [int(m.sum()) for m in found.masks.values()] == [
        round(0.4 * m.size) for m in found.masks.values()
    ]
    found.apply(model)
    assert np.allclose(outputs(model, x), outputs(search, x), atol=1e-6)


def test_a_subclassed_model_with_a_config():
    model = residual()
    search = train(strong.edge_popup(model), *data())
    strong.ticket(search).apply(model)
    assert np.allclose(outputs(model, data()[0]), outputs(search, data()[0]), atol=1e-6)


def test_inputs_by_name():
    model = two_inputs()
    x = {"a": data()[0], "b": data()[0][::-1]}
    search = train(strong.edge_popup(model), x, data()[1])
    assert len(search.learner.masks) == 2
    strong.ticket(search).apply(model)
    assert np.allclose(outputs(model, x), outputs(search, x), atol=1e-6)


def test_filters_choose_what_is_searched_and_the_rest_is_frozen():
    search = strong.edge_popup(mlp(), filters="dense_1|out")
    kept = search.network.layers[0].kernel.numpy()
    train(search, *data())
    assert [m.shape for m in search.learner.masks.values()] == [(12, 3)]
    assert np.array_equal(kept, search.network.layers[0].kernel.numpy())


def test_a_layer_frozen_by_the_user_is_neither_searched_nor_changed():
    model = mlp()
    model.layers[0].trainable = False
    kernel = model.layers[0].kernel.numpy()
    search = train(strong.edge_popup(model), *data())
    assert len(search.learner.masks) == 1
    assert np.array_equal(kernel, search.network.layers[0].kernel.numpy())


def test_binary_activations_take_the_place_of_relu():
    search = strong.biprop(mlp(), binary_activations=True)
    hidden = np.array(search.network.layers[0](data()[0]))
    assert set(np.unique(hidden)) == {-1.0, 1.0}
    with tf.GradientTape() as tape:
        x = tf.Variable([-2.0, -0.5, 0.5, 2.0])
        y = strong.binary_activation(x)
    assert tape.gradient(y, x).numpy().tolist() == [0, 1, 1, 0]


# Compiled, distributed, saved -------------------------------------------------------------


@pytest.mark.parametrize("name", SEARCHES)
def test_training_compiled_by_xla_and_in_half_precision(name):
    keras.config.set_dtype_policy("mixed_float16")
    search = SEARCHES[name](mlp())
    before = kernels(search)
    scores = list(search.learner.scores.values())
    train(search, *data(), epochs=2, jit_compile=True)
    unchanged = [np.array_equal(a, b) for a, b in zip(before, kernels(search), strict=True)]
    assert all(unchanged) or name == "iterand"
    for old, new in zip(scores, search.learner.scores.values(), strict=True):
        assert new.dtype == np.float32 and np.isfinite(new).all() and (new != old).any()


def test_xla_trains_the_same_scores():
    plain, compiled = (
        train(strong.edge_popup(mlp()), *data(), jit_compile=jit) for jit in (False, True)
    )
    for a, b in zip(plain.learner.scores.values(), compiled.learner.scores.values(), strict=True):
        assert np.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("name", ["global", "iterand", "gem_miner"])
def test_mirrored_replicas_agree_with_one_device(name):
    x, y = data()
    alone = train(SEARCHES[name](keras.Sequential(list(plain_layers()))), x, y)
    strategy = zoo.two_devices()
    with strategy.scope():
        search = SEARCHES[name](keras.Sequential(list(plain_layers())))
        search.compile(keras.optimizers.SGD(0.1, 0.9), LOSS)
    search.fit(x, y, epochs=1, batch_size=8, verbose=0)
    for a, b in zip(alone.learner.scores.values(), search.learner.scores.values(), strict=True):
        assert np.allclose(a, b, atol=1e-5)
    for variable in search.learner.variables:
        first, second = (v.numpy() for v in variable.value.values)
        assert np.array_equal(first, second)


def plain_layers():
    return keras.Input((8,)), L.Dense(12, "relu"), L.Dense(3)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_saved_search_goes_on_as_if_it_had_not_stopped(name, tmp_path):
    search = train(SEARCHES[name](mlp()), *data())
    search.save(tmp_path / "search.keras")
    loaded = keras.models.load_model(tmp_path / "search.keras")
    assert np.array_equal(outputs(search, data()[0]), outputs(loaded, data()[0]))
    assert len(loaded.trainable_variables) == 2
    for model in (search, loaded):
        model.fit(*data(), epochs=1, batch_size=8, shuffle=False, verbose=0)
    for a, b in zip(search.variables, loaded.variables, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_a_subclassed_and_a_binary_search_are_saved_too(tmp_path):
    for search in (strong.edge_popup(residual()), strong.biprop(mlp(), binary_activations=True)):
        search.save(tmp_path / "search.keras")
        loaded = keras.models.load_model(tmp_path / "search.keras")
        assert np.array_equal(outputs(search, data()[0]), outputs(loaded, data()[0]))


# Tickets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEARCHES)
def test_a_ticket_is_saved_applied_stripped_and_compacted(name, tmp_path):
    model = mlp(40)
    search = train(SEARCHES[name](model), *data())
    x = data()[0]
    expected = outputs(search, x)
    strong.ticket(search, {"note": "mine"}).save(tmp_path / "t.ticket")
    found = kl.Ticket.load(tmp_path / "t.ticket")
    assert found.metadata["note"] == "mine" and found.metadata["steps"] == 3
    found.apply(model)
    assert np.allclose(outputs(model, x), expected, atol=1e-5)
    assert np.isclose(kl.density(model), found.density)
    assert np.allclose(outputs(kl.export.compact(model), x), expected, atol=1e-5)
    plain = kl.strip(model)
    assert np.allclose(outputs(plain, x), expected, atol=1e-5)
    assert len(plain.trainable_variables) == 6


def test_a_ticket_can_be_fine_tuned():
    model = mlp()
    search = train(strong.gem_miner(model, density=0.3, steps=3, every=1), *data())
    found = strong.ticket(search)
    found.apply(model)
    train(model, *data())
    kernel = model.layers[0].kernel.numpy()
    mask = next(iter(found.masks.values()))
    start_values = next(iter(found.weights.values()))
    assert not kernel[~mask].any() and (kernel != start_values)[mask].any()


def test_a_heuristic_supermask_holds_untrained_weights_where_signs_were_kept():
    masks = {"w": np.ones(6, bool)}
    dense = kl.Ticket(masks, {"w": np.array([1.0, -2.0, 3.0, -1.0, 2.0, -3.0])})
    trained = kl.Ticket(masks, {"w": np.array([9.0, 8.0, 0.5, -4.0, 3.0, -0.1])})
    found = strong.heuristic_supermask(dense, trained, 0.5, signed_constant=False)
    assert found.weights["w"].tolist() == [1, 0, 0, -1, 2, 0]
    signed = strong.heuristic_supermask(dense, trained, 0.5).weights["w"]
    assert np.array_equal(np.sign(signed), [1, 0, 0, -1, 1, 0])
    assert np.allclose(np.abs(signed[signed != 0]), dense.weights["w"].std(), rtol=0.1)
    with pytest.raises(ValueError, match="every weight alive"):
        strong.heuristic_supermask(found, trained)
    with pytest.raises(ValueError, match="of one network"):
        strong.heuristic_supermask(dense, kl.Ticket({"v": masks["w"]}, {"v": np.ones(6)}))


# Real data --------------------------------------------------------------------------------


def test_edge_popup_beats_the_untrained_network_and_a_random_mask_by_far():
    x, y = load_digits(return_X_y=True)
    x = x.astype("float32") / 16
    model = keras.Sequential([keras.Input((64,)), L.Dense(500, "relu"), L.Dense(10)])
    search = strong.edge_popup(model)
    before = kernels(search)
    search.compile(keras.optimizers.SGD(0.1, 0.9), LOSS, metrics=["accuracy"])
    untrained = search.evaluate(x[1297:], y[1297:], verbose=0)[1]
    train(search, x[:1297], y[:1297], epochs=15, batch=60)
    assert all(np.array_equal(a, b) for a, b in zip(before, kernels(search), strict=True))
    found = strong.ticket(search)
    assert found.density == 0.5
    accuracies = []
    for candidate in (found, kl.controls.shuffle_mask(found, seed=0)):
        candidate.apply(model)
        model.compile(loss=LOSS, metrics=["accuracy"])
        accuracies.append(model.evaluate(x[1297:], y[1297:], verbose=0)[1])
    assert accuracies[0] > 0.8
    assert max(untrained, accuracies[1]) < 0.4


# Bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, r"`density` must lie in \(0, 1\]. Received: 0.0"),
        ({"density": 1.5}, "Received: 1.5"),
        ({"density": float("nan")}, "Received: nan"),
        ({"density": "half"}, "Received: 'half'"),
        ({"weights": "ones"}, "`weights` must be one of .*'keep'.*Received: 'ones'"),
        ({"scope": "erk"}, "`scope` must be one of .*Received: 'erk'"),
        ({"anneal": 0}, "`anneal` must be a number of steps"),
        ({"filters": "nowhere"}, "selects nothing.*trainable variables are.*kernel"),
        ({"filters": lambda path, variable: True}, "must be a regex"),
    ],
)
def test_edge_popup_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        strong.edge_popup(mlp(), **options)


@pytest.mark.parametrize(
    ("search", "options", "message"),
    [
        (strong.iterand, {"every": 0}, "`every` must be a number of steps"),
        (strong.iterand, {"probability": 1.1}, "`probability` must lie in"),
        (strong.iterand, {"weights": "keep"}, "`weights` must be one of"),
        (strong.gem_miner, {"steps": 10, "every": 20}, "`every` must not exceed `steps`"),
        (strong.gem_miner, {"penalty": -1.0}, "`penalty` must not be negative"),
        (strong.supermask, {"test": "mean"}, "`test` must be one of"),
    ],
)
def test_other_searches_refuse(search, options, message):
    with pytest.raises(ValueError, match=message):
        search(mlp(), **options)


def test_models_that_cannot_be_searched_are_refused():
    masked = keras.Sequential([keras.Input((8,)), wrappers.Masked(L.Dense(3))])
    with pytest.raises(ValueError, match="already holds masks"):
        strong.edge_popup(masked)
    with pytest.raises(ValueError, match="already holds masks"):
        strong.edge_popup(strong.edge_popup(mlp()))
    with pytest.raises(ValueError, match="has no weights yet"):
        strong.edge_popup(keras.Sequential([L.Dense(3)]))
    with pytest.raises(ValueError, match="can be pruned"):
        strong.edge_popup(keras.Sequential([keras.Input((8,)), L.ReLU()]))
    pruned = mlp()
    kl.prune(pruned, 0.5)
    with pytest.raises(ValueError, match="enforced"):
        strong.edge_popup(pruned)
    with pytest.raises(ValueError, match="has none"):
        strong.biprop(keras.Sequential([keras.Input((8,)), L.Dense(3)]), binary_activations=True)
    with pytest.raises(ValueError, match=r"cannot be copied.*get_config"):
        strong.edge_popup(zoo.subclassed())
    with pytest.raises(ValueError, match="`ticket` reads"):
        strong.ticket(mlp())


def test_a_search_is_not_stripped_but_its_ticket_is_taken():
    search = strong.edge_popup(keras.Sequential([keras.Input((4,)), L.Dense(2)]))
    with pytest.raises(ValueError, match=r"learns its masks: take its ticket with `kl\.strong"):
        kl.strip(search)


def test_a_compiled_model_is_searched_and_stays_compiled():
    model = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    model.compile("adam", lambda y, p: keras.ops.mean((y - p) ** 2), metrics=["mae"])
    search = strong.edge_popup(model)
    search.compile("sgd", "mse", metrics=["mae"])
    x, y = np.ones((8, 4), "float32"), np.zeros((8, 2), "float32")
    assert set(search.fit(x, y, verbose=0).history) == {"loss", "mae"}
    assert model.compiled
