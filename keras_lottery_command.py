"""The `keras-lottery` script: silences TensorFlow's C++ log, then starts the command line.

A module of its own because TensorFlow reads the variable while it is imported, and
`import keras_lottery` itself leaves the environment alone.
"""

import os


def run() -> None:
    """Starts the command line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from keras_lottery.cli.main import run as start

    start()
