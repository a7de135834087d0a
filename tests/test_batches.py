"""Batches: a function of seed and step; orders, and augmentation that is known by hand."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lottery.experiments import batches as module
from keras_lottery.experiments.batches import AUGMENTATIONS, batches, crop, steps_per_epoch


def numbered(n, size=8, channels=1):
    """Images whose pixels are all the image's index plus one, and its label the index."""
    x = np.arange(1, n + 1, dtype=np.float32).reshape(n, 1, 1, 1)
    return np.tile(x, (1, size, size, channels)), np.arange(n, dtype=np.int32)


def take(stream, count):
    return [(x.numpy(), y.numpy()) for x, y in stream.take(count)]


def labels(stream, count):
    return [y.tolist() for _, y in take(stream, count)]


def same(one, two):
    flat = [[array for pair in taken for array in pair] for taken in (one, two)]
    return len(one) == len(two) and all(
        a.tobytes() == b.tobytes() for a, b in zip(*flat, strict=True)
    )


# Orders -----------------------------------------------------------------------------------


def test_seven_images_make_two_batches_of_three():
    part = numbered(7)
    assert steps_per_epoch(part, 3) == 2
    first, second = labels(batches(part, 3, seed=0), 2)
    assert len({*first, *second}) == 6
    assert {*first, *second} < set(range(7))


def test_a_batch_of_all_images_is_an_epoch():
    part = numbered(4)
    assert steps_per_epoch(part, 4) == 1
    epochs = labels(batches(part, 4, seed=0), 30)
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 10  # of 24 orders


@given(
    n=st.integers(1, 40),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 2**63 - 1),
    first=st.integers(0, 10**6),
)
@settings(max_examples=25, deadline=None)
def test_every_epoch_has_each_image_at_most_once_and_only_whole_batches(n, batch_size, seed, first):
    batch_size = min(n, batch_size)
    part = np.zeros((n, 1), np.float32), np.arange(n)
    steps = steps_per_epoch(part, batch_size)
    assert steps == n // batch_size
    seen = labels(batches(part, batch_size, seed, start=first * steps), 2 * steps)
    assert all(len(batch) == batch_size for batch in seen)
    for epoch in (seen[:steps], seen[steps:]):
        flat = list(itertools.chain(*epoch))
        assert len(set(flat)) == len(flat) == steps * batch_size
        assert set(flat) <= set(range(n))


def test_images_that_sit_an_epoch_out_are_others_in_the_next():
    part = np.zeros((7, 1)), np.arange(7)
    seen = labels(batches(part, 3, seed=0), 60)
    left = [set(range(7)) - {*a, *b} for a, b in zip(seen[::2], seen[1::2], strict=True)]
    assert set.union(*left) == set(range(7))


def test_every_place_of_an_epoch_is_as_likely_for_every_image():
    """Five images in 4,000 epochs: 25 counts around 800, deviation 25."""
    part = np.zeros((5, 1)), np.arange(5)
    seen = np.array(labels(batches(part, 5, seed=3), 4000))
    counts = np.stack([np.bincount(seen[:, place], minlength=5) for place in range(5)])
    assert np.abs(counts - 800).max() < 120
    assert len(np.unique(seen, axis=0)) == 120  # all orders


@pytest.mark.parametrize("n", [60, 20_000])
def test_the_orders_of_neighbouring_epochs_and_seeds_have_nothing_in_common(n):
    part = np.zeros((n, 1)), np.arange(n)

    def order(seed, epoch):
        return np.array(labels(batches(part, n, seed, start=epoch), 1)[0])

    orders = [order(s, e) for s, e in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2**40, 0)]]
    for a, b in itertools.combinations([np.arange(n), *orders], 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(n)
        shifts = np.bincount((a - b) % n, minlength=n)
        assert shifts.max() < 15  # a shifted order would have n


def test_another_seed_gives_another_order_and_the_same_seed_the_same():
    part = numbered(50)
    assert same(take(batches(part, 10, 1), 7), take(batches(part, 10, 1), 7))
    assert labels(batches(part, 10, 1), 5) != labels(batches(part, 10, 2), 5)


def test_the_global_seed_of_tensorflow_does_not_matter():
    tf.random.set_seed(1)
    one = take(batches(numbered(20), 5, 3, augment="flip_crop"), 3)
    tf.random.set_seed(2)
    assert same(one, take(batches(numbered(20), 5, 3, augment="flip_crop"), 3))


# Starting later ---------------------------------------------------------------------------


@given(
    n=st.integers(1, 12),
    batch_size=st.integers(1, 12),
    seed=st.integers(0, 2**31),
    start=st.integers(0, 40),
    augment=st.sampled_from([None, "flip_crop"]),
)
@settings(max_examples=25, deadline=None)
def test_a_stream_from_step_k_is_the_tail_of_the_stream_from_0(n, batch_size, seed, start, augment):
    x = np.random.default_rng(0).random((n, 8, 9, 2), np.float32)
    part, batch_size = (x, np.arange(n)), min(n, batch_size)
    whole = take(batches(part, batch_size, seed, augment=augment), start + 5)
    assert same(take(batches(part, batch_size, seed, start, augment), 5), whole[start:])


@pytest.mark.parametrize("start", [10**9, 2**33 + 1])
def test_a_stream_may_start_very_late(start):
    part = numbered(7)
    one, two = (take(batches(part, 3, 0, s, "flip_crop"), 3) for s in (start, start + 1))
    assert same(one[1:], two[:2])


def test_a_training_in_two_pieces_is_the_training_in_one():
    rng = np.random.default_rng(0)
    part = rng.random((20, 8, 8, 1), np.float32), np.arange(20) % 3

    def fit(pieces):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, jit_compile=True)
        start = 0
        for steps in pieces:
            stream = batches(part, 6, 5, start, "flip_crop")
            model.fit(stream, steps_per_epoch=steps, shuffle=False, verbose=0)
            start += steps
        return model.get_weights()

    whole, halves = fit([8]), fit([2, 5, 1])
    assert all(a.tobytes() == b.tobytes() for a, b in zip(whole, halves, strict=True))
    assert not np.array_equal(whole[0], fit([7])[0])


# What comes out ---------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [np.asarray, tf.constant])
@pytest.mark.parametrize("augment", [None, "flip_crop"])
def test_labels_stay_with_their_images(convert, augment):
    x, y = (convert(a) for a in numbered(30))
    for images, own in take(batches((x, y), 7, 0, augment=augment), 12):
        # A crop of at most 4 of 8 pixels keeps one of the image's own.
        assert images.max((1, 2, 3)).tolist() == (own + 1).tolist()


@pytest.mark.parametrize("augment", [None, "flip_crop"])
def test_shapes_are_static_and_the_stream_is_endless(augment):
    stream = batches(numbered(10, channels=3), 4, 0, augment=augment)
    x, y = stream.element_spec
    assert (x.shape, x.dtype) == ((4, 8, 8, 3), tf.float32)
    assert (y.shape, y.dtype) == ((4,), tf.int32)
    assert stream.cardinality() == tf.data.INFINITE_CARDINALITY


def test_images_without_augmentation_are_the_images():
    x = np.random.default_rng(0).random((9, 3, 2), np.float32)
    for images, own in take(batches((x, np.arange(9)), 2, 0), 8):
        assert images.tobytes() == x[own].tobytes()


# Augmentation -----------------------------------------------------------------------------

FOUR = tf.reshape(tf.constant([[1, 2], [3, 4]]), (1, 2, 2, 1))


@pytest.mark.parametrize(
    ("top", "left", "mirrored", "expected"),
    [
        (4, 4, False, [[1, 2], [3, 4]]),
        (4, 4, True, [[2, 1], [4, 3]]),
        (3, 4, False, [[0, 0], [1, 2]]),  # cut one pixel above: the image moves down
        (5, 4, False, [[3, 4], [0, 0]]),
        (4, 3, False, [[0, 1], [0, 3]]),
        (4, 5, False, [[2, 0], [4, 0]]),
        (4, 5, True, [[0, 2], [0, 4]]),
        (5, 3, True, [[3, 0], [0, 0]]),
        (0, 0, False, [[0, 0], [0, 0]]),
        (8, 8, True, [[0, 0], [0, 0]]),
    ],
)
def test_a_crop_of_four_pixels_by_hand(top, left, mirrored, expected):
    assert crop(FOUR, [top], [left], [mirrored])[0, ..., 0].numpy().tolist() == expected


def test_each_image_of_a_batch_has_its_own_cut_for_all_of_its_channels():
    images = tf.concat([FOUR, 10 * FOUR], 0)
    images = tf.concat([images, -images], -1)
    cut = crop(images, [4, 5], [5, 4], [False, True]).numpy()
    assert cut[..., 0].tolist() == [[[2, 0], [4, 0]], [[40, 30], [0, 0]]]
    assert np.array_equal(cut[..., 1], -cut[..., 0])


@given(
    height=st.integers(8, 12),
    width=st.integers(8, 12),
    cuts=st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 8), st.booleans()), min_size=1, max_size=4
    ),
)
@settings(max_examples=25, deadline=None)
def test_a_crop_is_that_of_a_plain_loop(height, width, cuts):
    images = np.random.default_rng(0).random((len(cuts), height, width, 2), np.float32)
    padded = np.pad(images, [(0, 0), (4, 4), (4, 4), (0, 0)])
    expected = []
    for image, (top, left, mirrored) in zip(padded, cuts, strict=True):
        cut = image[top : top + height, left : left + width]
        expected.append(cut[:, ::-1] if mirrored else cut)
    top, left, mirrored = (tf.constant(v) for v in zip(*cuts, strict=True))
    assert np.array_equal(crop(images, top, left, mirrored), expected)


def outcomes(step, count=10_000):
    """Which of the 162 cuts each of `count` equal images got, read off its pixels."""
    image = np.arange(1, 65, dtype=np.float32).reshape(1, 8, 8, 1)
    found = AUGMENTATIONS["flip_crop"](tf.constant(np.tile(image, (count, 1, 1, 1))), [7, step])
    found = found.numpy()[..., 0]
    mirrored = np.diff(found, axis=2)
    mirrored = np.array([np.median(d[(f[:, 1:] > 0) & (f[:, :-1] > 0)]) < 0
                         for d, f in zip(mirrored, found, strict=True)])  # fmt: skip
    plain = np.where(mirrored[:, None, None], found[:, :, ::-1], found)
    row, column = (np.argmax((plain > 0).any(axis), axis=1) for axis in (2, 1))
    value = plain[np.arange(count), row, column].astype(int) - 1
    return value // 8 - row + 4, value % 8 - column + 4, mirrored


def test_flips_are_about_half_and_all_81_crops_are_as_likely():
    """10,000 images: 5,000 flips, deviation 50; 123 of each crop, deviation 11."""
    top, left, mirrored = outcomes(0)
    assert abs(mirrored.sum() - 5000) < 250
    counts = np.bincount(9 * top + left, minlength=81)
    assert counts.size == 81
    assert counts.min() > 60 and counts.max() < 190
    both = np.bincount(9 * top[mirrored] + left[mirrored], minlength=81)
    assert both.min() > 20  # a flip comes with every crop


def test_another_step_draws_other_cuts():
    one, two = outcomes(0, 100), outcomes(1, 100)
    assert sum(map(np.array_equal, one, two)) == 0


def test_the_same_image_is_cut_otherwise_in_every_epoch():
    part = np.random.default_rng(0).random((1, 8, 8, 1), np.float32), np.zeros(1)
    seen = {x.tobytes() for x, _ in take(batches(part, 1, 0, augment="flip_crop"), 30)}
    assert len(seen) > 20


def test_orders_do_not_depend_on_augmentation():
    part = numbered(20)
    one, two = (labels(batches(part, 5, 3, augment=a), 9) for a in (None, "flip_crop"))
    assert one == two


def test_order_and_augmentation_draw_from_streams_of_their_own():
    keys = [
        tuple(module._key(seed, stream, tf.constant(i, tf.int64)).numpy())
        for seed in (0, 1)
        for stream in (0, 1)
        for i in (0, 1)
    ]
    assert len(set(keys)) == 8


# What cannot work -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 11}, "11 needs as many.*Received: 10"),
        ({"batch_size": 0}, "batch_size.*at least 1.*Received: 0"),
        ({"batch_size": 2.0}, "batch_size.*integer.*Received: 2.0"),
        ({"start": -1}, "start.*at least 0.*Received: -1"),
        ({"start": 1.5}, "start.*integer.*Received: 1.5"),
        ({"seed": -1}, "seed.*at least 0.*Received: -1"),
        ({"seed": 2**63}, r"seed.*below 2\*\*63.*Received: 9"),
        ({"augment": "mixup"}, "augment.*flip_crop.*None.*Received: 'mixup'"),
        ({"augment": ["flip_crop"]}, "augment.*flip_crop.*Received"),
    ],
)
def test_arguments_out_of_range_are_refused_at_once(changes, message):
    with pytest.raises(ValueError, match=message):
        batches(numbered(10), **{"batch_size": 2, "seed": 0, **changes})


@pytest.mark.parametrize("shape", [(10, 7, 8, 1), (10, 8, 7, 3), (10, 64), (10, 28, 28)])
def test_augmentation_needs_images_of_8x8_or_more(shape):
    with pytest.raises(ValueError, match=r"8x8 or more.*Received.*shape \(10, "):
        batches((np.zeros(shape, np.float32), np.zeros(10)), 2, 0, augment="flip_crop")


def test_images_and_labels_must_be_as_many():
    with pytest.raises(ValueError, match="Received: 10 images, 9 labels"):
        batches((np.zeros((10, 2)), np.zeros(9)), 2, 0)
