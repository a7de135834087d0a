"""One-shot pruning: exact counts, nesting, and a model untouched by errors."""

import keras
import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery import enforcement, schedules


def mlp(policy=None):
    return keras.Sequential(
        [
            keras.Input((10,)),
            keras.layers.Dense(20, "relu", name="a", dtype=policy),
            keras.layers.Dense(10, "relu", name="b", dtype=policy),
            keras.layers.Dense(5, name="out", dtype=policy),
        ]
    )  # 200, 200, 50 weights


def batch(n=16):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 10)).astype("float32"), rng.normal(size=(n, 5)).astype("float32")


def counts(masks):
    return {p.split("/")[-2]: int(m.sum()) for p, m in masks.items()}


def values(model):
    return [v.numpy() for v in model.variables]


def same(a, b):
    return all(np.array_equal(x, y, equal_nan=True) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("density", [1.0, 0.9, 0.501, 0.25, 0.1, 0.02])
def test_global_counts_are_exact(density):
    model = mlp()
    handle = kl.prune(model, density, scope=kl.scopes.Global(min_layer_density=0.0))
    assert sum(counts(handle.masks).values()) == round(density * 450)
    assert kl.density(model) == round(density * 450) / 450


def test_global_keeps_the_largest_magnitudes_of_all_layers():
    model = mlp()
    before = {layer.name: np.abs(layer.kernel.numpy()) for layer in model.layers}
    masks = kl.prune(model, 0.4).masks
    kept = np.concatenate([before[p.split("/")[-2]][m] for p, m in masks.items()])
    gone = np.concatenate([before[p.split("/")[-2]][~m] for p, m in masks.items()])
    assert kept.size == 180 and kept.min() >= gone.max()


def test_layerwise_and_erk_counts_are_exact():
    assert counts(kl.prune(mlp(), 0.13, scope="layerwise").masks) == {
        "a": 26,
        "b": 26,
        "out": 6,  # round(6.5)
    }
    # sum(shape): 30, 30, 15; 150 weights split 2 : 2 : 1.
    assert counts(kl.prune(mlp(), 1 / 3, scope="erk").masks) == {"a": 60, "b": 60, "out": 30}


def test_pruned_weights_are_zero_and_the_others_untouched():
    model = mlp()
    before = {v.path: v.numpy() for v in model.variables}
    masks = kl.prune(model, 0.3).masks
    for variable in model.variables:
        mask = masks.get(variable.path, np.ones(variable.shape, bool))
        assert np.array_equal(variable.numpy(), np.where(mask, before[variable.path], 0))


def test_training_after_pruning_leaves_the_pruned_weights_at_zero():
    model = mlp()
    handle = kl.prune(model, 0.3)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(*batch(), epochs=3, verbose=0)
    for path, mask in handle.masks.items():
        weight = next(v for v in model.variables if v.path == path).numpy()
        assert np.array_equal(weight != 0, mask)


@pytest.mark.parametrize("scope", ["global", "layerwise", "erk"])
@pytest.mark.parametrize("criterion", ["magnitude", "random", "small_final", "snip"])
def test_repeated_calls_are_nested(scope, criterion):
    model = mlp()
    model.compile("sgd", "mse")
    x, y = batch()
    previous = None
    for seed, density in enumerate([0.8, 0.5, 0.5, 0.3]):
        masks = kl.prune(model, density, criterion, scope, x=x, y=y, seed=seed).masks
        assert sum(counts(masks).values()) == round(density * 450)
        if previous is not None:
            assert all(not (masks[p] & ~previous[p]).any() for p in masks)
        previous = masks


def test_a_higher_density_than_before_revives_nothing():
    model = mlp()
    first = kl.prune(model, 0.3).masks
    second = kl.prune(model, 0.6).masks
    assert all(np.array_equal(first[p], second[p]) for p in first)


def test_masks_of_other_layers_are_kept():
    model = mlp()
    kl.prune(model, 0.5, filters="a/")
    kl.prune(model, 0.2, filters="b/")
    masks = enforcement.enforced_masks(model)
    assert counts(masks) == {"a": 100, "b": 40}
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(*batch(), verbose=0)
    assert np.count_nonzero(model.get_layer("a").kernel.numpy()) == 100
    assert np.count_nonzero(model.get_layer("b").kernel.numpy()) == 40


def test_filters_choose_the_competing_weights():
    model = mlp()
    masks = kl.prune(model, 0.5, filters=["a/kernel", "out"]).masks
    assert set(counts(masks)) == {"a", "out"}
    assert sum(counts(masks).values()) == 125
    assert np.all(model.get_layer("b").kernel.numpy() != 0)


def test_the_same_seed_gives_the_same_random_masks():
    one = kl.prune(mlp(), 0.4, "random", seed=3).masks
    keras.utils.clear_session(free_memory=False)
    two = kl.prune(mlp(), 0.4, "random", seed=3).masks
    keras.utils.clear_session(free_memory=False)
    three = kl.prune(mlp(), 0.4, "random", seed=4).masks
    assert all(np.array_equal(one[p], two[p]) for p in one)
    assert any(not np.array_equal(one[p], three[p]) for p in one)


def test_snip_at_initialization_keeps_the_largest_products():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)])
    kernel = model.layers[0].kernel
    kernel.assign([[1.0], [-1.0], [2.0], [4.0]])
    model.compile("sgd", "mse")
    x, y = np.array([[1.0, 2.0, -1.0, 0.25]], np.float32), np.array([[1.0]], np.float32)
    # p = 1 - 2 - 2 + 1 = -2; dL/dw = -6 x; |w dL/dw| = 6, 12, 12, 6.
    masks = kl.prune(model, 0.5, "snip", x=x, y=y).masks
    assert masks[kernel.path].ravel().tolist() == [False, True, True, False]


def test_an_own_criterion_sees_weights_masks_model_and_data():
    model, seen = mlp(), []
    x, y = batch()

    def own(state):
        seen.append(state)
        return {p: np.arange(w.size).reshape(w.shape) for p, w in state.weights.items()}

    handle = kl.prune(model, 0.5, own, "layerwise", x=x, y=y, seed=9)
    (state,) = seen
    assert state.model is model and state.seed == 9
    assert state.data[0] is x and state.data[1] is y
    assert all(m.all() for m in state.masks.values())
    for mask in handle.masks.values():
        assert mask.ravel().tolist() == [False] * (mask.size // 2) + [True] * (mask.size // 2)


def test_an_own_scope_is_given_scores_masks_and_counts():
    def first_only(scores, masks, keep):
        assert keep(200, 200) == schedules.keep_density(0.25)(200, 200) == 50
        first = next(iter(masks))
        return {p: m & (p != first) for p, m in masks.items()}

    assert counts(kl.prune(mlp(), 0.25, scope=first_only).masks) == {"a": 0, "b": 200, "out": 50}


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_float16"])
def test_half_precision_models_are_pruned_exactly(policy):
    model = mlp(policy)
    masks = kl.prune(model, 0.2).masks
    assert sum(counts(masks).values()) == 90
    assert np.count_nonzero(model.get_layer("a").kernel.numpy()) <= counts(masks)["a"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("pruned_before", [False, True])
def test_weights_that_are_not_finite_are_told_and_the_model_is_untouched(bad, pruned_before):
    model = mlp()
    if pruned_before:
        kl.prune(model, 0.9)
    kernel = model.get_layer("b").kernel
    broken = kernel.numpy()
    broken[np.unravel_index(np.abs(broken).argmax(), broken.shape)] = bad
    kernel.assign(broken)
    before, masks = values(model), enforcement.enforced_masks(model)
    with pytest.raises(ValueError, match=r"NaN or Inf.*b/kernel") as told:
        kl.prune(model, 0.2)
    assert isinstance(told.value, kl.NotFiniteError)
    assert same(values(model), before)
    after = enforcement.enforced_masks(model)
    assert (after is None) == (masks is None)
    assert masks is None or all(np.array_equal(after[p], masks[p]) for p in masks)


def test_scores_that_are_not_finite_are_told_and_the_model_is_untouched():
    model = mlp()
    before = values(model)
    with pytest.raises(ValueError, match="NaN or Inf in the scores"):
        kl.prune(model, 0.2, lambda s: {p: w / 0 * 0 for p, w in _quiet(s.weights)})
    assert same(values(model), before)
    assert enforcement.enforced_masks(model) is None


def _quiet(weights):
    with np.errstate(all="ignore"):
        yield from weights.items()


@pytest.mark.parametrize("density", [0, 0.0, -0.5, 1.0001, 20, float("nan"), float("inf")])
def test_a_density_out_of_range_is_told(density):
    model = mlp()
    before = values(model)
    with pytest.raises(ValueError, match=r"`density` must lie in \(0, 1\].*Received"):
        kl.prune(model, density)
    assert same(values(model), before)
    assert enforcement.enforced_masks(model) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"criterion": "snip"}, "no data was given"),
        ({"criterion": "nonsense"}, "criterion.*magnitude.*nonsense"),
        ({"scope": "nonsense"}, "scope.*global.*nonsense"),
        ({"filters": "nonsense"}, "nonsense.*selects nothing.*a/kernel"),
        ({"criterion": "snip", "x": batch()[0], "y": batch()[1]}, "compiled"),
        ({"density": 0.001}, "min_layer_density"),
    ],
)
def test_mistakes_are_told_and_the_model_is_untouched(arguments, message):
    model = mlp()
    before = values(model)
    with pytest.raises(ValueError, match=message):
        kl.prune(model, **{"density": 0.5} | arguments)
    assert same(values(model), before)
    assert enforcement.enforced_masks(model) is None
