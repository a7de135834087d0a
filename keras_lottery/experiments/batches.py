"""The stream of training batches: the one of step s is a function of the seed and s alone."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_lottery.settings import check_integer

_ENDLESS = 2**62
_PADDING = 4
_OFFSETS = 2 * _PADDING + 1
_ORDER, _AUGMENTATION = 0, 1  # streams of random numbers that one seed gives


def steps_per_epoch(part: tuple[Any, Any], batch_size: int) -> int:
    """Optimizer steps of an epoch; images that fill no whole batch sit it out.

    Args:
        part: Images and labels, `n` each.
        batch_size: In [1, n].

    Raises:
        ValueError: If the batch is larger than the data.

    Example:

    >>> steps_per_epoch((tf.zeros((7, 8, 8, 1)), tf.zeros(7)), 3)
    2
    """
    check_integer("batch_size", batch_size, least=1)
    n = len(part[0])
    if batch_size > n:
        raise ValueError(f"A batch of {batch_size} needs as many training images. Received: {n}.")
    return n // int(batch_size)


def batches(
    part: tuple[Any, Any],
    batch_size: int,
    seed: int,
    start: int = 0,
    augment: str | None = None,
) -> tf.data.Dataset:
    """An endless stream of batches that may begin at any optimizer step.

    Every epoch has an order of its own, in which each image comes at most once. A run that
    is continued at step `start` sees just the batches that it would have seen. `fit` needs
    `steps_per_epoch` with it.

    Args:
        part: Images of shape `(n, ...)` and labels `(n, ...)`, tensors or arrays. They are
            held in memory once.
        batch_size: In [1, n]. All batches have this size.
        seed: Integer in [0, 2**63) that draws the orders and the augmentation.
        start: Optimizer step of the first batch, at least 0. Default: 0.
        augment: A key of `AUGMENTATIONS`, for images `(n, height, width, channels)` of 8x8
            or more. Default: the images as they are.

    Returns:
        A dataset of infinite cardinality; its elements are `(x, y)`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> part = tf.zeros((7, 8, 8, 1)), tf.range(7)
    >>> stream = batches(part, 3, seed=0)
    >>> first_epoch = [y for _, y in stream.take(2)]
    >>> len(set(tf.concat(first_epoch, 0).numpy().tolist()))
    6
    >>> y, again = [next(iter(s))[1] for s in (stream.skip(5), batches(part, 3, 0, start=5))]
    >>> bool(tf.reduce_all(y == again))
    True
    """
    steps = steps_per_epoch(part, batch_size)
    _check(part, seed, start, augment)
    x, y = (tf.convert_to_tensor(a) for a in part)

    def rows(epoch: tf.Tensor) -> tf.Tensor:
        order = _order(len(x), _key(seed, _ORDER, epoch))
        return tf.reshape(order[: steps * batch_size], (steps, batch_size))

    def batch(step: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.gather(x, chosen)
        if augment is not None:
            images = AUGMENTATIONS[augment](images, _key(seed, _AUGMENTATION, step))
        return images, tf.gather(y, chosen)

    chosen = tf.data.Dataset.range(start // steps, _ENDLESS).map(rows).unbatch()
    stream = chosen.skip(start % steps).enumerate(start).map(batch).prefetch(2)
    return stream.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def flip_crop(images: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Mirrors every other image, and crops each at random after padding it by 4 pixels.

    The padding is 0, the mean colour of standardized images. Each of the 2 x 81 outcomes is
    as likely as another, and drawn for each image by itself.

    Args:
        images: Shape `(batch, height, width, channels)`.
        key: Two integers; the same key gives the same images.

    Returns:
        Images of the same shape and type.

    Source: Lee et al., 1409.5185, as He et al., 1512.03385, section 4.2, use it.

    Example:

    >>> flip_crop(tf.ones((2, 8, 8, 3)), tf.constant([0, 1])).shape.as_list()
    [2, 8, 8, 3]
    """
    outcomes = 2 * _OFFSETS**2
    drawn = tf.random.stateless_uniform(
        tf.shape(images)[:1], key, 0, outcomes, tf.int32, alg="philox"
    )
    place = drawn // 2
    return crop(images, place // _OFFSETS, place % _OFFSETS, drawn % 2 == 1)


def crop(images: tf.Tensor, top: tf.Tensor, left: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
    """Pads each image by 4 zeros on each side and cuts one of its own size out.

    Args:
        images: Shape `(batch, height, width, channels)`.
        top, left: Corner of each cut in the padded image, int32 in [0, 8]; 4 is the middle.
        mirrored: Whether left and right are swapped in the cut, bool.

    Example:

    >>> image = tf.reshape(tf.constant([[1, 2], [3, 4]]), (1, 2, 2, 1))
    >>> crop(image, [4], [5], [True])[0, :, :, 0].numpy().tolist()
    [[0, 2], [0, 4]]
    """
    height, width = images.shape[1:3]
    margin = [_PADDING, _PADDING]
    padded = tf.pad(images, [[0, 0], margin, margin, [0, 0]])
    columns = tf.range(width)
    columns = tf.where(tf.expand_dims(mirrored, 1), columns[::-1], columns)
    rows = tf.expand_dims(top, 1) + tf.range(height)
    cut = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cut, tf.expand_dims(left, 1) + columns, axis=2, batch_dims=1)


AUGMENTATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {"flip_crop": flip_crop}


def _key(seed: int, stream: int, index: tf.Tensor) -> tf.Tensor:
    """Two integers for random numbers that no other stream or index has."""
    return tf.random.fold_in(tf.constant([seed, stream], tf.int64), index)


def _order(n: int, key: tf.Tensor) -> tf.Tensor:
    """A random permutation of `0, ..., n - 1`."""
    drawn = tf.random.stateless_uniform((n,), key, None, None, tf.int32, alg="philox")
    return tf.argsort(drawn, stable=True)


def _check(part: tuple[Any, Any], seed: int, start: int, augment: str | None) -> None:
    x, y = part
    if len(x) != len(y):
        raise ValueError(f"Expected a label an image. Received: {len(x)} images, {len(y)} labels.")
    check_integer("seed", seed, least=0)
    check_integer("start", start, least=0)
    if seed >= 2**63:
        raise ValueError(f"`seed` must be below 2**63. Received: {seed}")
    if augment is None:
        return
    if augment not in tuple(AUGMENTATIONS):
        raise ValueError(
            f"`augment` must be one of {sorted(AUGMENTATIONS)} or None. Received: {augment!r}"
        )
    if len(x.shape) != 4 or min(x.shape[1:3]) < 2 * _PADDING:
        raise ValueError(
            f"augment={augment!r} needs images (n, height, width, channels) of "
            f"{2 * _PADDING}x{2 * _PADDING} or more. Received: images of shape {tuple(x.shape)}"
        )
