"""The places of non-zeros in few bytes: exact for every bit, near the entropy bound."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lottery.export.coding import Coded, decode, encode, entropy_bound, nonzero

DTYPES = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16]


def bits(array):
    return array.view(f"u{array.dtype.itemsize}")


def places(coded):
    """The places by the definition of the moves, without TensorFlow."""
    at, found = 0, []
    for move in coded.table[coded.codes].reshape(-1).tolist():
        if move > 0:
            found.append(at)
        at += abs(move)
    return found


def decoded(array):
    coded = encode(array)
    return decode(coded, coded.codes, coded.values).numpy()


def masked(size, density, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(size) < density, rng.normal(size=size), 0).astype(dtype)


# By hand --------------------------------------------------------------------------------


def test_moves_lead_from_one_non_zero_to_the_next():
    coded = encode(np.array([0, 0, 5, 0, 6], "float32"))
    assert coded.table[coded.codes].tolist() == [[-2], [2], [1]]
    assert coded.values.tolist() == [5, 6]
    assert coded.size == 5


def test_a_frequent_pair_of_moves_becomes_one_byte():
    coded = encode(np.array([1, 0, 1, 1, 0, 1, 1, 0, 1, 0], "float32"))
    assert coded.table.tolist() == [[1, 0], [2, 0], [2, 1]]
    assert coded.codes.tolist() == [2, 2, 2]


def test_a_run_of_one_move_is_paired_from_its_start():
    coded = encode(np.array([3, 3, 3, 3, 3] + [0] * 40, "float32"))
    assert coded.table[coded.codes].tolist() == [[1, 1], [1, 1], [1, 0]]


def test_a_long_way_is_a_few_skips():
    array = np.zeros(5_000_000, "float32")
    array[[0, 70, -1]] = 1
    coded = encode(array)
    assert places(coded) == [0, 70, 4_999_999]
    assert coded.codes.size < 30
    assert np.array_equal(decode(coded, coded.codes, coded.values), array)


def test_an_array_of_zeros_needs_no_byte():
    coded = encode(np.zeros(100, "float32"))
    assert coded.codes.size == coded.values.size == 0
    assert decode(coded, coded.codes, coded.values).numpy().tolist() == [0] * 100


def test_an_array_without_zeros_is_stored_as_it_is():
    array = np.arange(1, 9, dtype="float32")
    coded = encode(array)
    assert coded.table is None
    assert coded.codes.size == 0
    assert np.array_equal(decoded(array), array)


def test_minus_zero_and_every_nan_come_back_as_they_were():
    patterns = np.array([0, 1 << 31, 0x7FC00001, 0xFFC12345, 1, 0, 0, 0], "uint32")
    array = np.tile(np.append(patterns, np.zeros(30, "uint32")), 3).view("float32")
    assert np.array_equal(bits(decoded(array)), bits(array))
    assert nonzero(array[:8]).tolist() == [1, 2, 3, 4]


def test_the_bound_of_half_the_weights_is_a_bit_for_each_and_the_values():
    assert entropy_bound([np.array([0, 1, 0, 1], "float32")]) == 4 / 8 + 2 * 4
    assert entropy_bound([np.zeros(7, "float32"), np.ones(3, "float16")]) == 6


# Properties -----------------------------------------------------------------------------

ARRAYS = st.tuples(
    st.integers(0, 400), st.sampled_from([0, 0.003, 0.05, 0.3, 0.8, 1]), st.integers(0, 99)
)


@given(ARRAYS, st.integers(0, 3))
def test_the_moves_lead_to_the_non_zeros(drawn, tail):
    array = np.append(masked(*drawn), np.zeros(tail, "float32"))
    coded = encode(array)
    if coded.table is not None:
        assert places(coded) == nonzero(array).tolist()
        assert coded.table.shape[0] <= 256
        assert coded.table.shape[1] <= 8
    assert coded.nbytes <= array.nbytes


@settings(max_examples=30, deadline=None)
@given(ARRAYS, st.sampled_from(DTYPES))
def test_tensorflow_gives_back_the_same_bits(drawn, dtype):
    array = masked(*drawn, dtype=dtype)
    assert np.array_equal(bits(decoded(array)), bits(array))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.just(0), st.integers(0, 2**16 - 1)), max_size=60))
def test_any_bits_come_back(numbers):
    array = np.array(numbers, "uint16").view(np.float16)
    assert np.array_equal(bits(decoded(array)), bits(array))


# Size -----------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.8, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01])
def test_random_masks_are_coded_near_their_entropy(density):
    array = masked(200_000, density)
    assert encode(array).nbytes < 1.03 * entropy_bound([array])


def test_layers_of_different_densities_are_coded_near_their_entropy_together():
    parts = [masked(200_000, 0.001), masked(30_000, 0.07), masked(1_000, 0.5)]
    assert encode(np.concatenate(parts)).nbytes < 1.05 * entropy_bound(parts)


def test_a_mask_with_a_structure_takes_less_than_its_density_says():
    channels = np.zeros((256, 64), "float32")
    channels[:, np.random.default_rng(0).permutation(64)[:6]] = 1
    coded = encode(channels)
    assert coded.codes.nbytes < 0.3 * (entropy_bound([channels]) - coded.values.nbytes)


# What does not fit together -------------------------------------------------------------


def test_a_missing_value_is_an_error():
    coded = encode(masked(100, 0.2))
    with pytest.raises(tf.errors.InvalidArgumentError, match="sparse_values"):
        decode(coded, coded.codes, coded.values[:-1])


def test_a_place_beyond_the_end_is_an_error():
    coded = encode(masked(100, 0.2))
    short = Coded(coded.table, coded.codes, coded.values, 50)
    with pytest.raises(tf.errors.InvalidArgumentError, match="out of bounds"):
        decode(short, coded.codes, coded.values)
