"""Data sets: train, validation and test parts, standardized by the training part."""

import zipfile
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
        return int(max(self.train[1].max(), self.test[1].max())) + 1


def load(name: str, seed: int = 0) -> Data:
    """Loads a data set and holds a validation part out of its training part.

    Args:
        name: `"digits"`, scikit-learn's 1,797 handwritten digits of 8x8 (a fixed test part
            of 500), or the path of an `.npz` with `x_train`, `y_train`, `x_test`, `y_test`.
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
    mean, std = x[rest].mean((0, 1, 2)), x[rest].std((0, 1, 2)) + 1e-7
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
    x, y = _images(x[order].reshape(-1, 8, 8) / 16), y[order].astype(np.int32)
    return x[:-500], y[:-500], x[-500:], y[-500:]


def _npz(path: Path) -> tuple[Any, ...]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in _KEYS if key not in file]
            if missing:
                raise ValueError(f"has no {missing}; it has {list(file)}")
            x, y, x_test, y_test = (file[key] for key in _KEYS)
    except FileNotFoundError:
        raise ValueError(f"There is no data set at {str(path)!r}.") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"Cannot read the data set {str(path)!r}: {error}") from error
    if len(x) != len(y) or len(x_test) != len(y_test) or len(x) < 10:
        raise ValueError(
            f"The data set {str(path)!r} has {len(x)} and {len(x_test)} images for {len(y)} and "
            f"{len(y_test)} labels."
        )
    scale = 255 if x.dtype == np.uint8 else 1
    labels = [a.reshape(-1).astype(np.int32) for a in (y, y_test)]
    return _images(x / scale), labels[0], _images(x_test / scale), labels[1]


def _images(x: Any) -> NDArray[np.float32]:
    x = x[..., None] if x.ndim == 3 else x
    if x.ndim != 4:
        raise ValueError(f"Expected images of rank 3 or 4. Received: shape {x.shape}.")
    return np.asarray(x, np.float32)
