"""Initial values of survivors, movement and sign flips in training."""

import math

import keras
import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lottery import Ticket, weights
from keras_lottery.analysis.movement import flip_signs, initial_values, movement, sign_flips


def mask(*bits):
    return np.array(bits, bool)


def dense(*values):
    return Ticket({"w": np.ones(len(values), bool)}, {"w": np.array(values)})


def ticket(values, bits):
    return Ticket({"w": mask(*bits)}, {"w": np.array(values)})


# Initial values -------------------------------------------------------------------------


def test_histograms_of_four_values_share_their_edges():
    values = [-4.0, -1.0, 1.0, 3.0]
    found = initial_values(ticket(values, [1, 0, 1, 0]), dense(*values), bins=4)["w"]
    assert found.edges.tolist() == [-4, -2, 0, 2, 4]
    assert found.alive.tolist() == [1, 0, 1, 0] and found.all.tolist() == [1, 1, 1, 1]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(0, 10**6))
def test_every_value_is_counted_once(bins, seed):
    rng = np.random.default_rng(seed)
    values, bits = rng.standard_normal(200).astype("float32"), rng.random(200) < 0.3
    found = initial_values(ticket(values, bits), {"w": values}, bins)["w"]
    assert found.edges.shape == (bins + 1,) and found.all.shape == (bins,)
    assert (found.alive.sum(), found.all.sum()) == (bits.sum(), 200)
    assert (found.alive <= found.all).all()


def test_a_layer_of_zeros_and_one_without_survivors_have_histograms():
    found = initial_values(ticket([0.0, 0.0], [0, 0]), dense(0.0, 0.0), bins=2)["w"]
    assert found.alive.sum() == 0 and found.all.sum() == 2
    assert found.edges.tolist() == [-0.5, 0, 0.5]


def test_low_precision_is_read_in_full():
    values = np.array([1.0, -1.0], "float16")
    found = initial_values(ticket(values, [1, 1]), {"w": values}, bins=2)["w"]
    assert found.edges.dtype == np.float64 and found.alive.tolist() == [1, 1]


def test_initial_values_need_the_dense_ticket():
    own = ticket([1.0, 2.0], [1, 0])
    with pytest.raises(ValueError, match=r"round 0.*density 50.00%"):
        initial_values(own, own)
    with pytest.raises(ValueError, match=r"none for 'w'.*\['v'\]"):
        initial_values(own, {"v": np.ones(2)})
    with pytest.raises(ValueError, match=r"'w': \(3,\); its mask has \(2,\)"):
        initial_values(own, {"w": np.ones(3)})
    with pytest.raises(ValueError, match="NaN or an Inf in 'w'"):
        initial_values(own, {"w": np.array([1.0, math.nan])})
    with pytest.raises(ValueError, match="`bins` must be 1 or more"):
        initial_values(own, dense(1.0, 2.0), bins=0)


# Movement -------------------------------------------------------------------------------


def test_movement_of_six_weights_by_hand():
    before = {"w": np.array([1.0, -1.0, 2.0, 1.0, 1.0, -4.0]), "bias": np.ones(2)}
    after = {"w": np.array([3.0, -2.0, -1.0, 0.5, -3.0, -4.0])}
    (found,) = movement(before, after, {"w": mask(1, 1, 1, 0, 0, 0)})
    assert found.path == "w"
    assert (found.moved_alive, found.moved_pruned) == (2.0, 1.5)
    assert (found.away_alive, found.away_pruned) == (2 / 3, 1 / 3)
    assert (found.flips_alive, found.flips_pruned) == (1 / 3, 1 / 3)


def test_zero_has_no_sign():
    (found,) = movement(dense(0.0, 1.0), dense(1.0, 0.0), {"w": mask(1, 1)})
    assert found.flips_alive == 0 and found.away_alive == 0.5


def test_where_no_weight_is_there_is_no_number():
    (found,) = movement(dense(1.0), dense(2.0), {"w": mask(1)})
    assert found.moved_alive == 1 and math.isnan(found.moved_pruned)
    assert math.isnan(found.away_pruned) and math.isnan(found.flips_pruned)


def test_movement_of_a_trained_model_is_that_of_its_kernels():
    model = zoo.sequential()
    before = weights.read(weights.all_weights(model))
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 8, 8, 1)), np.ones((8, 3)), verbose=0)
    after = weights.read(weights.all_weights(model))
    masks = {p: before[p] > 0 for p in weights.prunable(model)}
    found = movement(before, after, masks)
    assert [m.path for m in found] == list(masks)
    moved = np.abs(model.layers[1].kernel.numpy() - before[found[0].path])
    assert found[0].moved_alive == pytest.approx(moved[masks[found[0].path]].mean(), rel=1e-6)
    assert found[0].moved_alive > 0


def test_movement_between_different_networks_is_refused():
    with pytest.raises(ValueError, match="`after` must hold a value for each mask"):
        movement(dense(1.0), {"v": np.ones(1)}, {"w": mask(1)})
    with pytest.raises(ValueError, match="`before` must be finite"):
        movement({"w": np.array([math.inf])}, dense(1.0), {"w": mask(1)})


# Sign flips -----------------------------------------------------------------------------


def test_flips_from_the_value_before_and_from_the_first():
    points = [[1, 1, 1, 9], [-1, 1, 1, -9], [-1, -1, 1, 9], [1, -1, 1, 9]]
    found = sign_flips(({"w": np.array(p)} for p in points), {"w": mask(1, 1, 1, 0)})
    assert found.from_previous.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert found.from_first.tolist() == pytest.approx([1 / 3, 2 / 3, 1 / 3])


def test_flips_are_shares_over_all_layers():
    points = [{"v": np.ones(3), "w": np.ones((1, 1))}, {"v": np.ones(3), "w": -np.ones((1, 1))}]
    found = sign_flips(points, {"v": mask(1, 1, 1), "w": np.ones((1, 1), bool)})
    assert found.from_first.tolist() == [0.25]


def test_a_trajectory_needs_two_points_and_an_alive_weight():
    with pytest.raises(ValueError, match="Received: 1"):
        sign_flips([dense(1.0)], {"w": mask(1)})
    with pytest.raises(ValueError, match="Received: 0"):
        sign_flips([], {"w": mask(1)})
    with pytest.raises(ValueError, match="all are pruned"):
        sign_flips([dense(1.0)] * 2, {"w": mask(0)})
    with pytest.raises(ValueError, match=r"`trajectory\[1\]` must have the shapes"):
        sign_flips([dense(1.0), dense(1.0, 2.0)], {"w": mask(1)})


# Perturbed signs ------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.integers(0, 10**6))
def test_exactly_the_rounded_share_of_alive_signs_is_turned(fraction, seed):
    rng = np.random.default_rng(seed)
    values = {"w": rng.standard_normal((6, 5)), "v": rng.standard_normal(7), "b": np.ones(3)}
    own = Ticket({p: rng.random(values[p].shape) < 0.6 for p in ("w", "v")}, values)
    found = flip_signs(own, fraction, seed)
    turned = sum(int((found.weights[p] != own.weights[p]).sum()) for p in values)
    assert turned == round(fraction * sum(int(m.sum()) for m in own.masks.values()))
    assert all(np.array_equal(abs(found.weights[p]), abs(own.weights[p])) for p in values)
    assert np.array_equal(found.weights["b"], np.ones(3))
    assert found.masks == own.masks


def test_all_signs_turned_and_none():
    own = ticket([1.0, -2.0, 3.0], [1, 1, 0])
    assert flip_signs(own, 1.0, seed=0).weights["w"].tolist() == [-1, 2, 0]
    assert flip_signs(own, 0.0, seed=0).weights["w"].tolist() == [1, -2, 0]


def test_the_seed_decides_and_the_ticket_says_so():
    own = dense(*np.arange(1.0, 101.0))
    first, same, other = (flip_signs(own, 0.3, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.weights["w"], same.weights["w"])
    assert not np.array_equal(first.weights["w"], other.weights["w"])
    assert first.metadata["control"] == {"name": "flip_signs", "fraction": 0.3, "seed": 1}


def test_a_perturbed_ticket_is_applied_like_any_other():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    kernel = model.layers[0].kernel.path
    own = Ticket.of(model, {kernel: np.arange(12).reshape(4, 3) % 2 == 0})
    turned = flip_signs(own, 1.0, seed=0)
    turned.apply(model)
    assert np.array_equal(model.layers[0].kernel.numpy(), -own.weights[kernel])


@pytest.mark.parametrize("fraction", [-0.1, 1.5, math.nan])
def test_a_share_outside_zero_to_one_is_refused(fraction):
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        flip_signs(dense(1.0), fraction, seed=0)
