"""Lottery tickets for Keras 3: sparse sub-networks that train as well as the dense one.

>>> import keras_lottery as kl
>>> lottery = kl.LotteryCallback(epochs_per_round=5)
"""

import importlib as _importlib
from typing import Any as _Any

import keras as _keras

if _keras.config.backend() != "tensorflow":
    raise ImportError(
        "keras_lottery needs Keras on the TensorFlow backend. Received: "
        f"{_keras.config.backend()!r}. Set the environment variable KERAS_BACKEND=tensorflow "
        "before keras is imported."
    )

from keras_lottery import controls, criteria, export, scopes, wrappers
from keras_lottery.callback import LotteryCallback
from keras_lottery.enforcement import enforce
from keras_lottery.gradual import GradualPruning
from keras_lottery.loop import find_ticket
from keras_lottery.per_round import PerRound
from keras_lottery.pruning import prune
from keras_lottery.rounds import Round
from keras_lottery.scopes import NotFiniteError
from keras_lottery.search import Search, SearchStoppedError
from keras_lottery.summaries import PruningSummaries
from keras_lottery.summary import density, summary
from keras_lottery.tickets import Ticket
from keras_lottery.versions import __version__
from keras_lottery.wrappers import strip

__all__ = [
    "GradualPruning",
    "LotteryCallback",
    "NotFiniteError",
    "PerRound",
    "PruningSummaries",
    "Round",
    "Search",
    "SearchStoppedError",
    "Ticket",
    "__version__",
    "analysis",
    "controls",
    "convert",
    "criteria",
    "density",
    "enforce",
    "export",
    "find_ticket",
    "prune",
    "scopes",
    "strip",
    "strong",
    "summary",
    "wrappers",
    "xnnpack",
]


# Imported when first asked for. `tfmot` needs the extra of that name, so that `__all__` is
# without it: `from keras_lottery import *` works with or without.
_LAZY = ("analysis", "convert", "strong", "tfmot", "xnnpack")


def __getattr__(name: str) -> _Any:
    """Rooms that most scripts do not enter."""
    if name in _LAZY:
        return _importlib.import_module(f"keras_lottery.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
