"""Distances and angles of hand-made vectors, and what holds for all vectors."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_lottery as kl
from keras_lottery.analysis.distances import angle, distance


def net(*values):
    return {"w": np.asarray(values, np.float32)}


def mask(*bits):
    return {"w": np.asarray(bits, bool)}


def test_three_and_four_are_five_apart():
    assert distance(net(3, 0), net(0, 4)) == 5.0


def test_pruned_weights_do_not_count():
    a, b, alive = net(3, 0, 100), net(0, 4, -7), mask(1, 1, 0)
    assert distance(a, b, alive) == 5.0
    assert angle(a, b, alive) == 90.0


def test_all_paths_count_together():
    a = {"w": np.zeros((2, 1)), "v": np.zeros(2)}
    b = {"w": np.array([[1.0], [2.0]]), "v": np.array([4.0, 10.0])}
    assert distance(a, b) == 11.0  # 1 + 4 + 16 + 100 = 121


def test_with_masks_only_their_paths_count():
    a = {"w": np.array([3.0, 4.0]), "bias": np.array([50.0])}
    b = {"w": np.array([0.0, 0.0]), "bias": np.array([0.0])}
    assert distance(a, b, mask(1, 1)) == 5.0


def test_only_paths_of_both_count_without_masks():
    assert distance({**net(1), "other": np.ones(3)}, net(4)) == 3.0


@pytest.mark.parametrize(
    ("a", "b", "degrees"),
    [
        (net(1, 0), net(0, 2), 90),
        (net(1, 0), net(5, 0), 0),
        (net(1, 1), net(1, 0), 45),
        (net(1, 2), net(-2, -4), 180),
        (net(1, 0), net(-1, np.sqrt(np.float32(3))), 120),
    ],
)
def test_angles_of_known_vectors(a, b, degrees):
    assert angle(a, b) == pytest.approx(degrees, abs=1e-5)


def test_a_small_angle_keeps_its_digits():
    a, b = {"w": np.array([1.0, 0.0])}, {"w": np.array([1.0, 1e-9])}
    assert angle(a, b) == pytest.approx(np.degrees(1e-9), rel=1e-6)


def test_equal_networks_are_exactly_at_distance_and_angle_zero():
    a = {p: np.random.default_rng(0).normal(size=(20, 30)) for p in ("w", "v")}
    assert distance(a, a) == 0.0 and angle(a, a) == 0.0


def test_half_precision_is_computed_in_float64():
    a, b = {"w": np.full(4, 3e4, np.float16)}, {"w": np.full(4, -3e4, np.float16)}
    assert distance(a, b) == pytest.approx(1.2e5, rel=1e-3)


def test_tickets_are_compared_by_their_weights():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    path = model.layers[0].kernel.path
    alive = {path: np.array([[True], [False]])}
    tickets = []
    for value in (1.0, 3.0):
        model.set_weights([np.full((2, 1), value)])
        tickets.append(kl.Ticket.of(model, alive))
    assert distance(*tickets) == 2.0
    assert distance(tickets[0], {path: np.zeros((2, 1))}, alive) == 1.0


def test_of_a_ticket_only_the_survivors_count():
    alive = mask(1, 0)
    a = kl.Ticket(alive, {**net(1, 0), "variance": np.array([100.0])})
    b = kl.Ticket(alive, {**net(4, 0), "variance": np.array([200.0])})
    assert distance(a, b) == 3.0
    assert distance(net(4, 9), a) == distance(a, net(4, 9)) == 3.0
    assert distance(net(1, 5), net(4, 9), a) == 3.0
    assert angle(a, kl.Ticket(mask(1, 1), net(4, 9))) == 0.0


@pytest.mark.parametrize("bits", [np.array([1, 1, 0]), np.array([0.5, 0.0, 2.0])])
@pytest.mark.parametrize("measure", [distance, angle])
def test_masks_that_are_no_bools_are_refused(measure, bits):
    with pytest.raises(ValueError, match=f"bool arrays.*'w': {bits.dtype}"):
        measure(net(3, 4, 7), net(0, 0, 0), {"w": bits})


@pytest.mark.parametrize("given", [keras.Sequential(), [np.ones(1)]])
def test_what_are_no_weights_by_path_is_told(given):
    for pair in ((given, net(1)), (net(1), given)):
        with pytest.raises(TypeError, match=r"kl\.analysis\.as_values\(model, given\)"):
            distance(*pair)


@pytest.mark.parametrize(
    "other", [{"v": np.ones(1)}, kl.Ticket({"v": np.ones(1, bool)}, {"v": np.ones(1)})]
)
def test_other_names_have_a_way_out(other):
    for pair in ((net(1), other), (other, net(1))):
        with pytest.raises(ValueError, match=r"kl\.analysis\.as_values\(model, given\)"):
            distance(*pair)


@pytest.mark.parametrize(
    ("a", "b", "alive", "message"),
    [
        (net(1, 2), net(1, 2, 3), None, r"one architecture.*'w'.*\(2,\) and \(3,\)"),
        (net(1, 2), net(1, 2), mask(1), r"mask of shape \(2,\) for 'w'. Received: \(1,\)"),
        ({"v": np.ones(1)}, net(1), mask(1), "first network has no weight 'w'.*'v'"),
        (net(1), {"v": np.ones(1)}, mask(1), "second network has no weight 'w'"),
        (net(1), {"v": np.ones(1)}, None, "nothing to compare"),
        (net(1, 2), net(1, 2), mask(0, 0), "nothing to compare"),
        (net(1, np.nan), net(1, 2), None, "NaN or Inf in the weights 'w' of the first"),
        (net(1, 2), net(1, np.inf), None, "NaN or Inf in the weights 'w' of the second"),
    ],
)
@pytest.mark.parametrize("measure", [distance, angle])
def test_mistakes_are_told(measure, a, b, alive, message):
    with pytest.raises(ValueError, match=message):
        measure(a, b, alive)


def test_nan_where_pruned_is_no_mistake():
    assert distance(net(3, np.nan), net(0, np.nan), mask(1, 0)) == 3.0


@pytest.mark.parametrize(("a", "b", "which"), [(0, 1, "first"), (1, 0, "second")])
def test_a_zero_vector_has_no_angle(a, b, which):
    with pytest.raises(ValueError, match=f"{which} network is 0"):
        angle(net(a), net(b))


vectors = st.integers(0, 2**32 - 1).map(
    lambda seed: {
        "w": np.random.default_rng(seed).normal(size=(3, 4)),
        "v": np.random.default_rng(seed + 1).normal(size=5),
    }
)


@settings(max_examples=25, deadline=None)
@given(vectors, vectors, vectors, st.floats(0.01, 100))
def test_both_are_symmetric_the_distance_a_metric_and_the_angle_free_of_scale(a, b, c, scale):
    alive = {p: v > 0 for p, v in c.items()}
    alive["v"][0] = True
    assert distance(a, b, alive) == distance(b, a, alive)
    assert angle(a, b, alive) == pytest.approx(angle(b, a, alive), abs=1e-9)
    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-9
    larger = {p: v * scale for p, v in a.items()}
    assert angle(larger, b, alive) == pytest.approx(angle(a, b, alive), abs=1e-6)
    assert 0 <= angle(a, b, alive) <= 180


@settings(max_examples=25, deadline=None)
@given(vectors, vectors)
def test_they_agree_with_the_textbook_on_the_flat_vectors(a, b):
    x, y = (np.concatenate([v.ravel() for v in n.values()]) for n in (a, b))
    cosine = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    assert distance(a, b) == pytest.approx(np.linalg.norm(x - y))
    assert angle(a, b) == pytest.approx(np.degrees(np.arccos(np.clip(cosine, -1, 1))), abs=1e-5)
