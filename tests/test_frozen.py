"""Pruned weights that hold other values than 0: by hand, then under every kind of step."""

import keras
import numpy as np
import pytest
import zoo
from keras import layers as L
from some_tickets import dense_of, four, mlp, of, same, w

import keras_lottery as kl
from keras_lottery import weights

C = kl.controls
DENSE = four([1.0, -2.0, 3.0, -4.0])
TRAINED = four([1.5, 1.0, 3.0, -5.0])  # grew, shrank, stayed, grew
TICKET = four([1.0, -2.0, 3.0, -4.0], (1, 1, 0, 0))
HALF = np.array([[True], [False]])


def tiny(optimizer=None, jit=False, **options):
    """Two weights in, one out: the kernel is [[2], [3]], the bias 1."""
    model = keras.Sequential([keras.Input((2,)), L.Dense(1, **options)])
    model.set_weights([np.array([[2.0], [3.0]]), np.array([1.0])])
    if optimizer is not None:
        model.compile(optimizer, "mse", jit_compile=jit)
    return model, model.layers[0].kernel.path


def kernel_of(model):
    return model.get_weights()[0].ravel().tolist()


# The actions ------------------------------------------------------------------------------


def test_all_pruned_weights_freeze_at_their_initial_values():
    frozen = C.freeze_init(TICKET, DENSE)
    assert frozen.values["w"].tolist() == [1.0, -2.0, 3.0, -4.0]
    assert w(frozen.ticket) == [1.0, -2.0, 0.0, 0.0]
    assert frozen.ticket.metadata == {"round": 3, "control": {"name": "freeze_init"}}


def test_pruned_weights_that_grew_freeze_and_the_others_are_zero():
    frozen = C.freeze_increased(TICKET, DENSE, TRAINED)
    assert frozen.values["w"][2:].tolist() == [0.0, -4.0]
    assert w(frozen.ticket) == [1.0, -2.0, 0.0, 0.0]


def test_survivors_that_shrank_start_from_zero_in_zero_all():
    frozen = C.freeze_init_zero_all(TICKET, DENSE, TRAINED)
    assert frozen.values["w"][2:].tolist() == [0.0, -4.0]
    assert w(frozen.ticket) == [1.0, 0.0, 0.0, 0.0]
    assert frozen.ticket.masks["w"].tolist() == [True, True, False, False]


def test_pruned_weights_freeze_at_newly_drawn_values():
    model = mlp()
    ticket = of(model)
    frozen = C.freeze_reinit(ticket, model, 5)
    fresh = C.reinitialize(dense_of(model), model, 5)
    assert same(frozen.values, {p: fresh.weights[p] for p in ticket.masks})
    assert same(frozen.ticket.weights, ticket.weights)
    assert frozen.ticket.metadata["control"] == {"name": "freeze_reinit", "seed": 5}


@pytest.mark.parametrize("name", ["freeze_init", "freeze_increased", "freeze_init_zero_all"])
def test_nothing_else_of_the_ticket_changes(name):
    others = (DENSE,) if name == "freeze_init" else (DENSE, TRAINED)
    frozen = getattr(C, name)(TICKET, *others)
    assert same(frozen.ticket.masks, TICKET.masks)
    assert frozen.ticket.weights["b"].tolist() == [7.0, 8.0]
    assert w(TICKET) == [1.0, -2.0, 0.0, 0.0] and TICKET.metadata == {"round": 3}
    assert w(DENSE) == [1.0, -2.0, 3.0, -4.0]
    for i in range(len(others)):
        given = [TICKET if j == i else other for j, other in enumerate(others)]
        with pytest.raises(ValueError, match=r"`(dense|trained)`.*dense ticket.*50"):
            getattr(C, name)(TICKET, *given)


def test_frozen_values_of_other_weights_are_told():
    with pytest.raises(ValueError, match=r"masked weights.*\(4,\).*\(3,\) for 'w'"):
        C.Frozen(TICKET, {"w": np.zeros(3)})
    with pytest.raises(ValueError, match=r"masked weights.*for 'b'"):
        C.Frozen(TICKET, {"b": np.zeros(2)})


def test_a_frozen_ticket_is_applied_to_a_fresh_model_of_other_names():
    old, path = tiny()
    dense = kl.Ticket.of(old, {path: HALF | True})
    frozen = C.freeze_init(kl.Ticket.of(old, {path: HALF}), dense)
    model, other = tiny()
    model.set_weights([np.zeros((2, 1)), np.zeros(1)])
    handle = frozen.apply(model)
    assert other != path and handle.masks[other].tolist() == HALF.tolist()
    assert kernel_of(model) == [2.0, 3.0]
    model.set_weights([np.zeros((2, 1)), np.zeros(1)])
    assert kernel_of(model) == [0.0, 3.0]


def test_a_frozen_ticket_of_another_architecture_leaves_the_model_alone():
    model = mlp()
    before = model.get_weights()
    with pytest.raises(ValueError, match="another architecture"):
        C.freeze_init(TICKET, DENSE).apply(model)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_ticket_applied_afterwards_takes_the_frozen_values_off():
    model = mlp()
    model.compile("adam", "mse")
    ticket, dense = of(model), dense_of(model)
    C.freeze_init(ticket, dense).apply(model)
    assert same({p: v.numpy() for p, v in weights.all_weights(model).items()}, dense.weights)
    ticket.apply(model)
    model.fit(np.ones((4, 8)), np.ones((4, 10)), verbose=0)
    named = weights.all_weights(model)
    assert all(not named[p].numpy()[~m].any() for p, m in ticket.masks.items())
    assert all(v.constraint is None for v in named.values())


def test_other_masks_bring_back_all_of_a_ticket_after_freezing():
    model, path = tiny()
    dense = kl.Ticket.of(model, {path: HALF | True})
    C.freeze_init(kl.Ticket.of(model, {path: HALF}), dense).apply(model)
    kl.Ticket({path: ~HALF}, dense.weights).apply(model)
    assert kernel_of(model) == [0.0, 3.0]


# The handle -------------------------------------------------------------------------------


def test_one_step_by_hand():
    # y = 2 a + 0.5 b + 1, b frozen; at a = b = 1: y = 3.5, dy2/da = 7, dy2/dbias = 7
    model, path = tiny(keras.optimizers.SGD(0.1))
    handle = kl.enforce(model, {path: HALF}).freeze({path: np.array([[9.0], [0.5]])})
    assert kernel_of(model) == [2.0, 0.5]
    model.train_on_batch(np.ones((1, 2)), np.zeros((1, 1)))
    np.testing.assert_allclose(kernel_of(model), [2 - 0.7, 0.5], rtol=1e-6)
    np.testing.assert_allclose(model.get_weights()[1], [1 - 0.7], rtol=1e-6)
    assert kl.enforce(model, {path: HALF}) is handle and kernel_of(model)[1] == 0


def test_a_path_without_a_value_holds_zero_and_no_values_end_the_freezing():
    model, path = tiny("sgd")
    handle = kl.enforce(model, {path: HALF})
    assert handle.freeze({}) is handle
    assert model.layers[0].kernel.constraint is None
    handle.freeze({path: np.array([[9.0], [0.5]])})
    assert handle.freeze({}) is handle
    assert kernel_of(model) == [2.0, 0.0]
    assert model.layers[0].kernel.constraint is None


def test_updated_masks_send_newly_pruned_weights_to_their_values():
    model, path = tiny(keras.optimizers.SGD(0.1))
    handle = kl.enforce(model, {path: HALF}).freeze({path: np.array([[9.0], [0.5]])})
    handle.update({path: ~HALF})
    assert kernel_of(model) == [9.0, 0.5]
    model.train_on_batch(np.ones((1, 2)), np.zeros((1, 1)))
    assert kernel_of(model)[0] == 9.0 and kernel_of(model)[1] != 0.5


def test_whatever_writes_into_the_model_meets_the_frozen_values(tmp_path):
    model, path = tiny("sgd")
    model.save_weights(tmp_path / "all.weights.h5")
    handle = kl.enforce(model, {path: HALF}).freeze({path: np.array([[9.0], [0.5]])})
    model.load_weights(tmp_path / "all.weights.h5")
    assert kernel_of(model) == [2.0, 0.5]
    model.set_weights([np.array([[4.0], [5.0]]), np.zeros(1)])
    assert kernel_of(model) == [4.0, 0.5]
    model.layers[0].kernel.assign([[4.0], [np.nan]])
    handle.remask()
    assert kernel_of(model) == [4.0, 0.5]


@pytest.mark.parametrize("leave", [lambda m, h: h.remove(), lambda m, h: kl.strip(m)])
def test_what_is_left_without_the_masks_is_an_ordinary_model_of_those_values(leave):
    model, path = tiny(keras.optimizers.SGD(0.1))
    handle = kl.enforce(model, {path: HALF}).freeze({path: np.array([[9.0], [0.5]])})
    leave(model, handle)
    assert kernel_of(model) == [2.0, 0.5]
    assert model.layers[0].kernel.constraint is None and "apply" not in vars(model.optimizer)
    model.train_on_batch(np.ones((1, 2)), np.zeros((1, 1)))
    assert kernel_of(model)[1] != 0.5


def test_freezing_what_is_not_masked_or_of_another_shape_is_told_and_changes_nothing():
    model, path = tiny()
    handle = kl.enforce(model, {path: HALF})
    right = {path: np.ones((2, 1))}
    with pytest.raises(ValueError, match=r"No mask is enforced on 'bias'.*kernel"):
        handle.freeze({**right, "bias": np.ones(1)})
    with pytest.raises(ValueError, match=r"shape \(2, 1\).*kernel.*Received: \(2,\)"):
        handle.freeze({path: np.ones(2)})
    assert kernel_of(model) == [2.0, 0.0]


def test_a_users_constraint_sees_and_keeps_the_frozen_values():
    seen = []

    class Halve(keras.constraints.Constraint):
        def __call__(self, weight):
            seen.append(weight)
            return weight / 2

    model, path = tiny(kernel_constraint=Halve())
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    kl.enforce(model, {path: HALF}).freeze({path: np.array([[9.0], [0.5]])})
    model.train_on_batch(np.ones((1, 2)), np.zeros((1, 1)))
    assert np.ravel(seen[-1]).tolist() == [2.0, 0.5]
    assert kernel_of(model) == [1.0, 0.5]


# Real steps -------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(32, 10)).astype(np.float32)
opt = keras.optimizers
OPTIMIZERS = {
    "momentum": lambda: opt.SGD(0.01, momentum=0.9, nesterov=True),
    "sgd with decay": lambda: opt.SGD(0.01, weight_decay=0.1),
    "adamw": lambda: opt.AdamW(0.01, weight_decay=0.1),
    "muon": lambda: opt.Muon(0.01, weight_decay=0.1),
    "adafactor": lambda: opt.Adafactor(0.01),
    "averages": lambda: opt.Adam(0.01, use_ema=True, ema_momentum=0.7),
    "averages written back": lambda: opt.AdamW(
        0.01, weight_decay=0.1, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=3
    ),
    "muon with averages": lambda: opt.Muon(0.01, use_ema=True, ema_momentum=0.7),
    "loss scaling": lambda: opt.LossScaleOptimizer(opt.AdamW(0.01, use_ema=True, ema_momentum=0.7)),
    "accumulation": lambda: opt.AdamW(0.01, gradient_accumulation_steps=2, weight_decay=0.1),
}


def regularized():
    dense = {"kernel_regularizer": keras.regularizers.L2(0.1), "bias_regularizer": "l1"}
    return keras.Sequential([keras.Input((8,)), L.Dense(16, "relu", **dense), L.Dense(10, **dense)])


class Watch(keras.callbacks.Callback):
    """Looks at the frozen weights after every step."""

    def __init__(self, frozen):
        super().__init__()
        self.frozen, self.steps = frozen, 0

    def exact(self):
        named = weights.all_weights(self.model)
        return all(
            np.array_equal(named[p].numpy()[~m], self.frozen.values[p][~m])
            for p, m in self.frozen.ticket.masks.items()
        )

    def on_train_batch_end(self, batch, logs=None):
        assert self.exact()
        self.steps += 1


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_values_stay_exact_after_every_step_and_their_slots_zero(name, jit):
    model = regularized()
    model.compile(OPTIMIZERS[name](), "mse", jit_compile=jit)
    ticket, dense = of(model), dense_of(model)
    frozen = C.freeze_init(ticket, dense)
    handle, watch = frozen.apply(model), Watch(frozen)
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[watch])
    assert watch.exact() and watch.steps == 8
    named = weights.all_weights(model)
    for path, mask in ticket.masks.items():
        assert not np.array_equal(named[path].numpy()[mask], dense.weights[path][mask])
        for kind, slot in handle.slots[path].items():
            held = dense.weights[path][~mask] if kind == "average" else 0
            assert np.all(slot.numpy()[~mask] == held), (path, kind)
    assert any(handle.slots.values()) == (name != "sgd with decay")


def test_survivors_train_like_those_of_a_model_that_masks_by_hand():
    model = regularized()
    dense = dense_of(model)
    frozen = C.freeze_init(of(model), dense)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    frozen.apply(model)
    other = regularized()
    other.set_weights(list(dense.weights.values()))
    masks = list(frozen.ticket.masks.values())
    momentum = [np.zeros(v.shape, np.float32) for v in other.trainable_variables]
    by_hand = [masks[0], 1, masks[1], 1]
    import tensorflow as tf

    for _ in range(5):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((other(X) - Y) ** 2) + sum(other.losses)
        grads = tape.gradient(loss, [v.value for v in other.trainable_variables])
        for i, (v, g) in enumerate(zip(other.trainable_variables, grads, strict=True)):
            momentum[i] = 0.9 * momentum[i] - 0.1 * np.asarray(g) * by_hand[i]
            v.assign_add(momentum[i])
        model.train_on_batch(X, Y)
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_freezing_after_training_and_compiling_anew_stays_exact():
    model = regularized()
    model.compile("adam", "mse")
    ticket = of(model)
    kl.enforce(model, ticket.masks)
    model.fit(X, Y, batch_size=8, verbose=0)
    frozen = C.freeze_reinit(ticket, model, 0)
    for optimizer in (None, "rmsprop", opt.AdamW(0.01, weight_decay=0.1, use_ema=True)):
        if optimizer is not None:
            model.compile(optimizer, "mse")
        else:
            frozen.apply(model)
        watch = Watch(frozen)
        model.fit(X, Y, batch_size=8, verbose=0, callbacks=[watch])
        assert watch.exact() and watch.steps == 4


def test_a_search_trains_a_frozen_ticket_as_it_trains_any_other():
    from keras_lottery.loop import train_ticket

    model = regularized()
    model.compile("adam", "mse")

    def train(model, callbacks):
        return model.fit(X, Y, batch_size=8, verbose=0, callbacks=callbacks)

    search = kl.find_ticket(model, train, rounds=2, verbose=0)
    dense = kl.Ticket(search.ticket(0).masks, search.ticket(0).weights)
    frozen = C.freeze_init(search.ticket(1), dense)
    train_ticket(search, frozen, train)
    watch = Watch(frozen)
    watch.set_model(model)
    assert watch.exact()
    train_ticket(search, search.ticket(1), train)
    named = weights.all_weights(model)
    assert all(not named[p].numpy()[~m].any() for p, m in search.ticket(1).masks.items())


def test_frozen_values_survive_a_mirrored_strategy():
    with zoo.two_devices().scope():
        model = regularized()
        model.compile(opt.AdamW(0.01, weight_decay=0.1), "mse")
    frozen = C.freeze_init(of(model), dense_of(model))
    frozen.apply(model)
    watch = Watch(frozen)
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[watch])
    assert watch.exact() and watch.steps == 4
