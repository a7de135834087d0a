"""The versions that a result depends on. Standard library only."""

import platform
from importlib import metadata

__version__ = "0.1.0"

_PACKAGES = ("tensorflow", "keras", "numpy")


def versions() -> dict[str, str]:
    """Versions of this package, Python and the libraries that train.

    Example:

    >>> sorted(versions())
    ['keras', 'keras_lottery', 'numpy', 'python', 'tensorflow']
    """
    found = {name: metadata.version(name) for name in _PACKAGES}
    return {"keras_lottery": __version__, "python": platform.python_version(), **found}
