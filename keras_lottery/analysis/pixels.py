"""What a ticket sees of an image: the alive first-layer weights of each pixel."""

import math

import numpy as np
from numpy.typing import NDArray

from keras_lottery.analysis.pairing import masks_of
from keras_lottery.masks import Masks, Path
from keras_lottery.tickets import Ticket


def alive_per_pixel(
    masks: Masks | Ticket, input_shape: tuple[int, ...], path: Path | None = None
) -> NDArray[np.int64]:
    """Counts the alive weights of each pixel in the layer that reads the flattened image.

    Args:
        masks: Dict of path to bool array, True = alive, in the model's order; or a ticket.
        input_shape: `(height, width)` or `(height, width, channels)` of an image, as it is
            before `Flatten`; without the batch.
        path: The weight to count in. Default: the first of shape
            `(height * width * channels, units)`.

    Returns:
        Int array of shape (height, width): alive weights, channels summed.

    Raises:
        ValueError: If no weight reads the flattened image (a convolution's weights belong
            to no pixel), `path` is none of the masks' or of another shape, or
            `input_shape` is no image's.

    Source: Frankle & Carbin, 1803.03635, appendix F (in- and outgoing connectivity).

    Example:

    >>> kernel = np.array([[True, True], [False, True], [False, False], [True, False]])
    >>> alive_per_pixel({"dense/kernel": kernel}, (2, 2)).tolist()
    [[2, 1], [0, 1]]
    """
    shape = tuple(input_shape)
    if len(shape) not in (2, 3) or not all(isinstance(n, int | np.integer) for n in shape):
        raise ValueError(
            "`input_shape` must be (height, width) or (height, width, channels), without the "
            f"batch. Received: {input_shape!r}"
        )
    found = masks_of(masks)
    mask = found[_reader(found, math.prod(shape), path)]
    per_input = np.count_nonzero(mask, axis=1).reshape(*shape[:2], -1)
    return np.asarray(per_input.sum(axis=2), np.int64)


def _reader(masks: Masks, inputs: int, path: Path | None) -> Path:
    """The path of the weight that reads the flattened image."""
    shapes = {p: m.shape for p, m in masks.items()}
    fits = [p for p, shape in shapes.items() if len(shape) == 2 and shape[0] == inputs]
    if path is None and fits:
        return fits[0]
    if path in fits:
        return path
    if path is not None and path not in masks:
        raise ValueError(f"`path` must be one of {list(masks)}. Received: {path!r}")
    first = next(iter(masks)) if path is None else path
    why = (
        "It is a convolution's: such a weight meets every pixel, so none belongs to one."
        if len(shapes[first]) > 2
        else "Does `input_shape` fit the model?"
    )
    raise ValueError(
        f"Expected a weight of shape ({inputs}, units), which reads the flattened image. "
        f"Received: {shapes if path is None else shapes[path]}. {why}"
    )
