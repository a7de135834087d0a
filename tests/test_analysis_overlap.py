"""What two masks have in common, and what chance gives."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_lottery import Ticket
from keras_lottery import masks as mask_ops
from keras_lottery.analysis.overlap import mask_overlap, overlap_matrix


def mask(*bits):
    return np.array(bits, bool)


def random(shapes, fraction, seed):
    rng = np.random.default_rng(seed)
    return {p: rng.random(shape) < fraction for p, shape in shapes.items()}


def test_two_of_four_against_two_of_four_by_hand():
    found = mask_overlap({"w": mask(1, 1, 0, 0)}, {"w": mask(1, 1, 0, 0)})
    assert (found.both, found.either, found.jaccard, found.expected) == (2, 2, 1.0, 1.0)
    assert found.deviation == pytest.approx(math.sqrt(1 / 3))
    assert found.z == pytest.approx(math.sqrt(3))
    assert found.expected_jaccard == pytest.approx(1 / 3)


def test_layers_are_summed():
    a = {"v": mask(1, 0, 0), "w": mask(1, 1, 0, 0)}
    b = {"v": mask(0, 1, 1), "w": mask(0, 1, 1, 0)}
    found = mask_overlap(a, b)
    assert (found.both, found.either, found.jaccard) == (1, 6, 1 / 6)
    assert found.expected == pytest.approx(2 / 3 + 1)
    assert found.deviation == pytest.approx(math.sqrt(2 / 9 + 1 / 3))
    assert found.z == pytest.approx((1 - 5 / 3) / math.sqrt(5 / 9))
    assert list(found.layers) == ["v", "w"]
    assert (found.layers["v"].both, found.layers["v"].expected) == (0, pytest.approx(2 / 3))
    assert found.layers["w"].layers == {}


def test_expectation_and_deviation_are_those_of_all_pairs_of_masks():
    positions = [np.isin(np.arange(5), chosen) for chosen in itertools.combinations(range(5), 3)]
    fixed = mask(1, 1, 0, 0, 0)
    counts = [np.count_nonzero(fixed & other) for other in positions]
    found = mask_overlap({"w": fixed}, {"w": positions[0]})
    assert found.expected == pytest.approx(np.mean(counts))
    assert found.deviation == pytest.approx(np.std(counts))


def test_independent_random_masks_overlap_as_expected():
    start = random({"v": (12, 10), "w": (40,)}, 0.3, seed=0)
    other = random({"v": (12, 10), "w": (40,)}, 0.5, seed=1)
    pairs = [mask_overlap(start, mask_ops.shuffle(other, seed)) for seed in range(600)]
    both = np.array([found.both for found in pairs])
    expected, deviation = pairs[0].expected, pairs[0].deviation
    assert {(p.expected, p.deviation) for p in pairs} == {(expected, deviation)}
    assert abs(both.mean() - expected) < 4 * deviation / math.sqrt(both.size)
    assert abs(both.var() / deviation**2 - 1) < 4 * math.sqrt(2 / both.size)
    assert np.mean([p.z for p in pairs]) == pytest.approx((both.mean() - expected) / deviation)


def test_where_chance_has_no_choice_z_is_zero():
    for bits in [mask(1, 1), mask(0, 0), mask(1), mask(0)]:
        found = mask_overlap({"w": bits}, {"w": bits})
        assert (found.both, found.expected, found.deviation, found.z) == (
            bits.sum(),
            bits.sum(),
            0,
            0,
        )
    assert mask_overlap({"w": mask(0, 0)}, {"w": mask(0, 0)}).jaccard == 1.0
    assert mask_overlap({"w": mask(0, 0)}, {"w": mask(0, 0)}).expected_jaccard == 1.0
    assert mask_overlap({"w": mask(1, 1)}, {"w": mask(1, 0)}).z == 0


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_two_masks_agree_with_the_plain_counts(data):
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=4))
    a, b = ({"w": data.draw(hnp.arrays(bool, shape))} for _ in range(2))
    found, turned = mask_overlap(a, b), mask_overlap(b, a)
    assert found.both == (a["w"] & b["w"]).sum() and found.either == (a["w"] | b["w"]).sum()
    assert found.jaccard == mask_ops.overlap(a, b)
    assert max(0, a["w"].sum() + b["w"].sum() - a["w"].size) <= found.expected + 1e-9
    assert found.expected <= min(a["w"].sum(), b["w"].sum()) + 1e-9
    assert (turned.both, turned.expected, turned.z) == (found.both, found.expected, found.z)


def test_a_large_layer_does_not_overflow():
    big = np.zeros(3_000_000, bool)
    big[:1_000_000] = True
    found = mask_overlap({"w": big}, {"w": big})
    assert found.deviation == pytest.approx(math.sqrt(1e6 * 2 / 3 * 2 / 3 / 3), rel=1e-5)


def test_weights_of_other_names_match_in_order_and_those_of_the_same_by_name():
    a = {"net/v": mask(1, 0), "net/w": mask(1, 1, 0)}
    b = {"net_1/v": mask(1, 1), "net_1/w": mask(0, 1, 1)}
    turned = {"net/w": mask(0, 1, 1), "net/v": mask(1, 1)}
    assert mask_overlap(a, b) == mask_overlap(a, turned)
    assert list(mask_overlap(a, b).layers) == ["net/v", "net/w"]


def test_tickets_are_compared_by_their_masks():
    ticket = Ticket({"w": mask(1, 0, 1)}, {"w": np.ones(3)})
    assert mask_overlap(ticket, {"w": mask(1, 1, 1)}).both == 2


def test_masks_of_other_architectures_are_refused():
    with pytest.raises(ValueError, match=r"First mismatch: 'w' of shape \(2,\) against 'u' .*\(3,"):
        mask_overlap({"w": mask(1, 0)}, {"u": mask(1, 0, 1)})
    with pytest.raises(ValueError, match=r"1 masks \['w'\] and 2 masks \['w', 'v'\]"):
        mask_overlap({"w": mask(1, 0)}, {"w": mask(1, 0), "v": mask(1)})
    with pytest.raises(ValueError, match=r"`b` must be bool .*'w': float64"):
        mask_overlap({"w": mask(1, 0)}, {"w": np.ones(2)})
    with pytest.raises(ValueError, match="`a` must hold a mask"):
        mask_overlap({}, {})


def test_the_matrix_holds_each_pair():
    tickets = {name: random({"v": (5, 6), "w": (9,)}, 0.4, i) for i, name in enumerate("abc")}
    found = overlap_matrix(tickets)
    assert found.names == ["a", "b", "c"] and found.jaccard.shape == (3, 3)
    for i, j in itertools.product(range(3), repeat=2):
        one = mask_overlap(tickets["abc"[i]], tickets["abc"[j]])
        assert (found.jaccard[i, j], found.z[i, j]) == (one.jaccard, one.z)
        assert found.expected_jaccard[i, j] == one.expected_jaccard
    assert np.diag(found.jaccard).tolist() == [1, 1, 1]


def test_a_matrix_needs_tickets_of_one_architecture():
    with pytest.raises(ValueError, match="at least one ticket"):
        overlap_matrix({})
    with pytest.raises(ValueError, match=r"`lenet` and `resnet` must be masks of one"):
        overlap_matrix({"lenet": {"w": mask(1)}, "resnet": {"w": mask(1, 1)}})
