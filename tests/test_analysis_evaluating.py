import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers as L

import keras_lottery as kl
from keras_lottery import weights
from keras_lottery.analysis.evaluating import Evaluation
from keras_lottery.analysis.values import as_values


def line(**compiled):
    """y = w x + b, one weight each."""
    model = keras.Sequential([keras.Input((1,)), L.Dense(1, name="out")])
    if compiled:
        model.compile(**compiled)
    return model


def values(model, *arrays):
    return as_values(model, [np.asarray(a, np.float32) for a in arrays])


def scores():
    """A model whose predictions are its inputs."""
    return keras.Sequential([keras.Input((3,)), L.Identity()])


X3 = np.array([[3.0, 1, 2], [0, 1, 2], [0, 5, 1], [9, 1, 1]], np.float32)  # classes 0 2 1 0


class Parts(keras.utils.PyDataset):
    def __init__(self, x, y, size):
        super().__init__()
        self.x, self.y, self.size = x, y, size

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, i):
        cut = slice(i * self.size, (i + 1) * self.size)
        return self.x[cut], self.y[cut]


@pytest.mark.parametrize(
    "labels",
    [[0, 2, 1, 1], [[0], [2], [1], [1]], np.eye(3)[[0, 2, 1, 1]], np.array([0, 2, 1, 1.0])],
    ids=["sparse", "column", "one-hot", "float"],
)
def test_the_error_is_the_share_of_misjudged_examples_whatever_the_labels_form(labels):
    assert Evaluation(scores(), (X3, np.asarray(labels)))() == {"data": 0.25}
    assert Evaluation(scores(), (X3, np.asarray(labels)), "accuracy")() == {"data": 0.75}


@pytest.mark.parametrize(("from_logits", "error"), [(False, 0.5), (True, 0.0)])
def test_a_single_output_is_judged_at_a_half_or_for_logits_at_zero(from_logits, error):
    model = line(loss=keras.losses.BinaryCrossentropy(from_logits=from_logits))
    data = (np.array([[0.2], [0.9], [-1.0], [0.4]]), np.array([1, 1, 0, 1]))
    evaluation = Evaluation(model, data)
    assert evaluation(values(model, [[1.0]], [0.0])) == {"data": error}
    column = Evaluation(model, (data[0], data[1][:, None]))
    assert column(values(model, [[1.0]], [0.0])) == {"data": error}


def test_a_prediction_of_nan_is_an_error():
    model = keras.Sequential([keras.Input((3,)), L.Rescaling(np.inf)])  # 0 becomes NaN
    x = np.array([[3, 0, 1], [3, -1, -1]], np.float32)
    assert Evaluation(model, (x, np.array([0, 0])))() == {"data": 0.5}


def test_words_of_a_sentence_count_one_by_one():
    model = keras.Sequential([keras.Input((2, 3)), L.Identity()])
    x = X3.reshape(2, 2, 3)
    assert Evaluation(model, (x, np.array([[0, 2], [0, 0]])))() == {"data": 0.25}


def test_weights_of_examples_weigh():
    data = (X3, np.array([1, 2, 1, 0]), np.array([3.0, 1, 0, 0]))
    assert Evaluation(scores(), data)() == {"data": 0.75}


SPREAD = (np.arange(5.0)[:, None], np.array([0.0, 1, 2, 3, 14])[:, None])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("loss", 20.0),
        ("mean_absolute_error", 2.0),
        (keras.losses.MeanSquaredError(reduction="sum"), 20.0),
        (keras.metrics.RootMeanSquaredError(), 20**0.5),
        (lambda y, p: tf.reduce_max(tf.abs(y - p), -1), 2.0),
    ],
    ids=["compiled", "name", "loss", "metric", "callable"],
)
def test_any_loss_metric_or_function_is_measured_over_the_examples_not_the_batches(
    metric, expected
):
    model = line(loss="mse")
    evaluation = Evaluation(model, SPREAD, metric, batch_size=2)
    assert evaluation(values(model, [[1.0]], [0.0]))["data"] == pytest.approx(expected, rel=1e-6)


def test_the_loss_is_what_keras_calls_loss_with_weights_and_penalties():
    x, y, w = np.ones((5, 8, 8, 1)), np.array([0, 1, 2, 0, 1]), np.arange(5.0)
    model = zoo.sequential()
    model.add(L.Dense(3, "softmax", kernel_regularizer="l2"))
    model.compile(loss="sparse_categorical_crossentropy")
    expected = model.evaluate(x, y, sample_weight=w, batch_size=2, verbose=0)
    measured = Evaluation(model, (x, y, w), "loss", batch_size=2)()["data"]
    assert measured == pytest.approx(expected, rel=1e-6)


def test_forms_of_data_agree_and_parts_have_names():
    x, y = SPREAD
    parts = {
        "arrays": SPREAD,
        "tf": tf.data.Dataset.from_tensor_slices((np.float32(x), np.float32(y))).batch(2),
        "py": Parts(x, y, 2),
    }
    model = line()
    evaluation = Evaluation(model, parts, "mean_squared_error", batch_size=2)
    assert evaluation.parts == ("arrays", "tf", "py") and evaluation.metric == "mean_squared_error"
    measured = evaluation(values(model, [[1.0]], [0.0]))
    assert measured == {"arrays": 20.0, "tf": 20.0, "py": 20.0}


def test_thirty_weights_cost_two_traces_where_the_last_batch_is_smaller():
    model = line()
    data = {"train": SPREAD, "test": (SPREAD[0][:4], SPREAD[1][:4])}
    evaluation = Evaluation(model, data, "mse", batch_size=2, batchnorm="recompute")
    with evaluation:
        found = [evaluation(values(model, [[w]], [0.0]))["test"] for w in range(30)]
    assert evaluation.traces == 2
    assert found == [3.5 * (w - 1) ** 2 for w in range(30)]


def state(model):
    held = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return [v.numpy().copy() for v in held]


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def trained():
    model = keras.Sequential(
        [keras.Input((3,)), L.Dense(4), L.BatchNormalization(), L.Dropout(0.5), L.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(X3, np.array([0, 2, 1, 0]), verbose=0)
    return model


@pytest.mark.parametrize(("metric", "batchnorm"), [("error", "interpolate"), ("loss", "recompute")])
def test_the_model_its_optimizer_and_its_metrics_are_untouched(metric, batchnorm):
    model = trained()
    before, other = state(model), [w + 1 for w in model.get_weights()]
    data = (X3, np.array([0, 2, 1, 0]))
    evaluation = Evaluation(model, data, metric, 3, batchnorm)
    evaluation(as_values(model, other))
    assert same(before, state(model))
    with evaluation:
        evaluation(as_values(model, other))
        assert not same(before, state(model))
    assert same(before, state(model))


def test_a_users_own_metric_object_keeps_its_value():
    metric = keras.metrics.MeanAbsoluteError()
    metric.update_state([[1.0]], [[4.0]])
    model = line()
    Evaluation(model, SPREAD, metric)(values(model, [[0.0]], [0.0]))
    assert float(metric.result()) == 3.0


def test_the_model_is_put_back_after_an_exception():
    model = trained()
    before = state(model)
    with pytest.raises(ZeroDivisionError), Evaluation(model, (X3, np.zeros(4))) as evaluation:
        evaluation(as_values(model, [w + 1 for w in model.get_weights()]))
        raise ZeroDivisionError
    assert same(before, state(model))


def test_recomputed_statistics_are_the_mean_of_the_batches_and_nothing_else_changes():
    model = keras.Sequential(
        [keras.Input((1,)), L.BatchNormalization(epsilon=0.0, momentum=0.9), L.Dropout(0.5)]
    )
    gamma, beta, mean, variance = [1.0], [0.0], [100.0], [4.0]
    given = as_values(model, [np.array(v, np.float32) for v in (gamma, beta, mean, variance)])
    x = np.array([0.0, 2, 10, 16, 7])[:, None]  # batches of two: means 1 13 7, variances 1 9 0
    seed = weights.all_variables(model).keys() - weights.all_weights(model).keys()
    (dropout,) = (weights.all_variables(model)[p] for p in seed)
    before = dropout.numpy().tolist()
    seen = {}
    for how in ("interpolate", "recompute"):
        evaluation = Evaluation(model, (x, x), lambda y, p: p[:, 0], 2, how)
        with evaluation:
            seen[how] = evaluation(given)["data"]
            layer = model.layers[0]
            seen[how, "kept"] = float(layer.moving_mean[0]), float(layer.moving_variance[0])
            assert dropout.numpy().tolist() == before
    assert seen["interpolate"] == (7 - 100) / 2 and seen["interpolate", "kept"] == (100, 4)
    assert seen["recompute", "kept"] == pytest.approx((7, (2 * 1 + 2 * 9 + 0) / 5))
    assert seen["recompute"] == pytest.approx(0, abs=1e-6)
    assert model.layers[0].momentum == 0.9


def test_statistics_are_recomputed_on_the_training_data_or_on_those_named():
    model = keras.Sequential([keras.Input((1,)), L.BatchNormalization(epsilon=0.0)])
    train, test = np.array([[0.0], [2.0]]), np.array([[4.0], [6.0]])
    as_it_is = weights.read(weights.all_weights(model))
    data = {"test": (test, test), "train": (train, train)}
    first = Evaluation(model, data, lambda y, p: p, 9, "recompute")(as_it_is)
    assert first == {"test": 4.0, "train": 0.0}
    other = Evaluation(model, data, lambda y, p: p, 9, "recompute", (test, test))(as_it_is)
    assert other == {"test": 0.0, "train": -4.0}
    with pytest.raises(ValueError, match="recompute_on"):
        Evaluation(model, {"a": (test, test), "b": (test, test)}, "mse", 9, "recompute")


@pytest.mark.parametrize("build", [zoo.subclassed, zoo.shared, zoo.conv])
def test_every_kind_of_model_is_measured_under_masks_as_keras_measures_it(build):
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 8, 8, 1)), rng.integers(0, 3, 7)
    shapes = {p: tuple(v.shape) for p, v in weights.prunable(model).items()}
    masks = {p: rng.random(s) < 0.5 for p, s in shapes.items()}
    kl.enforce(model, masks)
    _, accuracy = model.evaluate(x, y, verbose=0)
    other = {p: v * 0.9 for p, v in weights.read(weights.all_weights(model)).items()}
    evaluation = Evaluation(model, (x, y), batch_size=4)
    evaluation(other)
    assert evaluation()["data"] == pytest.approx(1 - accuracy)
    for path, mask in kl.enforcement.enforced_masks(model).items():
        assert np.array_equal(mask, masks[path])
        assert not weights.all_weights(model)[path].numpy()[~mask].any()


def test_a_model_made_under_a_strategy_is_measured():
    with zoo.two_devices().scope():
        model = keras.Sequential([keras.Input((1,)), L.BatchNormalization(epsilon=0.0)])
    before = [w.tolist() for w in model.get_weights()]
    moved = as_values(model, [np.array([v]) for v in (2.0, 1.0, 0.0, 1.0)])
    data = (np.array([[0.0], [2.0]]), np.zeros(2))
    assert Evaluation(model, data, lambda y, p: p)(moved) == {"data": 3.0}
    recomputed = Evaluation(model, data, lambda y, p: p, batchnorm="recompute")
    assert recomputed(moved) == {"data": 1.0}
    assert [w.tolist() for w in model.get_weights()] == before


def test_a_model_that_runs_eagerly_is_never_traced():
    model = line(loss="mse", run_eagerly=True)
    evaluation = Evaluation(model, SPREAD, "loss", 2)
    assert evaluation(values(model, [[1.0]], [0.0])) == {"data": 20.0}
    assert evaluation.traces == 0


def two_outputs():
    x = keras.Input((1,))
    model = keras.Model(x, [L.Dense(1, name="a")(x), L.Dense(1, name="b")(x)])
    model.compile("sgd", ["mse", "mae"], metrics=[["mae"], []])
    return model


def test_several_outputs_are_measured_by_the_loss_or_a_function_and_else_refused():
    model, x = two_outputs(), np.ones((3, 1))
    data = (x, (x, 2 * x))
    expected = model.evaluate(x, [x, 2 * x], verbose=0)[0]
    before = state(model)
    assert Evaluation(model, data, "loss")()["data"] == pytest.approx(expected)
    assert same(before, state(model))
    ours = Evaluation(model, data, lambda y, p: tf.abs(y[1] - p[1])[:, 0])
    zeros = as_values(model, [np.zeros((1, 1)), np.zeros(1)] * 2)
    assert ours(zeros) == {"data": 2.0}
    with pytest.raises(ValueError, match=r"several outputs and labels.*metric='loss'"):
        Evaluation(model, data, "error")()


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ((np.zeros((0, 3)), np.zeros(0)), ValueError, "'data' are empty"),
        (tf.data.Dataset.from_tensor_slices((X3, [0] * 4)).batch(2).take(0), ValueError, "empty"),
        ({}, ValueError, "one part"),
        ((X3, np.zeros(3)), ValueError, r"same length.*\[4, 3\]"),
        ((X3,), ValueError, "a tuple of 1"),
        ((X3, None), ValueError, "Expected labels"),
        (X3, TypeError, "Received: ndarray"),
        ((batch for batch in [(X3, np.zeros(4))]), TypeError, "only once"),
        (tf.data.Dataset.from_tensor_slices((X3, [0] * 4)), ValueError, r"dataset.batch\(256\)"),
        (tf.data.Dataset.from_tensors((X3, [0] * 4)).repeat(), ValueError, "never end"),
        (tf.data.Dataset.from_tensors(X3), ValueError, "Expected batches"),
    ],
)
def test_data_that_cannot_be_measured_are_refused(data, error, message):
    with pytest.raises(error, match=message):
        Evaluation(scores(), data)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("eror", r"'error', 'accuracy', 'loss'.*MeanAbsoluteError.*Received: 'eror'"),
        (7, "Received: 7"),
        (keras.metrics.MeanAbsoluteError, "must be"),
        ("loss", "not compiled"),
    ],
)
def test_an_unknown_metric_is_refused_with_those_that_are_known(metric, message):
    with pytest.raises(ValueError, match=message):
        Evaluation(scores(), (X3, np.zeros(4)), metric)


@pytest.mark.parametrize(
    ("labels", "metric", "message"),
    [
        (np.zeros((4, 2)), "error", r"\('n',\) or one-hot.*\('n', 3\).*Received: float32"),
        (np.array(["a"] * 4), "error", "Received: string"),
        (X3, lambda y, p: tf.reduce_mean(y - p), "a single number"),
        (X3, keras.metrics.F1Score(), "gives several"),
    ],
)
def test_labels_and_values_of_a_wrong_shape_are_refused(labels, metric, message):
    with pytest.raises(ValueError, match=message):
        Evaluation(scores(), (X3, labels), metric)()


def test_other_bad_arguments_are_refused():
    data = (X3, np.zeros(4))
    with pytest.raises(ValueError, match=r"one of \('interpolate', 'recompute'\)"):
        Evaluation(scores(), data, batchnorm="freeze")
    with pytest.raises(ValueError, match="at least 1"):
        Evaluation(scores(), data, batch_size=0)
    with pytest.raises(ValueError, match="not built"):
        Evaluation(keras.Sequential([L.Dense(1)]), data)
    with pytest.raises(ValueError, match="no weight 'elsewhere'"):
        Evaluation(line(), data)({"elsewhere": np.zeros(1)})
