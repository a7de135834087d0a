"""N:M, blocks and channels: the pattern, nearest counts, stated ties, nested masks."""

import pickle
import warnings

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L
from scoring import ALL, alive, arrays, bits, column, one, states

import keras_lottery as kl
from keras_lottery import masks as mask_ops
from keras_lottery import scopes
from keras_lottery.schedules import keep_density, keep_fraction

# N:M --------------------------------------------------------------------------------------


def test_nm_keeps_the_best_two_of_each_four():
    scores = column(1, 4, 3, 2, 9, 8, 7, 6)
    assert bits(one(scopes.NM(2, 4), scores, ALL)) == [0, 1, 1, 0, 1, 1, 0, 0]
    assert bits(one(scopes.NM(1, 4), scores, ALL)) == [0, 1, 0, 0, 1, 0, 0, 0]
    assert bits(one(scopes.NM(3, 4), scores, ALL)) == [0, 1, 1, 1, 1, 1, 1, 0]
    assert bits(one(scopes.NM(1, 2), scores, ALL)) == [0, 1, 1, 0, 1, 0, 1, 0]
    assert bits(one(scopes.NM(4, 4), scores, ALL)) == [1] * 8


def test_nm_runs_along_the_inputs_of_each_output():
    scores = np.array([[1, 9], [4, 8], [3, 7], [2, 6]])
    assert one(scopes.NM(), scores, ALL).astype(int).tolist() == [[0, 1], [1, 1], [1, 0], [0, 0]]


def test_nm_of_equal_scores_keeps_the_earlier():
    assert bits(one(scopes.NM(), np.zeros((6, 1)), ALL)) == [1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize(("left", "kept"), [(1, [1]), (2, [1, 1]), (3, [1, 1, 0])])
def test_nm_a_smaller_last_group_keeps_at_most_n(left, kept):
    assert bits(one(scopes.NM(), np.zeros((4 + left, 1)), ALL)) == [1, 1, 0, 0, *kept]


def test_nm_where_the_schedule_asks_for_more_the_pattern_decides():
    scores = column(4, 3, 2, 1)
    assert bits(one(scopes.NM(), scores, keep_fraction(0.2))) == [1, 1, 0, 0]
    assert bits(one(scopes.NM(), scores, keep_fraction(0.5))) == [1, 1, 0, 0]


def test_nm_where_the_schedule_asks_for_fewer_the_best_go_on():
    scores = column(1, 4, 3, 2, 9, 8, 7, 6)
    assert bits(one(scopes.NM(), scores, keep_fraction(0.625))) == [0, 1, 0, 0, 1, 1, 0, 0]
    # A pruned weight leaves its place to no other: 7 and 6 lost to 9 and 8.
    assert bits(one(scopes.NM(), scores, keep_density(0.25))) == [0, 0, 0, 0, 1, 1, 0, 0]


def test_nm_alive_weights_alone_compete():
    mask = np.array([[False], [True], [True], [True]])
    scores = column(np.nan, 1, 2, 3)
    assert bits(one(scopes.NM(), scores, ALL, mask)) == [0, 0, 1, 1]


def test_nm_leaves_excluded_paths_as_they_are():
    scores = arrays(**{"first/kernel": np.zeros((4, 1)), "b": np.zeros((4, 1)), "bias": [1, 2]})
    kept = scopes.NM(exclude="first|bias")(scores, alive(scores), keep_fraction(0.75))
    assert {p: bits(m) for p, m in kept.items()} == {
        "first/kernel": [1, 1, 1, 1],
        "b": [1, 0, 0, 0],
        "bias": [1, 1],
    }


def test_nm_takes_the_axis_of_the_inputs_from_the_first_matching_regex():
    scores = {p: np.arange(16.0).reshape(4, 4) for p in ("query/kernel", "out/kernel")}
    kept = scopes.NM(axis={"query": 1, "": 0})(scores, alive(scores), ALL)
    assert kept["query/kernel"].astype(int).tolist() == [[0, 0, 1, 1]] * 4
    assert kept["out/kernel"].astype(int).tolist() == [[0] * 4] * 2 + [[1] * 4] * 2
    default = scopes.NM(axis={"query": -1})(scores, alive(scores), ALL)
    assert all(np.array_equal(kept[p], default[p]) for p in kept)


def test_nm_says_which_weight_lacks_the_axis():
    with pytest.raises(ValueError, match=r"'w' of shape \(3,\) has no axis -2.*`exclude`"):
        one(scopes.NM(), np.zeros(3), ALL)
    assert bits(one(scopes.NM(axis=0), np.zeros(3), ALL)) == [1, 1, 0]


@settings(deadline=None)
@given(states(), st.integers(1, 6), st.integers(1, 6), st.integers(-2, -1), st.floats(0.01, 1))
def test_nm_is_a_stable_sort_of_each_group_and_then_of_each_layer(state, n, m, axis, density):
    scores, masks = state
    n = min(n, m)
    scope = scopes.NM(n, m, axis=axis)
    kept = scope(scores, masks, keep_density(density))
    for path, mask in masks.items():
        pattern = np.zeros_like(mask)
        lines = np.moveaxis(pattern, axis, -1)
        row = np.moveaxis(np.where(mask, scores[path], -np.inf), axis, -1)
        for at in np.ndindex(row.shape[:-1]):
            for start in range(0, row.shape[-1], m):
                best = np.argsort(-row[at][start : start + m], kind="stable")[:n]
                lines[at][start + best] = True
        pattern &= mask
        asked = min(int(pattern.sum()), keep_density(density)(int(mask.sum()), mask.size))
        order = np.argsort(-np.where(pattern, scores[path], -np.inf).ravel(), kind="stable")
        expected = np.zeros(mask.size, bool)
        expected[order[:asked]] = True
        assert np.array_equal(kept[path].ravel(), expected)
        assert scopes.is_m_by_n(kept[path], n, m, axis)


def test_is_m_by_n_counts_what_is_not_zero_in_each_group():
    assert scopes.is_m_by_n(column(0.1, 0, 0, -2, 0, 0, 3, 4))
    assert not scopes.is_m_by_n(column(0.1, 0, 0, -2, 0, 1, 3, 4))
    assert scopes.is_m_by_n(column(0, 0, 1, 1, 1, 1, 0, 0))  # groups, not windows
    assert not scopes.is_m_by_n(column(0, 0, 1, 1, 1, 1, 1))
    assert scopes.is_m_by_n(column(1, 1, 0, 0, 1, 1), 2, 4)
    assert not scopes.is_m_by_n(np.ones((1, 4)), axis=1) and scopes.is_m_by_n(np.ones((1, 4)))
    assert not scopes.is_m_by_n(np.ones((3, 3, 4, 2), bool))
    assert scopes.is_m_by_n(np.zeros((3, 3, 4, 2)))
    assert not scopes.is_m_by_n(column(np.nan, 1, 1, 0))
    with pytest.raises(ValueError, match="no axis"):
        scopes.is_m_by_n(np.ones(4))


# Promises of all --------------------------------------------------------------------------

STRUCTURED = [
    scopes.NM(),
    scopes.Block(),
    scopes.Block((2, 3), "max", layerwise=False),
    scopes.Channels(keep_output=False),
    scopes.Channels("max", layerwise=False, keep_output=False),
]


@pytest.mark.parametrize("scope", STRUCTURED, ids=repr)
@settings(deadline=None)
@given(state=states(), fraction=st.floats(0.01, 0.99), data=st.data())
def test_masks_never_grow_and_dict_order_does_not_matter(scope, state, fraction, data):
    scores, masks = state
    before = {p: m.copy() for p, m in masks.items()}
    kept = scope(scores, masks, keep_fraction(fraction))
    order = data.draw(st.permutations(sorted(masks)))
    again = scope(scores, {p: masks[p] for p in order}, keep_fraction(fraction))
    assert list(kept) == list(masks)
    assert mask_ops.nested(kept, masks)
    assert all(np.array_equal(kept[p], again[p]) for p in masks)
    assert all(np.array_equal(before[p], masks[p]) for p in masks)


@pytest.mark.parametrize("scope", STRUCTURED, ids=repr)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int64"])
def test_scores_of_every_dtype_are_ranked(scope, dtype):
    import ml_dtypes  # registers bfloat16 with NumPy

    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    score = np.random.default_rng(0).permutation(72).reshape(2, 6, 6) - 36
    mask = score % 5 > 0
    kept = scope({"w": score.astype(kind)}, {"w": mask}, keep_fraction(0.6))["w"]
    expected = scope({"w": score.astype("f4")}, {"w": mask}, keep_fraction(0.6))["w"]
    assert np.array_equal(kept, expected) and 0 < kept.sum() < mask.sum()


@pytest.mark.parametrize("scope", STRUCTURED, ids=repr)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_name_their_path(scope, value):
    scores = arrays(a=np.ones((4, 3)), b=np.ones((4, 3)))
    scores["b"][1, 1] = value
    with pytest.raises(kl.NotFiniteError, match=r"NaN or Inf.*\['b'\]"):
        scope(scores, alive(scores), keep_fraction(0.5))


@pytest.mark.parametrize("scope", STRUCTURED, ids=repr)
def test_scopes_pickle_and_take_read_only_scores(scope):
    scope = pickle.loads(pickle.dumps(scope))
    zeros = {p: np.broadcast_to(np.float32(0), (6, 5)) for p in "ab"}
    kept = scope(zeros, alive(zeros), ALL)
    assert all(m.sum() == (20 if isinstance(scope, scopes.NM) else 30) for m in kept.values())


def test_a_pickle_names_a_scope_by_its_public_path():
    assert pickle.loads(b"ckeras_lottery.scopes\nGlobal\n.") is scopes.Global


BAD = [
    (scopes.NM, {"n": 5, "m": 4}, "1 <= n <= m.*n=5, m=4"),
    (scopes.NM, {"n": 0}, "1 <= n <= m.*n=0"),
    (scopes.NM, {"n": 1.0}, "integers.*n=1.0"),
    (scopes.NM, {"n": True}, "integers.*n=True"),
    (scopes.NM, {"exclude": "("}, r"`exclude` must be a regex.*'\('"),
    (scopes.NM, {"axis": 1.5}, "`axis` must be an integer.*1.5"),
    (scopes.NM, {"axis": {"a": None}}, "`axis` must be an integer.*None"),
    (scopes.NM, {"axis": {"(": 1}}, "`axis` must be a regex"),
    (scopes.is_m_by_n, {"weights": np.ones((2, 2)), "n": 3, "m": 2}, "1 <= n <= m"),
    (scopes.Block, {"size": (0, 1)}, r"`size`.*\(0, 1\)"),
    (scopes.Block, {"size": (4, 1, 1)}, "`size` must be two integers"),
    (scopes.Block, {"size": (2.0, 1)}, "`size` must be two integers"),
    (scopes.Block, {"size": 4}, "`size` must be two integers.*4"),
    (scopes.Block, {"pooling": "sum"}, r"`pooling` must be one of \('mean', 'max'\).*'sum'"),
    (scopes.Block, {"exclude": 3}, "`exclude` must be a regex"),
    (scopes.Channels, {"pooling": None}, "`pooling` must be one of.*None"),
    (scopes.Channels, {"exclude": "["}, "`exclude` must be a regex"),
    (scopes.Channels, {"axis": "a"}, "`axis` must be an integer"),
]


@pytest.mark.parametrize(("make", "options", "message"), BAD)
def test_bad_arguments_are_told_at_construction(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


# Real models ------------------------------------------------------------------------------


def network():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            L.Conv2D(8, 3, activation="relu", name="conv"),
            L.GlobalAveragePooling2D(),
            L.Dense(8, "relu", name="hidden"),
            L.Dense(4, name="out"),
        ]
    )  # kernels of 288, 64 and 32 weights
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def train(model, callbacks, epochs=1):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(16, 6, 6, 4)).astype("float32"), rng.integers(0, 4, 16)
    return model.fit(x, y, 8, epochs=epochs, verbose=0, callbacks=callbacks)


def check_nm(masks):
    assert [int(m.sum()) for m in masks.values()] == [144, 32, 16]
    assert all(scopes.is_m_by_n(m) for m in masks.values())


def check_block(masks):
    assert [int(m.sum()) for m in masks.values()] == [144, 32, 16]
    for mask in masks.values():
        blocks = mask.reshape(-1, 4, mask.shape[-1])
        assert np.array_equal(blocks.all(1), blocks.any(1))


def check_channels(masks):
    conv, hidden, out = masks.values()
    for kernel in (conv, hidden):
        flat = kernel.reshape(-1, 8)
        assert np.array_equal(flat.all(0), flat.any(0)) and flat.all(0).sum() == 4
    assert out.all()


CHECKS = {"nm": check_nm, "block": check_block, "channels": check_channels}


def check_trained(model, masks, check):
    check(masks)
    for variable in model.trainable_variables:
        if variable.path in masks:
            assert not variable.numpy()[~masks[variable.path]].any()


@pytest.mark.parametrize("name", CHECKS)
def test_prune_by_name_gives_the_structure_at_once(name):
    model = network()
    masks = kl.prune(model, 0.5, scope=name).masks
    check_trained(model, masks, CHECKS[name])


@pytest.mark.parametrize("name", CHECKS)
def test_find_ticket_and_the_callback_prune_alike_and_keep_the_structure(name):
    searched, fitted = network(), network()
    fitted.set_weights(searched.get_weights())
    options = {"prune_fraction": 0.5, "scope": scopes.NAMED[name](), "verbose": 0}
    keras.utils.set_random_seed(1)
    search = kl.find_ticket(searched, train, rounds=3, **options)
    lottery = kl.LotteryCallback(1, **options)
    keras.utils.set_random_seed(1)
    train(fitted, [lottery], epochs=3)
    for found, model in ((search, searched), (lottery, fitted)):
        CHECKS[name](found.ticket(1).masks)
        last = found.ticket(2).masks
        assert mask_ops.nested(last, found.ticket(1).masks)
        check_trained(model, last, lambda masks: None)
    assert [r.density for r in search.rounds] == [r.density for r in lottery.rounds]
    expected = {"nm": 0.25, "block": 0.25, "channels": (72 + 16 + 32) / 384}
    assert search.rounds[2].density == expected[name]


def test_nm_of_the_default_schedule_starts_at_the_pattern_and_then_follows_the_schedule():
    search = kl.find_ticket(network(), train, rounds=3, scope=kl.scopes.NM(2, 4), verbose=0)
    check_nm(search.ticket(1).masks)
    assert [int(m.sum()) for m in search.ticket(2).masks.values()] == [115, 26, 13]
    assert all(kl.scopes.is_m_by_n(m) for m in search.ticket(2).masks.values())


def test_a_scope_that_fits_no_weight_fails_before_training():
    def never(model, callbacks):
        raise AssertionError

    with pytest.raises(ValueError, match="has no axis 3"):
        kl.find_ticket(network(), never, 2, scope=scopes.NM(axis=3))
    with pytest.raises(ValueError, match="keep_output"):
        kl.find_ticket(network(), never, 2, filters="conv", scope="channels")


def test_structured_pruning_deepens_carried_masks_without_a_warning():
    model = network()
    first = kl.prune(model, 0.6, scope="layerwise").masks
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = kl.prune(model, 0.5, scope="nm").masks
    assert mask_ops.nested(second, first)
    assert all(scopes.is_m_by_n(m) for m in second.values())
