"""The `keras-lottery` script: starts the command line without TensorFlow's start-up messages.

A module of its own because those are written while TensorFlow is imported, and
`import keras_lottery` itself leaves environment and streams alone.
"""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Sends what C++ writes to the standard error nowhere; Python's exceptions still pass."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def run() -> None:
    """Starts the command line."""
    _import_quietly()
    from keras_lottery.cli.main import run as start

    start()


def work() -> None:
    """Starts a process that works for `keras-lottery ... --jobs=N`."""
    _import_quietly()
    from keras_lottery.experiments.worker import main as start

    start()


def _import_quietly() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silent_stderr():
        import keras  # noqa: F401
