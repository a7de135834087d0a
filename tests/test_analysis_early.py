"""Early stops of histories and records; early-bird masks of a training that goes on unchanged."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_lottery as kl
from keras_lottery import enforcement
from keras_lottery.analysis.early_bird import EarlyBird, mask_distance
from keras_lottery.analysis.early_stopping import EarlyStop, early_stop, speed_up

HISTORY = {
    "loss": [1.0, 0.8, 0.6, 0.4],
    "val_loss": [0.9, 0.5, 0.7, 0.6],
    "val_accuracy": [0.3, 0.7, 0.8, 0.9],
}


def test_the_lowest_validation_loss_is_found_with_all_numbers_of_its_epoch():
    found = early_stop(HISTORY)
    assert found == EarlyStop(1, 2, 0.5, {"loss": 0.8, "val_accuracy": 0.7})


def test_steps_are_counted_by_steps_per_epoch():
    assert early_stop(HISTORY, steps_per_epoch=50).step == 100


def test_another_loss_can_be_monitored():
    assert early_stop(HISTORY, monitor="loss").index == 3


def test_a_history_of_fit_is_read():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[0.0]])])
    model.compile(keras.optimizers.SGD(1.0), "mse", metrics=["mae"])  # w: 0, 2, 0, ...
    x, y = np.ones((2, 1)), np.ones((2, 1))
    history = model.fit(x, y, epochs=2, batch_size=2, validation_data=(x, 2 * y), verbose=0)
    found = early_stop(history, steps_per_epoch=1)
    assert (found.index, found.step, found.val_loss) == (0, 1, 0.0)
    assert found.metrics["val_mae"] == 0.0 and found.metrics["mae"] == 1.0


def test_a_record_of_a_run_and_its_curve_are_read():
    curve = {
        "step": [100, 200, 250],
        "loss": [1.0, 0.7, 0.6],
        "val_loss": [0.8, 0.4, 0.5],
        "test_accuracy": [0.5, 0.75, 0.875],
    }
    record = {"kind": "ticket", "round": 3, "early_stop": {"step": 200}, "curve": curve}
    expected = EarlyStop(1, 200, 0.4, {"loss": 0.7, "test_accuracy": 0.75})
    assert early_stop(record) == early_stop(curve) == expected
    assert early_stop(curve, steps_per_epoch=7) == expected  # the curve's own steps count


def test_nan_inf_and_none_are_skipped():
    losses = [math.nan, None, 0.5, -math.inf, 0.4, math.inf]
    found = early_stop({"val_loss": losses, "accuracy": [0, 0, 0, 0, None, 0]})
    assert found == EarlyStop(4, 5, 0.4, {})


def test_the_first_of_equal_losses_counts():
    assert early_stop({"val_loss": [0.5, 0.25, 0.25]}).index == 1


def test_metrics_that_are_no_number_are_left_out():
    found = early_stop({"val_loss": [1.0], "f1": [[0.1, 0.2]], "name": ["a"], "n": [np.float32(2)]})
    assert found.metrics == {"n": 2.0}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.none() | st.floats(), min_size=1), st.integers(1, 100))
def test_no_finite_loss_is_lower_and_none_as_low_is_earlier(losses, steps):
    finite = [v for v in losses if v is not None and math.isfinite(v)]
    if not finite:
        with pytest.raises(ValueError, match="No value of 'val_loss' is finite"):
            early_stop({"val_loss": losses})
        return
    found = early_stop({"val_loss": losses}, steps)
    assert found.val_loss == min(finite) and losses.index(found.val_loss) == found.index
    assert found.step == (found.index + 1) * steps


@pytest.mark.parametrize(
    ("history", "options", "message"),
    [
        ({"loss": [1.0]}, {}, r"no list 'val_loss'.*\['loss'\].*validation_data"),
        ({"val_loss": []}, {}, "No value of 'val_loss' is finite"),
        ({"val_loss": [1.0], "loss": [1.0, 2.0]}, {}, "equally long.*'val_loss': 1, 'loss': 2"),
        (HISTORY, {"steps_per_epoch": 0}, "`steps_per_epoch` must be at least 1"),
        (HISTORY, {"monitor": "auc"}, "no list 'auc'"),
        ([0.3, 0.2], {}, "Expected a keras History.*Received: list"),
    ],
)
def test_a_history_that_cannot_be_read_is_told(history, options, message):
    with pytest.raises(ValueError, match=message):
        early_stop(history, **options)


def test_the_speed_up_is_that_of_the_papers():
    dense, found = EarlyStop(0, 2510, 0.1, {}), EarlyStop(0, 1000, 0.1, {})
    assert speed_up(found, dense) == 2.51
    with pytest.raises(ValueError, match=r"no speed-up.*step 0"):
        speed_up(EarlyStop(0, 0, 0.1, {}), dense)


# Early bird


def bits(*values):
    return np.asarray(values, bool)


def test_the_mask_distance_is_the_fraction_of_differing_bits():
    a = {"w": bits(1, 1, 0), "v": bits(0)}
    assert mask_distance(a, {"w": bits(1, 0, 1), "v": bits(0)}) == 0.5
    assert mask_distance(a, a) == 0.0
    assert mask_distance(a, {p: ~m for p, m in a.items()}) == 1.0


@pytest.mark.parametrize("other", [np.array([1, 0]), np.array([0.3, 0.0])])
def test_masks_that_are_no_bools_are_refused(other):
    with pytest.raises(ValueError, match=f"`b` must be bool arrays.*'w': {other.dtype}"):
        mask_distance({"w": bits(1, 0)}, {"w": other})


@pytest.mark.parametrize("other", [{"v": bits(1, 0)}, {"w": bits(1)}])
def test_masks_of_other_paths_or_shapes_are_told(other):
    with pytest.raises(ValueError, match=r"same paths and shapes.*'w'"):
        mask_distance({"w": bits(1, 0)}, other)


class Write(keras.callbacks.Callback):
    """Sets the kernel before the end of each epoch, so that its masks are known."""

    def __init__(self, *rows):
        super().__init__()
        self.rows = rows

    def on_epoch_end(self, epoch, logs=None):
        self.model.layers[0].kernel.assign(np.reshape(self.rows[epoch], (4, 1)))


def follow(bird, *rows):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.zeros((1, 4))
    return model.fit(x, x[:, :1], epochs=len(rows), verbose=0, callbacks=[Write(*rows), bird])


def test_distances_are_the_largest_to_the_older_masks_in_memory():
    bird = EarlyBird(density=0.5, memory=3, threshold=0.25)
    rows = [(4, 3, 2, 1), (4, 3, 2, 1), (1, 2, 3, 4), (4, 1, 3, 2), (4, 1, 3, 2), (4, 0, 3, 1)]
    history = follow(bird, *rows)  # alive: 01, 01, 23, 02, 02, 02
    assert math.isnan(bird.distances[0])
    assert bird.distances[1:] == [0.0, 1.0, 0.5, 0.5, 0.0]
    assert history.history["mask_distance"][1:] == bird.distances[1:]
    assert bird.epoch == 5
    assert [m.ravel().tolist() for m in bird.masks.values()] == [[True, False, True, False]]


def test_a_distance_equal_to_the_threshold_and_a_memory_not_full_do_not_settle_it():
    row = (4, 3, 2, 1)
    bird = EarlyBird(density=0.5, memory=4)
    follow(bird, row, row, row)
    assert bird.epoch is None and bird.masks is None
    bird = EarlyBird(density=0.5, memory=2, threshold=0.5)
    follow(bird, row, (4, 2, 3, 1))
    assert bird.distances[1] == 0.5 and bird.epoch is None


def test_a_second_fit_begins_anew():
    row, bird = (4, 3, 2, 1), EarlyBird(density=0.5, memory=2)
    follow(bird, row, row, row)
    assert bird.epoch == 1
    follow(bird, row)
    assert len(bird.distances) == 1 and bird.epoch is None


def classifier():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(5),
            keras.layers.Dense(3),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def trained(callbacks, prune=None):
    keras.utils.set_random_seed(3)
    model = classifier()
    if prune:
        kl.prune(model, prune)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 6)), rng.integers(0, 3, 30)
    model.fit(x, y, batch_size=10, epochs=3, verbose=0, callbacks=callbacks)
    return model


@pytest.mark.parametrize("scope", ["global", "channels"])
def test_it_draws_the_masks_of_prune_and_leaves_the_model_as_it_trains(scope):
    bird = EarlyBird(density=0.5, scope=scope, memory=3, threshold=1.0)
    plain, watched = trained([]), trained([bird])
    for a, b in zip(plain.get_weights(), watched.get_weights(), strict=True):
        assert np.array_equal(a, b)
    assert enforcement.enforced_masks(watched) is None
    assert all(0 <= d <= 1 for d in bird.distances[1:])
    assert bird.epoch == 2  # the last one
    expected = kl.prune(watched, 0.5, scope=scope).masks
    assert all(np.array_equal(bird.masks[p], expected[p]) for p in expected)


def test_masks_in_force_are_deepened():
    bird = EarlyBird(density=0.2, memory=2, threshold=1.0)
    model = trained([bird], prune=0.5)
    assert kl.density(model) == pytest.approx(0.5, abs=0.01)
    carried = enforcement.enforced_masks(model)
    assert not any((bird.masks[p] & ~carried[p]).any() for p in bird.masks)
    assert sum(m.sum() for m in bird.masks.values()) == round(0.2 * (48 + 40 + 15))


def test_the_papers_channels_are_chosen_by_the_scales_of_batch_normalization():
    bird = EarlyBird(0.5, filters=lambda path, v: path.endswith("gamma"), memory=2, threshold=1.0)
    trained([bird])
    assert [(p.split("/")[-1], m.shape, m.sum()) for p, m in bird.masks.items()] == [
        ("gamma", (8,), 4)
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0}, r"`density` must lie in \(0, 1\]. Received: 0"),
        ({"density": 1.5}, "Received: 1.5"),
        ({"density": "a"}, "`density` must lie.*Received: 'a'"),
        ({"threshold": 0.0}, "`threshold` must lie"),
        ({"memory": 1}, "`memory` must be at least 2"),
        ({"criterion": "nonsense"}, "criterion.*nonsense"),
        ({"criterion": "snip"}, "no data was given"),
        ({"scope": "nonsense"}, "scope.*nonsense"),
    ],
)
def test_mistakes_are_told_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        EarlyBird(**{"density": 0.5} | options)


def test_filters_that_select_nothing_are_told_before_the_first_step():
    bird = EarlyBird(0.5, filters="nonsense")
    with pytest.raises(ValueError, match=r"nonsense.*selects nothing"):
        follow(bird, (1, 2, 3, 4))


def test_weights_that_are_not_finite_are_told():
    with pytest.raises(kl.NotFiniteError, match="NaN or Inf in the weights"):
        follow(EarlyBird(0.5), (1, 2, 3, np.nan))
