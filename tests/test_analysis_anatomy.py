"""A sparse model taken apart: what the layers of hand-drawn nets are made of."""

import keras
import numpy as np
import pytest
import zoo
from keras import layers as L

import keras_lottery as kl
from keras_lottery import weights
from keras_lottery.analysis.anatomy import Anatomy, anatomy
from keras_lottery.analysis.connectivity import connections
from keras_lottery.analysis.effective import effective_masks
from keras_lottery.experiments.models import lenet_300_100
from keras_lottery.summary import alive


def bools(rows):
    return np.array(rows, bool)


def drawn():
    """2-3-1: of the hidden units the first is on a path, the others lack one side."""
    model = keras.Sequential([keras.Input((2,)), L.Dense(3, name="a"), L.Dense(1, name="b")])
    masks = [bools([[1, 0, 1], [1, 0, 0]]), bools([[1], [1], [0]])]
    return model, dict(zip(weights.prunable(model), masks, strict=True))


def test_a_net_drawn_by_hand():
    found = anatomy(*drawn())
    first, second = found.layers
    assert first.path.endswith("a/kernel") and first.shape == (2, 3)
    assert (first.alive, first.total, first.density, first.effective) == (3, 6, 0.5, 2)
    assert first.incoming.tolist() == [2, 0, 1]
    assert first.outgoing.tolist() == [2, 1]
    assert (first.units, first.dead_units) == (3, 2)
    assert (first.macs, first.macs_alive) == (6, 3)
    assert (second.alive, second.total, second.effective) == (2, 3, 1)
    assert second.incoming.tolist() == [2]
    assert second.outgoing.tolist() == [1, 1, 0]
    assert (second.units, second.dead_units) == (1, 0)
    assert found.density == pytest.approx(5 / 9)
    assert found.effective_density == pytest.approx(3 / 9)
    assert found.collapsed == found.unknown == []


def test_a_layer_without_a_path_has_collapsed_and_takes_all_others_with_it():
    model, masks = drawn()
    first, second = masks
    found = anatomy(model, {first: masks[first], second: bools([[0], [0], [0]])})
    assert found.collapsed == [first, second]
    assert found.effective_density == 0
    assert [x.dead_units for x in found.layers] == [3, 1]


def test_the_ramanujan_property_of_each_layer():
    model = keras.Sequential([keras.Input((4,)), L.Dense(4), L.Dense(1)])
    found = anatomy(model).layers
    assert found[0].ramanujan.holds is True
    assert found[1].ramanujan.holds is None
    assert [x.ramanujan for x in anatomy(model, with_ramanujan=False).layers] == [None, None]


def test_a_subclassed_model_tells_what_needs_no_graph():
    model = zoo.subclassed()
    masks = alive(model)
    first = next(iter(masks))
    masks[first] = np.zeros_like(masks[first])
    found = anatomy(model, masks)
    assert found.effective_density is None
    assert found.collapsed == [first]
    assert found.layers[0].effective is None and found.layers[0].dead_units == 12
    assert found.layers[1].incoming.tolist() == [12] * 12
    assert found.layers[1].macs is found.layers[1].macs_alive is None
    assert found.unknown == list(masks)
    assert found.flops is found.flops_alive is None
    assert found.parameters == model.count_params()


def test_unknown_layers_are_left_out_of_the_operations_and_named():
    model = zoo.custom()
    found = anatomy(model)
    assert found.unknown == [p for p in weights.prunable(model) if "scaled" in p]
    assert found.flops == 2 * 12 * 3


def test_masks_may_come_from_the_model_or_a_ticket():
    model, masks = drawn()
    ticket = kl.Ticket.of(model, masks)
    kl.enforce(model, masks)
    expected = anatomy(model, masks)
    for found in (anatomy(model), anatomy(model, ticket)):
        assert [x.alive for x in found.layers] == [x.alive for x in expected.layers]
        assert found.effective_density == expected.effective_density


@pytest.mark.parametrize("name", zoo.MODELS)
def test_counts_of_every_kind_of_model_agree_with_its_masks(name):
    model = zoo.MODELS[name]()
    rng = np.random.default_rng(0)
    masks = {p: rng.random(v.shape) < 0.3 for p, v in weights.prunable(model).items()}
    found = anatomy(model, masks)
    effective = None if name == "subclassed" else effective_masks(model, masks)
    for layer in found.layers:
        mask = masks[layer.path]
        assert layer.incoming.sum() == layer.outgoing.sum() == layer.alive == mask.sum()
        assert len(layer.incoming) == layer.units >= layer.dead_units
        assert effective is None or layer.effective == effective[layer.path].sum()
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert found.parameters == trainable
    assert found.parameters_alive == trainable - sum((~m).sum() for m in masks.values())


def test_lenet_at_five_percent():
    model = lenet_300_100((28, 28, 1), 10)
    rng = np.random.default_rng(0)
    masks = {p: rng.random(v.shape) < 0.05 for p, v in weights.prunable(model).items()}
    found = anatomy(model, masks)
    assert found.parameters == 266_610
    assert found.flops == 2 * 266_200
    assert found.flops_alive == 2 * sum(int(m.sum()) for m in masks.values())
    last = found.layers[-1]
    fed = masks[found.layers[0].path].any(0)
    read = last.outgoing > 0
    middle = masks[found.layers[1].path]
    # Whatever feeds a unit of the second layer is fed: 784 inputs leave none without one.
    assert fed.all()
    assert found.layers[1].effective == (middle & read).sum()
    assert found.layers[1].dead_units == 100 - np.count_nonzero(middle.any(0) & read)
    assert last.effective == last.alive


def test_an_empty_anatomy_has_density_zero():
    assert Anatomy([]).density == 0
    assert Anatomy([]).parameters == Anatomy([]).flops == 0


# Weights as connections -----------------------------------------------------------------------


def test_a_transposed_convolution_has_its_units_exchanged():
    mask = np.zeros((1, 1, 3, 2), bool)  # 2 channels in, 3 out
    mask[0, 0, 2, 0] = True
    assert np.argwhere(connections(mask, L.Conv2DTranspose(3, 1))).tolist() == [[0, 0, 2]]


def test_a_depthwise_convolution_connects_each_channel_with_its_own():
    mask = np.ones((1, 1, 2, 2), bool)
    found = connections(mask, L.DepthwiseConv2D(1, depth_multiplier=2))
    assert found[0].astype(int).tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


def test_an_einsum_has_the_axes_of_its_output_as_units():
    layer = L.EinsumDense("abhk,hkd->abd", (None, 5))
    mask = np.zeros((2, 3, 5), bool)
    mask[1, 0, 4] = True
    found = connections(mask, layer)
    assert found.shape == (1, 6, 5)
    assert np.argwhere(found).tolist() == [[0, 3, 4]]
    layer = L.EinsumDense("abd,dhk->abhk", (None, 2, 3))
    assert connections(np.ones((5, 2, 3), bool), layer).shape == (1, 5, 6)


def test_a_weight_of_one_axis_has_one_input():
    assert connections(np.ones(3, bool), L.Dense(3), "bias").shape == (1, 1, 3)
