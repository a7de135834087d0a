"""Subset sums: sizes in order, the nearest of a size, the exact best, sharing, errors."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lottery.strong import SubsetSums, subset_sum
from keras_lottery.strong.meeting import meet
from keras_lottery.strong.subsets import blocks

FOUR = [0.5, 0.3, 0.2, -0.4]


def brute(target, candidates):
    """All subsets as (size, error)."""
    rows = [np.array(bits, bool) for bits in product([0, 1], repeat=len(candidates))]
    return [(int(r.sum()), abs(float(np.array(candidates)[r].sum()) - target)) for r in rows]


def one(target, candidates, tolerance, **options):
    return subset_sum([target], [candidates], tolerance, **options)


@pytest.mark.parametrize(
    ("target", "members"),
    [
        (0.0, [0, 0, 0, 0]),
        (0.29, [0, 1, 0, 0]),
        (0.7, [1, 0, 1, 0]),
        (0.81, [1, 1, 0, 0]),
        (1.0, [1, 1, 1, 0]),
        (0.6, [1, 1, 1, 1]),
        (-0.2, [0, 0, 1, 1]),
    ],
)
def test_four_candidates_by_hand(target, members):
    found = one(target, FOUR, 0.02)
    assert found.chosen.astype(int).tolist() == [members]
    assert found.kept.tolist() == [sum(members)]
    assert found.missing.shape == (0, 1)


def test_the_smaller_subset_comes_before_the_nearer_one():
    found = one(0.5, [0.51, 0.2, 0.3], 0.02)
    assert found.chosen.tolist() == [[True, False, False]]
    assert found.errors == pytest.approx([0.01])
    assert one(0.5, [0.51, 0.2, 0.3], 0.02, best=True).chosen.tolist() == [[False, True, True]]


def test_among_subsets_of_one_size_the_nearest_is_taken():
    assert one(0.5, [0.49, 0.505, 0.51], 0.02).chosen.tolist() == [[False, True, False]]


def test_a_target_out_of_reach_is_listed_and_gets_the_nearest():
    found = subset_sum([[0.3, 9.0], [-9.0, 0.2]], np.array(FOUR)[None, None], 0.01)
    assert found.missing.tolist() == [[0, 1], [1, 0]]
    assert found.chosen[0, 1].tolist() == [True, True, True, False]
    assert found.chosen[1, 0].tolist() == [False, False, False, True]
    assert found.errors[0, 1] == pytest.approx(8.0)


def test_each_target_has_candidates_of_its_own():
    found = subset_sum([1.0, 1.0], [[1.0, 5.0], [5.0, 1.0]], 0.1)
    assert found.chosen.tolist() == [[True, False], [False, True]]


def test_shared_candidates_are_those_repeated():
    rng = np.random.default_rng(0)
    targets, shared = rng.normal(0, 0.3, (3, 5)), rng.uniform(-1, 1, (3, 1, 9))
    for best in (False, True):
        a = subset_sum(targets, shared, 0.01, best=best)
        b = subset_sum(targets, np.repeat(shared, 5, axis=1), 0.01, best=best)
        assert np.array_equal(a.chosen, b.chosen)
        assert np.array_equal(a.errors, b.errors)


def test_a_single_number_has_no_dimensions():
    found = subset_sum(0.5, FOUR, 0.0)
    assert isinstance(found, SubsetSums)
    assert found.chosen.shape == (4,)
    assert (found.sums, found.kept, found.missing.shape) == (0.5, 1, (0, 0))


def test_no_targets_give_empty_arrays():
    found = subset_sum(np.zeros((0, 2)), np.zeros((0, 2, 3)), 0.1)
    assert found.chosen.shape == (0, 2, 3)
    assert found.missing.shape == (0, 2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-2, 2), min_size=1, max_size=6),
    st.integers(1, 8).flatmap(lambda n: st.lists(st.floats(-1, 1), min_size=n, max_size=n)),
    st.floats(0.001, 0.5),
)
def test_as_good_as_all_subsets(targets, candidates, tolerance):
    found = subset_sum(targets, [candidates], tolerance)
    best = subset_sum(targets, [candidates], tolerance, best=True)
    for i, target in enumerate(targets):
        every = brute(target, candidates)
        assert best.errors[i] == pytest.approx(min(e for _, e in every), abs=1e-12)
        within = [(size, e) for size, e in every if e <= tolerance - 1e-12]
        if within:
            smallest = min(size for size, _ in within)
            assert found.kept[i] <= smallest
            of_size = [e for size, e in every if size == found.kept[i]]
            assert found.errors[i] == pytest.approx(min(of_size), abs=1e-12)
        elif min(e for _, e in every) > tolerance + 1e-12:
            assert [i] in found.missing.tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 14), st.sampled_from([1e-4, 1e-2, 0.3]))
def test_what_is_returned_agrees_with_itself(seed, n, tolerance):
    rng = np.random.default_rng(seed)
    targets, candidates = rng.normal(0, 0.5, (4, 3)), rng.uniform(-1, 1, (4, 3, n))
    found = subset_sum(targets, candidates, tolerance)
    assert np.allclose(found.sums, (candidates * found.chosen).sum(-1), atol=1e-12)
    assert np.array_equal(found.errors, np.abs(found.sums - targets))
    assert np.array_equal(found.kept, found.chosen.sum(-1))
    assert np.array_equal(found.missing, np.argwhere(found.errors > tolerance))


def test_meeting_in_the_middle_finds_what_sizes_cannot():
    rng = np.random.default_rng(3)
    targets, candidates = rng.normal(0, 0.1, 20), rng.uniform(-1, 1, (20, 21))
    found = subset_sum(targets, candidates, 1e-4)
    assert not found.missing.size
    assert found.kept.max() > 4
    best = subset_sum(targets, candidates, 1e-4, best=True)
    assert (best.errors <= found.errors).all()


def test_the_nearest_of_all_sums_is_that_of_a_sorted_list():
    rng = np.random.default_rng(1)
    targets, candidates = rng.normal(0, 1, 50), rng.uniform(-1, 1, (1, 13))
    chosen = meet(targets, candidates, np.zeros(50, int), np.arange(50))
    errors = np.abs((chosen * candidates).sum(-1) - targets)
    bits = np.arange(2**13)[:, None] >> np.arange(13) & 1
    sums = bits @ candidates[0]
    assert errors == pytest.approx(np.abs(sums - targets[:, None]).min(axis=1), abs=1e-12)


def test_one_candidate_and_forty():
    assert one(0.3, [0.3], 0.0, best=True).kept.tolist() == [1]
    many = np.random.default_rng(0).uniform(-1, 1, 40)
    assert one(0.123456, many, 1e-9).errors[0] <= 1e-9


def test_work_is_done_in_blocks():
    parts = list(blocks(np.arange(10), 1 << 20))
    assert [len(p) for p in parts] == [2] * 5
    assert [len(p) for p in blocks(np.arange(2), 1 << 30)] == [1, 1]


def test_ten_thousand_weights_of_a_network_are_all_within_tolerance():
    rng = np.random.default_rng(0)
    targets = np.clip(rng.normal(0, 0.04, (20, 500)), -0.4642, 0.5407)
    found = subset_sum(targets, rng.uniform(-0.4642, 0.5407, (20, 500, 21)), 0.01)
    assert not found.missing.size
    assert found.kept.mean() < 2


@pytest.mark.parametrize(
    ("targets", "candidates", "tolerance", "says"),
    [
        ([0.1, 0.2], [[0.1], [0.2], [0.3]], 0.1, r"shape \(2,\) \+ \(n,\).*Received: \(3, 1\)"),
        ([0.1], [0.1], 0.1, r"Received: \(1,\)"),
        ([0.1], np.zeros((1, 41)), 0.1, "1 to 40 candidates a target. Received: 41"),
        ([0.1], np.zeros((1, 0)), 0.1, "Received: 0"),
        ([np.nan], [[0.1]], 0.1, r"finite targets. Received: 1 NaN or Inf.*\(0,\)"),
        ([0.1], [[0.1, np.inf]], 0.1, r"finite candidates.*\(0, 1\)"),
        ([0.1], [[0.1]], -0.1, "`tolerance` of 0 or more. Received: -0.1"),
        ([0.1], [[0.1]], np.nan, "Received: nan"),
    ],
)
def test_bad_input_is_explained(targets, candidates, tolerance, says):
    with pytest.raises(ValueError, match=says):
        subset_sum(targets, candidates, tolerance)
