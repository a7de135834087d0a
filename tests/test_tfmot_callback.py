"""`kl.tfmot.LotteryCallback`: the search in `fit` of tf_keras, on tfmot's wrappers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as kl
from keras_lottery.tfmot import LotteryCallback, masking, wrap
from keras_lottery.tfmot.importing import load
from keras_lottery.tfmot.views import ModelView, path_of, wrappers

tfmot, tf_keras = load()
L = tf_keras.layers
prune_low_magnitude = tfmot.sparsity.keras.prune_low_magnitude
PATHS = ["a/kernel", "a/bias", "out/kernel", "out/bias"]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 6)).astype("float32")
Y = RNG.integers(0, 3, 96)
LOSS = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(autouse=True)
def fresh_tf_keras():
    tf_keras.backend.clear_session()
    tf_keras.utils.set_random_seed(0)
    yield
    tf_keras.mixed_precision.set_global_policy("float32")


def network(*layers):
    layers = layers or (L.Dense(8, "relu", name="a"), L.Dense(3, name="out"))
    return tf_keras.Sequential([tf_keras.Input((6,)), *layers])


def compiled(model=None, optimizer="adam", **options):
    model = wrap(model or network())
    model.compile(optimizer, LOSS, **options)
    return model


def fit(model, lottery, epochs=3, **options):
    options = {"batch_size": 32, "shuffle": False, "verbose": 0} | options
    return model.fit(X, Y, epochs=epochs, callbacks=[lottery], **options)


def lottery(**options):
    return LotteryCallback(**{"epochs_per_round": 1, "prune_fraction": 0.5, "verbose": 0} | options)


def values(model):
    """The weights by path, without tfmot's variables."""
    return {v.path: v.numpy() for v in ModelView(model).weights}


class EveryStep(tf_keras.callbacks.Callback):
    """Notes, after every step, whether all pruned weights and their slots are exactly 0."""

    def __init__(self, lottery):
        super().__init__()
        self.lottery = lottery
        self.zero = []

    def on_train_batch_end(self, batch, logs=None):
        view = ModelView(self.model)
        slots = masking.Held(view).slots
        weights = {v.path: v for v in view.weights}
        for path, mask in self.lottery.search.masks.items():
            held = [weights[path], *slots[path].values()]
            assert len(held) == 3  # Adam's two
            self.zero += [not variable.numpy()[~mask].any() for variable in held]


def test_the_two_smallest_of_four_weights_go_and_the_others_go_back():
    layer = L.Dense(2, use_bias=False, name="out")
    model = tf_keras.Sequential([tf_keras.Input((2,)), layer])
    model.set_weights([np.array([[1.0, -4.0], [3.0, -2.0]])])
    model = wrap(model)
    model.compile(tf_keras.optimizers.SGD(0.0), "mse")
    search = lottery()
    model.fit(np.ones((4, 2)), np.ones((4, 2)), epochs=2, verbose=0, callbacks=[search])
    assert search.ticket().masks["out/kernel"].tolist() == [[False, True], [True, False]]
    assert model.get_weights()[0].tolist() == [[0.0, -4.0], [3.0, 0.0]]
    mask = wrappers(model)[0].pruning_vars[0][1]
    assert mask.numpy().tolist() == [[0.0, 1.0], [1.0, 0.0]]
    stripped = tfmot.sparsity.keras.strip_pruning(model)
    assert stripped.get_weights()[0].tolist() == [[0.0, -4.0], [3.0, 0.0]]


def test_a_search_has_rounds_records_tickets_and_zeros_after_every_step():
    model = compiled(metrics=["accuracy"])
    initial = values(model)
    search = lottery(epochs_per_round=2, rounds=3)
    every_step = EveryStep(search)
    history = model.fit(X, Y, epochs=9, batch_size=32, verbose=0, callbacks=[search, every_step])
    assert history.history["round"] == [0, 0, 1, 1, 2, 2]
    assert history.history["density"] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert [r.density for r in search.rounds] == [1.0, 0.5, 0.25]
    assert [r.steps for r in search.rounds] == [6, 6, 6]
    assert set(search.rounds[2].metrics) == {"loss", "accuracy"}
    assert all(isinstance(r, kl.Round) for r in search.rounds)
    assert len(every_step.zero) == 18 * 2 * 3 and all(every_step.zero)
    for index in range(3):
        ticket = search.ticket(index)
        assert isinstance(ticket, kl.Ticket) and list(ticket.weights) == PATHS
        for path, value in ticket.weights.items():
            assert np.array_equal(value, initial[path] * ticket.masks.get(path, 1))
    assert search.ticket().metadata["densities"] == [1.0, 0.5, 0.25]

    again = lottery(rounds=1)  # a further fit starts from the masks, with the same optimizer
    every_step = EveryStep(again)
    model.fit(X, Y, epochs=1, batch_size=32, verbose=0, callbacks=[again, every_step])
    assert again.rounds[0].density == 0.25 and all(every_step.zero)
    for path, mask in again.ticket().masks.items():
        assert np.array_equal(mask, search.ticket().masks[path])


def test_a_round_rewound_into_an_epoch_trains_the_rest_of_the_steps_from_that_state():
    model = compiled(optimizer=tf_keras.optimizers.SGD(0.1, momentum=0.9))
    search, states = lottery(epochs_per_round=2, rewind_steps=2), {}

    def note(batch, logs):
        states[search.round, search.search.step] = values(model)

    noting = tf_keras.callbacks.LambdaCallback(on_train_batch_end=note)
    model.fit(X, Y, epochs=4, batch_size=32, verbose=0, callbacks=[noting, search])
    assert [r.steps for r in search.rounds] == [6, 4]
    assert min(step for round, step in states if round == 1) == 3
    ticket = search.ticket()
    for path, value in states[0, 2].items():
        assert np.array_equal(ticket.weights[path], value * ticket.masks.get(path, 1))
    assert any((states[1, 3][p] != ticket.weights[p]).any() for p in PATHS)


BOTH = ["a/kernel", "out/kernel"]
OPTIONS = {
    "regex": ({"filters": "out/"}, ["out/kernel"]),
    "callable": ({"filters": lambda path, v: v.shape == (6, 8)}, ["a/kernel"]),
    "layerwise": ({"scope": "layerwise", "criterion": "movement", "rewind": "none"}, BOTH),
    "snip": ({"criterion": "snip", "data": (X, Y), "rewind": "learning_rate"}, BOTH),
    "tfmot": (
        {"prune_fraction": tfmot.sparsity.keras.PolynomialDecay(0.0, 0.5, 0, 3, frequency=1)},
        BOTH,
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_mean_what_they_mean_on_keras_3(name):
    options, pruned = OPTIONS[name]
    model = compiled(run_eagerly=True)
    search = lottery(**options)
    fit(model, search, epochs=2)
    masks = search.ticket().masks
    assert list(masks) == pruned
    assert search.rounds[-1].density == 0.5
    held = {path_of(w): m.numpy() for x in wrappers(model) for w, m, _ in x.pruning_vars}
    assert all(np.array_equal(held[path], mask) for path, mask in masks.items())
    assert all(held[path].all() for path in held if path not in masks)


class Masked(L.Dense):
    """A dense layer whose forward pass multiplies by a mask: the network without the weights."""

    mask = 1.0

    def call(self, x):
        return self.activation(x @ (self.kernel * self.mask) + self.bias)


def test_a_step_is_one_of_the_network_without_the_weights_and_tfmots_own_is_not():
    kernels = [RNG.random(shape) < 0.5 for shape in ((6, 8), (8, 3))]
    masks = dict(zip(["a/kernel", "out/kernel"], kernels, strict=True))
    start = network().get_weights()

    def trained(model, *callbacks, enforced=False):
        for variable, value in zip(model.trainable_variables, start, strict=True):
            variable.assign(value)
        model.compile(tf_keras.optimizers.Adam(0.01, global_clipnorm=0.1), LOSS)
        if enforced:
            model.optimizer.build(model.trainable_variables)
            masking.enforce(ModelView(model), masks)
        model.fit(X, Y, epochs=3, batch_size=32, shuffle=False, verbose=0, callbacks=callbacks)
        return {p: w * masks.get(p, True) for p, w in values(model).items()}

    exact = network(Masked(8, "relu", name="a"), Masked(3, name="out"))
    for layer, mask in zip(exact.layers, masks.values(), strict=True):
        layer.mask = tf.constant(mask, tf.float32)
    exact = trained(exact)
    ours = trained(wrap(network()), enforced=True)
    tfmots = wrap(network())
    for wrapper, mask in zip(wrappers(tfmots), masks.values(), strict=True):
        wrapper.pruning_vars[0][1].assign(mask)
    tfmots = trained(tfmots, tfmot.sparsity.keras.UpdatePruningStep())
    far = {p: np.abs(tfmots[p] - exact[p]).max() for p in PATHS}
    for path in PATHS:
        np.testing.assert_allclose(ours[path], exact[path], rtol=0, atol=1e-6)
    assert max(far.values()) > 1e-3


def test_an_optimizer_that_divides_by_its_slot_stays_finite():
    model = compiled(optimizer=tf_keras.optimizers.Ftrl(0.01), run_eagerly=True)
    search = lottery()
    fit(model, search)
    weights = values(model)
    assert all(np.isfinite(w).all() for w in weights.values())
    for path, mask in search.ticket().masks.items():
        assert not weights[path][~mask].any() and weights[path][mask].any()


def test_a_loss_scaling_optimizer_is_masked_too():
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    model = compiled()
    assert hasattr(model.optimizer, "inner_optimizer")
    search = lottery()
    every_step = EveryStep(search)
    model.fit(X, Y, epochs=2, batch_size=32, verbose=0, callbacks=[search, every_step])
    assert search.rounds[-1].density == 0.5 and all(every_step.zero)
    assert {w.dtype.name for w in search.ticket().weights.values()} == {"float32"}


def test_a_search_that_meets_nan_stops_and_keeps_the_last_good_round():
    model = compiled(optimizer=tf_keras.optimizers.SGD(0.1))
    search = lottery(rounds=3)

    def spoil(epoch, logs):
        if epoch == 1:
            model.layers[0].layer.bias.assign(np.full(8, np.nan))

    spoiler = tf_keras.callbacks.LambdaCallback(on_epoch_end=spoil)
    with pytest.warns(RuntimeWarning, match="NaN or Inf in the weights of .*a/bias.* round 1"):
        model.fit(X, Y, epochs=3, batch_size=32, verbose=0, callbacks=[spoiler, search])
    assert len(search.rounds) == 1 and search.search.stopped
    assert all(np.isfinite(w).all() for w in values(model).values())


# What cannot work -----------------------------------------------------------------------


def keras_3_model():
    layers = [keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    return model


def test_a_model_of_the_wrong_keras_is_refused_by_name():
    with pytest.raises(ValueError, match=r"model of tf_keras.*Received: Sequential.*of keras"):
        keras_3_model().fit(X, Y, verbose=0, callbacks=[lottery()])
    with pytest.raises(ValueError, match=r"model of tf_keras"):
        wrap(keras_3_model())
    model = compiled()
    masks = {"a/kernel": np.ones((6, 8), bool)}
    doors = {
        "callback": lambda: fit(model, kl.LotteryCallback(1)),
        "find_ticket": lambda: kl.find_ticket(model, lambda model, callbacks: None, rounds=1),
        "enforce": lambda: kl.enforce(model, masks),
        "prune": lambda: kl.prune(model, 0.5),
        "apply": lambda: kl.Ticket(masks, {"a/kernel": np.ones((6, 8))}).apply(model),
        "summary": lambda: kl.summary(model),
    }
    for name, door in doors.items():
        with pytest.raises(ValueError, match=r"of Keras 3.*Received: .* of tf_keras"):
            door()
            pytest.fail(name)


def test_averages_of_the_weights_are_refused_before_training():
    model = compiled(optimizer=tf_keras.optimizers.Adam(use_ema=True))
    before = values(model)
    with pytest.raises(ValueError, match=r"use_ema=True.*wipes the sparsity"):
        fit(model, lottery())
    assert all(np.array_equal(before[p], v) for p, v in values(model).items())


def test_an_optimizer_that_clips_before_it_can_be_masked_is_refused():
    model = compiled(optimizer=tf_keras.optimizers.legacy.SGD(0.1, clipnorm=1.0))
    with pytest.raises(ValueError, match=r"not a legacy one.*with `tf_keras\.optimizers\.SGD"):
        fit(model, lottery())


@pytest.mark.parametrize("model", [network(), prune_low_magnitude(network(L.ReLU()))])
def test_a_model_without_masks_is_refused(model):
    model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match=r"has no masks of tfmot. Wrap it by `kl.tfmot.wrap"):
        fit(model, lottery())


def test_wrappers_that_are_not_built_are_refused():
    model = tf_keras.Sequential([prune_low_magnitude(L.Dense(3))])
    model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match=r"no masks of tfmot.*not built"):
        fit(model, lottery())
    with pytest.raises(ValueError, match="not built"):
        wrap(model)


def test_a_rewind_point_between_two_pauses_is_refused():
    model = compiled(steps_per_execution=2)
    with pytest.raises(ValueError, match=r"rewind_steps=3.*multiple of `steps_per_execution=2`"):
        fit(model, lottery(epochs_per_round=2, rounds=1, rewind_steps=3))


def test_a_filter_that_selects_nothing_is_refused_with_the_paths_there_are():
    with pytest.raises(ValueError, match="a/kernel"):
        fit(compiled(), lottery(filters="nowhere"))


@pytest.mark.parametrize(
    "options",
    [{}, {"pruning_schedule": tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, 0, 9)}]
    + [{"sparsity_m_by_n": (2, 4)}],
    ids=["default", "polynomial", "m by n"],
)
def test_a_schedule_that_prunes_inside_a_round_is_refused_until_wrap_takes_it_over(options):
    model = prune_low_magnitude(network(), **options)
    model.compile("sgd", LOSS)
    with pytest.raises(
        ValueError, match=r"'prune_low_magnitude_a' prunes by itself.*kl.tfmot.wrap"
    ):
        fit(model, lottery())
    wrappers(model)[0].pruning_vars[0][1].assign(np.eye(6, 8))  # masks that were there count
    model = compiled(model, optimizer=tf_keras.optimizers.SGD(0.1), run_eagerly=True)
    search = lottery(rounds=1)
    fit(model, search, epochs=1)
    assert search.rounds[0].layer_density == {"a/kernel": 6 / 48, "out/kernel": 1.0}
