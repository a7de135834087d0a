"""Training a smaller copy is training the masked model: `find_ticket(compact=True)`."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_lottery as kl
from keras_lottery.loop import train_ticket
from keras_lottery.smaller import SmallerModel, WholeModelError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 8, 8, 2)).astype("float32")
Y = (X.sum((1, 2, 3)) > 0).astype("int32")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def dense(**first):
    return [
        L.Flatten(),
        L.Dense(16, "relu", **first),
        L.BatchNormalization(),
        L.Dense(8, "relu"),
        L.Dense(2),
    ]


def sequential(**first):
    return keras.Sequential([keras.Input((8, 8, 2)), *dense(**first)])


def convolutional():
    inputs = keras.Input((8, 8, 2))
    x = L.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = L.Add()([x, L.Conv2D(8, 3, padding="same", activation="relu")(x)])
    x = L.SeparableConv2D(8, 3, activation="relu")(x)
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x)))


def search(build, optimizer, compact, inside=False, loss=LOSS, rounds=5, **options):
    """The search, and how many parameters each round's `train` was given."""
    keras.utils.set_random_seed(0)
    model = build()
    if not inside:
        model.compile(optimizer(), loss)
    sizes = []

    def train(model, callbacks):
        sizes.append(model.count_params())
        if inside:
            model.compile(optimizer(), loss)
        return model.fit(X, Y, 32, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)

    options = {"scope": "layerwise", "prune_fraction": 0.6, "verbose": 0} | options
    return kl.find_ticket(model, train, rounds, compact=compact, **options), sizes


def weights(model):
    """All weights but BatchNorm statistics, which a unit without readers still has."""
    return [v.numpy() for v in model.trainable_variables]


def test_a_unit_that_nothing_reads_is_left_out_and_stays_as_it_was():
    model = keras.Sequential([keras.Input((1,)), L.Dense(3, use_bias=False), L.Dense(1)])
    model.layers[0].kernel.assign([[1.0, 2.0, 3.0]])
    model.layers[1].kernel.assign([[4.0], [0.0], [5.0]])
    path = model.layers[1].kernel.path
    smaller = SmallerModel(model, {path: np.array([[True], [False], [True]])})
    assert smaller.model.layers[0].kernel.numpy().tolist() == [[1.0, 3.0]]
    smaller.model.layers[0].kernel.assign([[10.0, 30.0]])
    smaller.model.layers[1].kernel.assign([[40.0], [50.0]])
    smaller.write_back()
    assert model.layers[0].kernel.numpy().tolist() == [[10.0, 2.0, 30.0]]
    assert model.layers[1].kernel.numpy().tolist() == [[40.0], [0.0], [50.0]]
    assert smaller.share == pytest.approx(5 / 7)


def test_a_unit_that_nothing_feeds_still_trains_its_bias_and_stays():
    model = keras.Sequential([keras.Input((1,)), L.Dense(3), L.Dense(1)])
    masks = {model.layers[0].kernel.path: np.array([[True, False, True]])}
    assert SmallerModel(model, masks).share == 1


def test_masks_of_the_smaller_model_are_enforced_while_it_trains():
    model = keras.Sequential([keras.Input((2,)), L.Dense(3), L.Dense(1)])
    model.compile("sgd", "mse")
    first, second = (layer.kernel.path for layer in model.layers)
    masks = {
        first: np.array([[True, True, True], [True, True, False]]),
        second: np.array([[True], [False], [True]]),
    }
    smaller = SmallerModel(model, masks)
    smaller.model.fit(np.ones((8, 2)), np.ones(8), verbose=0)
    kernel = smaller.model.layers[0].kernel.numpy()
    assert kernel.shape == (2, 2)
    assert (kernel == 0).tolist() == [[False, False], [False, True]]


@pytest.mark.parametrize("inside", [False, True], ids=["compiled_before", "compiled_in_train"])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.Adam(1e-3),
        lambda: keras.optimizers.Adam(1e-3, global_clipnorm=0.1),
    ],
    ids=["momentum", "adam", "clipped_adam"],
)
@pytest.mark.parametrize("build", [sequential, convolutional])
def test_a_compact_search_finds_the_same_tickets(build, optimizer, inside):
    whole, _ = search(build, optimizer, compact=False, inside=inside)
    small, sizes = search(build, optimizer, compact=True, inside=inside)
    assert sizes[-1] < sizes[0]
    assert [r.trained < 1 for r in small.rounds][-1]
    assert [r.steps for r in small.rounds] == [r.steps for r in whole.rounds]
    for a, b in zip(small.masks.values(), whole.masks.values(), strict=True):
        assert (a == b).all()
    for a, b in zip(weights(small.model), weights(whole.model), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    for a, b in zip(small.rounds, whole.rounds, strict=True):
        assert a.metrics["loss"] == pytest.approx(b.metrics["loss"], rel=1e-4)


def test_round_0_trains_whole_and_trained_is_the_share_of_parameters():
    small, sizes = search(sequential, lambda: keras.optimizers.SGD(0.05), compact=True)
    assert small.rounds[0].trained == 1.0
    assert [r.trained for r in small.rounds] == [n / sizes[0] for n in sizes]


class OwnStep(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.parts = dense()

    def call(self, x):
        for layer in self.parts:
            x = layer(x)
        return x


def subclassed():
    model = Subclassed()
    model(X[:1])
    return model


def own_step():
    inputs = x = keras.Input((8, 8, 2))
    for layer in dense():
        x = layer(x)
    return OwnStep(inputs, x)


def with_dropout():
    return keras.Sequential([keras.Input((8, 8, 2)), *dense()[:2], L.Dropout(0.5), L.Dense(2)])


def my_loss(target, output):
    return LOSS(target, output)


SGD = lambda: keras.optimizers.SGD(0.05)  # noqa: E731
REFUSED = {
    "graph cannot be seen": {"build": subclassed},
    "training step of its own": {"build": own_step},
    "a regularizer or a constraint": {"build": lambda: sequential(kernel_regularizer="l2")},
    "an activity regularizer": {"build": lambda: sequential(activity_regularizer="l2")},
    "other random numbers": {"build": with_dropout},
    "does not treat each weight by itself": {"optimizer": lambda: keras.optimizers.Lamb(1e-3)},
    "weight decay": {"optimizer": lambda: keras.optimizers.AdamW(1e-3)},
    "without a gradient": {"optimizer": lambda: keras.optimizers.SGD(0.05, use_ema=True)},
    "still moves": {
        "optimizer": lambda: keras.optimizers.Adam(1e-3),
        "rewind_steps": 1,
    },
}


@pytest.mark.parametrize("why", REFUSED)
def test_training_that_would_differ_goes_on_whole_and_says_why(why):
    options = {"build": sequential, "optimizer": SGD} | REFUSED[why]
    with pytest.warns(UserWarning, match=why):
        small, sizes = search(**options, compact=True, rounds=4)
    assert set(sizes) == {sizes[0]}
    whole, _ = search(**options, compact=False, rounds=4)
    for a, b in zip(weights(small.model), weights(whole.model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_training_function_that_trains_another_model_is_refused():
    model = sequential()
    model.compile("sgd", LOSS)

    def train(_, callbacks):
        return model.fit(X, Y, 32, verbose=0, callbacks=callbacks)

    with pytest.raises(ValueError, match="the one that `train"):
        kl.find_ticket(
            model, train, 6, compact=True, prune_fraction=0.8, scope="layerwise", verbose=0
        )


def test_a_round_of_a_smaller_copy_that_is_interrupted_leaves_a_search_that_goes_on():
    whole = sequential()
    whole.compile("sgd", LOSS)
    interrupted = []

    def train(model, callbacks):
        history = model.fit(X, Y, 32, verbose=0, callbacks=callbacks)
        if model is not whole and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return history

    with pytest.warns(RuntimeWarning, match="interrupted"):
        found = kl.find_ticket(
            whole, train, 6, compact=True, prune_fraction=0.8, scope="layerwise", verbose=0
        )
    assert interrupted
    assert found.smaller is None
    assert len(train_ticket(found, found.ticket(), train)) == 1


def test_a_custom_loss_function_is_copied_or_refused_but_never_an_error():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small, sizes = search(sequential, SGD, compact=True, loss=my_loss, rounds=4)
    refused = any("compile arguments" in str(w.message) for w in caught)
    assert len(small.rounds) == 4
    assert refused or sizes[-1] < sizes[0]


def test_an_optimizer_of_other_variables_is_refused():
    model = keras.Sequential([keras.Input((1,)), L.Dense(3), L.Dense(1)])
    model.compile("adam", "mse")
    model.fit(np.ones((2, 1)), np.ones(2), verbose=0)
    masks = {model.layers[1].kernel.path: np.array([[True], [True], [True]])}
    smaller = SmallerModel(model, masks)
    smaller.model.compile("sgd", "mse")
    with pytest.raises(WholeModelError, match="other variables"):
        smaller.meet_optimizer()
