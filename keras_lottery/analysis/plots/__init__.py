"""Figures of what `kl.analysis` measures. Each function takes its dataclasses, gives a figure.

`save` writes one as PNG or SVG; the same figure gives the same bytes. They need matplotlib:
`pip install 'keras-lottery[plots]'`.
"""

from keras_lottery.analysis.plots.bars import connectivity, initial_values, stability
from keras_lottery.analysis.plots.layers import anatomy, layers_over_rounds, movement, ramanujan
from keras_lottery.analysis.plots.lines import (
    barrier,
    barrier_heights,
    mask_distances,
    sign_flips,
)
from keras_lottery.analysis.plots.maps import landscape, overlap, pixels
from keras_lottery.analysis.plots.saving import save

__all__ = [
    "anatomy",
    "barrier",
    "barrier_heights",
    "connectivity",
    "initial_values",
    "landscape",
    "layers_over_rounds",
    "mask_distances",
    "movement",
    "overlap",
    "pixels",
    "ramanujan",
    "save",
    "sign_flips",
    "stability",
]
