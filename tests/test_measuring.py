"""Loss and accuracy against NumPy."""

import keras
import numpy as np
import pytest

from keras_lottery.experiments import measuring
from keras_lottery.experiments.measuring import Measure


def logits_of(model, x):
    return model(x, training=False).numpy().astype(np.float64)


def by_hand(logits, y):
    """Mean cross-entropy and accuracy, in float64."""
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(y)), y]
    return losses.mean(), (logits.argmax(1) == y).mean()


def identity(classes=2):
    """Its logits are its inputs."""
    return keras.Sequential([keras.Input((classes,)), keras.layers.Activation("linear")])


def dense(classes=3, **layers):
    model = [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(8, "relu")]
    return keras.Sequential([*model, *layers.values(), keras.layers.Dense(classes)])


def images(n, classes=3):
    rng = np.random.default_rng(n)
    return rng.normal(size=(n, 4, 4, 1)).astype(np.float32), rng.integers(0, classes, n, np.int32)


@pytest.mark.parametrize("jit", [False, True])
def test_four_images_by_hand(jit):
    x = np.float32([[0, 0], [0, np.log(3)], [np.log(3), 0], [0, np.log(3)]])
    y = np.int32([0, 1, 1, 1])
    loss, accuracy = Measure(identity(), (x, y), jit)()
    assert accuracy == 0.75  # of a tie the first class counts
    assert loss == pytest.approx((np.log(2) + 2 * np.log(4 / 3) + np.log(4)) / 4, rel=1e-6)


@pytest.mark.parametrize("n", [1, 9, 10, 11, 25])
def test_all_images_count_alike_whatever_the_batches(monkeypatch, n):
    monkeypatch.setattr(measuring, "_BATCH", 10)
    model, (x, y) = dense(), images(n)
    assert Measure(model, (x, y), True)() == pytest.approx(
        by_hand(logits_of(model, x), y), rel=1e-5
    )


def test_it_measures_the_weights_of_now():
    model, (x, y) = dense(), images(20)
    measure = Measure(model, (x, y), True)
    before = measure()
    model.layers[-1].bias.assign([0, 50, 0])
    after = measure()
    assert after[1] == pytest.approx((y == 1).mean()) and after[0] > before[0]
    assert after == pytest.approx(by_hand(logits_of(model, x), y), rel=1e-5)
    assert measure() == after


def test_dropout_is_off_and_statistics_stay():
    model = dense(drop=keras.layers.Dropout(0.5), norm=keras.layers.BatchNormalization())
    measure, before = Measure(model, images(20), False), model.get_weights()
    assert measure() == measure()
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_it_agrees_with_keras_evaluate():
    model, (x, y) = dense(norm=keras.layers.BatchNormalization()), images(33)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy"])
    expected = model.evaluate(x, y, batch_size=7, verbose=0)
    assert Measure(model, (x, y), False)() == pytest.approx(expected, rel=1e-5)


def test_half_precision_is_measured_in_single():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, (x, y) = dense(), images(20)
    assert model(x).dtype == "bfloat16"
    expected = by_hand(model(x).numpy().astype(np.float64), y)
    assert Measure(model, (x, y), False)() == pytest.approx(expected, rel=0.02)


def test_a_loss_that_is_no_number_stays_none():
    model, (x, y) = dense(), images(5)
    model.layers[-1].kernel.assign(np.full((8, 3), np.nan, np.float32))
    assert np.isnan(Measure(model, (x, y), False)()[0])
