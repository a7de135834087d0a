"""A figure as a file."""

import os
from pathlib import Path
from typing import Any

from keras_lottery import drawing
from keras_lottery.analysis.plots import common
from keras_lottery.files import write_atomic


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Writes a figure as PNG or SVG, atomically; the same figure gives the same bytes.

    The layout is computed when a figure is first saved, and stays.

    Args:
        figure: What a function of `kl.analysis.plots` returned.
        path: Where to; the name must end in `.png` or `.svg`, the folder must exist.

    Raises:
        ValueError: If the name ends otherwise.
        OSError: If the file cannot be written; nothing is left half-written.
        ImportError: If matplotlib is missing.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from keras_lottery.analysis import plots
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(plots.pixels({"round 0": np.eye(2)}), f"{folder}/pixels.png")
    ...     os.listdir(folder)
    ['pixels.png']
    """
    format = Path(path).suffix.lower().removeprefix(".")
    if format not in ("png", "svg"):
        raise ValueError(f"`path` must end in '.png' or '.svg'. Received: {os.fspath(path)!r}")
    with common.style():
        # A layout that is computed again moves by parts of a point, and so do the bytes.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        content = drawing.save(figure, format)
    write_atomic(path, content)
