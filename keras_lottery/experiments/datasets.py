"""Data sets: train, validation and test parts, standardized by the training part."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = ("digits",)
_KEYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Data:
    """Images and integer labels in three parts.

    Attributes:
        name: What was loaded.
        train, validation, test: Pairs `(x, y)`: float32 images of shape
            `(n, height, width, channels)` with mean 0 and standard deviation 1 over the
            training part, int32 labels of shape `(n,)`.
    """

    name: str
    train: tuple[NDArray[np.float32], NDArray[np.int32]]
    validation: tuple[NDArray[np.float32], NDArray[np.int32]]
    test: tuple[NDArray[np.float32], NDArray[np.int32]]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.train[0].shape[1:]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 1 + max(int(y.max(initial=0)) for _, y in (self.train, self.validation, self.test))


def short_name(name: str) -> str:
    """A data set's name without folder and ending.

    Example:

    >>> short_name("data/mnist.npz")
    'mnist'
    """
    return name.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".npz")


def load(name: str, seed: int = 0) -> Data:
    """Loads a data set and holds a validation part out of its training part.

    Args:
        name: `"digits"`, scikit-learn's 1,797 handwritten digits of 8x8 (a fixed test part
            of 500), or the path of an `.npz` with `x_train`, `y_train`, `x_test`, `y_test`:
            images `(n, height, width)` or `(n, height, width, channels)`, uint8 or float,
            and class indices `(n,)`.
        seed: Integer that draws the validation part: 5,000 images of a training part of
            50,000 or more, as the papers do, else a tenth.

    Raises:
        ValueError: If the name is unknown or the file is not of that layout.
        ImportError: If scikit-learn is missing for the digits.

    Example:

    >>> load("digits").test[0].shape
    (500, 8, 8, 1)
    """
    if name == "digits":
        arrays = _digits()
    elif str(name).endswith(".npz"):
        arrays = _npz(Path(name))
    else:
        raise ValueError(
            f"Unknown data set {name!r}. Expected one of {list(NAMES)} or the path of an .npz file."
        )
    x, y, x_test, y_test = arrays
    n = 5000 if len(x) >= 50_000 else len(x) // 10
    order = np.random.default_rng((seed, 11)).permutation(len(x))
    held, rest = order[:n], order[n:]
    mean = x[rest].mean((0, 1, 2), dtype=np.float64).astype(np.float32)
    std = x[rest].std((0, 1, 2), dtype=np.float64).astype(np.float32) + np.float32(1e-7)
    parts = [(x[rest], y[rest]), (x[held], y[held]), (x_test, y_test)]
    return Data(str(name), *[((a - mean) / std, b) for a, b in parts])


def _digits() -> tuple[Any, ...]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn: pip install 'keras-lottery[examples]'"
        ) from error
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = _images(x[order].reshape(-1, 8, 8) / 16), _labels(y[order])
    return x[:-500], y[:-500], x[-500:], y[-500:]


def _npz(path: Path) -> tuple[Any, ...]:
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            missing = [key for key in _KEYS if key not in file]
            if missing:
                raise ValueError(f"it has no {missing}; it has {list(file)}")
            x, y, x_test, y_test = (file[key] for key in _KEYS)
        parts = _images(x), _labels(y), _images(x_test), _labels(y_test)
        _check_parts(*parts)
        return parts
    except FileNotFoundError:
        raise ValueError(f"There is no data set at {str(path)!r}.") from None
    except _UNREADABLE as error:
        raise ValueError(f"Cannot read the data set {str(path)!r}: {error}") from error


_UNREADABLE = (
    ValueError, TypeError, AttributeError, OSError, EOFError, MemoryError, NotImplementedError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def _images(x: Any) -> NDArray[np.float32]:
    if x.dtype.kind not in "uif" or x.ndim not in (3, 4):
        raise ValueError(f"expected images of rank 3 or 4, received {x.dtype} of shape {x.shape}")
    scale = {"uint8": 255, "uint16": 65535}.get(x.dtype.name, 1)
    images = (x[..., None] if x.ndim == 3 else x).astype(np.float32) / np.float32(scale)
    if not np.isfinite(images).all():
        raise ValueError("its images hold NaN or Inf")
    return np.asarray(images)


def _labels(y: Any) -> NDArray[np.int32]:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "uif" or np.any(y != np.floor(y)) or np.any(y < 0):
        raise ValueError(
            "expected class indices 0, 1, 2, ... of shape (n,) as labels, received "
            f"{y.dtype} of shape {y.shape}"
        )
    return np.asarray(y, np.int32)


def _check_parts(x: Any, y: Any, x_test: Any, y_test: Any) -> None:
    if len(x) != len(y) or len(x_test) != len(y_test):
        raise ValueError(
            f"it has {len(x)} and {len(x_test)} images for {len(y)} and {len(y_test)} labels"
        )
    if len(x) < 10 or len(x_test) < 1:
        raise ValueError(
            f"it has {len(x)} training and {len(x_test)} test images; at least 10 and 1 are needed"
        )
    if x.shape[1:] != x_test.shape[1:]:
        raise ValueError(f"its images have shapes {x.shape[1:]} and, to test, {x_test.shape[1:]}")
