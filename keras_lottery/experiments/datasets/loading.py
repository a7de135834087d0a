"""From a name to `Data`: parts drawn, labels disturbed, images standardized."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_lottery.experiments.datasets import sources, tfds
from keras_lottery.experiments.datasets.data import Data, Part
from keras_lottery.settings import check_integer

_CHUNK = 1000  # images whose float64 differences are held at a time


def load(
    name: str,
    seed: int = 0,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    validation: int | None = None,
    subset: int | None = None,
    label_noise: float = 0.0,
    shuffle_labels: bool = False,
) -> Data:
    """Loads a data set and holds a validation part out of its training part.

    Images are standardized channel by channel with the mean and the standard deviation of
    the training images that are left. Validation and test labels are always the true ones.

    Args:
        name: One of these:
            `"digits"`, scikit-learn's 1,797 handwritten digits of 8x8 (a fixed test part of
            500);
            the path of an `.npz` with `x_train`, `y_train`, `x_test`, `y_test`: images
            `(n, height, width)` or `(n, height, width, channels)`, uint8 or float, and class
            indices `(n,)`;
            a name of tensorflow-datasets, such as `"mnist"`, `"cifar10"`,
            `"name/config"` or `"name:version"`, with the splits `train` and `test` and with
            images of one size. What is not in `data_dir` yet is downloaded, with a message
            and a progress bar.
        seed: Integer of at least 0 for everything that is drawn.
        data_dir: Folder of tensorflow-datasets. Default: its own, `~/tensorflow_datasets`.
        validation: Number of training images held out, at least 1. Default: 5,000 of 50,000
            or more, as the papers do, else a tenth.
        subset: How many of the other training images are kept, at least 1. A smaller subset
            is part of a larger one of the same seed. Default: all.
        label_noise: Fraction in [0, 1] of the training labels, rounded to a whole number of
            them, that a uniformly drawn class replaces, by chance the right one too.
        shuffle_labels: Whether the training labels are permuted among the training images,
            before the noise.

    Returns:
        The three parts.

    Raises:
        ValueError: If the name is unknown, the data is not of that layout or cannot be had,
            or an argument is out of range.
        ImportError: If the package is missing that the data comes with.

    Source: shuffled and noisy labels as in Zhang et al., 1611.03530.

    Example:

    >>> load("digits").test[0].shape
    (500, 8, 8, 1)
    >>> load("digits", validation=97, subset=100, label_noise=0.2).train[1].shape
    (100,)
    """
    _check(seed, validation, subset, label_noise, shuffle_labels)
    x, y, x_test, y_test = _arrays(str(name), data_dir)
    rest, held = _split(len(x), seed, validation, subset)
    classes = 1 + int(max(y.max(), y_test.max()))
    labels = _disturbed(y[rest], classes, seed, label_noise, shuffle_labels)
    train = sources.scaled(x[rest])
    moments = _moments(train)
    return Data(
        str(name),
        _standardized(train, labels, moments),
        _standardized(sources.scaled(x[held]), y[held], moments),
        _standardized(sources.scaled(x_test), y_test, moments),
    )


def _arrays(name: str, data_dir: str | os.PathLike[str] | None) -> sources.Arrays:
    if name == "digits":
        return sources.digits()
    if name.endswith(".npz"):
        return sources.npz(Path(name))
    return tfds.load(name, data_dir)


def _check(
    seed: int, validation: int | None, subset: int | None, noise: float, shuffle: bool
) -> None:
    check_integer("seed", seed, least=0)
    for name, value in (("validation", validation), ("subset", subset)):
        if value is not None:
            check_integer(name, value, least=1)
    if isinstance(noise, bool) or not isinstance(noise, (int, float)) or not 0 <= noise <= 1:
        raise ValueError(f"`label_noise` must be a number in [0, 1]. Received: {noise!r}")
    if not isinstance(shuffle, bool):
        raise ValueError(f"`shuffle_labels` must be True or False. Received: {shuffle!r}")


def _split(
    n: int, seed: int, validation: int | None, subset: int | None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of the training part and of the validation part."""
    if validation is None:
        validation = 5000 if n >= 50_000 else n // 10
    if validation >= n:
        raise ValueError(
            f"`validation` must leave a training image of the {n} there are. Received: {validation}"
        )
    order = np.random.default_rng((seed, 11)).permutation(n)
    held, rest = order[:validation], order[validation:]
    if subset is not None and subset > len(rest):
        raise ValueError(
            f"`subset` must be at most {len(rest)}, the training images that are left beside "
            f"{validation} for validation. Received: {subset}"
        )
    return rest[:subset], held


def _disturbed(
    y: NDArray[np.int32], classes: int, seed: int, noise: float, shuffle: bool
) -> NDArray[np.int32]:
    """Labels permuted if `shuffle`, then `round(noise * n)` of them drawn anew."""
    if shuffle:
        y = np.random.default_rng((seed, 12)).permutation(y)
    rng = np.random.default_rng((seed, 13))
    drawn = rng.integers(0, classes, len(y), np.int32)
    y = y.copy()
    chosen = rng.permutation(len(y))[: round(noise * len(y))]
    y[chosen] = drawn[chosen]
    return y


def _moments(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each channel, summed in float64 chunk by chunk."""
    n = math.prod(x.shape[:3])
    mean = sum(chunk.sum((0, 1, 2), dtype=np.float64) for chunk in _chunks(x)) / n
    squares = sum(np.square(chunk - mean).sum((0, 1, 2)) for chunk in _chunks(x))
    return mean.astype(np.float32), np.sqrt(squares / n).astype(np.float32) + np.float32(1e-7)


def _chunks(x: Any) -> Iterator[Any]:
    return (x[i : i + _CHUNK] for i in range(0, len(x), _CHUNK))


def _standardized(x: NDArray[np.float32], y: NDArray[np.int32], moments: Any) -> Part:
    """In place: nobody else has these images, and a second copy may not fit."""
    mean, std = moments
    x -= mean
    x /= std
    return x, y
