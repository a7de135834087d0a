"""Images and labels in three parts."""

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Part = tuple[NDArray[np.float32], NDArray[np.int32]]


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
    train: Part
    validation: Part
    test: Part

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.train[0].shape[1:]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 1 + max(int(y.max(initial=0)) for _, y in (self.train, self.validation, self.test))

    @cached_property
    def fingerprint(self) -> str:
        """Eight hex digits: a CRC-32 of all arrays, of their shapes and types.

        The same data has the same fingerprint in every process; the name does not count. It
        is computed once, so change no array afterwards.

        Example:

        >>> part = np.zeros((1, 2, 2, 1), np.float32), np.zeros(1, np.int32)
        >>> other = part[0], np.ones(1, np.int32)
        >>> Data("a", part, part, part).fingerprint == Data("b", part, part, part).fingerprint
        True
        >>> Data("a", part, part, part).fingerprint == Data("a", other, part, part).fingerprint
        False
        """
        crc = 0
        for part in (self.train, self.validation, self.test):
            for array in part:
                crc = zlib.crc32(f"{array.dtype.str}{array.shape}".encode(), crc)
                crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
        return f"{crc:08x}"


def short_name(name: str) -> str:
    """A data set's name without folder and ending.

    Example:

    >>> short_name("data/mnist.npz")
    'mnist'
    """
    return name.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".npz")
