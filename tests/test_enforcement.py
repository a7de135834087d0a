"""Enforcement: the handle, and the ways in which users meet it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo

import keras_lottery as kl
from keras_lottery import weights

X = np.random.default_rng(0).normal(size=(48, 8, 8, 1)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 48)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def tiny():
    """Two weights in, one out: the kernel is [[2], [3]], the bias 1."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.set_weights([np.array([[2.0], [3.0]]), np.array([1.0])])
    return model, model.layers[0].kernel.path


def half(model, seed=0):
    rng = np.random.default_rng(seed)
    return {p: rng.random(tuple(v.shape)) < 0.5 for p, v in weights.prunable(model).items()}


def pruned_are_zero(model, masks):
    named = weights.all_weights(model)
    return all(not named[p].numpy()[~m].any() for p, m in masks.items())


def fit(model, **options):
    return model.fit(X, Y, batch_size=16, epochs=2, verbose=0, **options)


def test_one_step_by_hand():
    # y = 2 a + 3 b + 1, b pruned; loss = y^2 at a = 1, b = 1: y = 3, dy/da = 6, dy/dbias = 6
    model, path = tiny()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    kl.enforce(model, {path: np.array([[True], [False]])})
    assert model.get_weights()[0].tolist() == [[2.0], [0.0]]
    model.train_on_batch(np.ones((1, 2)), np.zeros((1, 1)))
    np.testing.assert_allclose(model.get_weights()[0], [[2 - 0.6], [0.0]], rtol=1e-6)
    np.testing.assert_allclose(model.get_weights()[1], [1 - 0.6], rtol=1e-6)


def test_enforce_before_compile_and_through_a_second_compile():
    model = zoo.sequential()
    masks = half(model)
    kl.enforce(model, masks)
    for optimizer in ("adam", keras.optimizers.Muon(0.01)):
        model.compile(optimizer, LOSS)
        fit(model)
        assert pruned_are_zero(model, masks)
        slots = weights.slots(model.optimizer, weights.prunable(model))
        assert any(slots.values())
        for path, mask in masks.items():
            assert all(not s.numpy()[~mask].any() for s in slots[path].values())


def test_enforce_on_a_model_that_was_trained_and_traced():
    model = zoo.sequential()
    model.compile("adam", LOSS)
    fit(model)
    masks = half(model)
    kl.enforce(model, masks)
    assert pruned_are_zero(model, masks)
    fit(model)
    assert pruned_are_zero(model, masks)


def test_update_changes_the_masks_without_a_new_trace():
    traces = []

    class Counted(keras.layers.Dense):
        def call(self, x):
            if not isinstance(x, keras.KerasTensor):
                traces.append(1)
            return super().call(x)

    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), Counted(3)])
    model.compile("adam", LOSS)
    handle = kl.enforce(model, half(model))
    fit(model)
    seen = len(traces)
    for seed in (1, 2, 3):
        masks = half(model, seed)
        handle.update(masks)
        assert kl.enforce(model, masks) is handle
        fit(model)
        assert pruned_are_zero(model, masks)
        assert np.array_equal(handle.masks[next(iter(masks))], next(iter(masks.values())))
    assert len(traces) == seen


def test_context_manager_and_remove_leave_an_ordinary_model():
    model, path = tiny()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    apply = model.optimizer.apply
    with kl.enforce(model, {path: np.array([[True], [False]])}):
        assert kl.density(model) == 0.5
        model.train_on_batch(np.ones((1, 2)), np.zeros((1, 1)))
    assert model.get_weights()[0][1, 0] == 0
    assert model.optimizer.apply == apply and "make_train_function" not in vars(model)
    assert model.layers[0].kernel.constraint is None
    model.train_on_batch(np.ones((1, 2)), np.zeros((1, 1)))
    assert model.get_weights()[0][1, 0] != 0


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_a_users_constraint_keeps_working(optimizer):
    class Shift(keras.constraints.Constraint):
        """Not a constraint that keeps zeros."""

        def __call__(self, w):
            return keras.ops.clip(w, -0.05, 0.05) + 0.01

    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(3, kernel_constraint=Shift()),
        ]
    )
    user = model.layers[-1].kernel.constraint
    model.compile(optimizer, LOSS)
    masks = half(model)
    handle = kl.enforce(model, masks)
    fit(model)
    (mask,) = masks.values()
    kernel = model.layers[-1].kernel.numpy()
    assert not kernel[~mask].any()
    assert kernel[mask].min() >= -0.05 and kernel[mask].max() <= 0.06 + 1e-7
    assert kernel[mask].max() > 0.0
    handle.remove()
    assert model.layers[-1].kernel.constraint is user


def test_layers_names_and_config_stay_as_they_were():
    model = zoo.functional()
    config, names = model.get_config(), [layer.name for layer in model.layers]
    paths = [v.path for v in model.variables]
    model.compile("adam", LOSS)
    kl.enforce(model, half(model))
    assert model.get_config() == config
    assert [layer.name for layer in model.layers] == names
    assert [v.path for v in model.variables] == paths


def test_an_enforced_model_saves_and_loads_as_plain_keras(tmp_path):
    model = zoo.sequential()
    model.compile("adam", LOSS)
    masks = half(model)
    kl.enforce(model, masks)
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        assert np.array_equal(a, b)
    assert kl.density(loaded) == pytest.approx(kl.density(model))
    fit(loaded)
    assert kl.density(loaded) > 0.9  # no masks came along: zeros train again


def test_weights_written_by_hand_are_zeroed_at_the_next_fit():
    model = zoo.sequential()
    model.compile("adam", LOSS)
    masks = half(model)
    kl.enforce(model, masks)
    model.set_weights([np.ones_like(w) for w in model.get_weights()])
    fit(model)
    assert pruned_are_zero(model, masks)


@pytest.mark.parametrize("passes_variables", [True, False])
def test_custom_loop_with_its_own_optimizer(passes_variables):
    model = zoo.sequential()
    masks = half(model)
    optimizer = keras.optimizers.Adam(0.01, global_clipnorm=0.1)
    kl.enforce(model, masks, optimizer=optimizer)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = LOSS(y, model(x, training=True))
        grads = tape.gradient(loss, model.trainable_variables)
        if passes_variables:
            optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        else:
            optimizer.apply(grads)
        return loss

    first = float(step(X, Y))
    for _ in range(20):
        last = float(step(X, Y))
    assert last < first
    assert pruned_are_zero(model, masks)
    slots = weights.slots(optimizer, weights.prunable(model))
    for path, mask in masks.items():
        assert len(slots[path]) == 2
        assert all(not s.numpy()[~mask].any() for s in slots[path].values())


def test_gradients_without_their_variables_must_match_the_model():
    model = zoo.sequential()
    model.compile("adam", LOSS)
    kl.enforce(model, half(model))
    with pytest.raises(ValueError, match="one gradient for each"):
        model.optimizer.apply([tf.zeros((64, 16))])


def test_nan_gradients_of_pruned_weights_do_no_harm():
    model, path = tiny()
    model.compile(keras.optimizers.Adam(0.1), "mse")
    kl.enforce(model, {path: np.array([[True], [False]])})
    grads = [tf.constant([[1.0], [np.nan]]), tf.constant([1.0])]
    model.optimizer.apply(grads, model.trainable_variables)
    assert np.isfinite(model.get_weights()[0]).all() and model.get_weights()[0][1, 0] == 0


def test_sparse_gradients_of_a_masked_embedding():
    model = keras.Sequential(
        [keras.Input((3,), dtype="int32"), keras.layers.Embedding(5, 4), keras.layers.Flatten(),
         keras.layers.Dense(2)]
    )  # fmt: skip
    model.compile("adam", LOSS)
    path = model.layers[0].embeddings.path
    mask = np.random.default_rng(0).random((5, 4)) < 0.5
    kl.enforce(model, {path: mask})
    x = np.random.default_rng(0).integers(0, 5, (16, 3))
    model.fit(x, x[:, 0] % 2, verbose=0, epochs=2)
    assert not model.layers[0].embeddings.numpy()[~mask].any()


def test_masks_cost_one_byte_a_weight():
    model = zoo.sequential()
    handle = kl.enforce(model, half(model))
    assert all(m.value.dtype.size == 1 for m in handle._masks.values())


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (lambda p: {"nowhere": np.ones((2, 1), bool)}, "has no weight 'nowhere'"),
        (lambda p: {p: np.ones((1, 2), bool)}, r"bool mask of shape \(2, 1\)"),
        (lambda p: {p: np.ones((2, 1))}, "Received: float64"),
    ],
)
def test_wrong_masks_are_refused_and_nothing_changes(masks, message):
    model, path = tiny()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        kl.enforce(model, masks(path))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert kl.density(model) == 1.0


def test_update_refuses_other_paths():
    model, path = tiny()
    handle = kl.enforce(model, {path: np.ones((2, 1), bool)})
    with pytest.raises(ValueError, match="Expected masks of shapes"):
        handle.update({path: np.ones((1, 2), bool)})


def test_a_dropped_model_is_freed():
    import gc
    import weakref

    model = zoo.sequential()
    model.compile("adam", LOSS)
    kl.enforce(model, half(model))
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


def test_density_without_masks_counts_zeros():
    model, _ = tiny()
    model.set_weights([np.array([[0.0], [3.0]]), np.array([1.0])])
    assert kl.density(model) == 0.5


def test_summary_prints_a_row_for_each_weight(capsys):
    model, path = tiny()
    kl.enforce(model, {path: np.array([[True], [False]])})
    kl.summary(model)
    printed = capsys.readouterr().out
    assert path in printed and "50.00%" in printed


@pytest.mark.parametrize("name", ["Ftrl", "Adagrad"])
def test_optimizers_that_divide_by_their_accumulator_train_under_masks(name):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(getattr(keras.optimizers, name)(0.1), "mse")
    path, mask = model.layers[0].kernel.path, np.arange(12).reshape(4, 3) % 2 == 0
    kl.enforce(model, {path: mask})
    before = model.layers[0].kernel.numpy()
    model.fit(np.ones((8, 4), "float32"), np.ones((8, 3), "float32"), epochs=3, verbose=0)
    after = model.layers[0].kernel.numpy()
    assert np.isfinite(after).all() and not after[~mask].any()
    assert (after != before)[mask].all()
