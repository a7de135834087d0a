"""Masks from scores: exact counts, stated ties, straight-through gradients by hand."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lottery.strong import scores as S

SCORES = np.array([0.5, -2.0, 1.0, -0.1], np.float32)
WEIGHTS = np.array([3.0, -4.0, 5.0, 6.0], np.float32)
UPSTREAM = np.array([1.0, 10.0, -100.0, 1000.0], np.float32)
compiled = tf.function(S.top_k, jit_compile=True)


def best(keys, k, start=S.START):
    masks, start = S.top_k([tf.constant(key) for key in keys], k, start)
    return [m.numpy() for m in masks], start


def by_sorting(keys, k):
    """The reference: a stable sort of all of them in one row."""
    flat = np.concatenate([np.ravel(key) for key in keys])
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(-flat.astype(np.int64), kind="stable")[:k]] = True
    parts = np.split(mask, np.cumsum([np.size(key) for key in keys])[:-1])
    return [part.reshape(np.shape(key)) for part, key in zip(parts, keys, strict=True)]


def gradient(weigh, mask, *options):
    """What scores get when the loss has the derivative UPSTREAM in the effective weights."""
    scores = tf.Variable(SCORES)
    with tf.GradientTape() as tape:
        value = weigh(scores, tf.constant(WEIGHTS), tf.constant(mask), *options)
        loss = tf.reduce_sum(value * UPSTREAM)
    return value.numpy().tolist(), tape.gradient(loss, scores).numpy().tolist()


# Four weights by hand ---------------------------------------------------------------------


def test_the_largest_magnitudes_are_alive():
    (mask,), _ = best([S.magnitude_order(SCORES)], 2)
    assert mask.tolist() == [False, True, True, False]


def test_the_largest_raw_scores_are_alive():
    (mask,), _ = best([S.order(SCORES)], 2)
    assert mask.tolist() == [True, False, True, False]


def test_of_equal_scores_the_earlier_positions_are_alive():
    (mask,), _ = best([S.magnitude_order(np.float32([1, -1, 1, 2, -1]))], 3)
    assert mask.tolist() == [True, True, False, True, False]


def test_all_scores_may_be_zero():
    masks, _ = best([S.magnitude_order(np.zeros(2, np.float32))] * 2, 3)
    assert [m.tolist() for m in masks] == [[True, True], [True, False]]


def test_tensors_compete_together():
    keys = [S.magnitude_order(np.float32(a)) for a in ([1, 4], [[3], [2], [5]])]
    masks, _ = best(keys, 2)
    assert [m.tolist() for m in masks] == [[False, True], [[False], [False], [True]]]


def test_edge_popup_straight_through():
    # dL/d|s| = upstream * w = [3, -40, -500, 6000]; the second and fourth s are negative.
    value, slope = gradient(S.popup_weight, [False, True, True, False])
    assert value == [0, -4, 5, 0]
    assert slope == [3, 40, -500, -6000]


def test_edge_popup_of_raw_scores_straight_through():
    value, slope = gradient(S.popup_weight, [True, False, True, False], True)
    assert value == [3, 0, 5, 0]
    assert slope == [3, -40, -500, 6000]


def test_biprop_straight_through():
    # alpha = (4 + 5) / 2.
    value, slope = gradient(S.binary_weight, [False, True, True, False])
    assert value == [0, -4.5, 4.5, 0]
    assert slope == [3, 40, -500, -6000]


@pytest.mark.parametrize("rescale", [False, True])
def test_bernoulli_straight_through(rescale):
    chance = 1 / (1 + np.exp(-SCORES.astype(np.float64)))
    scale = 4 / 1 if rescale else 1
    value, slope = gradient(S.bernoulli_weight, [False, False, True, False], rescale)
    assert value == [0, 0, 5 * scale, 0]
    assert np.allclose(slope, UPSTREAM * WEIGHTS * scale * chance * (1 - chance), rtol=1e-5)


def test_gem_miner_straight_through():
    active = tf.constant([True, True, True, False])
    value, slope = gradient(S.mined_weight, [True, False, True, False], active)
    assert value == [3, 0, 5, 0]
    assert slope == [3, -40, -500, 0]


# Properties -------------------------------------------------------------------------------

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
FEW = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-40, 3e38])


@settings(max_examples=60, deadline=None)
@given(st.data(), st.lists(st.one_of(FLOATS, FEW), min_size=1, max_size=20), st.booleans())
def test_selection_is_that_of_a_stable_sort(data, values, signed):
    values = np.float32(values)
    k = data.draw(st.integers(1, values.size))
    cut = data.draw(st.integers(0, values.size))
    guess = data.draw(st.integers(-(2**31), 2**31 - 1)), data.draw(st.integers(1, 2**31 - 1))
    order = S.order if signed else S.magnitude_order
    keys = [order(part).numpy() for part in (values[:cut], values[cut:]) if part.size]
    masks, _ = best(keys, k, guess)
    assert all(np.array_equal(a, b) for a, b in zip(masks, by_sorting(keys, k), strict=True))


@settings(max_examples=60, deadline=None)
@given(FLOATS, FLOATS)
def test_integers_compare_as_the_floats_do(a, b):
    a, b = np.float32(a) + np.float32(0), np.float32(b) + np.float32(0)
    x, y = S.order(np.float32([a, b])).numpy()
    assert (x < y) == (a < b)
    x, y = S.magnitude_order(np.float32([a, b])).numpy()
    assert (x < y) == (abs(a) < abs(b))


def test_a_moving_threshold_is_followed_under_xla_in_few_counts(monkeypatch):
    rng = np.random.default_rng(0)
    scores = rng.uniform(-0.03, 0.03, (200, 500)).astype(np.float32)
    counted = []
    count = S._count
    monkeypatch.setattr(S, "_count", lambda *args: counted.append(0) or count(*args))
    start, spent = tf.constant(S.START, tf.int64), []
    for _ in range(20):
        keys = S.magnitude_order(scores).numpy()
        counted.clear()
        (mask,), following = best([keys], 50000, start)
        spent.append(len(counted))
        assert mask.sum() == 50000
        assert np.array_equal(mask, compiled([keys], 50000, start)[0][0])
        start = following
        scores += rng.normal(0, 1e-4, scores.shape).astype(np.float32)
    assert max(spent) <= 64
    assert np.mean(spent[1:]) < 10


def test_a_threshold_that_did_not_move_is_found_in_one_count(monkeypatch):
    keys = S.magnitude_order(np.random.default_rng(0).random(1000, np.float32)).numpy()
    _, start = best([keys], 300)
    counted, count = [], S._count
    monkeypatch.setattr(S, "_count", lambda *args: counted.append(0) or count(*args))
    (mask,), _ = best([keys], 300, start)
    assert len(counted) == 1 and mask.sum() == 300
