"""GradualPruning: masks that follow a schedule inside one `model.fit`."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from zoo import two_devices

import keras_lottery as kl
from keras_lottery.asking import ask_all
from keras_lottery.enforcement import enforced_masks
from keras_lottery.gradual import GradualPruning

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def problem(n=32):
    rng = np.random.default_rng(3)
    return rng.normal(size=(n, 4)).astype("float32"), rng.integers(0, 3, n)


def network(optimizer="adam", **compile_options):
    """56 prunable weights: 4 x 8 and 8 x 3."""
    model = keras.Sequential([keras.Input((4,)), L.Dense(8, "relu"), L.Dense(3)])
    model.compile(optimizer, LOSS, **compile_options)
    return model


def fit(model, *callbacks, epochs=2, **options):
    """4 steps an epoch."""
    x, y = problem()
    options = {"batch_size": 8, "verbose": 0} | options
    return model.fit(x, y, epochs=epochs, callbacks=list(callbacks), **options)


def kernels(model):
    return [v.numpy() for v in model.trainable_variables if len(v.shape) > 1]


def assert_masked(model, density):
    masks = enforced_masks(model)
    assert kl.density(model) == density < 1
    for kernel, mask in zip(kernels(model), masks.values(), strict=True):
        assert not kernel[~mask].any() and kernel[mask].all()


class Every:
    """Behaves like a tfmot schedule that says yes at every n-th step; takes one step a call."""

    def __init__(self, n, sparsities):
        self.n, self.sparsities, self.asked = n, sparsities, []

    def __call__(self, step):
        self.asked.append(int(step))
        return step % self.n == 0, np.float32(self.sparsities(int(step)))


def halves(step):
    """1/2 from step 2, 1/4 from step 5 on."""
    return 1.0 if step < 2 else 0.5 if step < 5 else 0.25


class After(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.zeros, self.traces = [], 0

    def on_train_batch_end(self, batch, logs=None):
        self.zeros.append(sum(int((k == 0).sum()) for k in kernels(self.model)))


def test_masks_follow_densities_step_by_step():
    gradual, after = GradualPruning(halves), After()
    history = fit(network(), gradual, after).history
    assert after.zeros == [0, 28, 28, 28, 42, 42, 42, 42]
    assert gradual.prunings == [(2, 0.5), (5, 0.25)]
    assert history["density"] == [0.5, 0.25]
    assert_masked(gradual.model, 0.25)


def test_a_tfmot_schedule_prunes_where_it_says_so_and_only_there():
    schedule = Every(3, lambda step: step / 12)
    gradual, after = GradualPruning(schedule), After()
    fit(network(), gradual, after)
    assert after.zeros == [0, 0, 14, 14, 14, 28, 28, 28]
    assert set(schedule.asked) == set(range(1, 9))


def test_the_lowest_magnitudes_of_the_trained_weights_go():
    class Before(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.flat = np.abs(np.concatenate([k.ravel() for k in kernels(self.model)]))

    before, gradual = Before(), GradualPruning(lambda step: 0.25 if step >= 2 else 1.0)
    fit(network(), before, gradual, epochs=1)
    alive = np.concatenate([m.ravel() for m in gradual.masks.values()])
    np.testing.assert_array_equal(alive, before.flat >= np.sort(before.flat)[-14])


def test_by_default_all_layers_compete_and_layerwise_each_loses_its_share():
    model = network()
    model.layers[0].kernel.assign(model.layers[0].kernel * 3)
    start = model.get_weights()
    fit(model, GradualPruning(lambda step: 0.5), epochs=1)
    first, second = (int(m.sum()) for m in enforced_masks(model).values())
    assert first + second == 28 and first > 16
    other = network()
    other.set_weights(start)
    fit(other, GradualPruning(lambda step: 0.5, scope="layerwise"), epochs=1)
    assert [int(m.sum()) for m in enforced_masks(other).values()] == [16, 12]


def test_a_layer_ends_with_its_own_count_where_the_count_of_all_stays():
    model, gradual = (
        network(),
        GradualPruning(lambda s: 0.55 if s < 3 else 0.546, scope="layerwise"),
    )
    fit(model, gradual)
    assert [round(56 * d) for d in (0.55, 0.546)] == [31, 31]
    assert [int(m.sum()) for m in gradual.masks.values()] == [round(32 * 0.546), 13]


def test_nothing_is_traced_again_when_masks_change():
    traces = []

    class Counted(keras.layers.Layer):
        def call(self, x):
            traces.append(1)
            return x

    model = keras.Sequential([keras.Input((4,)), L.Dense(8), Counted(), L.Dense(3)])
    model.compile("adam", LOSS)
    traces.clear()
    fit(model, GradualPruning(halves))
    assert len(traces) == 1
    fit(model, GradualPruning(lambda step: 0.1))
    assert len(traces) == 1
    assert_masked(model, 6 / 56)


def test_masks_are_nested_and_a_growing_schedule_is_told_once():
    gradual = GradualPruning(lambda step: [1, 0.5, 0.75, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5][step])
    with pytest.warns(UserWarning, match=r"must not grow.*0\.75 at step 2 after 0\.5") as told:
        fit(network(), gradual)
    assert len(told) == 1
    assert gradual.prunings == [(1, 0.5), (3, 0.25)]
    assert_masked(gradual.model, 0.25)


@pytest.mark.parametrize("scope", ["erk", "nm", "block"])
def test_every_scope_works(scope):
    gradual = GradualPruning(halves, scope=scope)
    masks = []

    class Keep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            masks.append(gradual.masks)

    fit(network(), gradual, Keep())
    assert kl.density(gradual.model) < 0.6
    for outer, inner in itertools.pairwise(masks):
        assert not any((inner[p] & ~outer[p]).any() for p in inner)


def test_criteria_see_the_weights_that_the_fit_began_with():
    model = network()
    start = kernels(model)
    seen = []

    def criterion(state):
        seen.append(state)
        return {p: np.abs(w) for p, w in state.weights.items()}

    fit(model, GradualPruning(halves, criterion, data=problem(8)))
    assert len(seen) == 3 and seen[0].data is not None
    for value, expected in zip(seen[1].initial.values(), start, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_only_what_filters_choose_is_pruned_and_other_masks_stay():
    model = network()
    first, second = (layer.kernel.path for layer in model.layers)
    kl.prune(model, 0.5, filters=lambda path, v: path == second)
    gradual = GradualPruning(lambda step: 0.25, filters=lambda path, v: path == first)
    fit(model, gradual)
    assert list(gradual.masks) == [first] and gradual.density == 0.25
    assert {p: int(m.sum()) for p, m in enforced_masks(model).items()} == {first: 8, second: 12}


# Ways to train ----------------------------------------------------------------------------


def test_at_longer_pauses_it_prunes_at_the_next_and_says_so():
    gradual, after = GradualPruning(Every(3, lambda step: step / 12)), After()
    with pytest.warns(UserWarning, match=r"step 3.*steps_per_execution=2.*step 4") as told:
        fit(network(steps_per_execution=2), gradual, after)
    assert len(told) == 1
    assert gradual.prunings == [(4, 0.75), (6, 0.5)]
    assert after.zeros == [0, 14, 28, 28]


def averages():
    return keras.optimizers.Adam(use_ema=True, ema_momentum=0.5)


OPTIONS = {
    "jit": {"jit_compile": True},
    "pauses": {"steps_per_execution": 4},
    "averages": {"optimizer": averages},
    "muon": {"optimizer": lambda: keras.optimizers.Muon(0.01)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_however_the_step_is_compiled_pruned_weights_are_zero(name):
    options = dict(OPTIONS[name])
    optimizer = options.pop("optimizer", lambda: "adam")()
    gradual = GradualPruning(halves)
    fit(network(optimizer, **options), gradual)
    assert_masked(gradual.model, 0.25)


def test_swapped_averages_are_masked():
    gradual = GradualPruning(halves)
    fit(network(averages()), keras.callbacks.SwapEMAWeights(swap_on_epoch=True), gradual)
    assert_masked(gradual.model, 0.25)


def test_with_gradient_accumulation_steps_are_updates():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    gradual = GradualPruning(halves)
    fit(network(optimizer), gradual, epochs=3)
    assert gradual.prunings == [(2, 0.5), (5, 0.25)]


def test_two_devices_train_under_the_same_masks():
    with two_devices().scope():
        model = network()
    gradual = GradualPruning(halves)
    fit(model, gradual)
    assert gradual.prunings == [(2, 0.5), (5, 0.25)]
    assert_masked(model, 0.25)


def test_a_model_that_fit_builds_is_pruned():
    model = keras.Sequential([L.Dense(8, "relu"), L.Dense(3)])
    model.compile("adam", LOSS)
    gradual, after = GradualPruning(halves), After()
    fit(model, gradual, after)
    assert after.zeros == [0, 28, 28, 28, 42, 42, 42, 42]


def test_a_second_fit_goes_on_with_steps_and_masks():
    model = network()
    one, both = GradualPruning(halves), GradualPruning(halves)
    fit(model, one, epochs=1)
    assert one.prunings == [(2, 0.5)]
    fit(model, both, epochs=3, initial_epoch=1)
    assert both.prunings == [(5, 0.25)]
    fit(model, epochs=1)
    assert_masked(model, 0.25)
    kl.strip(model)
    assert enforced_masks(model) is None


def test_the_same_callback_may_be_used_again():
    gradual = GradualPruning(halves)
    fit(network(), gradual)
    fit(network(), gradual)
    assert gradual.prunings == [(2, 0.5), (5, 0.25)]


# Bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "match"),
    [
        (0.5, r"callable.*Received: 0\.5"),
        (lambda step: None, "density, or with"),
        (lambda step: "a", "density, or with.*'a' at step 1"),
        (lambda step: 1.5, r"\(0, 1\].*1\.5 at step 1"),
        (lambda step: 0.0, r"\(0, 1\]"),
        (lambda step: (True, 1.0), r"\[0, 1\).*1\.0 at step 1"),
    ],
)
def test_a_bad_schedule_is_told_at_construction(schedule, match):
    with pytest.raises(ValueError, match=match):
        GradualPruning(schedule)


def test_bad_options_are_told_before_training():
    for options in ({"scope": "no"}, {"criterion": "no"}, {"criterion": "snip"}):
        with pytest.raises(ValueError, match=r"scope|criterion"):
            GradualPruning(halves, **options)
    with pytest.raises(ValueError, match="selects nothing"):
        fit(network(), GradualPruning(halves, filters="no such path"))


def test_nan_weights_stop_the_training_with_a_warning():
    x, y = problem()
    model = network("sgd")
    gradual = GradualPruning(halves)
    x[8:] = np.nan
    with pytest.warns(RuntimeWarning, match=r"NaN or Inf in the weights.*at step 2"):
        model.fit(x, y, 8, epochs=3, shuffle=False, verbose=0, callbacks=[gradual])
    assert len(model.history.epoch) == 1
    assert gradual.prunings == []


def test_a_keras_schedule_may_give_the_density():
    decay = keras.optimizers.schedules.PolynomialDecay(1.0, 4, 0.5)
    gradual = GradualPruning(decay)
    fit(network(), gradual)
    assert gradual.prunings == [(s, round(56 * (1 - s / 8)) / 56) for s in (1, 2, 3, 4)]


def test_a_schedule_of_tensors_is_asked_for_many_steps_at_once():
    asked = []

    def schedule(step):
        asked.append(np.shape(step))
        return tf.equal(step % 4, 0), tf.cast(step, tf.float32) / 16

    gradual = GradualPruning(schedule)
    fit(network(), gradual)
    assert gradual.prunings == [(4, 0.75), (8, 0.5)]
    assert asked.count(()) == 2 and len(asked) == 3
    assert ask_all(Every(2, float), np.arange(1, 4)) is None
