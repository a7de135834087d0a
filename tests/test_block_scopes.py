"""Blocks and channels: which whole ones survive, and how many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring import ALL, alive, arrays, bits, column, one, states

from keras_lottery import scopes
from keras_lottery.schedules import keep_density, keep_fraction

# Blocks -----------------------------------------------------------------------------------


def test_blocks_compete_by_the_mean_or_the_largest_of_their_scores():
    scores = column(5, 0, 3, 3, 1, 4)
    half = keep_density(1 / 3)
    assert bits(one(scopes.Block((2, 1)), scores, half)) == [0, 0, 1, 1, 0, 0]
    assert bits(one(scopes.Block((2, 1), pooling="max"), scores, half)) == [1, 1, 0, 0, 0, 0]


def test_blocks_at_the_edges_are_smaller():
    scores = np.array([[1, 1, 9], [1, 1, 9], [8, 8, 7]])
    kept = one(scopes.Block((2, 2)), scores, keep_density(5 / 9))
    assert kept.astype(int).tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 1]]


def test_blocks_lie_in_one_position_of_a_convolution():
    scores = np.zeros((1, 2, 2, 2))
    scores[0, 1] = 1
    kept = one(scopes.Block((2, 2)), scores, keep_fraction(0.5))
    assert bits(kept) == [0] * 4 + [1] * 4


@pytest.mark.parametrize(
    ("asked", "kept"), [(8, 8), (7, 8), (6, 8), (5, 4), (4, 4), (3, 4), (2, 4), (1, 4), (0, 4)]
)
def test_the_count_of_blocks_is_the_nearest_the_larger_of_two_and_never_none(asked, kept):
    mask = one(scopes.Block((4, 1)), column(*range(8)), lambda alive, total: asked)
    assert bits(mask) == [0] * (8 - kept) + [1] * kept


def test_a_block_counts_and_scores_by_its_alive_weights():
    mask = column(1, 0, 1, 1, 1, 1).astype(bool)
    scores = column(5, np.nan, 4, 4, 1, 1)
    block = scopes.Block((2, 1))
    # 5 are alive, in blocks of 1, 2, 2 that rank in this order.
    kept = {n: bits(one(block, scores, lambda a, t, n=n: n, mask)) for n in (1, 2, 3)}
    assert kept[1] == [1, 0, 0, 0, 0, 0]
    assert kept[2] == kept[3] == [1, 0, 1, 1, 0, 0]  # 1 and 3 are equally near to 2


def test_the_largest_score_of_a_block_is_that_of_an_alive_weight():
    mask = column(0, 1, 1, 1, 0, 0).astype(bool)
    block = scopes.Block((2, 1), pooling="max")
    kept = one(block, column(9, -3, -1, -2, 9, 9), lambda a, t: 2, mask)
    assert bits(kept) == [0, 0, 1, 1, 0, 0]


def test_blocks_of_equal_score_survive_in_memory_order():
    kept = one(scopes.Block((2, 1)), np.zeros((4, 2)), keep_fraction(0.25))
    assert kept.astype(int).tolist() == [[1, 1], [1, 1], [1, 0], [1, 0]]


def test_blocks_may_compete_with_those_of_all_layers_and_empty_none():
    scores = arrays(a=column(9, 9, 8, 8, 7, 7), b=column(1, 1, 2, 2))
    layers = scopes.Block((2, 1))(scores, alive(scores), keep_fraction(0.5))
    assert {p: bits(m) for p, m in layers.items()} == {"a": [1, 1, 1, 1, 0, 0], "b": [0, 0, 1, 1]}
    whole = scopes.Block((2, 1), layerwise=False)
    kept = whole(scores, alive(scores), keep_density(0.6))
    assert {p: bits(m) for p, m in kept.items()} == {"a": [1, 1, 1, 1, 0, 0], "b": [0, 0, 1, 1]}
    kept = whole(scores, alive(scores), keep_density(0.01))
    assert {p: bits(m) for p, m in kept.items()} == {"a": [1, 1, 0, 0, 0, 0], "b": [0, 0, 1, 1]}


def test_blocks_of_all_layers_rank_as_single_weights_do():
    rng = np.random.default_rng(0)
    scores = arrays(a=rng.random((8, 6)), b=rng.random((5, 7)))
    kept = scopes.Block((1, 1), layerwise=False)(scores, alive(scores), keep_density(0.4))
    expected = scopes.Global()(scores, alive(scores), keep_density(0.4))
    assert all(np.array_equal(kept[p], expected[p]) for p in scores)


def test_blocks_leave_excluded_paths_out_and_refuse_vectors():
    scores = arrays(a=column(1, 2), bias=[1, 2])
    with pytest.raises(ValueError, match=r"rank 2.*`exclude`.*\['bias'\]"):
        scopes.Block((1, 1))(scores, alive(scores), keep_fraction(0.5))
    kept = scopes.Block((1, 1), exclude="bias")(scores, alive(scores), keep_fraction(0.5))
    assert {p: bits(m) for p, m in kept.items()} == {"a": [0, 1], "bias": [1, 1]}


# Channels ---------------------------------------------------------------------------------


def test_channels_are_the_columns_of_a_layer():
    scores = arrays(a=[[1, 3, 2, 0], [1, 2, 2, 3]], out=np.zeros((4, 3)))
    kept = scopes.Channels()(scores, alive(scores), keep_fraction(0.5))
    assert kept["a"].astype(int).tolist() == [[0, 1, 1, 0]] * 2
    assert kept["out"].all()
    largest = scopes.Channels("max")(scores, alive(scores), keep_fraction(0.5))
    assert largest["a"].astype(int).tolist() == [[0, 1, 0, 1]] * 2


def test_channels_of_a_convolution_are_its_filters():
    scores = np.zeros((3, 3, 2, 4))
    scores[..., 2] = 1
    kept = one(scopes.Channels(keep_output=False), scores, keep_density(0.25))
    assert np.array_equal(kept, scores == 1)


def test_channels_keep_the_last_path_whole_if_it_is_the_output():
    scores = arrays(z=np.ones((2, 2)), a=np.ones((2, 2)))
    kept = scopes.Channels()(scores, alive(scores), keep_fraction(0.5))
    assert bits(kept["z"]) == [1, 0, 1, 0] and kept["a"].all()
    kept = scopes.Channels(keep_output=False)(scores, alive(scores), keep_fraction(0.5))
    assert bits(kept["z"]) == bits(kept["a"]) == [1, 0, 1, 0]
    kept = scopes.Channels(exclude="z", keep_output=False)(scores, alive(scores), ALL)
    assert kept["z"].all()


@pytest.mark.parametrize("asked", range(13))
def test_the_count_of_channels_is_the_nearest_and_at_least_one(asked):
    scope = scopes.Channels(keep_output=False)
    kept = one(scope, np.arange(12).reshape(3, 4), lambda a, t: asked)
    columns = max(1, int(np.floor(asked / 3 + 0.5)))
    assert kept.astype(int).tolist() == [[0] * (4 - columns) + [1] * columns] * 3


def test_channels_never_empty_a_layer_where_all_compete():
    scores = arrays(a=[[9, 8, 7]], b=[[1, 2, 3]], out=[[0, 0]])
    scope = scopes.Channels(layerwise=False)
    kept = scope(scores, alive(scores), keep_density(0.5))
    assert {p: bits(m) for p, m in kept.items()} == {"a": [1, 1, 0], "b": [0, 0, 1], "out": [1, 1]}


def test_channels_leave_a_depthwise_kernel_of_multiplier_one_whole():
    assert one(scopes.Channels(keep_output=False), np.ones((3, 3, 8, 1)), keep_density(0.1)).all()


def test_channels_take_the_axis_of_the_outputs_by_regex():
    scores = arrays(**{"up_transpose/kernel": np.arange(4).reshape(1, 1, 2, 2), "out": [[1]]})
    kept = scopes.Channels(axis={"transpose": -2})(scores, alive(scores), keep_fraction(0.5))
    assert bits(kept["up_transpose/kernel"]) == [0, 0, 1, 1]


def test_channels_say_that_nothing_is_left_to_prune():
    with pytest.raises(ValueError, match=r"keep_output=True.*'w'.*keep_output=False"):
        one(scopes.Channels(), np.ones((2, 2)), ALL)


# By brute force --------------------------------------------------------------------------


@settings(deadline=None)
@given(
    state=states(),
    block=st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)),
    pooling=st.sampled_from(["mean", "max"]),
    layerwise=st.booleans(),
    density=st.floats(0, 1),
)
def test_whole_blocks_or_channels_die_the_worst_first_nearest_to_the_schedule(
    state, block, pooling, layerwise, density
):
    scores, masks = state
    if block is None:
        scope = scopes.Channels(pooling, layerwise, keep_output=False)
    else:
        scope = scopes.Block(block, pooling, layerwise)
    keep = keep_density(density)
    kept = scope(scores, masks, keep)
    for group in [[p] for p in masks] if layerwise else [list(masks)]:
        units = sorted(
            unit for p in group for unit in ranked_units(p, scores[p], masks[p], block, pooling)
        )
        asked = keep(sum(int(masks[p].sum()) for p in group), sum(masks[p].size for p in group))
        reached = np.cumsum([0] + [size for *_, size in units])
        least = sum(1 for not_first, *_ in units if not not_first)
        stay = min(range(least, len(units) + 1), key=lambda k: (abs(reached[k] - asked), -k))
        labels = {p: label(masks[p].shape, block) for p in group}
        for path in group:
            chosen = [k for _, _, p, k, _ in units[:stay] if p == path]
            assert np.array_equal(kept[path], masks[path] & np.isin(labels[path], chosen))


def ranked_units(path, score, mask, block, pooling):
    """Each unit: whether it is not its path's best, -score, path, number, alive weights."""
    labels = label(mask.shape, block)
    units = []
    for k in range(labels.max() + 1):
        part = score[(labels == k) & mask]
        if part.size:
            value = getattr(np, pooling)(part.astype(np.float64))
            units.append((-float(value), path, k, part.size))
    return [(unit != min(units), *unit) for unit in units]


def label(shape, block):
    """The number of each weight's block, in memory order, or of its channel."""
    index = np.indices(shape)
    if block is None:
        return index[-1]
    cells = np.stack([*index[:-2], index[-2] // block[0], index[-1] // block[1]], -1)
    _, numbers = np.unique(cells.reshape(-1, len(shape)), axis=0, return_inverse=True)
    return numbers.reshape(shape)
