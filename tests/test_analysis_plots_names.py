"""What the figures call their points and lines."""

import dataclasses
import math

import numpy as np
import pytest

from keras_lottery.analysis import plots
from keras_lottery.analysis.movement import Movement, SignFlips

FLIPS = SignFlips(np.array([0.1, 0.05]), np.array([0.1, 0.15]))
MOVED = Movement("net/a/kernel", 0.5, 0.25, 0.9, 0.4, 0.125, 0.25)


def test_sign_flips_share_an_axis_and_may_have_names_for_the_points():
    figure = plots.sign_flips({"ticket": FLIPS}, names=["round 0", "round 7"])
    left, right = figure.axes
    for axes in (left, right):
        assert [t.get_text() for t in axes.get_xticklabels()] == ["round 0", "round 7"]
        assert axes.get_ylim() == pytest.approx((0, 16.2))  # the greatest share is 15 %
    with pytest.raises(ValueError, match=r"`names` must have one entry.*Received 1 for the 2"):
        plots.sign_flips({"ticket": FLIPS}, names=["round 0"])


def test_no_legend_for_what_has_no_marker():
    moved = dataclasses.replace(
        MOVED, moved_pruned=math.nan, away_pruned=math.nan, flips_pruned=math.nan
    )
    figure = plots.movement({"round 0": [MOVED], "round 3": [moved]})
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert names == ["round 0, alive", "round 0, pruned", "round 3, alive"]


def test_many_names_are_thinned_out():
    many = SignFlips(np.full(20, 0.1), np.full(20, 0.1))
    left, _ = plots.sign_flips({"ticket": many}, names=[f"round {i}" for i in range(20)]).axes
    assert [t.get_text() for t in left.get_xticklabels()][:3] == ["round 0", "round 3", "round 6"]
    assert left.get_xticks().tolist()[:3] == [1, 4, 7]


def test_weights_without_a_flip_have_an_axis():
    still = SignFlips(np.zeros(2), np.zeros(2))
    assert plots.sign_flips({"ticket": still}).axes[0].get_ylim()[0] == 0
