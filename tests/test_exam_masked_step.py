"""The exam of enforcement: a masked step is a step of the network without those weights.

The reference is the same network whose forward pass is masked (`weight * mask`), trained
by Keras alone: the chain rule masks its gradients. Rows are optimizers, columns features.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo

import keras_lottery as kl
from keras_lottery import weights

STEPS, BATCH = 24, 16
OPTIMIZERS = {
    "sgd_momentum": lambda **k: keras.optimizers.SGD(0.05, momentum=0.9, **k),
    "adam": lambda **k: keras.optimizers.Adam(3e-3, **k),
    "adamw": lambda **k: keras.optimizers.AdamW(3e-3, weight_decay=0.05, **k),
    "adam_global_clipnorm": lambda **k: keras.optimizers.Adam(3e-3, global_clipnorm=0.05, **k),
    "sgd_clipnorm": lambda **k: keras.optimizers.SGD(0.05, clipnorm=0.05, **k),
    "lamb": lambda **k: keras.optimizers.Lamb(3e-3, **k),
    "muon": lambda **k: keras.optimizers.Muon(3e-3, **k),
    "lion": lambda **k: keras.optimizers.Lion(1e-3, **k),
    "adafactor": lambda **k: keras.optimizers.Adafactor(3e-3, **k),
}
FEATURES = (
    "plain",
    "jit_compile",
    "mixed_float16",
    "gradient_accumulation",
    "ema",
    "steps_per_execution",
    "run_eagerly",
    "custom_train_step",
    "mirrored",
)


def data():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(BATCH * STEPS // 3, 8, 8, 1)).astype("float32")
    return x, rng.integers(0, 3, len(x))


def random_masks(variables, seed=2):
    """40 % alive, and something alive in every row and column.

    Keras's Adafactor itself turns to NaN where a whole row has no gradient (0 / 0).
    """
    rng = np.random.default_rng(seed)
    masks = {p: rng.random(tuple(v.shape)) < 0.4 for p, v in variables.items()}
    for mask in masks.values():
        *_, i, j = np.indices(mask.shape)
        mask |= (i - j) % min(mask.shape[-2:]) == 0
        mask[(0,) * mask.ndim] = False
    return masks


class ForwardMasked(keras.Model):
    """The reference: `inner` computed with `weight * mask`."""

    def __init__(self, inner, masks):
        super().__init__()
        self.inner = inner
        named = weights.all_weights(inner)
        self.pairs = [(named[p], tf.constant(m)) for p, m in masks.items()]

    def call(self, x, training=False):
        mapping = [(v, v.value * tf.cast(m, v.dtype)) for v, m in self.pairs]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            outputs = self.inner(x, training=training)
        for variable in self.inner.non_trainable_variables:
            value = scope.get_current_value(variable)
            if value is not None:
                variable.assign(value)
        return outputs


class OwnStep(keras.Model):
    """A user's train_step."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x, training=False):
        return self.inner(x, training=training)

    def train_step(self, batch):
        x, y = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


class ZeroAtEveryStep(keras.callbacks.Callback):
    """Looks at the pruned weights and their slots after every batch."""

    def __init__(self, variables, masks):
        super().__init__()
        self.variables, self.masks = variables, masks

    def on_train_batch_end(self, batch, logs=None):
        slots = weights.slots(self.model.optimizer, self.variables)
        for path, mask in self.masks.items():
            for variable in [self.variables[path], *slots[path].values()]:
                assert not variable.numpy()[~mask].any(), (path, variable.name, batch)


def compile_and_fit(model, optimizer, feature, callbacks=()):
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=feature == "jit_compile",
        run_eagerly=feature == "run_eagerly",
        steps_per_execution=4 if feature == "steps_per_execution" else 1,
    )
    x, y = data()
    model.fit(x, y, batch_size=BATCH, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)


def make_optimizer(name, feature):
    options = {
        "gradient_accumulation": {"gradient_accumulation_steps": 2},
        "ema": {"use_ema": True, "ema_momentum": 0.9},
    }.get(feature, {})
    return OPTIMIZERS[name](**options)


def train_both(build, optimizer_name, feature):
    """Trained weights of the reference (masked) and of the enforced model, and the masks."""
    if feature == "mixed_float16":
        keras.config.set_dtype_policy("mixed_float16")
    strategy = zoo.two_devices() if feature == "mirrored" else tf.distribute.get_strategy()
    with strategy.scope():
        reference, ours = build(), build()
        ours.set_weights(reference.get_weights())
        variables = weights.prunable(ours)
        masks = random_masks(variables)
        by_order = dict(zip(weights.prunable(reference), masks.values(), strict=True))
        named = weights.prunable(reference)
        for path, mask in by_order.items():
            named[path].assign(named[path].numpy() * mask)
        masked = ForwardMasked(reference, by_order)
        masked.build((None, 8, 8, 1))
        model = OwnStep(ours) if feature == "custom_train_step" else ours
        if model is not ours:
            model.build((None, 8, 8, 1))
        optimizers = [make_optimizer(optimizer_name, feature) for _ in range(2)]
        handle = kl.enforce(model, masks)
        compile_and_fit(masked, optimizers[0], feature)
        compile_and_fit(model, optimizers[1], feature, [ZeroAtEveryStep(variables, masks)])
    expected = [
        v.numpy() * by_order[p] if p in by_order else v.numpy()
        for p, v in weights.all_weights(reference).items()
    ]
    return expected, weights.read(weights.all_weights(ours)), handle


def check(build, optimizer, feature):
    expected, ours, handle = train_both(build, optimizer, feature)
    for value, (path, mine) in zip(expected, ours.items(), strict=True):
        np.testing.assert_allclose(mine, value, atol=1e-5, rtol=0, err_msg=path)
    for path, mask in handle.masks.items():
        assert not ours[path][~mask].any(), path
        assert np.abs(ours[path][mask]).max() > 0


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_masked_step_is_a_step_of_the_network_without_the_weights(optimizer, feature):
    check(zoo.sequential, optimizer, feature)


@pytest.mark.parametrize("feature", ["plain", "jit_compile"])
@pytest.mark.parametrize("optimizer", ["adam_global_clipnorm", "muon"])
@pytest.mark.parametrize("model", zoo.MODELS)
def test_masked_step_is_exact_in_every_kind_of_model(model, optimizer, feature):
    check(zoo.MODELS[model], optimizer, feature)
