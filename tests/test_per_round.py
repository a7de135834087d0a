"""PerRound: another callback with a fresh life in every round."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_lottery as kl

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def problem(n=32):
    rng = np.random.default_rng(3)
    return rng.normal(size=(n, 4)).astype("float32"), rng.integers(0, 3, n)


def network(optimizer="sgd"):
    model = keras.Sequential([keras.Input((4,)), L.Dense(8, "relu"), L.Dense(3)])
    model.compile(optimizer, LOSS)
    return model


def fit(model, callbacks, epochs):
    x, y = problem()
    return model.fit(x, y, 8, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)


def ordered(order, lottery, *per_round):
    return {"before": [*per_round, lottery], "after": [lottery, *per_round]}[order]


both_orders = pytest.mark.parametrize("order", ["before", "after"])


class Spy(keras.callbacks.Callback):
    """Writes down every event."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def on_train_begin(self, logs=None):
        self.log.append("train")

    def on_epoch_begin(self, epoch, logs=None):
        self.log.append(epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.log.append((epoch, logs["round"]))

    def on_train_end(self, logs=None):
        self.log.append(("end", logs["round"]))


class StopWhen(keras.callbacks.Callback):
    """Stops at the end of `epoch`, as it counts epochs."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.model.stop_training = True


class Score(keras.callbacks.Callback):
    """A metric to monitor: the numbers given, by epoch of the whole fit."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = self.scores[epoch]


@both_orders
def test_each_round_gets_a_new_callback_that_counts_epochs_from_zero(order):
    log, made = [], []
    lottery = kl.LotteryCallback(2, 0.5, verbose=0)

    def make():
        made.append(lottery.round)
        return Spy(log)

    fit(network(), ordered(order, lottery, kl.PerRound(lottery, make)), 6)
    assert made == [0, 1, 2]
    one_round = [["train", 0, (0, r), 1, (1, r), ("end", r)] for r in range(3)]
    assert log == list(itertools.chain(*one_round))


@both_orders
def test_after_rewinding_epochs_count_from_the_rewind_points_epoch(order):
    """4 steps an epoch: step 6 lies in epoch 1."""
    log = []
    lottery = kl.LotteryCallback(3, 0.5, rounds=2, rewind_steps=6, verbose=0)
    fit(network(), ordered(order, lottery, kl.PerRound(lottery, lambda: Spy(log))), 6)
    assert [e for e in log if isinstance(e, int)] == [0, 1, 2, 1, 2]


def test_the_callback_is_told_the_epochs_of_a_round():
    seen = []

    class Params(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append((self.params["epochs"], self.params["steps"], self.model))

    lottery, model = kl.LotteryCallback(2, 0.5, verbose=0), network()
    fit(model, [lottery, kl.PerRound(lottery, Params)], 4)
    assert seen == [(2, 4, model)] * 2


@both_orders
def test_a_round_that_stops_early_makes_way_for_the_next_and_the_last_ends_training(order):
    lottery, model = kl.LotteryCallback(5, 0.5, verbose=0), network()
    fit(model, ordered(order, lottery, kl.PerRound(lottery, lambda: StopWhen(1))), 15)
    assert model.history.history["round"] == [0, 0, 1, 1, 2, 2]
    assert [r.density for r in lottery.rounds] == [1.0, 0.5, 0.25]
    assert [r.steps for r in lottery.rounds] == [8, 8, 8]


@both_orders
def test_stopping_in_a_rounds_last_epoch_changes_nothing(order):
    lottery, model = kl.LotteryCallback(2, 0.5, verbose=0), network()
    fit(model, ordered(order, lottery, kl.PerRound(lottery, lambda: StopWhen(1))), 6)
    assert model.history.history["round"] == [0, 0, 1, 1, 2, 2]
    assert [r.steps for r in lottery.rounds] == [8, 8, 8]


def test_only_some_rounds_may_stop_early():
    lottery, model = kl.LotteryCallback(3, 0.5, verbose=0), network()
    stop = kl.PerRound(lottery, lambda: StopWhen(0 if lottery.round == 1 else 9))
    fit(model, [lottery, stop], 9)
    assert model.history.history["round"] == [0, 0, 0, 1, 2, 2, 2]


@both_orders
def test_a_callback_that_stops_between_batches_makes_way_too(order):
    class StopAtBatch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    lottery, model = kl.LotteryCallback(3, 0.5, verbose=0), network()
    fit(model, ordered(order, lottery, kl.PerRound(lottery, StopAtBatch)), 9)
    assert [r.density for r in lottery.rounds] == [1.0, 0.5, 0.25]
    assert [r.steps for r in lottery.rounds] == [2, 2, 2]


@both_orders
@pytest.mark.parametrize("outer_first", [True, False])
def test_an_outer_early_stopping_still_stops_everything(order, outer_first):
    lottery, model = kl.LotteryCallback(3, 0.5, verbose=0), network()
    inner = ordered(order, lottery, kl.PerRound(lottery, lambda: StopWhen(1)))
    outer = [StopWhen(3)]  # the second epoch of round 1, in which the inner one stops too
    fit(model, outer + inner if outer_first else inner + outer, 9)
    assert model.history.history["round"] == [0, 0, 1, 1]
    assert [r.index for r in lottery.rounds] == [0, 1]


@both_orders
def test_early_stopping_forgets_between_rounds(order):
    """Round 0 reaches 1.0; a memory of it would stop the others after their first epoch."""
    scores = [3.0, 1.0, 2.0, 9.0, 8.0, 7.0, 9.0, 9.5]
    lottery, model = kl.LotteryCallback(3, 0.5, verbose=0), network()
    stop = kl.PerRound(lottery, lambda: keras.callbacks.EarlyStopping("score", mode="min"))
    fit(model, [Score(scores), *ordered(order, lottery, stop)], 9)
    assert model.history.history["round"] == [0, 0, 0, 1, 1, 1, 2, 2]


class Weights(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.ends = []

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(self.model.get_weights())


def restore_best():
    return keras.callbacks.EarlyStopping("score", mode="min", patience=9, restore_best_weights=True)


def top(kernels, n):
    """The n largest by magnitude, over all kernels."""
    flat = np.abs(np.concatenate([k.ravel() for k in kernels]))
    return flat >= np.sort(flat)[-n]


@both_orders
@pytest.mark.parametrize("make", [lambda: "sgd", lambda: keras.optimizers.SGD(0.3, use_ema=True)])
def test_restored_best_weights_are_what_is_pruned_and_what_is_left(order, make):
    scores = [1.0, 2.0, 3.0, 2.0, 1.0, 3.0]  # best: epoch 0 of round 0, epoch 1 of round 1
    lottery, model, seen = kl.LotteryCallback(3, 0.5, verbose=0), network(make()), Weights()
    stop = kl.PerRound(lottery, restore_best)
    fit(model, [Score(scores), *ordered(order, lottery, stop), seen], 6)
    masks = np.concatenate([m.ravel() for m in lottery.ticket(1).masks.values()])
    np.testing.assert_array_equal(masks, top(seen.ends[0][::2], 28))
    for value, best in zip(model.get_weights(), seen.ends[4], strict=True):
        np.testing.assert_array_equal(value, best)
    assert sum(int((w == 0).sum()) for w in model.get_weights()[::2]) == 28


@both_orders
def test_a_learning_rate_scheduler_starts_anew_each_round(order):
    seen = []

    def schedule(epoch, rate):
        seen.append(epoch)
        return 0.5 if epoch == 0 else rate * 0.5

    lottery, model = kl.LotteryCallback(3, 0.5, verbose=0), network()
    rate = kl.PerRound(lottery, lambda: keras.callbacks.LearningRateScheduler(schedule))
    fit(model, ordered(order, lottery, rate), 6)
    assert seen == [0, 1, 2, 0, 1, 2]
    rates = [float(r) for r in model.history.history["learning_rate"]]
    assert rates == [0.5, 0.25, 0.125] * 2


@both_orders
@pytest.mark.parametrize(
    ("rewind", "expected"),
    [
        ("weights", [0.5, 0.5, 0.25] * 2),
        ("learning_rate", [0.5, 0.5, 0.25] * 2),
        ("none", [0.5, 0.5, 0.25, 0.125, 0.125, 0.0625]),
    ],
)
def test_reduce_lr_on_plateau_starts_anew_each_round(order, rewind, expected):
    """No score improves on a round's first: each second and third epoch halves the rate."""
    lottery, model = kl.LotteryCallback(3, 0.5, rewind=rewind, verbose=0), network()
    model.optimizer.learning_rate = 0.5
    plateau = kl.PerRound(
        lottery,
        lambda: keras.callbacks.ReduceLROnPlateau("score", 0.5, patience=1, mode="min"),
    )

    class Rate(keras.callbacks.Callback):
        used = []  # noqa: RUF012

        def on_train_batch_begin(self, batch, logs=None):
            if batch == 0:
                self.used.append(float(self.model.optimizer.learning_rate))

    Rate.used = []
    fit(model, [Score([1.0] * 6), *ordered(order, lottery, plateau), Rate()], 6)
    assert Rate.used == expected


@both_orders
def test_model_checkpoint_writes_one_file_a_round(order, tmp_path):
    lottery, model, seen = kl.LotteryCallback(2, 0.5, verbose=0), network(), Weights()

    def save():
        path = tmp_path / f"round_{lottery.round}.weights.h5"
        return keras.callbacks.ModelCheckpoint(
            path, "score", mode="min", save_best_only=True, save_weights_only=True
        )

    scores = [2.0, 1.0, 4.0, 5.0, 7.0, 6.0]  # best: epochs 1, 2, 5
    fit(model, [Score(scores), *ordered(order, lottery, kl.PerRound(lottery, save)), seen], 6)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"round_{r}.weights.h5" for r in range(3)]
    for r, epoch in enumerate((1, 2, 5)):
        other = keras.models.clone_model(model)
        other.load_weights(tmp_path / f"round_{r}.weights.h5")
        for value, expected in zip(other.get_weights(), seen.ends[epoch], strict=True):
            np.testing.assert_array_equal(value, expected)


def test_before_and_after_the_lottery_give_the_same_result():
    results = []
    for order in ("before", "after"):
        keras.utils.set_random_seed(1)
        lottery, model = kl.LotteryCallback(3, 0.5, rewind_steps=5, verbose=0), network("adam")
        per_round = [
            kl.PerRound(lottery, lambda: StopWhen(1)),
            kl.PerRound(
                lottery, lambda: keras.callbacks.LearningRateScheduler(lambda e: 0.1 / (e + 1))
            ),
        ]
        fit(model, ordered(order, lottery, *per_round), 9)
        results.append((model, lottery))
    (a, first), (b, second) = results
    for value, other in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(value, other)
    for r in range(3):
        for m, n in zip(
            first.ticket(r).masks.values(), second.ticket(r).masks.values(), strict=True
        ):
            np.testing.assert_array_equal(m, n)


@both_orders
def test_a_second_fit_lives_anew(order):
    log = []
    lottery, model = kl.LotteryCallback(2, 0.5, verbose=0), network()
    callbacks = ordered(order, lottery, kl.PerRound(lottery, lambda: Spy(log)))
    fit(model, callbacks, 4)
    first = list(log)
    log.clear()
    fit(model, callbacks, 4)
    assert log == first
    assert len(lottery.rounds) == 2


def test_left_out_of_the_next_fit_it_is_not_asked():
    """Also when the fit it was in was broken off."""
    log = []

    class Break(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    lottery, model = kl.LotteryCallback(2, 0.5, verbose=0), network()
    with pytest.raises(KeyboardInterrupt):
        fit(model, [lottery, kl.PerRound(lottery, lambda: Spy(log)), Break()], 4)
    log.clear()
    fit(model, [lottery], 4)
    assert log == []


@both_orders
@pytest.mark.parametrize("layer", [0, 1])
def test_its_training_ends_also_in_a_round_that_goes_nan(order, layer):
    """So that files are closed."""
    log = []
    lottery, model = kl.LotteryCallback(2, 0.5, verbose=0), network()

    class Poison(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                kernel = model.layers[layer].kernel
                kernel.assign(np.full(kernel.shape, np.nan))

    spy = kl.PerRound(lottery, lambda: Spy(log))
    with pytest.warns(RuntimeWarning, match=r"NaN.*round 1.*kept round 0"):
        fit(model, [Poison(), *ordered(order, lottery, spy)], 6)
    assert log.count("train") == 2
    assert [e for e in log if isinstance(e, tuple) and e[0] == "end"] == [("end", 0), ("end", 1)]


@both_orders
def test_stopping_before_the_rewind_point_is_an_error_that_says_so(order):
    lottery, model = kl.LotteryCallback(3, 0.5, rewind_steps=6, verbose=0), network()
    callbacks = ordered(order, lottery, kl.PerRound(lottery, lambda: StopWhen(0)))
    with pytest.raises(ValueError, match=r"step 6, was not reached.*4 steps"):
        fit(model, callbacks, 9)


@both_orders
def test_validation_and_test_events_reach_it(order):
    events = []

    class Tests(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            events.append("begin")

        def on_test_batch_end(self, batch, logs=None):
            events.append(batch)

        def on_test_end(self, logs=None):
            events.append(sorted(logs))

    lottery, model = kl.LotteryCallback(1, 0.5, verbose=0), network()
    x, y = problem()
    model.fit(
        x, y, 8, epochs=2, verbose=0, validation_data=(x, y),
        callbacks=ordered(order, lottery, kl.PerRound(lottery, Tests)),
    )  # fmt: skip
    assert events == ["begin", 0, 1, 2, 3, ["loss"]] * 2
