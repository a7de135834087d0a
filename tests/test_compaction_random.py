"""300 random models with dead and constant units: smaller, and the same function.

Outputs are compared to 1e-5 of the largest one, as promised; where all outputs are below
1e-3, to 1e-8. Inputs, biases and activations are of size one here, so outputs that small are
what is left after larger numbers cancelled, and their relative rounding means nothing.
"""

import keras
import numpy as np
import pytest
from random_models import for_random_models

from keras_lottery.export.compacting import compact


def without_biases(model):
    return sum(v.numpy().size for v in model.weights if v.name != "bias")


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis")
def test_300_random_models_compact_to_the_same_function():
    smaller = []

    def check(model, x):
        small, report = compact(model, verbose=0, return_report=True)
        for a, b in zip(keras.tree.flatten(model(x)), keras.tree.flatten(small(x)), strict=True):
            a, b = np.array(a), np.array(b)
            assert a.shape == b.shape
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * max(1e-3, np.abs(a).max()))
        assert without_biases(small) <= without_biases(model)
        assert report.parameters == (model.count_params(), small.count_params())
        smaller.append(small.count_params() < 0.9 * model.count_params())

    for_random_models(check)
    assert len(smaller) >= 300
    assert sum(smaller) >= 150
