"""find_ticket: the same search as a loop around one's own training function."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import keras_lottery as kl
from keras_lottery.loop import best_epoch

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PER_EPOCH, EPOCHS, TOTAL = 4, 3, 12


def problem(n=32):
    rng = np.random.default_rng(3)
    return rng.normal(size=(n, 4)).astype("float32"), rng.integers(0, 3, n)


def network(optimizer="adam", compiled=True):
    model = keras.Sequential(
        [keras.Input((4,)), L.Dense(8), L.BatchNormalization(), L.ReLU(), L.Dense(3)]
    )
    if compiled:
        model.compile(optimizer, LOSS)
    return model


def pair(optimizer=lambda: "adam"):
    """Two models of the same weights."""
    one, two = network(optimizer()), network(optimizer())
    two.set_weights(one.get_weights())
    return one, two


def train(model, callbacks, epochs=EPOCHS):
    x, y = problem()
    return model.fit(x, y, 8, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)


def kernels(model):
    return [v.numpy() for v in model.trainable_variables if len(v.shape) > 1]


def assert_same(values, expected):
    for value, other in zip(values, expected, strict=True):
        np.testing.assert_array_equal(value, other)


def assert_masked(model, masks):
    for kernel, mask in zip(kernels(model), masks.values(), strict=True):
        assert not mask.all() and kernel[mask].all() and not kernel[~mask].any()


def steps(model):
    return int(model.optimizer.iterations)


# The words --------------------------------------------------------------------------------


def test_the_best_epoch_is_the_first_of_the_lowest_val_loss_else_loss():
    assert best_epoch([{"loss": 1.0, "val_loss": 3.0}, {"loss": 2.0, "val_loss": 2.0}]) == 1
    assert best_epoch([{"loss": 1.0}, {"loss": 2.0}, {"loss": 1.0}]) == 0
    assert best_epoch([{"accuracy": 1.0}]) is None
    assert best_epoch([]) is None


def test_each_round_calls_train_once_and_its_logs_are_the_rounds():
    histories = []

    def recorded(model, callbacks):
        histories.append(train(model, callbacks))
        return histories[-1]

    model = network()
    search = kl.find_ticket(model, recorded, rounds=3, prune_fraction=0.5, verbose=0)
    assert [r.density for r in search.rounds] == [1.0, 0.5, 0.25]
    assert [h.history["round"] for h in histories] == [[r] * 3 for r in range(3)]
    assert [h.history["density"] for h in histories] == [[d] * 3 for d in (1.0, 0.5, 0.25)]
    assert [r.metrics["loss"] for r in search.rounds] == [h.history["loss"][-1] for h in histories]
    assert [r.steps for r in search.rounds] == [TOTAL] * 3
    assert search.stopped is None
    assert_masked(model, search.ticket().masks)


def test_it_prints_a_line_a_round_unless_silent(capsys):
    kl.find_ticket(network(), train, rounds=2, prune_fraction=0.5)
    assert len(capsys.readouterr().out.strip().splitlines()) == 3
    kl.find_ticket(network(), train, rounds=1, prune_fraction=0.5, verbose=0)
    assert capsys.readouterr().out == ""


# The same as the callback -----------------------------------------------------------------

OPTIONS = {
    "init": {},
    "inside_an_epoch": {"rewind_steps": 3},
    "beyond_an_epoch": {"rewind_steps": 6},
    "at_an_epochs_end": {"rewind_steps": 4},
    "learning_rate": {"rewind": "learning_rate"},
    "learning_rate_to_k": {"rewind": "learning_rate", "rewind_steps": 6},
    "none": {"rewind": "none"},
    "layerwise_movement": {"scope": "layerwise", "criterion": "movement"},
    "random": {"criterion": "random", "seed": 3},
    "densities": {"prune_fraction": [1.0, 0.6, 0.1]},
}


@pytest.mark.parametrize("case", OPTIONS)
def test_the_loop_and_the_callback_find_the_same_ticket(case):
    options = {"prune_fraction": 0.5} | OPTIONS[case]
    in_loop, in_fit = pair(lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(0.1, TOTAL), momentum=0.9
    ))  # fmt: skip
    search = kl.find_ticket(in_loop, train, rounds=3, verbose=0, **options)
    lottery = kl.LotteryCallback(EPOCHS, verbose=0, **options)
    train(in_fit, [lottery], 3 * EPOCHS)
    for r in range(3):
        one, two = search.ticket(r), lottery.ticket(r)
        assert_same(one.masks.values(), two.masks.values())
        assert_same(one.weights.values(), two.weights.values())
        assert search.rounds[r].metrics == lottery.rounds[r].metrics
        assert search.rounds[r].steps == lottery.rounds[r].steps
        assert search.rounds[r].best_epoch == lottery.rounds[r].best_epoch
    assert_same(in_loop.get_weights(), in_fit.get_weights())
    assert_same(
        [v.numpy() for v in in_loop.optimizer.variables],
        [v.numpy() for v in in_fit.optimizer.variables],
    )


@pytest.mark.parametrize("k", [3, 8, 11])
def test_after_a_rewind_to_k_exactly_the_rest_is_trained(k):
    batches = []

    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            batches[-1] += 1

    def counted(model, callbacks):
        batches.append(0)
        return train(model, [*callbacks, Count()])

    model = network()
    search = kl.find_ticket(model, counted, 3, 0, prune_fraction=0.5, rewind_steps=k)
    assert batches == [TOTAL, TOTAL - k, TOTAL - k]
    assert [r.steps for r in search.rounds] == batches
    assert steps(model) == TOTAL


def test_the_number_of_epochs_may_be_offset_and_be_one():
    def later(model, callbacks):
        x, y = problem()
        return model.fit(
            x, y, 8, initial_epoch=5, epochs=7, shuffle=False, verbose=0, callbacks=callbacks
        )

    search = kl.find_ticket(network(), later, 2, 0, prune_fraction=0.5, rewind_steps=5)
    assert [r.steps for r in search.rounds] == [8, 3]
    one = kl.find_ticket(
        network(), lambda m, c: train(m, c, 1), 2, 0, prune_fraction=0.5, rewind_steps=1
    )
    assert [r.steps for r in one.rounds] == [4, 3]


def test_training_in_two_fits_is_one_round():
    def twice(model, callbacks):
        train(model, callbacks, 1)
        return train(model, callbacks, 2)

    once, two = pair()
    expected = kl.find_ticket(once, train, 2, 0, prune_fraction=0.5)
    search = kl.find_ticket(two, twice, 2, 0, prune_fraction=0.5)
    assert_same(two.get_weights(), once.get_weights())
    assert_same(search.ticket().masks.values(), expected.ticket().masks.values())
    assert [r.steps for r in search.rounds] == [TOTAL, TOTAL]


# Compiling inside train -------------------------------------------------------------------


@pytest.mark.parametrize(("rewind", "k"), [("weights", 0), ("weights", 6), ("learning_rate", 3)])
def test_compiling_inside_train_is_the_same_as_before(rewind, k):
    def compiled(model, callbacks):
        model.compile(keras.optimizers.Adam(0.01), LOSS)
        return train(model, callbacks)

    inside, before = network(compiled=False), network(keras.optimizers.Adam(0.01))
    before.set_weights(inside.get_weights())
    options = {"prune_fraction": 0.5, "rewind": rewind, "rewind_steps": k, "verbose": 0}
    search = kl.find_ticket(inside, compiled, 3, **options)
    expected = kl.find_ticket(before, train, 3, **options)
    assert [r.steps for r in search.rounds] == [TOTAL, TOTAL - k, TOTAL - k]
    for r in range(3):
        assert_same(search.ticket(r).masks.values(), expected.ticket(r).masks.values())
    assert_same(inside.get_weights(), before.get_weights())
    assert_masked(inside, search.ticket().masks)


def test_another_optimizer_in_a_later_round_is_refused():
    def changing(model, callbacks):
        model.compile("adam" if not hasattr(changing, "called") else "sgd", LOSS)
        changing.called = True
        return train(model, callbacks)

    with pytest.raises(ValueError, match=r"other variables.*Compile the model alike"):
        kl.find_ticket(network(compiled=False), changing, 2, 0, prune_fraction=0.5)


# Hand-written loops -----------------------------------------------------------------------


def hand_written(model, callbacks=None, epochs=EPOCHS, reset=True):
    """Eager `apply_gradients`, batch by batch; calls the callbacks if there are any."""
    x, y = problem()
    callbacks = callbacks or keras.callbacks.CallbackList(model=model)
    if reset:
        model.stop_training = False
    callbacks.on_train_begin()
    for epoch in range(epochs):
        callbacks.on_epoch_begin(epoch)
        losses = []
        for i in range(0, 32, 8):
            callbacks.on_train_batch_begin(i // 8)
            with tf.GradientTape() as tape:
                losses.append(LOSS(y[i : i + 8], model(x[i : i + 8], training=True)))
            variables = model.trainable_variables
            gradients = tape.gradient(losses[-1], [v.value for v in variables])
            model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
            callbacks.on_train_batch_end(i // 8)
            if model.stop_training:
                break
        callbacks.on_epoch_end(epoch, {"loss": float(np.mean(losses))})
        if model.stop_training:
            break
    callbacks.on_train_end()


def test_a_loop_that_calls_no_callbacks_prunes_and_rewinds_to_init():
    model = network()
    start, firsts = model.get_weights(), []

    def loop(model, callbacks):
        firsts.append((kernels(model), steps(model)))
        hand_written(model)

    search = kl.find_ticket(model, loop, rounds=3, prune_fraction=0.5, verbose=0)
    assert [r.density for r in search.rounds] == [1.0, 0.5, 0.25]
    assert [r.steps for r in search.rounds] == [TOTAL] * 3
    for r, (first, step) in enumerate(firsts):
        masks = search.ticket(r).masks.values()
        assert_same(first, [w * m for w, m in zip((start[0], start[6]), masks, strict=True)])
        assert step == 0
    assert_masked(model, search.ticket().masks)


def test_a_loop_that_calls_no_callbacks_cannot_rewind_to_k_and_is_told_why():
    with pytest.raises(ValueError, match=r"step 3, was not reached.*callbacks"):
        kl.find_ticket(network(), lambda m, c: hand_written(m), 2, 0, rewind_steps=3)


@pytest.mark.parametrize("k", [0, 6])
def test_a_loop_that_calls_the_callbacks_is_as_fit(k):
    def loop(model, callbacks):
        params = {"epochs": EPOCHS, "steps": PER_EPOCH, "verbose": 0}
        hand_written(model, keras.callbacks.CallbackList(callbacks, model=model, **params))

    by_hand, by_fit = pair(lambda: keras.optimizers.SGD(0.1, momentum=0.9))
    options = {"prune_fraction": 0.5, "rewind_steps": k, "verbose": 0}
    search = kl.find_ticket(by_hand, loop, 3, **options)
    expected = kl.find_ticket(by_fit, train, 3, **options)
    assert [r.steps for r in search.rounds] == [TOTAL, TOTAL - k, TOTAL - k]
    for r in range(3):
        assert_same(search.ticket(r).masks.values(), expected.ticket(r).masks.values())
    for value, other in zip(by_hand.get_weights(), by_fit.get_weights(), strict=True):
        np.testing.assert_allclose(value, other, atol=1e-6)
    assert "loss" in search.rounds[0].metrics


def test_a_loop_need_not_tell_the_callbacks_its_epochs():
    def loop(model, callbacks):
        hand_written(model, keras.callbacks.CallbackList(callbacks, model=model))

    search = kl.find_ticket(network(), loop, rounds=2, prune_fraction=0.5, verbose=0)
    assert [r.steps for r in search.rounds] == [TOTAL] * 2
    assert "loss" in search.rounds[1].metrics


def test_a_loop_need_not_set_the_model_of_the_callbacks():
    class Plain:
        """The events handed on, nothing else."""

        def __init__(self, callbacks):
            self.callbacks = callbacks

        def __getattr__(self, event):
            return lambda *args: [getattr(c, event)(*args) for c in self.callbacks]

    search = kl.find_ticket(
        network(), lambda m, c: hand_written(m, Plain(c)), 2, 0, prune_fraction=0.5
    )
    assert [r.density for r in search.rounds] == [1.0, 0.5]


def test_a_loop_that_heeds_stop_training_is_free_to_train_in_the_next_round():
    """Rewound rounds end by `stop_training`; the loop did not set it and does not reset it."""

    def loop(model, callbacks):
        params = {"epochs": EPOCHS, "steps": PER_EPOCH, "verbose": 0}
        callbacks = keras.callbacks.CallbackList(callbacks, model=model, **params)
        hand_written(model, callbacks, reset=False)

    model = network()
    model.stop_training = False
    search = kl.find_ticket(model, loop, 4, 0, prune_fraction=0.2, rewind_steps=6)
    assert [r.steps for r in search.rounds] == [TOTAL, 6, 6, 6]


def test_a_loop_on_a_model_compiled_inside_train_stays_masked():
    def loop(model, callbacks):
        model.compile(keras.optimizers.SGD(0.1), LOSS)
        params = {"epochs": EPOCHS, "steps": PER_EPOCH, "verbose": 0}
        hand_written(model, keras.callbacks.CallbackList(callbacks, model=model, **params))

    model = network(compiled=False)
    search = kl.find_ticket(model, loop, rounds=2, prune_fraction=0.5, verbose=0)
    assert_masked(model, search.ticket().masks)


# Stops ------------------------------------------------------------------------------------


def interrupt_in(round, after=2):
    calls = []

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if len(calls) - 1 == round and batch == after:
                raise KeyboardInterrupt

    def interrupted(model, callbacks):
        calls.append(1)
        return train(model, [*callbacks, Interrupt()])

    return interrupted


def test_a_key_interrupt_keeps_and_returns_the_finished_rounds():
    model = network()
    with pytest.warns(RuntimeWarning, match=r"interrupted in round 2; earlier rounds were kept"):
        search = kl.find_ticket(model, interrupt_in(2), 5, 0, prune_fraction=0.5)
    assert [r.density for r in search.rounds] == [1.0, 0.5]
    assert search.ticket().density == 0.5
    assert "interrupted" in search.stopped


def test_a_key_interrupt_in_the_first_round_goes_through():
    with pytest.raises(KeyboardInterrupt):
        kl.find_ticket(network(), interrupt_in(0), 5, 0, prune_fraction=0.5)


def spoiled_in(round, ends):
    calls = []

    def spoiled(model, callbacks):
        calls.append(1)
        train(model, callbacks)
        if len(calls) - 1 == round:
            model.layers[0].kernel.assign(np.full((4, 8), np.nan))
        ends.append(model.get_weights())

    return spoiled


@pytest.mark.parametrize(("rewind", "round"), [("weights", 2), ("learning_rate", 1), ("none", 2)])
def test_a_round_that_goes_nan_ends_the_search_and_the_last_good_one_is_kept(round, rewind):
    model, ends = network(), []
    with pytest.warns(RuntimeWarning, match=rf"NaN.*kernel.*round {round}.*kept round {round - 1}"):
        search = kl.find_ticket(
            model, spoiled_in(round, ends), 5, 0, prune_fraction=0.5, rewind=rewind
        )
    assert len(ends) == round + 1
    assert [r.density for r in search.rounds] == [1.0, 0.5][:round]
    assert_same(model.get_weights(), ends[round - 1])
    for kernel, mask in zip(kernels(model), search.ticket().masks.values(), strict=True):
        assert not kernel[~mask].any()
    assert f"kept round {round - 1}" in search.stopped


def test_nan_in_the_dense_round_returns_an_empty_search_and_the_start():
    model, ends = network(), []
    start = model.get_weights()
    with pytest.warns(RuntimeWarning, match=r"NaN.*round 0.*kept the start"):
        search = kl.find_ticket(model, spoiled_in(0, ends), 5, 0, prune_fraction=0.5)
    assert search.rounds == []
    assert_same(model.get_weights(), start)
    with pytest.raises(ValueError, match="no round has finished"):
        search.ticket()


def test_scores_that_are_not_finite_keep_the_round_that_was_trained():
    ends = []
    with pytest.warns(RuntimeWarning, match=r"NaN or Inf in the scores.*kept round 0"):
        search = kl.find_ticket(
            model := network(), spoiled_in(99, ends), 3, 0,
            criterion=lambda state: {p: w * np.nan for p, w in state.weights.items()},
        )  # fmt: skip
    assert [r.density for r in search.rounds] == [1.0]
    assert_same(model.get_weights(), ends[0])


# Bad input --------------------------------------------------------------------------------


def never(model, callbacks):
    raise AssertionError("training began")


BAD = {
    "rounds_zero": ({"rounds": 0}, r"rounds.*at least 1.*0"),
    "rounds_half": ({"rounds": 1.5}, r"rounds.*integer.*1\.5"),
    "fraction": ({"prune_fraction": 1.0}, r"prune_fraction.*between 0 and 1.*1\.0"),
    "grows": ({"prune_fraction": [1.0, 0.5, 0.6]}, r"not grow.*0\.6.*round 2"),
    "callable_grows": ({"prune_fraction": lambda r: [1, 0.5, 0.6][r]}, r"not grow.*0\.6"),
    "length": ({"prune_fraction": [1.0, 0.5]}, r"2 densities.*3 rounds"),
    "filters": ({"filters": ["conv", "embed"]}, r"conv.*selects nothing.*/kernel"),
    "filters_callable": ({"filters": lambda p, v: False}, r"selects nothing.*/kernel"),
    "scope": ({"scope": "local"}, r"scope.*erk.*global.*layerwise.*'local'"),
    "criterion": ({"criterion": "size"}, r"criterion.*magnitude.*'size'"),
    "rewind": ({"rewind": "init"}, r"rewind.*weights.*learning_rate.*none.*'init'"),
    "negative": ({"rewind_steps": -3}, r"rewind_steps.*at least 0.*-3"),
    "with_none": ({"rewind": "none", "rewind_steps": 3}, r"rewind_steps.*3.*'none'"),
    "no_data": ({"criterion": "gradient"}, r"gradient.*no data was given"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_training(case):
    options, message = BAD[case]
    model = network()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        kl.find_ticket(model, never, **{"rounds": 3, "verbose": 0} | options)
    assert_same(model.get_weights(), before)


def test_an_unbuilt_model_is_refused():
    model = keras.Sequential([L.Dense(3)])
    model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match=r"no weights yet.*keras\.Input"):
        kl.find_ticket(model, never, rounds=2, verbose=0)


def test_a_model_without_prunable_weights_is_refused():
    model = keras.Sequential([keras.Input((4,)), L.BatchNormalization()])
    with pytest.raises(ValueError, match=r"nothing.*can be pruned.*gamma"):
        kl.find_ticket(model, never, rounds=2, verbose=0)


@pytest.mark.parametrize("k", [TOTAL, 500])
def test_a_rewind_step_at_or_beyond_the_end_is_refused_before_training(k):
    model = network()
    before = model.get_weights()
    with pytest.raises(ValueError, match=rf"rewind_steps={k}.*beyond.*{TOTAL} steps"):
        kl.find_ticket(model, train, 2, 0, prune_fraction=0.5, rewind_steps=k)
    assert_same(model.get_weights(), before)


def test_a_rewind_step_between_two_executions_is_refused_before_training():
    model = network()
    model.compile("sgd", LOSS, steps_per_execution=2)
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"rewind_steps=3.*multiple.*steps_per_execution=2"):
        kl.find_ticket(model, train, 2, 0, prune_fraction=0.5, rewind_steps=3)
    assert_same(model.get_weights(), before)
