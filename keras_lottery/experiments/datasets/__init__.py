"""Data sets: train, validation and test parts, standardized by the training part."""

from keras_lottery.experiments.datasets.data import Data, short_name
from keras_lottery.experiments.datasets.loading import load

__all__ = ["Data", "load", "short_name"]
