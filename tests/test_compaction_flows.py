"""Which channels go together, which are needed, which stay: by hand and against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lottery.compaction.flows import Channels, Flow, Groups, Read, per_channel

NAN = np.nan


def ids(*numbers):
    return np.array(numbers, np.int64)


def flow(numbers, const=None, shape=None):
    numbers = np.array(numbers)
    const = np.full(numbers.shape, NAN) if const is None else np.array(const, float)
    return Flow(shape or numbers.shape, numbers, const)


def channels(count, **lists):
    made = Channels(**lists)
    made.fresh(count)
    return made


def read(inputs, outputs, uses, spares=None):
    inputs = np.atleast_2d(ids(*inputs))
    spares = np.zeros(inputs.shape[-1], bool) if spares is None else np.array(spares, bool)
    return Read(inputs, ids(*outputs), np.array(uses, bool), spares)


def where(flags):
    return np.flatnonzero(flags).tolist()


# Ids ----------------------------------------------------------------------------------------


def test_fresh_ids_follow_each_other():
    made = Channels()
    assert made.fresh(3).tolist() == [0, 1, 2]
    assert made.fresh(2).tolist() == [3, 4]
    assert made.count == 5


def test_merged_ids_share_the_smallest():
    made = channels(5)
    made.merge(ids(4), ids(2))
    made.merge(ids(2), ids(1))
    assert made.solve().label.tolist() == [0, 1, 1, 3, 1]


def test_merging_broadcasts():
    made = channels(5)
    made.merge(np.array([[0, 1], [2, 3]]), np.array([[4, 1]]))
    assert made.solve().label.tolist() == [0, 1, 0, 1, 0]


def test_merging_with_itself_says_nothing():
    made = channels(2)
    same = ids(0, 1)
    made.merge(same, same)
    assert made.merged == []


def test_merging_positions_puts_those_of_a_channel_together():
    made = channels(6)
    assert made.merge_positions(flow([[0, 1, 2], [3, 4, 5]])).tolist() == [0, 1, 2]
    assert made.solve().label.tolist() == [0, 1, 2, 0, 1, 2]


def test_channels_the_same_at_all_positions_need_no_merging():
    made = channels(2)
    made.merge_positions(flow([[[0, 1]]], shape=(4, 4, 2)))
    assert made.merged == []


def test_tied_tensors_agree_position_by_position_where_they_can():
    made = channels(8)
    made.tie(flow([[0, 1], [2, 3]]), flow([[4, 5], [6, 7]]))
    assert made.solve().label.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_tied_tensors_of_other_sizes_agree_channel_by_channel():
    made = channels(10)
    made.tie(flow([[0, 1], [2, 3]]), flow([[4, 5], [6, 7], [8, 9]]))
    assert made.solve().label.tolist() == [0, 1] * 5


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20))
def test_labels_are_those_of_plain_union_find(pairs):
    made = channels(12)
    parent = list(range(12))
    for a, b in pairs:
        made.merge(ids(a), ids(b))
        low, high = sorted((parent[a], parent[b]))
        parent = [low if p == high else p for p in parent]
    assert made.solve().label.tolist() == parent


def test_a_long_chain_of_merges_ends_in_one_label():
    made = channels(1000)
    made.merge(np.arange(999), np.arange(1, 1000))
    assert not made.solve().label.any()


# Flows --------------------------------------------------------------------------------------


def test_columns_are_positions_by_channels():
    assert flow(np.arange(12).reshape(2, 2, 3)).columns.tolist() == [
        [0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11],
    ]  # fmt: skip


def test_a_column_is_constant_if_all_its_positions_are_alike():
    const = [[1, 2, NAN, NAN, 5], [1, 3, NAN, 4, NAN]]
    found = flow(np.zeros((2, 5), int), const).column_const
    assert np.array_equal(found, [1, NAN, NAN, NAN, NAN], equal_nan=True)


def test_per_channel_adds_axes_in_front():
    assert per_channel(ids(1, 2), 3).shape == (1, 1, 2)


# What is needed -----------------------------------------------------------------------------


def test_needs_follow_the_reads_backwards():
    # 0, 1 -> 2, 3 -> 4; channel 3 is not read, so 1, which only 3 reads, is not needed.
    made = channels(5, forced=[ids(4)])
    made.reads += [read([0, 1], [2, 3], [[1, 0], [0, 1]]), read([2, 3], [4], [[1], [0]])]
    assert where(made.solve().needed) == [0, 2, 4]


def test_a_spared_channel_is_not_needed_though_it_is_read():
    made = channels(3, forced=[ids(2)], reads=[read([0, 1], [2], [[1], [1]], [1, 0])])
    assert where(made.solve().needed) == [1, 2]


def test_a_channel_spared_by_one_reader_is_needed_by_another():
    made = channels(3, forced=[ids(1), ids(2)])
    made.reads += [read([0], [1], [[1]], [1]), read([0], [2], [[1]])]
    assert where(made.solve().needed) == [0, 1, 2]


def test_what_is_merged_is_needed_together():
    made = channels(3, forced=[ids(2)], reads=[read([0], [2], [[1]])])
    made.merge(ids(0), ids(1))
    assert made.solve().is_needed(ids(0, 1, 2)).all()


def test_a_read_needs_all_positions_of_a_channel():
    wide = Read(np.array([[0, 1], [2, 3]]), ids(4), np.array([[True], [False]]), np.zeros(2, bool))
    made = channels(5, forced=[ids(4)], reads=[wide])
    assert where(made.solve().needed) == [0, 2, 4]


def test_nothing_asked_nothing_needed():
    made = channels(2, reads=[read([0], [1], [[1]])])
    assert not made.solve().needed.any()


READS = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 7), st.booleans()), min_size=0, max_size=25
)


@given(READS, st.lists(st.integers(0, 7), max_size=3), st.randoms())
def test_needs_are_the_plain_closure_whatever_the_order(edges, asked, random):
    made = channels(8, forced=[ids(i) for i in asked])
    made.reads = [read([a], [b], [[1]], [spared]) for a, b, spared in edges]
    random.shuffle(made.reads)
    needed = set(asked)
    for _ in range(8):
        needed |= {a for a, b, spared in edges if b in needed and not spared}
    assert where(made.solve().needed) == sorted(needed)


# What stays ---------------------------------------------------------------------------------


def test_one_unit_of_a_layer_stays_though_none_is_needed():
    made = channels(5, units=[ids(0, 1), ids(2, 3, 4)], forced=[ids(3)])
    found = made.solve()
    assert where(found.needed) == [3]
    assert where(found.stays) == [0, 3]
    assert found.kept(ids(2, 3, 4)).tolist() == [1]


def test_what_is_present_stays_and_is_not_needed_for_it():
    found = channels(3, present=[ids(0, 2)]).solve()
    assert where(found.stays) == [0, 2]
    assert not found.is_needed(ids(0, 1, 2)).any()


def grouped(forced, groups=2, width=2, **more):
    """Inputs 0.. and outputs after them, in equal groups."""
    n = groups * width
    pair = Groups(np.arange(n).reshape(groups, -1), np.arange(n, 2 * n).reshape(groups, -1))
    return channels(2 * n, forced=[ids(*forced)], groups=[pair], **more).solve()


def test_whole_groups_go():
    assert where(grouped([0, 4, 5]).stays) == [0, 4, 5]


def test_kept_groups_are_filled_up_to_the_fullest():
    # Group 0 needs inputs 0, 1 and output 4; group 1 needs input 2 and outputs 6, 7.
    assert where(grouped([0, 1, 4, 2, 6, 7]).stays) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert where(grouped([1, 4, 3, 6]).stays) == [1, 3, 4, 6]


def test_a_group_that_is_only_read_still_gives_a_channel():
    found = grouped([0])
    assert where(found.stays) == [0, 4]
    assert where(found.needed) == [0]


def test_filling_one_group_reaches_the_groups_that_share_its_channels():
    first = Groups(np.array([[0, 1], [2, 3]]), np.array([[4, 5], [6, 7]]))
    second = Groups(np.array([[4, 5], [6, 7]]), np.array([[8], [9]]))
    made = channels(10, forced=[ids(8, 9, 4, 5, 6, 0, 2)], groups=[second, first])
    assert where(made.solve().stays) == [0, 2, 4, 5, 6, 7, 8, 9]


@given(st.sets(st.integers(0, 15)), st.sampled_from([1, 2, 4]), st.lists(st.integers(0, 15)))
def test_kept_groups_are_equal_and_hold_all_that_is_needed(forced, groups, merged):
    n = 8
    pair = Groups(np.arange(n).reshape(groups, -1), np.arange(n, 2 * n).reshape(groups, -1))
    made = channels(2 * n, forced=[ids(*forced)], groups=[pair])
    for a, b in zip(merged[::2], merged[1::2], strict=False):
        made.merge(ids(a), ids(b))
    found = made.solve()
    assert (found.needed <= found.stays).all()
    counts = [found.stays[found.label[part]].sum(1) for part in pair]
    for count in counts:
        assert len({int(c) for c in count if c}) <= 1
    assert (counts[0] > 0).tolist() == (counts[1] > 0).tolist()


@pytest.mark.parametrize("forced", [[0], [0, 7], [1, 2, 3], [5, 6]])
def test_solving_again_with_only_what_stays_keeps_all_of_it(forced):
    found = grouped(forced)
    assert where(grouped(where(found.stays)).stays) == where(found.stays)
