"""The Ramanujan property of graphs whose spectrum is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lottery.analysis.ramanujan import ramanujan


def blocks(n, rows, columns):
    """n graphs side by side, each of all edges between `rows` and `columns`."""
    return np.kron(np.eye(n, dtype=bool), np.ones((rows, columns), bool))


# The points of a plane of seven points and its seven lines: two points share one line.
PLANE = np.array([[(i - j) % 7 in (0, 1, 3) for j in range(7)] for i in range(7)])


def test_a_complete_graph_has_no_second_singular_value():
    found = ramanujan(np.ones((4, 5), bool))
    assert (found.degree_left, found.degree_right) == (5, 4)
    assert found.singular_value == pytest.approx(0, abs=1e-9)
    assert found.bound == pytest.approx(np.sqrt(4) + np.sqrt(3))
    assert found.holds is True


def test_two_graphs_that_do_not_meet_do_not_have_the_property():
    found = ramanujan(blocks(2, 3, 3))
    assert found.singular_value == pytest.approx(3)
    assert found.bound == pytest.approx(2 * np.sqrt(2))
    assert found.holds is False


def test_the_plane_of_seven_points_has_the_property():
    # A A' = 2 I + 1, so that all singular values but the first are the root of 2.
    found = ramanujan(PLANE)
    assert (found.degree_left, found.degree_right) == (3, 3)
    assert found.singular_value == pytest.approx(np.sqrt(2))
    assert found.holds is True


def test_units_without_an_alive_weight_are_left_out():
    mask = np.zeros((9, 8), bool)
    mask[1:8, :7] = PLANE
    assert ramanujan(mask) == ramanujan(PLANE)


def test_below_a_mean_degree_of_three_the_property_is_not_defined():
    found = ramanujan(np.ones((2, 8), bool))
    assert (found.degree_left, found.degree_right) == (8, 2)
    assert found.holds is None


def test_a_convolution_is_unrolled():
    mask = blocks(2, 3, 3).reshape(1, 3, 2, 6)
    assert ramanujan(mask) == ramanujan(mask.reshape(6, 6))


def test_an_empty_mask_has_neither_edges_nor_the_property():
    found = ramanujan(np.zeros((3, 2), bool))
    assert found.degree_left == found.degree_right == found.singular_value == found.bound == 0
    assert found.holds is None


def test_a_single_unit_has_no_second_singular_value():
    assert ramanujan(np.ones((5, 1), bool)).singular_value == 0


def test_a_large_matrix_gives_what_its_decomposition_says():
    mask = np.random.default_rng(0).random((220, 205)) < 0.2
    expected = np.linalg.svd(mask.astype(float), compute_uv=False)[1]
    assert ramanujan(mask).singular_value == pytest.approx(expected, rel=1e-9)
    assert ramanujan(mask.T).singular_value == pytest.approx(expected, rel=1e-9)


def test_large_graphs_that_do_not_meet_are_told_apart():
    found = ramanujan(blocks(3, 70, 80))
    assert found.singular_value == pytest.approx(np.sqrt(70 * 80))
    assert found.holds is False


@settings(max_examples=30, derandomize=True, deadline=None, database=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_neither_order_nor_side_of_the_units_matters(seed, rows, columns):
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, columns)) < 0.6
    found = ramanujan(mask)
    turned = ramanujan(mask[rng.permutation(rows)][:, rng.permutation(columns)].T)
    assert (turned.degree_left, turned.degree_right) == (found.degree_right, found.degree_left)
    assert turned.singular_value == pytest.approx(found.singular_value, abs=1e-9)
    assert turned.holds is found.holds


def test_a_mask_of_one_axis_is_refused():
    with pytest.raises(ValueError, match=r"at least two axes.*Received: a mask of shape \(3,\)"):
        ramanujan(np.ones(3, bool))
