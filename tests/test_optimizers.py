"""Schedules by hand, optimizers by name, and the L2 penalty step by step."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from keras_lottery.experiments import setup
from keras_lottery.experiments.config import Config
from keras_lottery.experiments.optimizers import OPTIMIZERS, WarmupThenDrops, make_optimizer


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def close(*values):
    return pytest.approx(list(values), rel=1e-5, abs=1e-7)


# The schedule -----------------------------------------------------------------------------


def test_a_rise_and_two_drops_by_hand():
    rate = WarmupThenDrops(0.4, warmup=4, drops=[6, 8])
    assert rates(rate, range(5)) == close(0, 0.1, 0.2, 0.3, 0.4)
    assert rates(rate, range(5, 10)) == close(0.4, 0.04, 0.04, 0.004, 0.004)


def test_no_rise_and_no_drop_is_a_constant():
    assert rates(WarmupThenDrops(0.25), (0, 1, 10**6)) == [0.25, 0.25, 0.25]


def test_a_drop_inside_the_rise_multiplies_it():
    assert rates(WarmupThenDrops(1.0, warmup=4, drops=[2], factor=0.5), (1, 2, 4)) == [
        0.25,
        0.25,
        0.5,
    ]


def test_the_order_of_drops_does_not_matter():
    one, other = WarmupThenDrops(1.0, 0, [3, 1]), WarmupThenDrops(1.0, 0, [1, 3])
    assert rates(one, range(5)) == rates(other, range(5)) == close(1, 0.1, 0.1, 0.01, 0.01)


def test_a_cosine_falls_from_the_end_of_the_rise_to_zero():
    rate = WarmupThenDrops(2.0, warmup=2, cosine_until=6)
    quarter = 1 + math.cos(math.pi / 4)
    assert rates(rate, range(9)) == close(0, 1, 2, quarter, 1, 2 - quarter, 0, 0, 0)


@given(
    peak=st.floats(1e-4, 10),
    warmup=st.integers(0, 50),
    drops=st.lists(st.integers(0, 100), max_size=3),
    step=st.integers(0, 200),
)
def test_the_rate_is_what_the_words_say(peak, warmup, drops, step):
    rise = min(step / warmup, 1) if warmup else 1
    expected = peak * rise * 0.5 ** sum(step >= d for d in drops)
    rate = WarmupThenDrops(peak, warmup, drops, factor=0.5)
    assert float(rate(step)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("changed", [{}, {"cosine_until": 9}, {"drops": (3, 5), "factor": 0.3}])
def test_a_schedule_goes_through_its_config(changed):
    rate = WarmupThenDrops(**{"peak": 0.1, "warmup": 2, **changed})
    config = json.loads(json.dumps(rate.get_config()))
    assert WarmupThenDrops.from_config(config).get_config() == rate.get_config()
    saved = keras.optimizers.schedules.serialize(rate)
    assert saved["registered_name"] == "keras_lottery>WarmupThenDrops"
    again = keras.optimizers.schedules.deserialize(saved)
    assert rates(again, range(10)) == rates(rate, range(10))


@pytest.mark.parametrize("jit", [False, True])
def test_a_compiled_schedule_is_the_eager_one(jit):
    rate = WarmupThenDrops(0.3, 3, [5, 7], 0.1)
    compiled = tf.function(rate, jit_compile=jit)
    steps = [tf.constant(s, tf.int64) for s in range(9)]
    assert [float(compiled(s)) for s in steps] == pytest.approx(rates(rate, range(9)), rel=1e-6)


def line(optimizer, jit=False):
    """`y = w x` with `w = 1`; its gradient at `x = 1` and loss `y` is 1 at every step."""
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")]
    )
    model.compile(optimizer, loss=lambda y, p: p, jit_compile=jit)
    return model


@pytest.mark.parametrize("jit", [False, True])
def test_fit_follows_the_schedule(jit):
    model = line(make_optimizer("sgd", WarmupThenDrops(0.4, 2, [3])), jit)
    one = np.ones((1, 1), np.float32)
    weights = []
    for _ in range(4):
        model.fit(one, one, verbose=0)
        weights.append(float(model.layers[0].kernel[0, 0]))
    assert -np.diff([1.0, *weights]) == pytest.approx([0, 0.2, 0.4, 0.04], abs=1e-6)


# Optimizers by name -----------------------------------------------------------------------


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_name_makes_an_optimizer_that_trains(name, scheduled):
    optimizer = make_optimizer(name, WarmupThenDrops(0.1) if scheduled else 0.1)
    assert float(optimizer.learning_rate) == pytest.approx(0.1)
    kernel = keras.Variable(np.ones((2, 2), np.float32))
    optimizer.apply([keras.ops.ones((2, 2))], [kernel])
    assert (kernel.numpy() != 1).all() and np.isfinite(kernel.numpy()).all()
    assert int(optimizer.iterations) == 1


def test_the_momentum_ones_are_sgd():
    momentum, nesterov = make_optimizer("momentum", 0.1), make_optimizer("nesterov", 0.1)
    assert type(momentum) is type(nesterov) is keras.optimizers.SGD
    assert (momentum.momentum, momentum.nesterov) == (0.9, False)
    assert (nesterov.momentum, nesterov.nesterov) == (0.9, True)
    assert make_optimizer("sgd", 0.1).momentum == 0


def test_an_unknown_name_lists_the_names():
    with pytest.raises(ValueError, match=r"`optimizer` .*'adam'.*'muon'.* Received: 'adagrad'"):
        make_optimizer("adagrad", 0.1)


# The L2 penalty ---------------------------------------------------------------------------

RATE, DECAY = 0.1, 0.5
LENGTHS = setup.Lengths(total=10, epoch=5, rewind=0, evaluate=5)


def compiled(optimizer, weight_decay=DECAY, **settings):
    """Two inputs to two logits, compiled as a run compiles it."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="logits")])
    config = Config(optimizer=optimizer, learning_rate=RATE, weight_decay=weight_decay, **settings)
    setup.make_compiled(config, model, LENGTHS)
    return model


def gradients(x, y, kernel, bias):
    """Of the mean cross-entropy, by hand."""
    logits = x @ kernel + bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (p - np.eye(2)[y]) / len(y)
    return x.T @ error, error.sum(0)


def batch():
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, 2)).astype(np.float32), np.array([0, 1, 1, 0])


def decayed(x, y, values):
    return [g + DECAY * v for g, v in zip(gradients(x, y, *values), values, strict=True)]


def test_one_step_of_sgd_by_hand():
    model, (x, y) = compiled("sgd"), batch()
    values = [w.numpy() for w in model.weights]
    model.train_on_batch(x, y)
    expected = [v - RATE * g for v, g in zip(values, decayed(x, y, values), strict=True)]
    for weight, value in zip(model.weights, expected, strict=True):
        np.testing.assert_allclose(weight.numpy(), value, rtol=1e-5, atol=1e-7)


def test_two_steps_of_momentum_by_hand():
    model, (x, y) = compiled("momentum"), batch()
    values = [w.numpy().astype(float) for w in model.weights]
    velocity = [np.zeros_like(v) for v in values]
    for _ in range(2):
        model.train_on_batch(x, y)
        grads = decayed(x, y, values)
        velocity = [0.9 * v - RATE * g for v, g in zip(velocity, grads, strict=True)]
        values = [w + v for w, v in zip(values, velocity, strict=True)]
    for weight, value in zip(model.weights, values, strict=True):
        np.testing.assert_allclose(weight.numpy(), value, rtol=1e-5, atol=1e-6)


def test_without_decay_the_gradient_is_that_of_the_loss():
    model, (x, y) = compiled("sgd", 0.0), batch()
    values = [w.numpy() for w in model.weights]
    model.train_on_batch(x, y)
    for weight, value, g in zip(model.weights, values, gradients(x, y, *values), strict=True):
        np.testing.assert_allclose(weight.numpy(), value - RATE * g, rtol=1e-5, atol=1e-7)


def test_a_schedule_is_made_only_where_one_is_asked_for():
    assert "learning_rate" in [v.name for v in compiled("sgd").optimizer.variables]
    model, found = compiled("sgd", warmup="1ep", lr_drops=("6it", "1.6ep")), []
    for step in (0, 4, 5, 6, 8):
        model.optimizer.iterations.assign(step)
        found.append(float(model.optimizer.learning_rate))
    assert found == pytest.approx([0, 0.08, 0.1, 0.01, 0.001], rel=1e-5)
