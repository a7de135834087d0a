"""Which trainings are compared with which, by hand and on a small model trained for real."""

import math

import keras
import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery import enforcement
from keras_lottery import masks as mask_ops
from keras_lottery.analysis.barrier import Barrier
from keras_lottery.analysis.comparing import Case, Comparison, Stability, compare
from keras_lottery.analysis.stability import stability

X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")
END = 6


def build(seed):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy")
    return model


class Train:
    """Trains batches of 4; knows what it was asked for and what the model held."""

    def __init__(self, end=END, same_order=False):
        self.end, self.same_order, self.calls = end, same_order, []

    def __call__(self, model, first, last, seed):
        masks = enforcement.enforced_masks(model)
        begun = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
        self.calls.append((first, last, seed, masks, begun))
        order = np.random.default_rng(0 if self.same_order else seed)
        for _ in range(first, self.end if last is None else last):
            rows = order.permutation(16)[:4]
            model.train_on_batch(X[rows], Y[rows])


def kernels(model):
    return [layer.kernel.path for layer in model.layers if hasattr(layer, "kernel")]


def half():
    """Masks of another model of the same architecture, so matched by order and shape."""
    a, b = np.zeros((3, 4), bool), np.zeros((4, 1), bool)
    a[0], b[:2] = True, True
    return {"other/a": a, "other/b": b}


@pytest.fixture(scope="module")
def real():
    """Two replicates, two rewind points, a ticket only at the first: 2 * (6 + 2) copies."""
    keras.utils.clear_session(free_memory=False)
    train, models = Train(), []

    def kept(seed):
        models.append(build(seed))
        return models[-1]

    found = stability(
        kept, train, lambda replicate, step: None if step else half(), {"train": (X, Y)},
        steps=[0, 2], replicates=2, seed=5, points=3, verbose=0,
    )  # fmt: skip
    return found, train.calls, models


def test_every_copy_is_trained_once_and_every_pair_compared(real):
    found, calls, _ = real
    assert len(calls) == 2 * (6 + 1 + 2)  # two replicates: k=0, up to k=2, from k=2
    compared = [(c.kind, c.what, c.step, c.orders) for c in found.comparisons]
    assert compared == 2 * [
        ("dense", "order", 0, (0, 1)),
        ("ticket", "order", 0, (0, 1)),
        ("ticket", "pruning", 0, (0, 0)),
        ("ticket", "pruning", 0, (1, 1)),
        ("random_mask", "order", 0, (0, 1)),
        ("random_mask", "pruning", 0, (0, 0)),
        ("random_mask", "pruning", 0, (1, 1)),
        ("dense", "order", 2, (0, 1)),
    ]
    assert [c.replicate for c in found.comparisons] == [0] * 8 + [1] * 8


def test_rows_are_means_over_replicates_and_pairs(real):
    found, _, _ = real
    rows = {(r["kind"], r["what"], r["step"]): r for r in found.rows()}
    assert {key: row["n"] for key, row in rows.items()} == {
        ("dense", "order", 0): 2,
        ("ticket", "order", 0): 2,
        ("ticket", "pruning", 0): 4,
        ("random_mask", "order", 0): 2,
        ("random_mask", "pruning", 0): 4,
        ("dense", "order", 2): 2,
    }
    assert rows["ticket", "order", 0]["density"] == 6 / 16
    assert rows["dense", "order", 0]["density"] == 1.0
    assert all(r["distance_mean"] > 0 and 0 < r["angle_mean"] < 180 for r in rows.values())
    assert all("barrier_train_mean" in r for r in rows.values() if r["what"] == "order")
    assert "barrier_train_mean" not in rows["ticket", "pruning", 0]


def test_the_random_mask_has_the_tickets_counts_per_layer_and_is_the_replicates_own(real):
    _, calls, models = real
    for replicate, path in ((r, p) for r in (0, 1) for p in kernels(models[r])):
        full, ticket, random = (calls[9 * replicate + i][3][path] for i in (0, 2, 4))
        assert full.all() and ticket.sum() == random.sum() < full.sum()
    first = [np.concatenate([m.ravel() for m in calls[i][3].values()]) for i in (2, 4, 11, 13)]
    assert np.array_equal(first[0], first[2]) and not np.array_equal(first[1], first[3])
    assert not np.array_equal(first[0], first[1])


def test_every_copy_starts_from_the_same_state_under_its_masks(real):
    _, calls, models = real
    masks = calls[2][3]
    named = [v.path for v in models[0].variables]
    dense, ticket = calls[0][4], calls[2][4]
    for i, (a, b) in enumerate(zip(dense, ticket, strict=True)):
        mask = masks.get(named[i], True) if i < len(named) else True
        assert np.array_equal(np.where(mask, a, 0), b)
    for other in (1, 3):  # the second order of each
        assert all(map(np.array_equal, calls[other - 1][4], calls[other][4]))
    assert all(map(np.array_equal, calls[7][4], calls[8][4]))  # from step 2


def test_all_kinds_of_an_order_share_a_seed_and_no_other_training_has_it(real):
    _, calls, _ = real
    seeds = [c[2] for c in calls]
    for start, own in ((0, 5), (9, 6)):
        a, b = seeds[start : start + 2]
        assert seeds[start : start + 9] == [a, b, a, b, a, b, own, a, b]
    assert len(set(seeds)) == 6
    assert [c[:2] for c in calls[:9]] == [(0, None)] * 6 + [(0, 2)] + [(2, None)] * 2


def test_the_masks_are_released_and_the_final_metrics_kept(real):
    found, _, models = real
    assert all(enforcement.enforced_masks(model) is None for model in models)
    shape = {k: {s: len(v) for s, v in by.items()} for k, by in found.final.items()}
    assert shape == {"dense": {0: 4, 2: 4}, "ticket": {0: 4}, "random_mask": {0: 4}}
    assert all(0 <= end["train"] <= 1 for by in found.final.values() for v in by[0] for end in [v])


def test_trainings_in_one_order_agree_exactly():
    found = stability(
        build, Train(same_order=True), data=(X, Y), replicates=1, points=2, metric="loss", verbose=0
    )
    (only,) = found.comparisons
    assert (only.distance, only.angle, only.barrier.heights) == (0.0, 0.0, {"data": 0.0})


def test_progress_is_shown_and_silenced(capsys):
    stability(build, Train(end=1), half(), replicates=1, verbose=0)
    assert capsys.readouterr() == ("", "")
    stability(build, Train(end=1), half(), replicates=1)
    shown = capsys.readouterr().out
    assert "training 6 of 6: random_mask from step 0, replicate 0, order 1" in shown
    assert "37.50%" in shown and "distance" in shown


# Comparing, by hand


def net(*values):
    return {"w": np.asarray(values, float)}


def test_orders_are_paired_and_every_kind_is_paired_with_dense():
    weights = {
        ("dense", 0): net(0, 1, 9),
        ("dense", 1): net(0, 1, 7),
        ("ticket", 0): net(3, 5, 0),
        ("ticket", 1): net(3, 1, 0),
        ("ticket", 2): net(3, 2, 0),
    }
    alive = {"w": np.array([True, True, False])}
    cases = [Case(kind, 0, 0, order) for kind, order in weights]
    found = compare(
        lambda c: weights[c.kind, c.order], lambda c: alive if c.kind == "ticket" else None, cases
    )
    assert [(c.kind, c.what, c.orders, c.distance) for c in found.comparisons] == [
        ("dense", "order", (0, 1), 2.0),
        ("ticket", "order", (0, 1), 4.0),
        ("ticket", "order", (0, 2), 3.0),
        ("ticket", "order", (1, 2), 1.0),
        ("ticket", "pruning", (0, 0), 5.0),
        ("ticket", "pruning", (1, 1), 3.0),
    ]


def test_other_steps_and_replicates_are_not_compared():
    cases = [Case("dense", step, replicate, 0) for step in (0, 1) for replicate in (0, 1)]
    with pytest.raises(ValueError, match="nothing to compare"):
        compare(lambda c: net(1), lambda c: None, cases)


def test_weights_are_asked_for_pair_by_pair():
    asked, seen = [], []
    cases = [Case("own", 0, 0, u) for u in (0, 1)] + [Case("own", 4, 0, u) for u in (0, 1)]
    compare(
        lambda c: asked.append((c.step, c.order)) or net(1, c.order),
        lambda c: None,
        cases,
        on_comparison=lambda c: seen.append(len(asked)),
    )
    assert asked == [(0, 0), (0, 1), (4, 0), (4, 1)] and seen == [2, 4]


def comparison(distance, error, replicate=0):
    values = np.array([0.1, error, 0.3])
    barrier = Barrier(np.linspace(0, 1, 3), {"test": values}, "error")
    return Comparison("ticket", "order", 0, replicate, (0, 1), 0.5, distance, 30.0, barrier)


def test_a_row_by_hand():
    (row,) = Stability([comparison(1.0, 0.5), comparison(3.0, 0.3, replicate=1)]).rows()
    assert row["n"] == 2 and row["density"] == 0.5
    assert (row["distance_mean"], row["angle_mean"], row["angle_std"]) == (2.0, 30.0, 0.0)
    assert row["distance_std"] == pytest.approx(math.sqrt(2))
    assert row["barrier_test_mean"] == pytest.approx(0.2)  # 0.3 and 0.1
    assert row["end_test_mean"] == pytest.approx(0.2) and row["stable_test"] is False
    assert math.isnan(Stability([comparison(1.0, 0.5)]).rows()[0]["distance_std"])


def test_barriers_need_a_model_and_its_evaluation():
    with pytest.raises(ValueError, match="both `model` and its `evaluation`"):
        compare(lambda c: net(1), lambda c: None, [], model=build(0))


# Mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": []}, "`steps` must name one rewind point or more"),
        ({"steps": [4, 2]}, r"growing.*Received: \[4, 2\]"),
        ({"steps": [2, 2]}, r"each once. Received: \[2, 2\]"),
        ({"steps": [-1]}, "`steps` must be at least 0"),
        ({"steps": [0.5]}, "`steps` must be an integer"),
        ({"orders": 1}, "`orders` must be at least 2"),
        ({"replicates": 0}, "`replicates` must be at least 1"),
        ({"points": 1}, "`points` must be at least 2"),
        ({"seed": -1}, "`seed` must be at least 0"),
        ({"masks": {"w": np.ones((2, 2), bool)}}, r"one architecture.*\(3, 4\).*\(2, 2\)"),
        ({"masks": mask_ops.full({"a": (3, 4)})}, "one architecture.*1 masks"),
        ({"masks": {"w": np.ones((3, 4))}}, "bool arrays.*float64"),
        ({"masks": {p: ~m & False for p, m in half().items()}}, "no weight alive"),
        ({"masks": lambda replicate, step: {}}, "a mask at least"),
        ({"data": (X[:0], Y[:0])}, "empty"),
        ({"data": (X, np.zeros((16, 4, 4)))}, "labels"),
        ({"metric": "nonsense", "data": (X, Y)}, "nonsense"),
        ({"batchnorm": "nonsense"}, "`batchnorm` must be one of.*'nonsense'"),
        ({"build": lambda seed: keras.Sequential([keras.Input((3,))])}, "compiled Keras model"),
        ({"build": lambda seed: None}, "compiled Keras model.*Received: NoneType"),
    ],
)
def test_mistakes_are_told_before_the_first_training(options, message):
    train = Train()
    with pytest.raises(ValueError, match=message):
        stability(**{"build": build, "train": train, "verbose": 0} | options)
    assert not train.calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "`steps` must be a list of integers.*Received: 0"),
        ({"masks": [np.ones(1, bool)]}, "`masks` must be a dict.*Received: list"),
    ],
)
def test_other_types_are_told_before_the_first_training(options, message):
    train = Train()
    with pytest.raises(TypeError, match=message):
        stability(**{"build": build, "train": train, "verbose": 0} | options)
    assert not train.calls


def test_the_masks_may_be_those_of_a_pruned_model():
    train = Train(end=1)
    handle = kl.prune(build(0), 0.5)
    found = stability(build, train, handle, replicates=1, verbose=0)
    assert [m.sum() for m in train.calls[2][3].values()] == [m.sum() for m in handle.masks.values()]
    assert found.rows()[1]["density"] == 0.5


def test_a_model_with_masks_is_told():
    def masked(seed):
        model = build(seed)
        enforcement.enforce(model, {kernels(model)[0]: half()["other/a"]})
        return model

    with pytest.raises(ValueError, match=r"without masks.*33.33%"):
        stability(masked, Train(), verbose=0)


@pytest.mark.parametrize(
    ("train", "steps", "message"),
    [
        (lambda *_: None, [0], "later than every rewind point. Received: 0 steps"),
        (lambda *_: None, [3], "must end when the optimizer has done 3 steps.*Received: 0"),
        (Train(end=2), [0, 2], "later than every rewind point. Received: 2 steps"),
        (lambda m, *_: m.fit(X, Y, verbose=0), [0, 1], "the first copy ended with 1"),
    ],
)
def test_a_train_that_trains_other_steps_is_told(train, steps, message):
    with pytest.raises(ValueError, match=message):
        stability(build, train, steps=steps, replicates=1, verbose=0)


def test_a_training_that_ends_in_nan_is_told_and_the_masks_are_released():
    models = []

    def broken(model, first, last, seed):
        models.append(model)
        Train(end=1)(model, first, last, seed)
        model.layers[0].kernel.assign(np.full((3, 4), np.nan))

    with pytest.raises(ValueError, match=r"NaN or Inf in .*kernel.*dense from step 0, replicate 0"):
        stability(build, broken, verbose=0)
    assert enforcement.enforced_masks(models[0]) is None
