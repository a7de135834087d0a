"""Training starts where it says: rewinding restores all that training changes, bit for bit."""

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_lottery as kl
from keras_lottery.rewinding import Snapshot

PER_EPOCH, EPOCHS, TOTAL = 4, 3, 12  # steps an epoch, epochs a round, steps a round


def problem(n=32):
    rng = np.random.default_rng(3)
    return rng.normal(size=(n, 4)).astype("float32"), rng.integers(0, 3, n)


def network(optimizer="adam", **compile_options):
    """Everything that training changes: weights, statistics, seeds, slots, steps, rate."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            L.Dense(8, use_bias=False),
            L.BatchNormalization(),
            L.ReLU(),
            L.Dropout(0.2),
            L.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **compile_options)
    return model


def state(model):
    """Every variable of the model, its weights first, and of its optimizer."""
    ids = {id(v) for v in model.weights}
    others = [v for v in model.variables if id(v) not in ids]
    return [v.numpy() for v in [*model.weights, *others, *model.optimizer.variables]]


def masked(values, masks):
    """The values, 0 where pruned; a kernel and its slots are known by their shape."""
    by_shape = {m.shape: m for m in masks.values()}
    return [np.where(by_shape.get(v.shape, True), v, np.zeros_like(v)) for v in values]


def assert_same(values, expected):
    assert len(values) == len(expected)
    for value, other in zip(values, expected, strict=True):
        np.testing.assert_array_equal(value, other)


class Recorder(keras.callbacks.Callback):
    """The state before the first batch of each round, and after every batch of round 0."""

    def __init__(self, lottery):
        super().__init__()
        self.lottery = lottery
        self.first, self.last, self.batches = {}, {}, {}
        self.rate, self.at_step = {}, {}

    def on_train_batch_begin(self, batch, logs=None):
        r = self.lottery.round
        self.batches[r] = self.batches.get(r, 0) + 1
        if r not in self.first:
            self.first[r] = state(self.model)
            self.rate[r] = float(self.model.optimizer.learning_rate)
            if r == 0:
                self.at_step[0] = state(self.model)

    def on_train_batch_end(self, batch, logs=None):
        self.last[self.lottery.round] = state(self.model)
        if self.lottery.round == 0:
            self.at_step.setdefault(int(self.model.optimizer.iterations), state(self.model))


def search(model, rounds=3, data=None, fit=None, **options):
    """A search inside `fit`; the lottery and what the recorder saw."""
    lottery = kl.LotteryCallback(EPOCHS, 0.5, rounds=rounds, verbose=0, **options)
    recorder = Recorder(lottery)
    x, y = data or problem()
    fit = {"batch_size": 8, **(fit or {})}
    model.fit(x, y, epochs=EPOCHS * rounds, verbose=0, callbacks=[lottery, recorder], **fit)
    return lottery, recorder


# Snapshot ---------------------------------------------------------------------------------


def test_a_snapshot_is_a_copy_that_training_does_not_change():
    model = network()
    model.layers[0].kernel.assign(np.full((4, 8), 2.0))
    start = Snapshot.take(model)
    model.fit(*problem(), batch_size=8, epochs=1, verbose=0)
    assert (start.variables[model.layers[0].kernel.path] == 2.0).all()


def test_restoring_brings_back_every_variable_of_model_and_optimizer():
    model = network()
    model.fit(*problem(), batch_size=8, epochs=1, verbose=0)
    before, start = state(model), Snapshot.take(model, step=4)
    model.optimizer.learning_rate = 0.5
    model.fit(*problem(), batch_size=8, epochs=1, verbose=0)
    changed = [not np.array_equal(a, b) for a, b in zip(before, state(model), strict=True)]
    assert sum(changed) >= 10
    start.restore(model)
    assert_same(state(model), before)
    assert start.step == 4


def test_only_the_optimizer_goes_back_when_weights_stay():
    model = network()
    start = Snapshot.take(model)
    model.fit(*problem(), batch_size=8, epochs=1, verbose=0)
    trained = [v.numpy() for v in model.variables]
    start.restore_optimizer(model)
    assert_same([v.numpy() for v in model.variables], trained)


def test_only_weights_go_back_when_the_optimizer_stays():
    model = network()
    model.fit(*problem(), batch_size=8, epochs=1, verbose=0)
    start = Snapshot.take(model)
    model.fit(*problem(), batch_size=8, epochs=1, verbose=0)
    optimizer = [v.numpy() for v in model.optimizer.variables]
    start.restore_weights(model)
    assert_same([v.numpy() for v in model.optimizer.variables], optimizer)
    assert_same([v.numpy() for v in model.variables], list(start.variables.values()))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_masks_zero_weights_and_slots_on_the_way_back(dtype):
    keras.config.set_dtype_policy(dtype)
    model = keras.Sequential([keras.Input((2,)), L.Dense(2, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    kernel, slot = model.layers[0].kernel, model.optimizer.variables[-1]
    kernel.assign([[1.0, -2.0], [-3.0, 4.0]])
    slot.assign([[-5.0, 6.0], [7.0, -8.0]])
    start = Snapshot.take(model)
    start.restore(model, {kernel.path: np.array([[True, False], [False, True]])})
    assert np.asarray(kernel.numpy(), "float32").tolist() == [[1.0, 0.0], [0.0, 4.0]]
    assert np.asarray(slot.numpy(), "float32").tolist() == [[-5.0, 0.0], [0.0, -8.0]]


def test_an_optimizer_of_another_kind_is_refused_by_name():
    model = network("adam")
    model.fit(*problem(), batch_size=8, epochs=1, verbose=0)
    start = Snapshot.take(model)
    model.compile(keras.optimizers.SGD(0.1, name="other_sgd"), "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match=r"other_sgd.*other variables"):
        start.restore_optimizer(model)


# To step k --------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 1, 4, 6, 11])
def test_a_round_restarts_from_exactly_step_k_of_the_dense_run_and_trains_the_rest(k):
    model = network("adam")
    lottery, seen = search(model, rewind_steps=k)
    dense = seen.at_step[k]
    for r in (1, 2):
        assert_same(seen.first[r], masked(dense, lottery.ticket(r).masks))
        assert seen.batches[r] == TOTAL - k
    assert seen.batches[0] == TOTAL
    assert [r.steps for r in lottery.rounds] == [TOTAL, TOTAL - k, TOTAL - k]
    assert int(model.optimizer.iterations) == TOTAL
    assert [r.density for r in lottery.rounds] == [1.0, 28 / 56, 14 / 56]


@pytest.mark.parametrize(("k", "epochs_a_round"), [(3, 3), (4, 2), (8, 1)])
def test_epochs_before_the_rewind_point_are_left_out(k, epochs_a_round):
    lottery, _ = search(model := network("sgd"), rewind_steps=k)
    assert model.history.history["round"] == [0] * 3 + [1] * epochs_a_round + [2] * epochs_a_round
    assert len(lottery.rounds) == 3


def test_the_ticket_holds_the_weights_of_step_k_times_the_mask():
    lottery, seen = search(network(), rewind_steps=6)
    for r in range(3):
        ticket = lottery.ticket(r)
        # kernel, gamma, beta, mean, variance, kernel, bias
        assert_same(list(ticket.weights.values()), masked(seen.at_step[6], ticket.masks)[:7])


@pytest.mark.parametrize(("k", "n"), [(6, 2), (8, 4)])
def test_with_steps_per_execution_a_multiple_of_it_is_exact(k, n):
    plain_model, model = network("adam"), network("adam", steps_per_execution=n)
    model.set_weights(plain_model.get_weights())
    for one in (plain_model, model):  # the same dropout in both
        one.layers[3].seed_generator.state.assign([1, 2])
    fit = {"shuffle": False}
    plain, _ = search(plain_model, rewind_steps=k, fit=fit)
    lottery, seen = search(model, rewind_steps=k, fit=fit)
    assert [r.steps for r in lottery.rounds] == [TOTAL, TOTAL - k, TOTAL - k]
    assert_same(seen.first[1], masked(seen.at_step[k], lottery.ticket(1).masks))
    for r in range(3):
        assert_same(list(lottery.ticket(r).masks.values()), list(plain.ticket(r).masks.values()))
    for value, other in zip(model.get_weights(), plain_model.get_weights(), strict=True):
        np.testing.assert_allclose(value, other, atol=1e-6)


@pytest.mark.parametrize(("k", "n"), [(3, 2), (1, 4), (6, 4)])
def test_with_steps_per_execution_other_steps_are_an_error_that_says_so(k, n):
    model = network(steps_per_execution=n)
    before = model.get_weights()
    with pytest.raises(ValueError, match=rf"rewind_steps={k}.*multiple.*steps_per_execution={n}"):
        search(model, rewind_steps=k)
    assert_same(model.get_weights(), before)


@pytest.mark.parametrize("k", [1, 2])
def test_gradient_accumulation_counts_optimizer_steps(k):
    """Two micro-batches a step: 2 steps an epoch, 6 a round."""
    model = network(keras.optimizers.Adam(0.01, gradient_accumulation_steps=2))
    lottery, seen = search(model, rewind_steps=k)
    assert [r.steps for r in lottery.rounds] == [6, 6 - k, 6 - k]
    assert seen.batches == {0: 12, 1: 12 - 2 * k, 2: 12 - 2 * k}
    assert_same(seen.first[1], masked(seen.at_step[k], lottery.ticket(1).masks))


@pytest.mark.parametrize("k", [1, 3])
def test_gradient_accumulation_over_epoch_ends_still_trains_the_rest(k):
    """5 micro-batches an epoch, 2 a step: 15 micro-batches a round make 7 steps."""
    model = network(keras.optimizers.SGD(0.01, gradient_accumulation_steps=2))
    lottery, seen = search(model, rounds=2, rewind_steps=k, data=problem(40))
    assert [r.steps for r in lottery.rounds] == [7, 7 - k]
    assert_same(seen.first[1], masked(seen.at_step[k], lottery.ticket(1).masks))


@pytest.mark.parametrize("k", [6])
def test_mixed_precision_rewinds_the_loss_scale_too(k):
    keras.config.set_dtype_policy("mixed_float16")
    model = network(keras.optimizers.Adam(0.01))
    model.optimizer.initial_scale = 4.0
    model.optimizer.dynamic_growth_steps = 3
    lottery, seen = search(model, rewind_steps=k)
    assert_same(seen.first[1], masked(seen.at_step[k], lottery.ticket(1).masks))
    assert [r.steps for r in lottery.rounds] == [TOTAL, TOTAL - k, TOTAL - k]
    scales = [float(v[()]) for v in seen.at_step[TOTAL] if v.shape == () and v.dtype == "float32"]
    assert 4.0 * 2**4 in scales  # it grew four times, so going back was a change


def generator(x, y):
    while True:
        for i in range(0, len(x), 8):
            yield x[i : i + 8], y[i : i + 8]


@pytest.mark.parametrize("k", [3, 6])
def test_a_generator_trains_exactly_the_rest_of_the_steps(k):
    lottery = kl.LotteryCallback(EPOCHS, 0.5, rounds=3, rewind_steps=k, verbose=0)
    recorder = Recorder(lottery)
    fit = {"steps_per_epoch": PER_EPOCH, "epochs": 9, "verbose": 0, "shuffle": False}
    network().fit(generator(*problem()), callbacks=[lottery, recorder], **fit)
    assert recorder.batches == {0: TOTAL, 1: TOTAL - k, 2: TOTAL - k}
    assert_same(recorder.first[2], masked(recorder.at_step[k], lottery.ticket(2).masks))


class Batches(keras.utils.PyDataset):
    def __init__(self):
        super().__init__()
        self.x, self.y = problem()

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return self.x[8 * i : 8 * i + 8], self.y[8 * i : 8 * i + 8]


@pytest.mark.parametrize("k", [4, 8])  # Keras cannot leave a PyDataset inside an epoch
def test_a_pydataset_trains_exactly_the_rest_of_the_steps(k):
    lottery = kl.LotteryCallback(EPOCHS, 0.5, rounds=3, rewind_steps=k, verbose=0)
    recorder = Recorder(lottery)
    network().fit(Batches(), epochs=9, verbose=0, callbacks=[lottery, recorder])
    assert recorder.batches == {0: TOTAL, 1: TOTAL - k, 2: TOTAL - k}
    assert_same(recorder.first[2], masked(recorder.at_step[k], lottery.ticket(2).masks))


def test_a_dataset_of_unknown_length_trains_exactly_the_rest_of_the_steps():
    import tensorflow as tf

    x, y = problem()
    data = tf.data.Dataset.from_tensor_slices((x, y)).filter(lambda a, b: True).batch(8)
    lottery = kl.LotteryCallback(EPOCHS, 0.5, rounds=3, rewind_steps=6, verbose=0)
    recorder = Recorder(lottery)
    with pytest.warns(UserWarning, match="ran out of data"):  # Keras, at the first epoch's end
        network().fit(data, epochs=9, verbose=0, shuffle=False, callbacks=[lottery, recorder])
    # Keras counts a step more an epoch here: the one that finds the dataset at its end.
    total = lottery.rounds[0].steps
    assert [r.steps for r in lottery.rounds] == [total, total - 6, total - 6]
    assert len(lottery.rounds) == 3
    assert_same(recorder.first[2], masked(recorder.at_step[6], lottery.ticket(2).masks))


class OwnMetric(keras.Model):
    """A train_step of one's own with a metric that the model holds as an attribute."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(3)
        self.mean_step = keras.metrics.Mean(name="mean_step")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)

    @property
    def metrics(self):
        return [self.mean_step]

    def train_step(self, data):
        logs = super().train_step(data)
        self.mean_step.update_state(self.optimizer.iterations)
        return {"mean_step": self.mean_step.result(), **logs}


def test_a_rewound_epochs_metrics_are_of_its_own_steps_only():
    """Steps 4 alone, then 5 to 8: nothing of the first round's steps 1 to 3 is left."""
    model = OwnMetric()
    model.build((None, 4))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    lottery = kl.LotteryCallback(2, 0.5, rounds=2, rewind_steps=3, verbose=0)
    history = model.fit(*problem(), 8, epochs=4, verbose=0, callbacks=[lottery])
    assert history.history["mean_step"] == [2.5, 6.5, 4.0, 6.5]


class LateMetric(OwnMetric):
    """The metric makes its state in its first update."""

    def __init__(self):
        super().__init__()
        self.f1 = keras.metrics.F1Score(average="macro")

    @property
    def metrics(self):
        return [self.mean_step, self.f1]

    def train_step(self, data):
        self.f1.update_state(keras.ops.one_hot(data[1], 3), self(data[0]))
        return super().train_step(data)


def test_state_that_appears_during_training_does_not_disturb_rewinding():
    model = LateMetric()
    model.build((None, 4))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    lottery = kl.LotteryCallback(2, 0.5, rounds=2, verbose=0)
    history = model.fit(*problem(), 8, epochs=4, verbose=0, callbacks=[lottery])
    assert history.history["mean_step"] == [2.5, 6.5, 2.5, 6.5]


# Learning rate and none -------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 6])
def test_learning_rate_rewinding_keeps_weights_and_sets_the_schedule_back(k):
    decay = keras.optimizers.schedules.CosineDecay(0.05, TOTAL)
    model = network(keras.optimizers.SGD(decay, momentum=0.9))
    n = len(model.variables)
    lottery, seen = search(model, rewind="learning_rate", rewind_steps=k)
    for r in (1, 2):
        masks = lottery.ticket(r).masks
        assert_same(seen.first[r][:n], masked(seen.last[r - 1], masks)[:n])
        assert_same(seen.first[r][n:], masked(seen.at_step[k], masks)[n:])
        assert seen.rate[r] == pytest.approx(float(decay(k)), rel=1e-6)
    assert [r.steps for r in lottery.rounds] == [TOTAL, TOTAL - k, TOTAL - k]


class HalveEachEpoch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch % EPOCHS:
            self.model.optimizer.learning_rate.assign(self.model.optimizer.learning_rate * 0.5)


@pytest.mark.parametrize(("k", "rate"), [(0, 0.5), (3, 0.5), (4, 0.5), (6, 0.25)])
@pytest.mark.parametrize("rewind", ["weights", "learning_rate"])
def test_a_learning_rate_that_a_callback_changed_goes_back(rewind, k, rate):
    model = network(keras.optimizers.SGD(0.5))
    lottery = kl.LotteryCallback(EPOCHS, 0.5, rounds=2, rewind=rewind, rewind_steps=k, verbose=0)
    recorder = Recorder(lottery)
    x, y = problem()
    model.fit(x, y, 8, epochs=6, verbose=0, callbacks=[lottery, HalveEachEpoch(), recorder])
    assert recorder.rate == {0: 0.5, 1: rate}


def test_tickets_of_learning_rate_rewinding_hold_what_each_round_started_from():
    lottery, seen = search(network(), rewind="learning_rate", rewind_steps=3)
    for r in range(3):
        ticket = lottery.ticket(r)
        assert_same(list(ticket.weights.values()), seen.first[r][: len(ticket.weights)])


def test_nothing_goes_back_with_none():
    model = network("adam")
    lottery, seen = search(model, rewind="none")
    for r in (1, 2):
        ticket = lottery.ticket(r)
        assert_same(seen.first[r], masked(seen.last[r - 1], ticket.masks))
        assert_same(list(ticket.weights.values()), seen.first[r][: len(ticket.weights)])
    assert int(model.optimizer.iterations) == 3 * TOTAL
    assert [r.steps for r in lottery.rounds] == [TOTAL] * 3
