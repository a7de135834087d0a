"""Criteria on four weights whose scores are known by hand."""

import re

import keras
import ml_dtypes
import numpy as np
import pytest

from keras_lottery import criteria, scopes

FINAL = np.array([-0.5, 2.0, 1.0, -3.0], np.float32)
INIT = np.array([1.0, 1.5, -4.0, -2.0], np.float32)  # signs: changed, same, changed, same

BY_HAND = {
    "magnitude": [0.5, 2.0, 1.0, 3.0],
    "small_final": [-0.5, -2.0, -1.0, -3.0],
    "large_init": [1.0, 1.5, 4.0, 2.0],
    "small_init": [-1.0, -1.5, -4.0, -2.0],
    "magnitude_increase": [-0.5, 0.5, -3.0, 1.0],
    "movement": [1.5, 0.5, 5.0, 1.0],
    "magnitude_same_sign": [0.0, 2.0, 0.0, 3.0],
    "magnitude_diff_sign": [0.5, 0.0, 1.0, 0.0],
    "large_init_same_sign": [0.0, 1.5, 0.0, 2.0],
    "large_init_diff_sign": [1.0, 0.0, 4.0, 0.0],
    "movement_same_sign": [0.0, 0.5, 0.0, 1.0],
    "movement_diff_sign": [1.5, 0.0, 5.0, 0.0],
}
# Which weights survive as n goes from 1 to 4: the last one pruned comes first.
RANKED = {
    "magnitude_increase_same_sign": [3, 1, {0, 2}],
    "magnitude_increase_diff_sign": [0, 2, {1, 3}],
    "large_init_large_final": [3, {1, 2}, 0],  # ranks 0 2 1 3 and 0 1 3 2: minimum 0 1 1 2
    "small_init_small_final": [0, 1, {2, 3}],  # maximum 0 2 3 3
}


def state(final=FINAL, init=INIT, masks=None, **rest):
    masks = {"w": np.ones(np.shape(final), bool)} if masks is None else {"w": masks}
    return criteria.State({"w": final}, {"w": init}, masks, **rest)


def survivors(name, n, **arrays):
    now = state(**arrays)
    kept = scopes.keep_best(criteria.resolve(name)(now), now.masks, n)
    return set(np.flatnonzero(kept["w"]).tolist())


@pytest.mark.parametrize("name", BY_HAND)
def test_scores_by_hand(name):
    scores = criteria.resolve(name)(state())
    assert list(scores) == ["w"]
    assert scores["w"].tolist() == BY_HAND[name]


@pytest.mark.parametrize("name", RANKED)
def test_rankings_by_hand(name):
    expected = set()
    for group in RANKED[name]:
        if isinstance(group, set):
            for n in range(1, len(group)):
                kept = survivors(name, len(expected) + n)
                assert expected < kept < expected | group
            expected = expected | group
        else:
            expected = expected | {group}
        assert survivors(name, len(expected)) == expected


def test_every_named_criterion_is_covered_here():
    assert set(criteria.NAMED) == set(BY_HAND) | set(RANKED) | {"random", "gradient", "snip"}


@pytest.mark.parametrize("name", sorted(criteria.NAMED))
def test_names_are_found_and_documented(name):
    found = criteria.resolve(name, data=(0, 0))
    assert found is criteria.NAMED[name]
    assert found.__name__ == name
    assert found.__doc__


@pytest.mark.parametrize("name", [n for n in criteria.NAMED if n.endswith("_same_sign")])
def test_same_sign_lets_changed_signs_go_before_the_worst_of_the_others(name):
    # The changed weight comes first, so that a tie would keep it.
    final, init = np.array([-9.0, 1.0, 2.0]), np.array([9.0, 8.0, 3.0])
    assert 0 not in survivors(name, 2, final=final, init=init)


@pytest.mark.parametrize("name", [n for n in criteria.NAMED if n.endswith("_diff_sign")])
def test_diff_sign_lets_kept_signs_go_before_the_worst_of_the_others(name):
    final, init = np.array([9.0, -1.0, -2.0]), np.array([9.0, 8.0, 3.0])
    assert 0 not in survivors(name, 2, final=final, init=init)


@pytest.mark.parametrize("base", ["magnitude", "magnitude_increase", "movement", "large_init"])
def test_sign_variants_rank_across_layers_like_their_base(base):
    final = {"a": np.array([1.0, 3.0]), "b": np.array([4.0, 4.0])}
    init = {"a": np.array([6.0, 2.0]), "b": np.array([4.0, 2.0])}  # no sign changed
    masks = {p: np.ones(2, bool) for p in final}
    now = criteria.State(final, init, masks)
    for n in range(5):
        plain = scopes.keep_best(criteria.resolve(base)(now), masks, n)
        same = scopes.keep_best(criteria.resolve(f"{base}_same_sign")(now), masks, n)
        assert {p: m.tolist() for p, m in same.items()} == {p: m.tolist() for p, m in plain.items()}


@pytest.mark.parametrize("name", ["large_init_large_final", "small_init_small_final"])
def test_ranks_are_those_among_survivors(name):
    final, init = np.array([1.0, 2.0, 3.0, 4.0]), np.array([4.0, 2.0, 3.0, 1.0])
    alone = survivors(name, 2, final=final, init=init)
    # The same four, and two pruned before them whose initial values were large.
    later = survivors(
        name,
        2,
        final=np.append(final, [0.0, 0.0]),
        init=np.append(init, [3.5, 2.5]),
        masks=np.array([True] * 4 + [False] * 2),
    )
    assert later == alone


@pytest.mark.parametrize("name", sorted(set(criteria.NAMED) - {"random", "gradient", "snip"}))
def test_equal_weights_are_ties_and_the_earlier_survives(name):
    for init in (np.full(4, 2.0), np.full(4, -2.0)):
        assert survivors(name, 2, final=np.full(4, 2.0), init=init) == {0, 1}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(set(criteria.NAMED) - {"gradient", "snip"}))
def test_weights_of_every_precision_are_scored_and_selected(name, dtype):
    shape = (2, 2)
    now = state(FINAL.astype(dtype).reshape(shape), INIT.astype(dtype).reshape(shape))
    scores = criteria.resolve(name)(now)
    assert scores["w"].shape == shape
    assert np.isfinite(scores["w"]).all()
    assert scopes.keep_best(scores, now.masks, 3)["w"].sum() == 3
    if name in BY_HAND:
        assert scores["w"].ravel().tolist() == BY_HAND[name]
    assert np.array_equal(now.weights["w"], FINAL.astype(dtype).reshape(shape))


def test_half_precision_differences_are_exact():
    final, init = np.array([1000.0], np.float16), np.array([0.25], np.float16)
    assert criteria.resolve("movement")(state(final, init))["w"].tolist() == [999.75]


def test_random_scores_depend_on_the_seed_alone():
    first = criteria.random(state(seed=1))["w"]
    assert np.array_equal(first, criteria.random(state(FINAL * 3, INIT * 0, seed=1))["w"])
    assert not np.array_equal(first, criteria.random(state(seed=2))["w"])
    assert not np.array_equal(first, criteria.random(state(seed=(1, 2)))["w"])


def test_random_scores_do_not_depend_on_the_order_of_the_dict():
    weights = {"b": np.zeros((3, 2)), "a": np.zeros(5)}
    masks = {p: np.ones(w.shape, bool) for p, w in weights.items()}
    backwards = dict(reversed(weights.items()))
    one = criteria.random(criteria.State(weights, weights, masks, seed=4))
    two = criteria.random(criteria.State(backwards, backwards, masks, seed=4))
    assert all(np.array_equal(one[p], two[p]) for p in weights)
    assert not np.array_equal(one["b"].ravel()[:5], one["a"])


def four_weights(loss="mse", policy="float32"):
    """p = x w = 1 - 2 - 2 + 2 = -1, and with y = 1: dL/dw = 2 (p - y) x."""
    layer = keras.layers.Dense(1, use_bias=False, dtype=policy, name="out")
    model = keras.Sequential([keras.Input((4,)), layer])
    layer.kernel.assign([[1.0], [-1.0], [2.0], [4.0]])
    if loss:
        model.compile("sgd", loss)
    data = (np.array([[1.0, 2.0, -1.0, 0.5]], np.float32), np.array([[1.0]], np.float32))
    values = {layer.kernel.path: layer.kernel.numpy()}
    masks = {p: np.ones(v.shape, bool) for p, v in values.items()}
    return criteria.State(values, values, masks, model=model, data=data), layer.kernel


@pytest.mark.parametrize("policy", ["float32", "float16", "bfloat16", "mixed_float16"])
@pytest.mark.parametrize(("name", "expected"), [("gradient", [4, 8, 4, 2]), ("snip", [4, 8, 8, 8])])
def test_gradient_criteria_by_hand(name, expected, policy):
    now, kernel = four_weights(policy=policy)
    before = kernel.numpy()
    scores = criteria.resolve(name, now.data)(now)
    assert scores[kernel.path].ravel().tolist() == expected
    assert scores[kernel.path].dtype == np.float32
    assert np.array_equal(kernel.numpy(), before)
    assert int(now.model.optimizer.iterations) == 0


def test_a_weight_without_influence_has_a_gradient_of_zero():
    x = keras.Input((2,))
    used, unused = keras.layers.Dense(1, name="used"), keras.layers.Dense(1, name="unused")
    model = keras.Model(x, [used(x), unused(x)])
    model.compile("sgd", ["mse", None])
    values = {v.path: v.numpy() for v in (used.kernel, unused.kernel)}
    masks = {p: np.ones(v.shape, bool) for p, v in values.items()}
    ones = np.ones((1, 2), np.float32)
    now = criteria.State(values, values, masks, model, (ones, [ones[:, :1] * 9, ones[:, :1]]))
    scores = criteria.gradient(now)
    assert scores["used/kernel"].all()
    assert not scores["unused/kernel"].any()


@pytest.mark.parametrize("name", ["gradient", "snip"])
def test_criteria_that_need_data_say_so(name):
    with pytest.raises(ValueError, match=f"'{name}'.*no data was given.*data="):
        criteria.resolve(name)
    assert criteria.needs_data(criteria.resolve(name, data=(0, 0)))
    now, _ = four_weights()
    with pytest.raises(ValueError, match="compiled model and a batch"):
        criteria.resolve(name, data=now.data)(criteria.State(now.weights, now.initial, now.masks))
    uncompiled, _ = four_weights(loss=None)
    with pytest.raises(ValueError, match="compiled model and a batch"):
        criteria.resolve(name, data=uncompiled.data)(uncompiled)


def test_an_own_criterion_that_needs_data_says_so():
    def own(state):
        return state.weights

    assert not criteria.needs_data(own)
    assert criteria.resolve(own) is own
    own.needs_data = True
    with pytest.raises(ValueError, match="no data was given"):
        criteria.resolve(own)
    assert criteria.resolve(own, data=(1, 2)) is own


@pytest.mark.parametrize("unknown", ["Magnitude", "", None, 3])
def test_an_unknown_criterion_lists_the_valid_names(unknown):
    message = r"'gradient'.*'magnitude'.*'snip'.*Received: " + re.escape(repr(unknown))
    with pytest.raises(ValueError, match=message):
        criteria.resolve(unknown)
