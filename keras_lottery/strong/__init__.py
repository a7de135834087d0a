"""Strong tickets: good networks inside random ones, no weight trained."""

from keras_lottery.strong import planting, problems, pruners, seeking, theory
from keras_lottery.strong.approximate import approximate
from keras_lottery.strong.approximation import Approximation
from keras_lottery.strong.heuristic import heuristic_supermask
from keras_lottery.strong.learning import LearnedMask, StrongSearch, ticket
from keras_lottery.strong.searches import biprop, edge_popup, gem_miner, iterand, supermask
from keras_lottery.strong.starting import binary_activation
from keras_lottery.strong.subset_sum import SubsetSums, subset_sum

__all__ = [
    "Approximation",
    "LearnedMask",
    "StrongSearch",
    "SubsetSums",
    "approximate",
    "binary_activation",
    "biprop",
    "edge_popup",
    "gem_miner",
    "heuristic_supermask",
    "iterand",
    "planting",
    "problems",
    "pruners",
    "seeking",
    "subset_sum",
    "supermask",
    "theory",
    "ticket",
]
