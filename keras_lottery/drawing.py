"""How every picture of this package is drawn: one style, without a screen, the same bytes."""

import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

COLOURS = (
    "#0b62b4", "#d95f02", "#1b9e77", "#c2185b", "#6a51a3",
    "#8c6d1f", "#17a2c4", "#4d4d4d", "#e3a008", "#7cae00",
)  # fmt: skip
_SETTINGS = {
    "font.size": 11,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
    "svg.hashsalt": "keras_lottery",
}


def check_installed() -> None:
    """Raises `ImportError`, naming the extra, unless pictures can be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("Pictures need matplotlib: pip install 'keras-lottery[plots]'")


@contextmanager
def drawing() -> Iterator[None]:
    """Within it, figures are drawn and saved in the package's style."""
    import matplotlib

    with matplotlib.rc_context(_SETTINGS):
        yield


def new(height: float = 4.8, width: float = 8.5) -> Any:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, format: str) -> bytes:
    """The figure as `"png"` or `"svg"`; the same figure gives the same bytes."""
    nothing = {"Creator": None, "Date": None, "Format": None, "Type": None}
    buffer = io.BytesIO()
    metadata = nothing if format == "svg" else {"Software": None}
    figure.savefig(buffer, format=format, dpi=130, metadata=metadata)
    return buffer.getvalue()


def text(name: str) -> str:
    """A name that matplotlib does not leave out of the legend for its underscore."""
    return f" {name}" if name.startswith("_") else name
