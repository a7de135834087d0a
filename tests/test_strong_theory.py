"""Predicted widths by hand; measured numbers grow as the theorems say."""

import math

import numpy as np
import pytest

from keras_lottery.strong import theory


def test_widths_by_hand():
    assert theory.log_width(10, 20, tolerance=0.1) == pytest.approx(10 * math.log(2000))
    assert theory.log_width(10, 20, 0.1, layers=3, failure=0.01, constant=2) == pytest.approx(
        20 * math.log(60000)
    )
    assert theory.polynomial_width(3, tolerance=0.1, layers=2) == pytest.approx(243 * 4 * 100)
    assert theory.fewest_parameters(5, tolerance=0.5, constant=3) == pytest.approx(75 * math.log(2))


def test_sums_need_exponentially_less_width():
    ratio = [
        theory.polynomial_width(100, eps) / theory.log_width(100, 100, eps)
        for eps in (0.1, 0.01, 0.001)
    ]
    assert ratio[0] * 30 < ratio[1] < ratio[2] / 30


def test_candidates_needed_grow_like_the_logarithm():
    needed = [theory.candidates_needed(10.0**-k, trials=100) for k in range(1, 5)]
    steps = np.diff(needed)
    assert (steps >= 1).all()
    assert steps.max() <= 8


def test_a_larger_share_needs_more_candidates():
    few = theory.candidates_needed(0.01, trials=100, share=0.5)
    assert few < theory.candidates_needed(0.01, trials=100, share=1.0)


def test_draws_of_pairs_grow_like_the_inverse_square():
    coarse, fine = (theory.draws_needed(eps, trials=100, share=0.5) for eps in (0.2, 0.05))
    assert 5 < fine / coarse < 50


def test_draws_of_products_grow_like_the_inverse():
    coarse, fine = (
        theory.draws_needed(eps, trials=200, share=0.5, pairs=False) for eps in (0.04, 0.01)
    )
    assert 2 < fine / coarse < 9


def test_one_seed_gives_one_answer():
    assert theory.draws_needed(0.1, seed=4) == theory.draws_needed(0.1, seed=4)
    assert theory.candidates_needed(0.01, seed=4) == theory.candidates_needed(0.01, seed=4)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: theory.log_width(1, 1, 0.0), r"`tolerance` must be in \(0, 1\]. Received: 0.0"),
        (lambda: theory.log_width(1, 1, 0.1, failure=2), "`failure`.*Received: 2"),
        (lambda: theory.candidates_needed(2), "`tolerance`"),
        (lambda: theory.draws_needed(0.1, share=0), "`share`"),
        (lambda: theory.candidates_needed(1e-15, trials=1), "1 of 1 targets"),
    ],
)
def test_bad_input_is_explained(call, says):
    with pytest.raises(ValueError, match=says):
        call()
