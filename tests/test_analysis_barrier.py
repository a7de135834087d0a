import tracemalloc

import keras
import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L

import keras_lottery as kl
from keras_lottery import weights
from keras_lottery.analysis.barrier import Barrier, error_barrier, on_line
from keras_lottery.analysis.evaluating import Evaluation


def barrier(values, **kwargs):
    alphas = np.linspace(0, 1, len(values))
    return Barrier(alphas, {"test": np.asarray(values, float)}, "error", **kwargs)


@pytest.mark.parametrize(
    ("values", "height", "stable"),
    [
        ([0.25, 0.75, 0.5], 0.375, False),
        ([0.25, 0.25], 0.0, True),
        ([0.25, 0.0, 0.25], 0.0, True),
        ([0.0, 0.0156, 0.0], 0.0156, True),
        ([0.0, 0.5, 1.0], 0.5, False),
    ],
)
def test_the_height_is_the_worst_value_minus_the_mean_of_the_ends(values, height, stable):
    assert barrier(values).heights == {"test": height}
    assert barrier(values).stable == {"test": stable}
    valley = barrier(1 - np.asarray(values), larger_is_better=True)
    assert valley.heights["test"] == pytest.approx(height)


def test_a_value_of_nan_on_the_line_makes_a_barrier_of_nan_that_is_not_stable():
    found = barrier([0.0, np.nan, 0.0])
    assert np.isnan(found.heights["test"]) and found.stable == {"test": False}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_a_barrier_is_the_same_from_both_sides_and_never_negative(values):
    height = barrier(values).heights["test"]
    assert height == barrier(values[::-1]).heights["test"]
    assert height >= 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_points_of_the_line_are_computed_in_float32_at_least_and_keep_their_type(dtype):
    a = {"w": np.array([1.0, 3.0]).astype(dtype), "n": np.array(1), "b": np.array(True)}
    b = {"w": np.array([2.0, 3.0]).astype(dtype), "n": np.array(9), "b": np.array(False)}
    third = on_line(a, b, 1 / 3)
    assert third["w"].dtype == dtype and third["w"][1] == 3
    assert third["w"][0] == np.float64(4 / 3).astype(np.float32).astype(dtype) or dtype == "float64"
    assert third["n"] == 1 and third["b"]
    assert on_line(a, b, 0.0)["w"] is a["w"] and on_line(a, b, 1.0)["w"] is b["w"]
    assert len(third) == 3 and list(third) == ["w", "n", "b"]
    with pytest.raises(KeyError):
        third["x"]


def test_float16_does_not_overflow_between_two_large_weights():
    a, b = ({"w": np.array([v], np.float16)} for v in (-60000, 60000))
    assert on_line(a, b, 0.5)["w"].tolist() == [0.0]


def judge():
    """Class 1 if w x > 0.5."""
    return keras.Sequential([keras.Input((1,)), L.Dense(1, use_bias=False)])


def test_a_network_of_one_weight_errs_along_the_line_as_known():
    """Four inputs of class 1; at weight w those with x > 1 / 2w are found."""
    x, w = np.array([[1.0], [2.0], [4.0], [8.0]]), lambda v: [np.array([[v]])]
    seen = []
    found = error_barrier(
        judge(), w(1.0), w(0.0), (x, np.ones(4)), points=5, on_point=lambda i, m: seen.append(i)
    )
    assert found.alphas.tolist() == [0, 0.25, 0.5, 0.75, 1]
    # w = 1, 3/4, 1/2, 1/4, 0
    assert found.values["data"].tolist() == [0.0, 0.0, 0.25, 0.5, 1.0]
    assert found.heights == {"data": 0.5} and found.metric == "error" and seen == [0, 1, 2, 3, 4]


def small():
    """Two hidden layers that fit a noisy circle."""
    model = keras.Sequential(
        [keras.Input((2,)), L.Dense(16, "relu"), L.Dense(8, "relu"), L.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(0.02), keras.losses.BinaryCrossentropy(from_logits=True))
    return model


@pytest.fixture(scope="module")
def circle():
    keras.utils.set_random_seed(1)
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    y = (np.sum(x**2, 1) > 1.4).astype(np.int32)
    model = small()
    model.fit(x, y, epochs=20, batch_size=20, verbose=0)
    return model.get_weights(), x, y


def permuted(arrays, rows, columns):
    """The same function, with the hidden units of both layers in another order."""
    w1, b1, w2, b2, w3, b3 = arrays
    return [w1[:, rows], b1[rows], w2[rows][:, columns], b2[columns], w3[columns], b3]


def test_between_a_network_and_itself_there_is_no_barrier(circle):
    arrays, x, y = circle
    for metric in ("error", "loss"):
        found = error_barrier(small(), arrays, list(arrays), (x, y), 5, metric=metric)
        assert found.heights == {"data": 0.0} and found.stable == {"data": True}


def test_between_permuted_networks_there_is_a_barrier_that_undoing_removes(circle):
    arrays, x, y = circle
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(16), rng.permutation(8)
    other = permuted(arrays, rows, columns)
    data = {"train": (x[:150], y[:150]), "test": (x[150:], y[150:])}
    model = small()
    evaluation = Evaluation(model, data)
    found = error_barrier(model, arrays, other, points=9, evaluation=evaluation)
    assert found.values["test"][0] == found.values["test"][-1] < 0.15
    assert min(found.heights.values()) > 0.1 and not any(found.stable.values())
    back = permuted(other, np.argsort(rows), np.argsort(columns))
    again = error_barrier(model, arrays, back, points=9, evaluation=evaluation)
    assert again.heights == {"train": 0.0, "test": 0.0}
    assert evaluation.traces == 2  # 150 and 50 examples


def test_an_accuracy_has_a_valley_as_deep_as_the_error_is_high(circle):
    arrays, x, y = circle
    other = permuted(arrays, np.arange(16)[::-1], np.arange(8)[::-1])
    error = error_barrier(small(), arrays, other, (x, y), 5)
    accuracy = error_barrier(small(), arrays, other, (x, y), 5, metric="accuracy")
    assert accuracy.larger_is_better and not error.larger_is_better
    assert accuracy.heights["data"] == pytest.approx(error.heights["data"])
    keras_metric = error_barrier(
        small(), arrays, other, (x, y), 5, metric=keras.metrics.BinaryAccuracy(threshold=0.0)
    )
    assert keras_metric.larger_is_better
    assert keras_metric.heights["data"] == pytest.approx(error.heights["data"])


def test_statistics_are_interpolated_or_measured_anew_as_by_hand():
    model = keras.Sequential([keras.Input((1,)), L.BatchNormalization(epsilon=0.0)])
    ends = [[np.array([v]) for v in (1.0, 0.0, mean, 1.0)] for mean in (0.0, 4.0)]
    x = np.array([[1.0], [3.0]])
    means = {}
    for how in ("interpolate", "recompute"):
        metric = lambda y, prediction: prediction[:, 0]  # noqa: E731
        found = error_barrier(model, *ends, (x, x), points=3, batchnorm=how, metric=metric)
        means[how] = found.values["data"].tolist()
    assert means == {"interpolate": [2.0, 0.0, -2.0], "recompute": [0.0, 0.0, 0.0]}


def test_the_model_its_masks_and_a_failing_walk_leave_nothing_behind(circle):
    arrays, x, y = circle
    model = small()
    path = next(iter(weights.prunable(model)))
    kl.enforce(model, {path: np.arange(32).reshape(2, 16) % 2 == 0})
    before = model.get_weights()

    def stop(index, measured):
        if index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        error_barrier(model, arrays, before, (x, y), 5, on_point=stop)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    masks = kl.enforcement.enforced_masks(model)
    ticket = kl.Ticket.of(model, masks)
    found = error_barrier(model, ticket, ticket, (x, y), 2)
    assert found.heights == {"data": 0.0}
    assert np.array_equal(kl.enforcement.enforced_masks(model)[path], masks[path])


def test_at_most_three_copies_of_the_weights_are_held():
    model = keras.Sequential([keras.Input((2,))] + [L.Dense(256, use_bias=False)] * 1)
    for _ in range(8):
        model.add(L.Dense(256, use_bias=False))
    size = sum(w.nbytes for w in model.get_weights())
    evaluation = Evaluation(model, (np.ones((2, 2)), np.zeros(2)))
    evaluation()
    tracemalloc.start()
    error_barrier(model, model, model, points=4, evaluation=evaluation)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    one_weight = 256 * 256 * 4
    assert 2.9 * size < peak < 3 * size + 4 * one_weight < 3.6 * size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": 1}, "at least 2.*Received: 1"),
        ({"points": 2.5}, "`points` must be an integer. Received: 2.5"),
        ({"points": "30"}, "`points` must be an integer. Received: '30'"),
        ({"points": None}, "`points` must be an integer. Received: None"),
        ({"weights_b": [np.zeros((2, 1))]}, "`weights_b` belong to another architecture"),
        ({"weights_a": [np.array([[np.nan]])]}, "finite `weights_a`.*kernel"),
        ({"weights_a": zoo.sequential}, "`weights_a` belong to another architecture"),
        ({"data": None}, "either `data` or an `evaluation`. Received: neither"),
        ({"data": (np.zeros((0, 1)), np.zeros(0))}, "empty"),
        ({"metric": "eror"}, "'error', 'accuracy', 'loss'"),
        ({"batchnorm": "none"}, "'interpolate', 'recompute'"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    fine = {"weights_a": [np.ones((1, 1))], "weights_b": [np.ones((1, 1))]}
    fine |= {"data": (np.ones((2, 1)), np.ones(2))}
    change = {k: v() if callable(v) else v for k, v in change.items()}
    with pytest.raises(ValueError, match=message):
        error_barrier(judge(), **(fine | change))


def test_data_beside_an_evaluation_or_one_of_another_model_are_refused():
    model, data = judge(), (np.ones((2, 1)), np.ones(2))
    one = [np.ones((1, 1))]
    with pytest.raises(ValueError, match="Received: both"):
        error_barrier(model, one, one, data, evaluation=Evaluation(model, data))
    with pytest.raises(ValueError, match="of another model"):
        error_barrier(model, one, one, evaluation=Evaluation(judge(), data))
