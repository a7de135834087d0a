"""LotteryCallback: rounds inside one `model.fit`, in every way Keras trains."""

import csv
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import keras_lottery as kl

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def problem(n=32):
    rng = np.random.default_rng(3)
    return rng.normal(size=(n, 4)).astype("float32"), rng.integers(0, 3, n)


def network(optimizer="adam", **compile_options):
    """56 prunable weights: 4 x 8 and 8 x 3."""
    model = keras.Sequential([keras.Input((4,)), L.Dense(8, "relu"), L.Dense(3)])
    model.compile(optimizer, LOSS, **compile_options)
    return model


def kernels(model):
    return [v.numpy() for v in model.trainable_variables if len(v.shape) > 1]


def fit(model, callbacks, epochs=6, **options):
    x, y = problem()
    options = {"batch_size": 8, "verbose": 0} | options
    return model.fit(x, y, epochs=epochs, callbacks=callbacks, **options)


def run(model=None, epochs=6, fit_options=None, **options):
    """A search of 3 rounds of 2 epochs."""
    model = model or network()
    lottery = kl.LotteryCallback(**{"epochs_per_round": 2, "prune_fraction": 0.5} | options)
    lottery.verbose = 0
    fit(model, [lottery], epochs, **(fit_options or {}))
    return model, lottery


def assert_masked(model, masks):
    """Pruned weights are exactly 0, and something was pruned."""
    assert any((~m).any() for m in masks.values())
    for kernel, mask in zip(kernels(model), masks.values(), strict=True):
        assert kernel.shape == mask.shape
        assert not kernel[~mask].any()
        assert kernel[mask].any() or not mask.any()


def assert_same(values, expected):
    for value, other in zip(values, expected, strict=True):
        np.testing.assert_array_equal(value, other)


def assert_nested(lottery):
    masks = [lottery.ticket(r).masks for r in range(len(lottery.rounds))]
    for outer, inner in itertools.pairwise(masks):
        assert outer.keys() == inner.keys()
        assert not any((inner[p] & ~outer[p]).any() for p in inner)


class ZeroAfterEveryBatch(keras.callbacks.Callback):
    """56 weights, half of the survivors pruned a round: exact zeros after every batch."""

    def __init__(self, lottery):
        super().__init__()
        self.lottery, self.pruned = lottery, []

    def on_train_batch_end(self, batch, logs=None):
        self.pruned.append(sum(int((k == 0).sum()) for k in kernels(self.model)))


# Rounds and logs --------------------------------------------------------------------------


def test_six_epochs_make_three_rounds_of_two():
    model, lottery = run()
    assert [r.index for r in lottery.rounds] == [0, 1, 2]
    assert [r.density for r in lottery.rounds] == [1.0, 0.5, 0.25]
    assert model.history.history["round"] == [0, 0, 1, 1, 2, 2]
    assert model.history.history["density"] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert [r.steps for r in lottery.rounds] == [8, 8, 8]
    assert lottery.round == 2


def test_pruned_weights_are_exactly_zero_after_every_batch():
    lottery = kl.LotteryCallback(2, 0.5, verbose=0)
    watch = ZeroAfterEveryBatch(lottery)
    fit(network("adamw"), [lottery, watch])
    assert watch.pruned == [0] * 8 + [28] * 8 + [42] * 8


def test_a_round_tells_its_last_logs_its_best_epoch_and_its_layers():
    model, lottery = run(fit_options={"validation_split": 0.25})
    logs = model.history.history
    for r in lottery.rounds:
        assert r.metrics == {k: logs[k][2 * r.index + 1] for k in ("loss", "val_loss")}
        both = logs["val_loss"][2 * r.index : 2 * r.index + 2]
        assert r.best_epoch == int(np.argmin(both))
        alive = {p: int(m.sum()) for p, m in lottery.ticket(r.index).masks.items()}
        sizes = dict(zip(alive, (32, 24), strict=True))
        assert r.layer_density == {p: n / sizes[p] for p, n in alive.items()}
        assert r.seconds > 0


def test_csv_logger_after_the_lottery_has_round_and_density_from_the_first_epoch(tmp_path):
    lottery = kl.LotteryCallback(1, 0.5, verbose=0)
    fit(network(), [lottery, keras.callbacks.CSVLogger(tmp_path / "log.csv")], epochs=3)
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["round"] for row in rows] == ["0", "1", "2"]
    assert [float(row["density"]) for row in rows] == [1.0, 0.5, 0.25]


def test_tensorboard_shows_round_and_density(tmp_path, monkeypatch):
    """TensorBoard itself need not be installed: what it is asked to draw is recorded."""
    import tensorflow.summary as summary

    drawn = []

    def scalar(name, data, step=None, **_):
        drawn.append((name, data, step))

    monkeypatch.setattr(summary, "scalar", scalar)
    lottery = kl.LotteryCallback(1, 0.5, verbose=0)
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    fit(network(), [lottery, board], epochs=3)
    assert [d for d in drawn if d[0] == "epoch_round"] == [("epoch_round", r, r) for r in range(3)]
    assert [d[1] for d in drawn if d[0] == "epoch_density"] == [1.0, 0.5, 0.25]


def test_a_metric_with_a_value_for_each_class_is_no_trouble():
    class Rows(keras.metrics.Metric):
        def update_state(self, y_true, y_pred, sample_weight=None):
            pass

        def result(self):
            return keras.ops.arange(3.0)

    _, lottery = run(network(metrics=[Rows(name="rows")]))
    assert [r.density for r in lottery.rounds] == [1.0, 0.5, 0.25]


def test_it_prints_a_line_a_round_unless_silent(capsys):
    fit(network(), [kl.LotteryCallback(2, 0.5)])
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 4 and "density" in lines[0]
    assert ["100.00%" in lines[1], "50.00%" in lines[2], "25.00%" in lines[3]] == [True] * 3
    fit(network(), [kl.LotteryCallback(2, 0.5, verbose=0)])
    assert capsys.readouterr().out == ""


def test_with_rounds_the_fit_stops_after_the_last():
    model, lottery = run(epochs=50, rounds=2)
    assert len(model.history.epoch) == 4
    assert len(lottery.rounds) == 2


# Schedules, scopes, criteria --------------------------------------------------------------


class StepSparsity:
    """Behaves like a tfmot PruningSchedule."""

    def __init__(self):
        self.asked = []

    def __call__(self, step):
        self.asked.append(int(step))
        return tf.constant(step >= 10), tf.constant(0.5 if step < 20 else 0.75)

    def get_config(self):
        return {}

    @property
    def starts(self):
        """Steps beyond all asked before: from each it is asked back to its last turn."""
        return [s for i, s in enumerate(self.asked) if s > max(self.asked[:i], default=0)]


@pytest.mark.parametrize(
    "schedule", [[1.0, 0.5, 0.25], (1.0, 0.5, 0.25), lambda r: 0.5**r, 0.5, np.float32(0.5)]
)
def test_a_schedule_may_be_a_fraction_a_list_or_a_callable(schedule):
    _, lottery = run(prune_fraction=schedule)
    assert [r.density for r in lottery.rounds] == [1.0, 0.5, 0.25]


def test_a_tfmot_schedule_is_asked_at_the_steps_at_which_rounds_start():
    """8 steps a round: at 8 it does not prune yet, at 16 and 24 it does."""
    schedule = StepSparsity()
    _, lottery = run(prune_fraction=schedule, epochs=8)
    assert [r.density for r in lottery.rounds] == [1.0, 1.0, 0.5, 0.25]
    assert schedule.starts == [8, 16, 24]


@pytest.mark.parametrize(("k", "asked"), [(3, [8, 13]), (4, [8, 12])])
def test_a_tfmot_schedule_counts_the_steps_that_were_really_trained(k, asked):
    schedule = StepSparsity()
    run(prune_fraction=schedule, rewind_steps=k)
    assert schedule.starts == asked


def test_scope_and_criterion_are_used():
    seen = []

    def first_ones(state):
        seen.append((state.masks, state.weights, state.initial, state.data))
        return {p: -np.arange(w.size, dtype="float32").reshape(w.shape) for p, w in
                state.weights.items()}  # fmt: skip

    data = problem(8)
    _, lottery = run(
        scope=kl.scopes.Layerwise(output_fraction=0.25), criterion=first_ones, data=data
    )
    flat = [m.ravel().tolist() for m in lottery.ticket(1).masks.values()]
    assert flat == [[True] * 16 + [False] * 16, [True] * 18 + [False] * 6]
    assert len(seen) == 2 and seen[0][3] is data
    start = lottery.ticket(0)
    assert_same(list(seen[0][2].values()), [start.weights[p] for p in start.masks])


def test_magnitude_scores_the_weights_that_the_round_trained():
    ends = []

    class AtRoundEnd(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch % 2:
                ends.append(kernels(self.model))

    lottery = kl.LotteryCallback(2, 0.5, verbose=0)
    fit(network(), [lottery, AtRoundEnd()])
    for r, keep in ((1, 28), (2, 14)):
        flat = np.abs(np.concatenate([k.ravel() for k in ends[r - 1]]))
        expected = flat >= np.sort(flat)[-keep]
        masks = np.concatenate([m.ravel() for m in lottery.ticket(r).masks.values()])
        np.testing.assert_array_equal(masks, expected)


def test_a_score_that_is_infinite_only_where_already_pruned_is_fine():
    """log|w| ranks as |w| does; of a pruned weight it is -inf."""

    def log_magnitude(state):
        with np.errstate(divide="ignore"):
            return {p: np.log(np.abs(w)) for p, w in state.weights.items()}

    keras.utils.set_random_seed(1)
    _, magnitude = run(fit_options={"shuffle": False})
    keras.utils.set_random_seed(1)
    _, logarithm = run(criterion=log_magnitude, fit_options={"shuffle": False})
    assert [r.density for r in logarithm.rounds] == [1.0, 0.5, 0.25]
    for r in range(3):
        assert_same(logarithm.ticket(r).masks.values(), magnitude.ticket(r).masks.values())


@pytest.mark.parametrize("criterion", ["snip", "gradient"])
def test_criteria_with_data_work_in_fit(criterion):
    _, lottery = run(criterion=criterion, data=problem(16))
    assert [r.density for r in lottery.rounds] == [1.0, 0.5, 0.25]
    assert_nested(lottery)


@pytest.mark.parametrize("scope", ["layerwise", "erk"])
def test_named_scopes_work_in_fit(scope):
    model, lottery = run(scope=scope)
    assert [r.density for r in lottery.rounds] == [1.0, 0.5, 0.25]
    assert_nested(lottery)
    assert_masked(model, lottery.ticket().masks)


def test_filters_choose_what_is_pruned():
    model = network()
    first = model.layers[0].kernel.path
    _, lottery = run(model, filters=lambda path, v: path == first)
    assert list(lottery.ticket().masks) == [first]
    assert lottery.ticket().masks[first].sum() == 8
    assert kernels(model)[1].all()


# Tickets ----------------------------------------------------------------------------------


def test_tickets_are_nested_and_start_from_the_same_weights():
    model = network()
    start = model.get_weights()
    _, lottery = run(model)
    assert_nested(lottery)
    for r in range(3):
        ticket = lottery.ticket(r)
        masks = list(ticket.masks.values())
        assert ticket.density == lottery.rounds[r].density
        expected = [start[0] * masks[0], start[1], start[2] * masks[1], start[3]]
        assert_same(ticket.weights.values(), expected)
        assert ticket.metadata["round"] == r
        assert ticket.metadata["densities"] == [1.0, 0.5, 0.25][: r + 1]


def test_ticket_without_number_is_the_last_and_negative_numbers_count_back():
    _, lottery = run()
    assert [lottery.ticket(r).density for r in (None, -1, -2, -3)] == [0.25, 0.25, 0.5, 1.0]


@pytest.mark.parametrize("round", [3, -4, 100])
def test_a_ticket_of_no_round_is_an_error(round):
    _, lottery = run()
    with pytest.raises(ValueError, match=rf"round from 0 to 2\. Received: {round}"):
        lottery.ticket(round)


def test_before_a_fit_there_are_no_rounds_and_no_ticket():
    lottery = kl.LotteryCallback(2)
    assert lottery.rounds == []
    with pytest.raises(ValueError, match="no round has finished"):
        lottery.ticket()


def test_a_ticket_trains_again_what_its_round_trained():
    x, y = problem()
    model, lottery = run(fit_options={"shuffle": False})
    fresh = network()
    lottery.ticket(2).apply(fresh)
    fresh.fit(x, y, 8, epochs=2, shuffle=False, verbose=0)
    assert_same(fresh.get_weights(), model.get_weights())


# Ways to train ----------------------------------------------------------------------------


class BuiltByFit(keras.Model):
    def __init__(self):
        super().__init__()
        self.a, self.b = L.Dense(8, "relu"), L.Dense(3)

    def call(self, x):
        return self.b(self.a(x))


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        x, y = problem()
        return x[8 * i : 8 * i + 8], y[8 * i : 8 * i + 8]


def forever():
    x, y = problem()
    while True:
        for i in range(0, 32, 8):
            yield x[i : i + 8], y[i : i + 8]


def dataset():
    return tf.data.Dataset.from_tensor_slices(problem()).batch(8)


WAYS = {
    "dataset": lambda m, c: m.fit(dataset(), epochs=6, callbacks=c, verbose=0, shuffle=False),
    "repeated_dataset": lambda m, c: m.fit(
        dataset().repeat(), epochs=6, steps_per_epoch=4, callbacks=c, verbose=0, shuffle=False
    ),
    "generator": lambda m, c: m.fit(
        forever(), epochs=6, steps_per_epoch=4, callbacks=c, verbose=0, shuffle=False
    ),
    "pydataset": lambda m, c: m.fit(Batches(), epochs=6, callbacks=c, verbose=0, shuffle=False),
    "validation_data": lambda m, c: fit(m, c, validation_data=problem(8), shuffle=False),
    "initial_epoch": lambda m, c: fit(m, c, epochs=9, initial_epoch=3, shuffle=False),
}


@pytest.mark.parametrize("way", WAYS)
def test_however_the_same_batches_come_the_result_is_the_same(way):
    plain, other = network(), network()
    other.set_weights(plain.get_weights())
    _, expected = run(plain, fit_options={"shuffle": False})
    lottery = kl.LotteryCallback(2, 0.5, verbose=0)
    WAYS[way](other, [lottery])
    assert other.history.history["density"] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert_same(lottery.ticket().masks.values(), expected.ticket().masks.values())
    assert_same(other.get_weights(), plain.get_weights())


@pytest.mark.parametrize(
    "options",
    [
        {"validation_split": 0.25},
        {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}},
        {"sample_weight": np.linspace(0, 1, 32)},
    ],
    ids=lambda o: next(iter(o)),
)
def test_options_of_fit_work(options):
    model, lottery = run(fit_options=options)
    assert [r.density for r in lottery.rounds] == [1.0, 0.5, 0.25]
    assert_masked(model, lottery.ticket().masks)


@pytest.mark.parametrize(
    "options",
    [{"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 3}],
    ids=lambda o: next(iter(o)),
)
def test_options_of_compile_give_the_same_ticket(options):
    plain, model = network(), network(**options)
    model.set_weights(plain.get_weights())
    _, expected = run(plain, fit_options={"shuffle": False})
    _, lottery = run(model, fit_options={"shuffle": False})
    assert_same(lottery.ticket().masks.values(), expected.ticket().masks.values())
    assert [r.steps for r in lottery.rounds] == [8, 8, 8]
    assert_masked(model, lottery.ticket().masks)
    for value, other in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(value, other, atol=1e-6)


def test_a_subclassed_model_that_only_fit_builds():
    model = BuiltByFit()
    model.compile("adam", LOSS)
    _, lottery = run(model)
    assert [r.density for r in lottery.rounds] == [1.0, 0.5, 0.25]
    assert_masked(model, lottery.ticket().masks)


def test_a_model_already_trained_and_traced_rewinds_to_where_the_search_began():
    model = network()
    fit(model, [], epochs=2)
    before, steps = model.get_weights(), int(model.optimizer.iterations)
    _, lottery = run(model)
    masks = list(lottery.ticket().masks.values())
    expected = [before[0] * masks[0], before[1], before[2] * masks[1], before[3]]
    assert_same(lottery.ticket().weights.values(), expected)
    assert_masked(model, lottery.ticket().masks)
    assert int(model.optimizer.iterations) == steps + 8


def test_a_model_already_trained_rewinds_to_step_k_of_the_search():
    model, steps = network(), {}

    class AtStep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            steps.setdefault(int(self.model.optimizer.iterations), self.model.get_weights())

    fit(model, [], epochs=2)  # 8 steps before
    lottery = kl.LotteryCallback(2, 0.5, rewind_steps=3, verbose=0)
    fit(model, [lottery, AtStep()])
    assert_same(lottery.ticket(0).weights.values(), steps[8 + 3])
    assert [r.steps for r in lottery.rounds] == [8, 5, 5]


def test_the_model_can_be_trained_on_and_stays_sparse_until_stripped():
    model, lottery = run()
    before = kernels(model)
    fit(model, [], epochs=1)
    assert_masked(model, lottery.ticket().masks)
    assert not np.array_equal(kernels(model)[0], before[0])
    kl.strip(model)
    assert_masked(model, lottery.ticket().masks)
    fit(model, [], epochs=1)
    assert any((k[~m] != 0).any() for k, m in
               zip(kernels(model), lottery.ticket().masks.values(), strict=True))  # fmt: skip


def test_a_second_fit_of_the_same_model_goes_on_from_its_masks():
    model, lottery = run()
    first = lottery.ticket().masks
    fit(model, [lottery])
    assert [r.density for r in lottery.rounds] == [0.25, 0.125, 3 / 56]
    assert_same(lottery.ticket(0).masks.values(), first.values())
    assert_nested(lottery)
    assert_masked(model, lottery.ticket().masks)


def test_a_second_fit_of_a_new_model_starts_dense():
    _, lottery = run()
    other = network()
    fit(other, [lottery])
    assert [r.density for r in lottery.rounds] == [1.0, 0.5, 0.25]
    assert_masked(other, lottery.ticket().masks)


def test_a_recompiled_model_goes_on_under_its_masks():
    model, lottery = run(scope="layerwise")
    model.compile("sgd", LOSS)
    fit(model, [lottery])
    assert [r.density for r in lottery.rounds] == [0.25, 0.125, 3 / 56]
    assert_masked(model, lottery.ticket().masks)


def test_gradient_accumulation_and_mixed_precision_keep_exact_zeros():
    keras.config.set_dtype_policy("mixed_float16")
    optimizer = keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)
    model, lottery = run(network(optimizer))
    assert [r.density for r in lottery.rounds] == [1.0, 0.5, 0.25]
    assert_masked(model, lottery.ticket().masks)


def test_same_seed_same_masks_and_metrics_bit_for_bit():
    results = []
    for _ in range(2):
        keras.utils.set_random_seed(7)
        model, lottery = run(network(metrics=["accuracy"]), criterion="random", seed=5)
        results.append((model.history.history, lottery.ticket().masks, model.get_weights()))
    (logs, masks, values), (logs2, masks2, values2) = results
    assert logs == logs2
    assert_same(masks.values(), masks2.values())
    assert_same(values, values2)


# No retrace -------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="tests")
class CountingStep(keras.Sequential):
    """Counts how often Python runs its train_step: once a trace."""

    traces = 0

    def train_step(self, data):
        type(self).traces += 1
        return super().train_step(data)


def test_a_search_traces_the_train_step_as_often_as_a_plain_fit():
    def counted(callbacks):
        CountingStep.traces = 0
        model = CountingStep([keras.Input((4,)), L.Dense(8, "relu"), L.Dense(3)])
        model.compile("adam", LOSS)
        fit(model, callbacks, epochs=8)
        return CountingStep.traces

    plain = counted([])
    assert 1 <= counted([kl.LotteryCallback(8, 0.5, verbose=0)]) <= plain
    assert 1 <= counted([kl.LotteryCallback(2, 0.5, verbose=0)]) <= plain
    assert 1 <= counted([kl.LotteryCallback(2, 0.5, rewind_steps=3, verbose=0)]) <= plain


def test_a_second_search_on_the_model_traces_nothing():
    model = CountingStep([keras.Input((4,)), L.Dense(8, "relu"), L.Dense(3)])
    model.compile("adam", LOSS)
    lottery = kl.LotteryCallback(2, 0.5, verbose=0)
    fit(model, [lottery])
    CountingStep.traces = 0
    fit(model, [lottery])
    assert CountingStep.traces == 0


# Other callbacks --------------------------------------------------------------------------


class AtRoundEnds(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        if epoch % 2:
            self.seen.append(self.model.get_weights())


def test_the_order_of_callbacks_does_not_matter_for_what_they_see_at_a_rounds_end(tmp_path):
    path = str(tmp_path / "{epoch}.weights.h5")
    saver = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    lottery, before, after = kl.LotteryCallback(2, 0.5, verbose=0), AtRoundEnds(), AtRoundEnds()
    model = network()
    fit(model, [before, saver, lottery, after])
    assert len(before.seen) == 3
    for r in range(3):
        assert_same(before.seen[r], after.seen[r])
        other = keras.models.clone_model(model)
        other.load_weights(path.format(epoch=2 * r + 2))
        assert_same(other.get_weights(), before.seen[r])
        zeros = sum(int((k == 0).sum()) for k in kernels(other))
        assert zeros == [0, 28, 42][r]
    assert_same(before.seen[2], model.get_weights())


@pytest.mark.parametrize("lottery_first", [True, False])
def test_restored_best_weights_of_an_outer_early_stopping_leave_no_pruned_weight(lottery_first):
    lottery = kl.LotteryCallback(1, 0.5, verbose=0)

    class Worse(keras.callbacks.Callback):
        """Best is the dense round."""

        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = float(epoch)

    stop = keras.callbacks.EarlyStopping("score", mode="min", patience=5, restore_best_weights=True)
    model = network()
    callbacks = [Worse(), stop]
    fit(model, [lottery, *callbacks] if lottery_first else [*callbacks, lottery], epochs=3)
    assert stop.best_epoch == 0
    assert_masked(model, lottery.ticket().masks)


def test_an_outer_early_stopping_ends_the_search_and_keeps_the_rounds():
    class StopAt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                self.model.stop_training = True

    lottery = kl.LotteryCallback(2, 0.5, verbose=0)
    model = network()
    fit(model, [lottery, StopAt()])
    assert len(model.history.epoch) == 3
    assert [r.steps for r in lottery.rounds] == [8, 4]
    assert_masked(model, lottery.ticket().masks)


def separate_fits(optimizer, rounds=3):
    """What the callback promises, by hand: fit, prune, set back, fit."""
    model = network(optimizer())
    model.optimizer.build(model.trainable_variables)
    start = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    alive, found, x, y = 56, [], *problem()
    for r in range(rounds):
        if r:
            handle = kl.prune(model, (alive := alive // 2) / 56)
            found.append(handle.masks)
            for v, value in zip([*model.variables, *model.optimizer.variables], start, strict=True):
                v.assign(value)
            handle.remask()
        model.fit(x, y, 8, epochs=2, shuffle=False, verbose=0)
    return model, found


def ema():
    return keras.optimizers.SGD(0.3, use_ema=True, ema_momentum=0.8)


def test_with_ema_masks_come_from_the_averages_as_in_separate_fits():
    keras.utils.set_random_seed(0)
    expected, masks = separate_fits(ema)
    keras.utils.set_random_seed(0)
    model, lottery = run(network(ema()), fit_options={"shuffle": False})
    for r in (1, 2):
        assert_same(lottery.ticket(r).masks.values(), masks[r - 1].values())
    assert_same(model.get_weights(), expected.get_weights())
    assert_masked(model, lottery.ticket().masks)


@pytest.mark.parametrize("lottery_first", [True, False])
def test_swap_ema_weights_changes_neither_masks_nor_result(lottery_first):
    keras.utils.set_random_seed(0)
    expected, masks = separate_fits(ema)
    keras.utils.set_random_seed(0)
    model, lottery = network(ema()), kl.LotteryCallback(2, 0.5, verbose=0)
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    fit(model, [lottery, swap] if lottery_first else [swap, lottery], shuffle=False)
    assert_masked(model, lottery.ticket().masks)
    for r in (1, 2):
        assert_same(lottery.ticket(r).masks.values(), masks[r - 1].values())
    for value, other in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(value, other, atol=1e-5)


def test_a_key_interrupt_keeps_all_finished_rounds():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if lottery.round == 2:
                raise KeyboardInterrupt

    lottery = kl.LotteryCallback(2, 0.5, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), [lottery, Interrupt()])
    assert [r.density for r in lottery.rounds] == [1.0, 0.5]
    assert lottery.ticket().density == 0.5
    assert lottery.ticket(0).density == 1.0


# Bad input --------------------------------------------------------------------------------

CONSTRUCTION = {
    "epochs_zero": ({"epochs_per_round": 0}, r"epochs_per_round.*at least 1.*0"),
    "epochs_half": ({"epochs_per_round": 1.5}, r"epochs_per_round.*integer.*1\.5"),
    "epochs_none": ({"epochs_per_round": None}, r"epochs_per_round.*integer.*None"),
    "fraction_0": ({"prune_fraction": 0.0}, r"prune_fraction.*0 and 1.*Received: 0\.0"),
    "fraction_1": ({"prune_fraction": 1}, r"prune_fraction.*0 and 1.*Received: 1"),
    "fraction_nan": ({"prune_fraction": float("nan")}, r"prune_fraction.*0 and 1.*nan"),
    "fraction_negative": ({"prune_fraction": -0.2}, r"prune_fraction.*0 and 1.*-0\.2"),
    "schedule_grows": ({"prune_fraction": [1.0, 0.5, 0.6]}, r"not grow.*0\.6.*round 2.*0\.5"),
    "schedule_callable_grows": (
        {"prune_fraction": lambda r: [1.0, 0.5, 0.6][r], "rounds": 3},
        r"not grow.*0\.6.*round 2",
    ),
    "schedule_length": ({"prune_fraction": [1.0, 0.5], "rounds": 3}, r"2 densities.*3 rounds"),
    "rounds_zero": ({"rounds": 0}, r"rounds.*at least 1.*0"),
    "scope": ({"scope": "local"}, r"scope.*erk.*global.*layerwise.*'local'"),
    "criterion": ({"criterion": "size"}, r"criterion.*gradient.*magnitude.*snip.*'size'"),
    "rewind": ({"rewind": "init"}, r"rewind.*weights.*learning_rate.*none.*'init'"),
    "steps_negative": ({"rewind_steps": -1}, r"rewind_steps.*at least 0.*-1"),
    "steps_with_none": ({"rewind_steps": 3, "rewind": "none"}, r"rewind_steps.*3.*'none'"),
    "steps_half": ({"rewind_steps": 1.5}, r"rewind_steps.*integer.*1\.5"),
    "steps_text": ({"rewind_steps": "500it"}, r"rewind_steps.*integer.*500it"),
    "no_data": ({"criterion": "snip"}, r"snip.*no data.*data=\(x, y\)"),
}


@pytest.mark.parametrize("case", CONSTRUCTION)
def test_bad_arguments_are_refused_at_construction(case):
    options, message = CONSTRUCTION[case]
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        kl.LotteryCallback(**{"epochs_per_round": 2} | options)


def growing(r):
    return 1.0 if r == 0 else 0.2 * r


BEFORE_TRAINING = {
    "epochs": ({"epochs_per_round": 4}, {}, r"6 epochs.*multiple.*epochs_per_round=4.*8"),
    "epochs_from_initial": (
        {"epochs_per_round": 2},
        {"initial_epoch": 1},
        r"5 epochs.*multiple.*epochs_per_round=2",
    ),
    "too_few_epochs": ({"rounds": 4}, {}, r"4 rounds.*8 epochs.*6"),
    "schedule_length": ({"prune_fraction": [1.0, 0.5]}, {}, r"2 densities.*3 rounds"),
    "schedule_grows": ({"prune_fraction": growing}, {}, r"not grow.*0\.4.*round 2.*0\.2"),
    "filters": ({"filters": "conv"}, {}, r"filters='conv'.*selects nothing.*dense.*/kernel"),
    "beyond": ({"rewind_steps": 8}, {}, r"rewind_steps=8.*beyond.*8 steps"),
    "far_beyond": ({"rewind_steps": 100}, {}, r"rewind_steps=100.*beyond.*8 steps"),
    "scope_path": ({"scope": kl.scopes.Layerwise({"conv": 0.1})}, {}, r"'conv'.*no path.*kernel"),
    "scope_exclude": ({"scope": kl.scopes.Global(exclude=".")}, {}, r"exclude.*no path"),
}


@pytest.mark.parametrize("case", BEFORE_TRAINING)
def test_what_cannot_work_is_refused_before_the_first_step(case):
    options, fit_options, message = BEFORE_TRAINING[case]
    model = network()
    before = model.get_weights()
    steps = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: steps.append(b))
    lottery = kl.LotteryCallback(**{"epochs_per_round": 2, "verbose": 0} | options)
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        fit(model, [lottery, count], **fit_options)
    assert steps == []
    assert_same(model.get_weights(), before)
    assert int(model.optimizer.iterations) == 0


def test_a_rewind_step_beyond_the_steps_of_accumulated_gradients_is_refused_before():
    """8 micro-batches make 4 optimizer steps."""
    model = network(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"rewind_steps=5.*beyond.*4 steps"):
        run(model, rewind_steps=5)
    assert_same(model.get_weights(), before)


def test_a_model_without_prunable_weights_is_refused():
    model = keras.Sequential([keras.Input((4,)), L.BatchNormalization()])
    model.compile("sgd", "mse")
    x = problem()[0]
    with pytest.raises(ValueError, match=r"nothing.*can be pruned.*gamma"):
        model.fit(x, x, epochs=2, verbose=0, callbacks=[kl.LotteryCallback(1)])


def test_a_refused_fit_leaves_the_callback_usable():
    model, lottery = network(), kl.LotteryCallback(4, 0.5, verbose=0)
    with pytest.raises(ValueError, match="multiple"):
        fit(model, [lottery])
    fit(model, [lottery], epochs=8)
    assert [r.density for r in lottery.rounds] == [1.0, 0.5]


# NaN --------------------------------------------------------------------------------------


class Poison(keras.callbacks.Callback):
    """NaN in the inputs of the model's multiplier from step `step` of round `round` on."""

    def __init__(self, lottery, round, batch=1):
        super().__init__()
        self.lottery, self.when = lottery, (round, batch)

    def on_train_batch_begin(self, batch, logs=None):
        if (self.lottery.round, batch) == self.when:
            self.model.scale.assign(float("nan"))

    def on_train_batch_end(self, batch, logs=None):
        self.model.scale.assign(1.0)


class Poisoned(keras.Model):
    """Its `scale` makes the outputs NaN when told so."""

    def __init__(self):
        super().__init__()
        self.a, self.b = L.Dense(8, "relu"), L.Dense(3)
        self.scale = keras.Variable(1.0, trainable=False, name="scale")

    def build(self, shape):
        self.a.build(shape)
        self.b.build((None, 8))

    def call(self, x):
        return self.b(self.a(x)) * self.scale


def poisoned(optimizer="adam"):
    model = Poisoned()
    model.build((None, 4))
    model.compile(optimizer, LOSS)
    return model


@pytest.mark.parametrize("make", [lambda: "adam", ema], ids=["adam", "ema"])
@pytest.mark.parametrize(("rewind", "round"), [("weights", 2), ("none", 1)])
def test_a_round_that_goes_nan_stops_and_the_last_good_round_is_kept(round, rewind, make):
    clean, model = poisoned(make()), poisoned(make())
    model.set_weights(clean.get_weights())
    options = {"shuffle": False}
    _, expected = run(clean, epochs=2 * round, rewind=rewind, fit_options=options)
    lottery = kl.LotteryCallback(2, 0.5, rewind=rewind, verbose=0)
    with pytest.warns(RuntimeWarning, match=rf"NaN.*round {round}.*kept round {round - 1}"):
        fit(model, [lottery, Poison(lottery, round)], **options)
    assert len(model.history.epoch) <= 2 * round + 2
    assert [r.density for r in lottery.rounds] == [1.0, 0.5][:round]
    assert_same(lottery.ticket().masks.values(), expected.ticket().masks.values())
    assert_same(model.get_weights(), clean.get_weights())
    assert all(np.isfinite(v.numpy()).all() for v in model.optimizer.variables)
    fit(model, [], epochs=1)
    for kernel, mask in zip(kernels(model), lottery.ticket().masks.values(), strict=True):
        assert np.isfinite(kernel).all() and not kernel[~mask].any()


@pytest.mark.parametrize(("k", "batch"), [(0, 1), (2, 3), (3, 1), (6, 1)])
def test_nan_in_the_dense_round_leaves_a_finite_model_and_no_round(k, batch):
    model = poisoned()
    start = model.get_weights()
    lottery = kl.LotteryCallback(2, 0.5, rewind_steps=k, verbose=0)
    with pytest.warns(RuntimeWarning, match=r"NaN.*round 0"):
        fit(model, [lottery, Poison(lottery, 0, batch)])
    assert lottery.rounds == []
    assert all(np.isfinite(w).all() for w in model.get_weights())
    if k == 0:
        assert_same(model.get_weights(), start)
    with pytest.raises(ValueError, match="no round has finished"):
        lottery.ticket()


def test_a_huge_learning_rate_is_told_and_keeps_the_start():
    model = keras.Sequential([keras.Input((4,)), L.Dense(8), L.Dense(3)])
    model.compile(keras.optimizers.SGD(1e30), "mse")
    start = model.get_weights()
    x, _ = problem()
    lottery = kl.LotteryCallback(2, 0.5, verbose=0)
    with pytest.warns(RuntimeWarning, match=r"NaN or Inf.*kernel.*round 0"):
        model.fit(x, x[:, :3], 8, epochs=6, verbose=0, callbacks=[lottery])
    assert_same(model.get_weights(), start)
    assert len(model.history.epoch) <= 2


def test_terminate_on_nan_beside_the_lottery_keeps_the_last_good_round():
    model = poisoned()
    lottery = kl.LotteryCallback(2, 0.5, verbose=0)
    callbacks = [lottery, Poison(lottery, 1), keras.callbacks.TerminateOnNaN()]
    with pytest.warns(RuntimeWarning, match=r"NaN.*round 1.*kept round 0"):
        fit(model, callbacks)
    assert [r.density for r in lottery.rounds] == [1.0]
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_stop_and_keep_the_round_that_was_trained(bad):
    def criterion(state):
        scores = {p: np.abs(w) for p, w in state.weights.items()}
        if not all(m.all() for m in state.masks.values()):
            next(iter(scores.values()))[np.nonzero(next(iter(state.masks.values())))] = bad
        return scores

    ends = AtRoundEnds()
    model = network()
    lottery = kl.LotteryCallback(2, 0.5, criterion=criterion, verbose=0)
    with pytest.warns(RuntimeWarning, match=r"NaN or Inf in the scores.*round 1.*kept round 1"):
        fit(model, [lottery, ends])
    assert [r.density for r in lottery.rounds] == [1.0, 0.5]
    assert lottery.ticket().density == 0.5
    assert_same(model.get_weights(), ends.seen[1])
    assert_masked(model, lottery.ticket().masks)
