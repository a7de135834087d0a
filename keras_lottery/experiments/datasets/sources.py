"""Images and labels as they come: digits, `.npz` files, and what both must be."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Training images and labels, test images and labels; images are of rank 4, not yet scaled.
Arrays = tuple[NDArray[Any], NDArray[np.int32], NDArray[Any], NDArray[np.int32]]

_WHITE = {"uint8": 255, "uint16": 65535}
_KEYS = ("x_train", "y_train", "x_test", "y_test")
_UNREADABLE = (
    ValueError, TypeError, AttributeError, OSError, EOFError, MemoryError, NotImplementedError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def digits() -> Arrays:
    """Scikit-learn's digits, the last 500 of a fixed order to test."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn: pip install 'keras-lottery[examples]'"
        ) from error
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].reshape(-1, 8, 8) / 16, y[order]
    return checked(x[:-500], y[:-500], x[-500:], y[-500:])


def npz(path: Path) -> Arrays:
    """The arrays of a file of the Keras layout.

    Raises:
        ValueError: If there is no such file, or it is not of that layout.
    """
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            missing = [key for key in _KEYS if key not in file]
            if missing:
                raise ValueError(f"it has no {missing}; it has {list(file)}")
            return checked(*(file[key] for key in _KEYS))
    except FileNotFoundError:
        raise ValueError(f"There is no data set at {str(path)!r}.") from None
    except _UNREADABLE as error:
        raise ValueError(f"Cannot read the data set {str(path)!r}: {error}") from error


def checked(x: Any, y: Any, x_test: Any, y_test: Any) -> Arrays:
    """The arrays with images of rank 4 and int32 labels.

    Raises:
        ValueError: If they are not images and class indices that belong together.
    """
    parts = _images(x), _labels(y), _images(x_test), _labels(y_test)
    _check_parts(*parts)
    return parts


def scaled(x: NDArray[Any]) -> NDArray[np.float32]:
    """Images as float32, themselves if they are; those of uint8 and uint16 within [0, 1].

    Example:

    >>> scaled(np.array([0, 255], np.uint8)).tolist()
    [0.0, 1.0]
    """
    images = x.astype(np.float32, copy=False)
    if x.dtype.name in _WHITE:
        images /= np.float32(_WHITE[x.dtype.name])
    return images


def _images(x: Any) -> NDArray[Any]:
    if x.dtype.kind not in "uif" or x.ndim not in (3, 4):
        raise ValueError(f"expected images of rank 3 or 4, received {x.dtype} of shape {x.shape}")
    images = x[..., None] if x.ndim == 3 else x
    if x.dtype.kind == "f":
        images = images.astype(np.float32, copy=False)
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
