"""Scopes: exact counts, stated ties, nested masks."""

import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lottery import masks as mask_ops
from keras_lottery import scopes
from keras_lottery.schedules import keep_density, keep_fraction


def alive(scores):
    return {p: np.ones(np.shape(s), bool) for p, s in scores.items()}


def arrays(**scores):
    return {p: np.asarray(s, np.float64) for p, s in scores.items()}


def bits(masks):
    return {p: m.astype(int).tolist() for p, m in masks.items()}


@st.composite
def states(draw, max_layers=4):
    """Scores with many ties, masks, all of random shapes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    names = draw(st.permutations("abcd"))[: draw(st.integers(1, max_layers))]
    levels = draw(st.sampled_from([1, 2, 5, 10**6]))
    scores, masks = {}, {}
    for name in names:
        shape = tuple(rng.integers(1, 7, rng.integers(1, 4)))
        scores[name] = rng.integers(-levels, levels + 1, shape).astype(np.float32)
        masks[name] = rng.random(shape) < rng.choice([0.0, 0.5, 1.0])
    return scores, masks


def total_alive(masks):
    return sum(int(m.sum()) for m in masks.values())


def reordered(arrays, draw):
    return {p: arrays[p] for p in draw(st.permutations(sorted(arrays)))}


# The papers' ladders ----------------------------------------------------------------------

CONV_2 = {
    "conv_1": (3, 3, 3, 64),
    "conv_2": (3, 3, 64, 64),
    "dense_1": (16 * 16 * 64, 256),
    "dense_2": (256, 256),
    "output": (256, 10),
}
CONV_4 = {
    "conv_1": (3, 3, 3, 64),
    "conv_2": (3, 3, 64, 64),
    "conv_3": (3, 3, 64, 128),
    "conv_4": (3, 3, 128, 128),
    "dense_1": (8 * 8 * 128, 256),
    "dense_2": (256, 256),
    "output": (256, 10),
}
LENET = {"dense_1": (784, 300), "dense_2": (300, 100), "output": (100, 10)}


@pytest.mark.parametrize(
    ("shapes", "size", "fractions", "ladder"),
    [
        (
            LENET,
            266_200,
            {},
            {
                3: 51.28,
                7: 21.07,
                9: 13.52,
                11: 8.68,
                15: 3.58,
                16: 2.87,
                18: 1.85,
                20: 1.19,
                24: 0.50,
            },
        ),
        (CONV_2, 4_300_992, {"conv": 0.1}, {11: 8.81, 14: 4.57, 24: 0.54}),
        (CONV_4, 2_425_024, {"conv": 0.1}, {11: 11.06, 12: 9.18, 24: 1.28}),
    ],
    ids=["lenet", "conv-2", "conv-4"],
)
def test_the_papers_density_ladders_to_the_digit(shapes, size, fractions, ladder):
    rng = np.random.default_rng(0)
    scores = {p: rng.random(s, np.float32) for p, s in shapes.items()}
    masks = mask_ops.full(shapes)
    assert sum(m.size for m in masks.values()) == size
    scope = scopes.Layerwise(fractions, output_fraction=0.1)
    measured = {}
    for prunes in range(1, 25):
        masks = scope(scores, masks, keep_fraction(0.2))
        measured[prunes] = round(100 * mask_ops.density(masks), 2)
    assert {n: measured[n] for n in ladder} == ladder


# keep_best --------------------------------------------------------------------------------


def test_keep_best_ranks_across_paths_and_only_the_alive():
    scores = arrays(a=[5, 1, 9], b=[[7, 3]])
    masks = {"a": np.array([True, True, False]), "b": np.array([[True, True]])}
    assert bits(scopes.keep_best(scores, masks, 2)) == {"a": [1, 0, 0], "b": [[1, 0]]}


def test_of_equal_scores_the_earlier_position_of_the_earlier_path_survives():
    scores = arrays(b=[1, 1, 1], a=[1, 1])
    assert bits(scopes.keep_best(scores, alive(scores), 3)) == {"b": [1, 0, 0], "a": [1, 1]}


def test_ties_are_broken_by_position_in_memory_for_matrices():
    scores = arrays(a=[[0, 1], [1, 1]])
    assert bits(scopes.keep_best(scores, alive(scores), 2)) == {"a": [[0, 1], [1, 0]]}


def test_signed_zeros_are_ties():
    scores = arrays(a=[-0.0, 0.0, 0.0, -0.0])
    assert bits(scopes.keep_best(scores, alive(scores), 2)) == {"a": [1, 1, 0, 0]}


@pytest.mark.parametrize("order", ["C", "F"])
def test_counts_do_not_depend_on_the_memory_layout(order):
    scores = {"a": np.array([[1.0, 1, 2], [1, 1, 3]], order=order)}
    masks = {"a": np.ones((2, 3), bool, order=order)}
    kept = scopes.keep_best(scores, masks, 4)["a"]
    assert kept.sum() == 4
    assert kept.astype(int).tolist() == [[1, 1, 1], [0, 0, 1]]


@given(states(), st.data())
def test_keep_best_keeps_exactly_n_of_the_best_alive(state, data):
    scores, masks = state
    n = data.draw(st.integers(0, total_alive(masks)))
    kept = scopes.keep_best(scores, masks, n)
    assert list(kept) == list(masks)
    assert total_alive(kept) == n
    assert mask_ops.nested(kept, masks)
    stay = np.concatenate([scores[p][kept[p]] for p in masks])
    go = np.concatenate([scores[p][masks[p] & ~kept[p]] for p in masks])
    assert not stay.size or not go.size or stay.min() >= go.max()


@given(states(), st.data())
def test_keep_best_is_a_stable_sort_whatever_the_order_of_the_dicts(state, data):
    scores, masks = state
    n = data.draw(st.integers(0, total_alive(masks)))
    flat = np.concatenate(
        [np.where(masks[p], scores[p], -np.inf).ravel() for p in sorted(masks)]
    ).astype(np.float64)
    expected = np.zeros(flat.size, bool)
    expected[np.argsort(-flat, kind="stable")[:n]] = True
    kept = scopes.keep_best(reordered(scores, data.draw), reordered(masks, data.draw), n)
    assert np.array_equal(np.concatenate([kept[p].ravel() for p in sorted(kept)]), expected)


def test_keep_best_changes_neither_scores_nor_masks():
    scores = arrays(a=[3, 1, 2])
    masks = alive(scores)
    kept = scopes.keep_best(scores, masks, 3)
    kept["a"][0] = False
    scopes.keep_best(scores, masks, 1)
    assert scores["a"].tolist() == [3, 1, 2]
    assert masks["a"].all()


@pytest.mark.parametrize("n", [-1, 4])
def test_keep_best_refuses_more_than_there_are(n):
    scores = arrays(a=[3, 1, 2])
    with pytest.raises(ValueError, match=f"{n} of 3"):
        scopes.keep_best(scores, alive(scores), n)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_name_their_path(value):
    scores = arrays(a=[1, 2], b=[1, value])
    with pytest.raises(ValueError, match=r"NaN or Inf.*\['b'\]"):
        scopes.keep_best(scores, alive(scores), 2)
    masks = {"a": np.ones(2, bool), "b": np.array([True, False])}
    assert bits(scopes.keep_best(scores, masks, 2)) == {"a": [1, 1], "b": [0, 0]}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64"])
def test_scores_of_every_dtype_are_ranked(dtype):
    import ml_dtypes  # registers bfloat16 with NumPy

    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    scores = {"a": np.array([4, 1, 3, 2]).astype(kind), "b": np.array([5, 0]).astype(kind)}
    assert bits(scopes.keep_best(scores, alive(scores), 3)) == {"a": [1, 0, 1, 0], "b": [1, 0]}


def test_scores_of_mixed_dtypes_are_ranked_exactly():
    scores = {"a": np.array([0.1, 0.3], np.float32), "b": np.array([0.1, 0.3], np.float64)}
    # float32(0.1) > 0.1 and float32(0.3) > 0.3
    assert bits(scopes.keep_best(scores, alive(scores), 1)) == {"a": [0, 1], "b": [0, 0]}
    assert bits(scopes.keep_best(scores, alive(scores), 3)) == {"a": [1, 1], "b": [0, 1]}


@pytest.mark.parametrize("kinds", [("f4", "f8"), ("f8", "f4"), ("i8", "f4"), ("f2", "f4")])
def test_counts_are_exact_whichever_dtype_comes_first(kinds):
    one, two = np.array([0, 1, 2], kinds[0]), np.array([0.1, 0.3, 1.7, 2.9], kinds[1])
    scores = {"a": one, "b": two}
    ranked = sorted([*one.tolist(), *two.tolist()], reverse=True)
    for n in range(1, 8):
        kept = scopes.keep_best(scores, alive(scores), n)
        stay = one[kept["a"]].tolist() + two[kept["b"]].tolist()
        assert sorted(stay, reverse=True) == ranked[:n]


# Promises of every scope ------------------------------------------------------------------

SCOPES = [
    scopes.Global(min_layer_density=0.0),
    scopes.Global(),
    scopes.Layerwise(),
    scopes.ERK(),
]


@pytest.mark.parametrize("scope", SCOPES, ids=repr)
def test_zero_of_a_hundred_asked_is_zero_pruned(scope):
    scores = arrays(a=np.zeros((10, 5)), b=np.zeros((25, 2)))
    masks = scope(scores, alive(scores), keep_fraction(0.004))
    assert all(m.all() for m in masks.values())


@pytest.mark.parametrize("scope", SCOPES, ids=repr)
def test_ties_never_prune_more(scope):
    scores = arrays(a=np.zeros((10, 5)), b=np.zeros((10, 5)))
    masks = scope(scores, alive(scores), keep_fraction(0.2))
    assert total_alive(masks) == 80


@pytest.mark.parametrize("scope", SCOPES, ids=repr)
@settings(deadline=None)
@given(state=states(), fraction=st.floats(0.01, 0.99), data=st.data())
def test_masks_never_grow_and_dict_order_does_not_matter(scope, state, fraction, data):
    scores, masks = state
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            kept = scope(scores, masks, keep_fraction(fraction))
        except ValueError as error:
            assert "least density" in str(error)
            return
        again = scope(
            reordered(scores, data.draw), reordered(masks, data.draw), keep_fraction(fraction)
        )
    assert list(kept) == list(masks)
    assert mask_ops.nested(kept, masks)
    assert all(np.array_equal(kept[p], again[p]) for p in masks)


@given(states(), st.floats(0.01, 0.99))
def test_global_counts_are_exact(state, fraction):
    scores, masks = state
    kept = scopes.Global(min_layer_density=0.0)(scores, masks, keep_fraction(fraction))
    n = total_alive(masks)
    assert total_alive(kept) == n - round(fraction * n)


@given(states(), st.floats(0.01, 0.99), st.floats(0.01, 1))
def test_layerwise_counts_are_exact_in_each_layer(state, fraction, density):
    scores, masks = state
    kept = scopes.Layerwise()(scores, masks, keep_fraction(fraction))
    dense = scopes.Layerwise()(scores, masks, keep_density(density))
    for path, mask in masks.items():
        n = int(mask.sum())
        assert kept[path].sum() == n - round(fraction * n)
        assert dense[path].sum() == min(n, round(density * mask.size))


@given(states(), st.floats(0.01, 1))
def test_erk_counts_are_the_shares_of_a_dense_network(state, density):
    scores, _ = state
    masks = alive(scores)
    kept = scopes.ERK()(scores, masks, keep_density(density))
    n = round(density * sum(m.size for m in masks.values()))
    shares = scopes.ERK.shares({p: m.shape for p, m in masks.items()}, n)
    assert {p: int(m.sum()) for p, m in kept.items()} == shares
    assert total_alive(kept) == n


# Global -----------------------------------------------------------------------------------


def test_global_lets_all_layers_compete():
    scores = arrays(a=[9, 8, 7, 1], b=[6, 5, 4, 3])
    kept = scopes.Global()(scores, alive(scores), keep_density(0.5))
    assert bits(kept) == {"a": [1, 1, 1, 0], "b": [1, 0, 0, 0]}


def test_global_empties_no_layer_by_default_and_says_so():
    scores = arrays(a=[9, 8, 7, 6], b=[1, 2], c=[5, 5])
    with pytest.warns(UserWarning, match=r"\['b', 'c'\].*min_layer_density") as told:
        kept = scopes.Global()(scores, alive(scores), keep_density(0.5))
    assert len(told) == 1
    assert bits(kept) == {"a": [1, 1, 0, 0], "b": [0, 1], "c": [1, 0]}


def test_global_says_nothing_where_the_ranking_leaves_every_layer_a_weight():
    scores = arrays(a=[9, 8, 7, 6], b=[5, 2])
    kept = scopes.Global()(scores, alive(scores), keep_density(5 / 6))
    assert bits(kept) == {"a": [1, 1, 1, 1], "b": [1, 0]}


def test_global_may_empty_a_layer_if_asked():
    scores = arrays(a=[9, 8, 7, 6], b=[1, 2])
    kept = scopes.Global(min_layer_density=0.0)(scores, alive(scores), keep_density(0.5))
    assert bits(kept) == {"a": [1, 1, 1, 0], "b": [0, 0]}


def test_global_keeps_the_least_density_of_each_layer_and_the_exact_total():
    scores = arrays(a=np.arange(100, 110), b=np.arange(10))
    with pytest.warns(UserWarning, match="min_layer_density"):
        kept = scopes.Global(min_layer_density=0.3)(scores, alive(scores), keep_density(0.5))
    assert bits(kept) == {"a": [0] * 3 + [1] * 7, "b": [0] * 7 + [1] * 3}


@settings(deadline=None)
@given(states(), st.floats(0.01, 0.99), st.sampled_from([None, 0.1, 0.3]))
def test_global_with_floors_keeps_exact_totals_and_every_floor(state, fraction, least):
    scores, masks = state
    n = total_alive(masks)
    n -= round(fraction * n)
    floors = {
        p: min(1 if least is None else round(least * m.size), int(m.sum()))
        for p, m in masks.items()
    }
    scope = scopes.Global(min_layer_density=least)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if sum(floors.values()) > n:
            with pytest.raises(ValueError, match="min_layer_density"):
                scope(scores, masks, keep_fraction(fraction))
            return
        kept = scope(scores, masks, keep_fraction(fraction))
    assert total_alive(kept) == n
    assert all(kept[p].sum() >= floors[p] for p in masks)
    assert mask_ops.nested(kept, masks)


def test_global_does_not_demand_of_an_empty_layer():
    scores = arrays(a=[9, 8, 7, 6], b=[1, 2])
    masks = {"a": np.ones(4, bool), "b": np.zeros(2, bool)}
    assert bits(scopes.Global()(scores, masks, keep_fraction(0.5))) == {
        "a": [1, 1, 0, 0],
        "b": [0, 0],
    }


def test_global_refuses_fewer_survivors_than_its_floors():
    scores = arrays(a=[9, 8], b=[1, 2], c=[3, 4])
    with pytest.raises(ValueError, match=r"2 weights are to survive.*3.*min_layer_density"):
        scopes.Global()(scores, alive(scores), keep_density(1 / 3))


def test_global_leaves_excluded_paths_and_their_counts_out():
    scores = arrays(**{"conv": [4, 3, 2, 1], "fc/kernel": [0, 0]})
    kept = scopes.Global(exclude="fc")(scores, alive(scores), keep_fraction(0.5))
    assert bits(kept) == {"conv": [1, 1, 0, 0], "fc/kernel": [1, 1]}


def test_global_refuses_to_exclude_everything():
    scores = arrays(a=[1, 2], b=[3])
    with pytest.raises(ValueError, match=r"exclude='\.'.*\['a', 'b'\]"):
        scopes.Global(exclude=".")(scores, alive(scores), keep_fraction(0.5))


@pytest.mark.parametrize("least", [-0.1, 1.1, float("nan")])
def test_global_checks_its_least_density_at_construction(least):
    with pytest.raises(ValueError, match="min_layer_density"):
        scopes.Global(min_layer_density=least)


# Layerwise --------------------------------------------------------------------------------


def test_layerwise_prunes_each_layer_by_its_own_ranking():
    scores = arrays(a=[9, 8, 7, 6], b=[1, 2])
    kept = scopes.Layerwise()(scores, alive(scores), keep_fraction(0.5))
    assert bits(kept) == {"a": [1, 1, 0, 0], "b": [0, 1]}


def test_layerwise_the_first_matching_fraction_counts():
    scores = arrays(conv_1=np.arange(10), conv_2=np.arange(10), dense=np.arange(10))
    scope = scopes.Layerwise({"conv_1": 0.1, "conv": 0.3})
    kept = scope(scores, alive(scores), keep_fraction(0.5))
    assert {p: int(m.sum()) for p, m in kept.items()} == {"conv_1": 9, "conv_2": 7, "dense": 5}


def test_layerwise_output_is_the_last_path_of_the_masks_whatever_the_scores_order():
    masks = {"z": np.ones(10, bool), "a": np.ones(10, bool)}
    scores = {"a": np.arange(10.0), "z": np.arange(10.0)}
    kept = scopes.Layerwise(output_fraction=0.1)(scores, masks, keep_fraction(0.5))
    assert {p: int(m.sum()) for p, m in kept.items()} == {"z": 5, "a": 9}


def test_layerwise_a_fraction_of_zero_spares_a_layer():
    scores = arrays(a=np.arange(10), b=np.arange(10))
    kept = scopes.Layerwise({"a": 0}, output_fraction=0.0)(
        scores, alive(scores), keep_fraction(0.5)
    )
    assert total_alive(kept) == 20


def test_layerwise_a_pattern_that_matches_nothing_is_told():
    scores = arrays(a=[1, 2])
    with pytest.raises(ValueError, match=r"'conv' matches no path of \['a'\]"):
        scopes.Layerwise({"conv": 0.1})(scores, alive(scores), keep_fraction(0.5))


@pytest.mark.parametrize("rate", [-0.1, 1, 1.0, 1.5, float("nan")])
def test_layerwise_checks_its_rates_at_construction(rate):
    with pytest.raises(ValueError, match="conv"):
        scopes.Layerwise({"conv": rate})
    with pytest.raises(ValueError, match="output_fraction"):
        scopes.Layerwise(output_fraction=rate)


# ERK --------------------------------------------------------------------------------------


def test_erk_shares_by_hand():
    # Raw shares are sum(shape): 200 and 20; 2000 split 10 to 1 is 1818 and 182, but the
    # small layer holds only 100: it stays dense and the other takes the rest.
    assert scopes.ERK.shares({"a": (100, 100), "b": (10, 10)}, 2000) == {"a": 1900, "b": 100}
    # 110 split as 200 : 20 is 100 and 10.
    assert scopes.ERK.shares({"a": (100, 100), "b": (10, 10)}, 110) == {"a": 100, "b": 10}
    # A kernel counts its height and width: 3+3+4+8 = 18 against 6+12 = 18.
    assert scopes.ERK.shares({"conv": (3, 3, 4, 8), "fc": (6, 12)}, 100) == {"conv": 50, "fc": 50}


def test_erk_densities_follow_the_rule():
    shapes = {"a": (50, 40), "b": (40, 30), "c": (30, 10)}
    shares = scopes.ERK.shares(shapes, 300)
    # sum(shape): 90, 70, 40 of 200; 300 weights split 135, 105, 60.
    assert shares == {"a": 135, "b": 105, "c": 60}


def test_erk_gives_the_odd_weight_to_the_largest_remainder():
    # 5 split as 4 : 4 : 3 is 1.82, 1.82, 1.36.
    shapes = {"a": (1, 2, 1), "b": (2, 2), "c": (2, 1)}
    assert scopes.ERK.shares(shapes, 5) == {"a": 2, "b": 2, "c": 1}


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.lists(st.integers(1, 30), min_size=1, max_size=4).map(tuple),
        min_size=1,
    ),
    st.data(),
)
def test_erk_shares_sum_exactly_and_never_pass_a_layers_size(shapes, data):
    sizes = {p: int(np.prod(s)) for p, s in shapes.items()}
    n = data.draw(st.integers(0, sum(sizes.values())))
    shares = scopes.ERK.shares(shapes, n)
    assert sum(shares.values()) == n
    assert all(0 <= shares[p] <= sizes[p] for p in shapes)
    backwards = scopes.ERK.shares(dict(reversed(shapes.items())), n)
    assert backwards == shares
    open_ = [p for p in shapes if shares[p] < sizes[p]]
    unit = [shares[p] / sum(shapes[p]) for p in open_]
    slack = max((1 / sum(shapes[p]) for p in open_), default=0)
    assert not unit or max(unit) - min(unit) <= 2 * slack + 1e-9


def test_erk_of_everything_is_dense():
    shapes = {"a": (3, 7), "b": (5, 5), "c": (11,)}
    assert scopes.ERK.shares(shapes, 57) == {"a": 21, "b": 25, "c": 11}


def test_erk_competes_inside_a_layer():
    scores = arrays(a=np.arange(100).reshape(10, 10), b=-np.arange(100).reshape(10, 10))
    kept = scopes.ERK()(scores, alive(scores), keep_density(0.1))
    assert {p: int(m.sum()) for p, m in kept.items()} == {"a": 10, "b": 10}
    assert kept["a"].ravel()[-10:].all() and kept["b"].ravel()[:10].all()


# Names ------------------------------------------------------------------------------------


def test_names_resolve_to_fresh_scopes():
    assert scopes.resolve("global") == scopes.Global()
    assert scopes.resolve("layerwise") == scopes.Layerwise()
    assert scopes.resolve("erk") == scopes.ERK()
    assert scopes.resolve("nm") == scopes.NM(2, 4)
    assert scopes.resolve("block") == scopes.Block((4, 1))
    assert scopes.resolve("channels") == scopes.Channels()
    own = scopes.Global(exclude="x")
    assert scopes.resolve(own) is own


@pytest.mark.parametrize("unknown", ["Global", "", None, 3])
def test_an_unknown_scope_lists_the_valid_names(unknown):
    names = r"\['block', 'channels', 'erk', 'global', 'layerwise', 'nm'\].*"
    with pytest.raises(ValueError, match=names + re.escape(repr(unknown))):
        scopes.resolve(unknown)
