"""Questions to trained networks and tickets: how stable, how connected, what they look like.

Functions take any Keras model, its weights or masks, and return plain dataclasses of numbers;
`kl.analysis.plots` draws them.
"""

from keras_lottery.analysis import plots
from keras_lottery.analysis.anatomy import Anatomy, LayerAnatomy, anatomy
from keras_lottery.analysis.barrier import Barrier, error_barrier
from keras_lottery.analysis.comparing import Case, Comparison, Stability, compare
from keras_lottery.analysis.distances import angle, distance
from keras_lottery.analysis.early_bird import EarlyBird, mask_distance
from keras_lottery.analysis.early_stopping import EarlyStop, early_stop, speed_up
from keras_lottery.analysis.effective import effective_masks
from keras_lottery.analysis.evaluating import Evaluation
from keras_lottery.analysis.flow import gradient_flow, information_flow
from keras_lottery.analysis.landscape import Landscape, landscape
from keras_lottery.analysis.movement import (
    InitialValues,
    Movement,
    SignFlips,
    flip_signs,
    initial_values,
    movement,
    sign_flips,
)
from keras_lottery.analysis.overlap import Overlap, OverlapMatrix, mask_overlap, overlap_matrix
from keras_lottery.analysis.pixels import alive_per_pixel
from keras_lottery.analysis.ramanujan import Ramanujan, ramanujan
from keras_lottery.analysis.stability import stability
from keras_lottery.analysis.values import as_values

__all__ = [
    "Anatomy",
    "Barrier",
    "Case",
    "Comparison",
    "EarlyBird",
    "EarlyStop",
    "Evaluation",
    "InitialValues",
    "Landscape",
    "LayerAnatomy",
    "Movement",
    "Overlap",
    "OverlapMatrix",
    "Ramanujan",
    "SignFlips",
    "Stability",
    "alive_per_pixel",
    "anatomy",
    "angle",
    "as_values",
    "compare",
    "distance",
    "early_stop",
    "effective_masks",
    "error_barrier",
    "flip_signs",
    "gradient_flow",
    "information_flow",
    "initial_values",
    "landscape",
    "mask_distance",
    "mask_overlap",
    "movement",
    "overlap_matrix",
    "plots",
    "ramanujan",
    "sign_flips",
    "speed_up",
    "stability",
]
