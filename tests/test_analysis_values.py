import keras
import numpy as np
import pytest
from keras import layers as L

import keras_lottery as kl
from keras_lottery import weights
from keras_lottery.analysis.values import as_masks, as_values


def line():
    return keras.Sequential([keras.Input((1,)), L.Dense(1, name="out")])


def test_weights_come_as_a_dict_a_list_a_ticket_or_a_model():
    model, other = line(), line()
    expected = weights.read(weights.all_weights(model))
    paths, arrays = list(expected), model.get_weights()
    mask = {paths[0]: np.array([[True]])}
    other.set_weights(arrays)
    elsewhere = weights.read(weights.all_weights(other))
    for given in (expected, arrays, kl.Ticket.of(model, mask), other, elsewhere):
        found = as_values(model, given)
        assert list(found) == paths and list(found.values()) == arrays
    assert as_values(model, expected)[paths[0]] is expected[paths[0]]


def test_masks_of_a_ticket_follow_its_weights_to_the_models_names():
    model, other = line(), line()
    mask = {other.layers[0].kernel.path: np.array([[True]])}
    assert list(as_masks(model, kl.Ticket.of(other, mask))) == [model.layers[0].kernel.path]
    with pytest.raises(ValueError, match="no weight 'x'"):
        as_masks(model, {"x": np.array([True])})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([np.zeros((2, 1)), np.zeros(1)], r"`there` belong.*shape \(1, 1\).*shape \(2, 1\)"),
        ([np.zeros((1, 1))], "has 2 variables. Received: 1. First without a partner: .*bias"),
        ([np.zeros((1, 1)), np.zeros(1), np.zeros(1)], "Received: 3.*'weight 2'"),
        ([np.zeros((1, 1)), np.array([np.nan])], "NaN or an Inf in '.*bias'"),
        ([np.full((1, 1), 1e300), np.zeros(1)], "NaN or an Inf in '.*kernel'"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(given, message):
    with pytest.raises(ValueError, match=message):
        as_values(line(), given, "there")
    with pytest.raises(TypeError, match="Received: int"):
        as_values(line(), 7)
