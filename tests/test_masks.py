"""What a mask is: literal answers first, then what holds for every mask."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_lottery import masks as mask_ops

SMALL = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)
MASKS = st.dictionaries(
    st.text("abc/", min_size=1, max_size=4), hnp.arrays(bool, SMALL), min_size=0, max_size=5
)


def mask(*bits):
    return np.array(bits, bool)


def equal(a, b):
    return list(a) == list(b) and all(
        a[p].shape == b[p].shape and a[p].dtype == b[p].dtype and np.array_equal(a[p], b[p])
        for p in a
    )


def test_full_is_all_alive_in_the_given_shapes():
    masks = mask_ops.full({"a": (2, 3), "b": (0, 4), "c": ()})
    assert {p: m.shape for p, m in masks.items()} == {"a": (2, 3), "b": (0, 4), "c": ()}
    assert all(m.dtype == bool and m.all() for m in masks.values())


def test_counts_and_densities_by_hand():
    masks = {"a": mask(1, 0, 0, 0), "b": mask(1, 1), "c": np.zeros((2, 2), bool)}
    assert mask_ops.counts(masks) == {"a": (1, 4), "b": (2, 2), "c": (0, 4)}
    assert mask_ops.density(masks) == 3 / 10
    assert mask_ops.layer_density(masks) == {"a": 0.25, "b": 1.0, "c": 0.0}


def test_counts_are_python_integers():
    alive, total = mask_ops.counts({"a": mask(1, 0)})["a"]
    assert type(alive) is int and type(total) is int


def test_density_of_nothing_is_zero():
    assert mask_ops.density({}) == 0
    assert mask_ops.density({"a": np.zeros((0, 3), bool)}) == 0
    assert mask_ops.layer_density({"a": np.zeros((0, 3), bool)}) == {"a": 0.0}


def test_nested_asks_that_no_alive_weight_was_pruned_before():
    outer = {"a": mask(1, 1, 0), "b": mask(0, 1)}
    assert mask_ops.nested(outer, outer)
    assert mask_ops.nested({"a": mask(0, 1, 0), "b": mask(0, 0)}, outer)
    assert not mask_ops.nested({"a": mask(0, 0, 1), "b": mask(0, 1)}, outer)
    assert not mask_ops.nested({"a": mask(0, 1, 0)}, outer)


def test_overlap_is_both_over_either():
    a = {"a": mask(1, 1, 0, 0), "b": mask(1, 0)}
    b = {"a": mask(0, 1, 1, 0), "b": mask(1, 0)}
    assert mask_ops.overlap(a, b) == 2 / 4
    assert mask_ops.overlap(a, a) == 1.0
    nothing = {"a": mask(0, 0)}
    assert mask_ops.overlap(nothing, nothing) == 1.0
    assert mask_ops.overlap(nothing, {"a": mask(1, 0)}) == 0.0


def test_shuffle_really_moves_every_layer():
    masks = {p: np.arange(200).reshape(20, 10) < 50 for p in ("a", "b", "c")}
    shuffled = mask_ops.shuffle(masks, seed=3)
    for path in masks:
        assert not np.array_equal(shuffled[path], masks[path])
    assert not np.array_equal(shuffled["a"], shuffled["b"])
    assert not np.array_equal(shuffled["b"], shuffled["c"])


def test_shuffle_leaves_its_argument_alone():
    masks = {"a": np.arange(20) < 5}
    mask_ops.shuffle(masks, seed=0)
    assert np.array_equal(masks["a"], np.arange(20) < 5)


@given(MASKS, st.integers(0, 2**32))
def test_shuffle_keeps_counts_and_shapes_and_ignores_dict_order(masks, seed):
    shuffled = mask_ops.shuffle(masks, seed)
    assert mask_ops.counts(shuffled) == mask_ops.counts(masks)
    assert all(shuffled[p].shape == masks[p].shape for p in masks)
    backwards = mask_ops.shuffle(dict(reversed(masks.items())), seed)
    assert equal(shuffled, {p: backwards[p] for p in shuffled})


def test_shuffle_orders_move_weights_with_their_masks():
    masks = {"a": mask(1, 0, 0, 1, 1, 0)}
    order = mask_ops.shuffle_orders(masks, seed=5)["a"]
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4, 5]
    moved = mask_ops.reorder(np.arange(6.0), order)
    assert np.array_equal(mask_ops.shuffle(masks, seed=5)["a"], np.isin(moved, [0, 3, 4]))


def test_pack_by_hand_runs_across_paths_and_pads_with_zeros():
    masks = {"a": mask(1, 0, 1), "b": np.ones((2, 3), bool)}
    assert mask_ops.pack(masks).tolist() == [0b10111111, 0b10000000]
    assert mask_ops.pack({}).tolist() == []


@given(MASKS)
def test_unpack_undoes_pack(masks):
    bits = mask_ops.pack(masks)
    assert bits.dtype == np.uint8
    assert bits.size == (sum(m.size for m in masks.values()) + 7) // 8
    assert equal(mask_ops.unpack(bits, {p: m.shape for p, m in masks.items()}), masks)


@pytest.mark.parametrize("n_bytes", [0, 1, 3, 100])
def test_unpack_refuses_a_wrong_number_of_bytes(n_bytes):
    with pytest.raises(ValueError, match=f"2 bytes.*9 weights.*{n_bytes} bytes"):
        mask_ops.unpack(np.zeros(n_bytes, np.uint8), {"a": (3, 3)})


def test_unpack_compares_sizes_before_it_allocates():
    with pytest.raises(ValueError, match="Received: 1 bytes"):
        mask_ops.unpack(np.zeros(1, np.uint8), {"a": (2**20, 2**20)})


def test_unpacked_masks_can_be_written_to():
    masks = mask_ops.unpack(np.array([0b10100000], np.uint8), {"a": (3,), "b": (2,)})
    masks["a"][1] = True
    assert masks["a"].tolist() == [True, True, True]
    assert masks["b"].tolist() == [False, False]
