"""What is judged how: labels, thresholds, metrics, states, and data that are no numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from keras_lottery import weights
from keras_lottery.analysis.barrier import error_barrier
from keras_lottery.analysis.evaluating import Evaluation
from keras_lottery.analysis.stability import stability


def mirror(units=1, **compiled):
    """A model whose predictions are its inputs."""
    model = keras.Sequential([keras.Input((units,)), L.Identity()])
    if compiled:
        model.compile(**compiled)
    return model


def column(*values):
    return np.array(values, np.float32)[:, None]


def slope():
    return keras.Sequential([keras.Input((1,)), L.Dense(1, use_bias=False)])


RECURRENT = {
    "rnn": lambda: L.SimpleRNN(4, stateful=True),
    "lstm both ways": lambda: L.Bidirectional(L.LSTM(2, stateful=True)),
    "with statistics": lambda: keras.Sequential([L.GRU(3, stateful=True), L.BatchNormalization()]),
}


@pytest.mark.parametrize("layer", RECURRENT.values(), ids=RECURRENT)
@pytest.mark.parametrize("batchnorm", ["interpolate", "recompute"])
def test_a_recurrent_network_with_states_has_no_barrier_to_itself_and_keeps_its_states(
    layer, batchnorm
):
    model = keras.Sequential([keras.Input(batch_shape=(2, 3, 2)), layer()])
    x = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    y = np.zeros((4, 1), np.float32)
    rnn = [a for a in weights.sublayers(model) if isinstance(a, L.RNN)]
    model(x[:2])
    before = [np.array(s) for a in rnn for s in a.states]
    assert any(s.any() for s in before)
    model.compile(loss="mse")
    data = {"train": (x, y), "again": (x, y)}
    found = error_barrier(model, model, model, data, 3, batchnorm, "mse", batch_size=2)
    assert found.heights == {"train": 0.0, "again": 0.0}
    assert found.values["train"].tolist() == found.values["again"].tolist()
    after = [np.array(s) for a in rnn for s in a.states]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def my_accuracy(y, prediction):
    return keras.metrics.binary_accuracy(y, prediction)


def distance(y, prediction):
    return tf.abs(y - prediction)[:, 0]


class Hits(keras.metrics.BinaryAccuracy):
    pass


class Own(keras.metrics.Metric):
    pass


@pytest.mark.parametrize(
    ("metric", "larger"),
    [
        ("accuracy", True),
        ("error", False),
        ("binary_accuracy", True),
        ("mse", False),
        (keras.metrics.sparse_categorical_accuracy, True),
        (my_accuracy, True),
        (distance, False),
        (Hits(), True),
        (keras.metrics.MeanMetricWrapper(keras.metrics.binary_accuracy), True),
        (keras.metrics.MeanMetricWrapper(distance), False),
        (keras.metrics.MeanMetricWrapper(lambda y, p: y), False),
        (keras.metrics.MeanMetricWrapper(distance, name="my_accuracy"), True),
        (keras.metrics.AUC(), True),
        (keras.metrics.MeanSquaredError(), False),
        (keras.metrics.FalsePositives(), False),
        (keras.losses.MeanSquaredError(), False),
        (Own(name="own"), False),
    ],
)
def test_whether_a_large_value_is_good_is_known_by_class_or_name_and_can_be_said(metric, larger):
    data = (column(0, 1), column(0, 1))
    assert Evaluation(mirror(), data, metric).larger_is_better is larger
    said = Evaluation(mirror(), data, metric, larger_is_better=not larger)
    assert said.larger_is_better is not larger


def test_what_is_said_of_the_metric_decides_on_barrier_or_valley():
    ends = [np.array([[1.0]])], [np.array([[-1.0]])]
    data, seen = (column(1), column(0)), {}
    for larger in (None, True, False):
        metric = lambda y, p: 1 - tf.abs(p)[:, 0]  # noqa: E731
        found = error_barrier(slope(), *ends, data, 3, metric=metric, larger_is_better=larger)
        evaluation = Evaluation(slope(), data, metric, larger_is_better=larger)
        again = error_barrier(evaluation.model, *ends, points=3, evaluation=evaluation)
        assert again.larger_is_better == found.larger_is_better == bool(larger)
        seen[larger] = found.heights["data"]
    assert seen == {None: 1.0, True: 0.0, False: 1.0}


LOGITS = keras.losses.BinaryCrossentropy(from_logits=True)


class OwnHinge(keras.losses.Hinge):
    pass


@pytest.mark.parametrize(
    "loss",
    [
        *(LOGITS, [LOGITS], "hinge", ["squared_hinge"], "SquaredHinge", keras.losses.Hinge()),
        *(keras.losses.SquaredHinge, keras.losses.hinge, OwnHinge()),
    ],
)
def test_a_single_output_is_judged_at_zero_however_its_loss_is_given(loss):
    data = (column(0.2, 0.9, -0.1, 0.4), column(1, 1, 0, 1))
    assert Evaluation(mirror(loss=loss), data)() == {"data": 0.0}


@pytest.mark.parametrize("loss", ["mse", ["mse"], keras.losses.BinaryCrossentropy()])
def test_a_single_output_of_another_loss_is_judged_at_a_half(loss):
    data = (column(0.2, 0.9, -0.1, 0.4), column(0, 1, 0, 0))
    assert Evaluation(mirror(loss=loss), data)() == {"data": 0.0}


def test_labels_of_minus_one_and_one_are_judged_under_a_hinge_loss():
    x = column(0.3, -0.2, 0.7, -0.9)
    assert Evaluation(mirror(loss="hinge"), (x, np.sign(x)))() == {"data": 0.0}
    assert Evaluation(mirror(loss="hinge"), (x, np.sign(x)[::-1, 0]), "accuracy")() == {"data": 0.0}


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            column(0.3, -0.2),
            [1, -1],
            "2 classes, from 0 to 1. Received: labels from -1 to 1.*hinge",
        ),
        (column(0.3, -0.2), [[1], [2]], "from 1 to 2"),
        (np.eye(2), [5, 6], "2 classes, from 0 to 1. Received: labels from 5 to 6"),
        (np.eye(2), [[0.0], [2.0]], "from 0 to 2"),
        (np.eye(3)[:2], [0, -1], "3 classes, from 0 to 2. Received: labels from -1 to 0"),
    ],
)
def test_labels_outside_the_classes_are_refused_wherever_they_are(x, y, message):
    model = mirror(np.shape(x)[1])
    fine = (np.concatenate([x, x]), np.concatenate([np.zeros_like(y), y]))
    for data in ((x, np.array(y)), fine, {"a": (x, np.zeros_like(y)), "b": (x, np.array(y))}):
        with pytest.raises(ValueError, match=message):
            Evaluation(model, data, batch_size=2)()


def test_labels_that_weigh_nothing_may_be_outside_the_classes():
    model, y = mirror(2), np.array([0, 1, 9])
    x = np.eye(2)[[0, 1, 1]]
    for weight in (np.array([1.0, 1, 0]), np.array([[1.0], [1], [0]])):
        assert Evaluation(model, (x, y, weight))() == {"data": 0.0}
    words = keras.Sequential([keras.Input((3, 2)), L.Identity()])
    data = (np.stack([x, x]), np.array([[0, 1, -1], [-1, -1, -1]]))
    each = np.array([[1.0, 1, 0], [0, 0, 0]])
    assert Evaluation(words, (*data, each))() == {"data": 0.0}
    with pytest.raises(ValueError, match="from -1 to 1"):
        Evaluation(words, (*data, np.array([1.0, 0])))()


BAD = column(1, np.nan), column(1, np.inf)
GOOD = column(1, 0)


@pytest.mark.parametrize("bad", BAD, ids=["nan", "inf"])
@pytest.mark.parametrize(
    ("place", "data"),
    [
        ("x", lambda bad: (bad, GOOD)),
        ("y", lambda bad: (GOOD, bad)),
        ("sample_weight", lambda bad: (GOOD, GOOD, bad)),
    ],
)
def test_data_that_are_not_finite_are_refused_by_part_and_place(bad, place, data):
    message = f"finite data in 'test'.*its {place}"
    fine, given = (GOOD, GOOD, GOOD), data(bad)
    with pytest.raises(ValueError, match=message):
        Evaluation(mirror(), {"train": fine, "test": given}, "mse")
    late = tf.data.Dataset.from_tensor_slices(given).batch(1)
    evaluation = Evaluation(mirror(), {"train": fine, "test": late}, "mse")
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            evaluation()


@pytest.mark.parametrize("size", [2.5, "2", None, True])
def test_a_batch_size_that_is_no_integer_is_refused(size):
    with pytest.raises(ValueError, match="`batch_size` must be an integer"):
        Evaluation(mirror(), (GOOD, GOOD), batch_size=size)


def test_what_is_no_model_is_told():
    with pytest.raises(TypeError, match=r"must be a Keras model\. Received: 'x'"):
        Evaluation("x", (GOOD, GOOD))
    with pytest.raises(TypeError, match=r"must be a Keras model\. Received: 'x'"):
        error_barrier("x", [], [], (GOOD, GOOD))


def test_recomputing_statistics_costs_two_traces_more_and_no_more_for_more_points():
    model = keras.Sequential([keras.Input((1,)), L.BatchNormalization(), L.Dense(1)])
    data = {"train": (column(*range(5)),) * 2, "test": (column(*range(4)),) * 2}
    evaluation = Evaluation(model, data, "mse", batch_size=2, batchnorm="recompute")
    traces = []
    error_barrier(
        *(model, model, model),
        evaluation=evaluation,
        points=4,
        on_point=lambda i, measured: traces.append(evaluation.traces),
    )
    assert traces == [4, 4, 4, 4]  # two sizes of batches for each of the two steps


def test_what_is_said_of_the_metric_holds_between_trained_copies():
    def build(seed):
        model = slope()
        model.compile("sgd", "mse")
        return model

    def train(model, first, last, seed):
        for _ in range(first, 2 if last is None else last):
            model.train_on_batch(column(seed % 7), column(1))

    found = stability(
        *(build, train),
        data=(column(1, 2), column(1, 2)),
        replicates=1,
        points=2,
        metric=distance,
        verbose=0,
        larger_is_better=True,
    )
    assert [c.barrier.larger_is_better for c in found.comparisons] == [True]
