"""A training: the same bits however often it is interrupted, and the same as plain Keras."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lottery import enforcement, weights
from keras_lottery import masks as mask_ops
from keras_lottery.experiments import checkpoints, setup
from keras_lottery.experiments import training as module
from keras_lottery.experiments.batches import batches
from keras_lottery.experiments.checkpoints import Progress
from keras_lottery.experiments.config import Config
from keras_lottery.experiments.training import Trainer, at, early_stop
from keras_lottery.rewinding import Snapshot

SEED = 7  # of the order of the data
STEPS = 14
SMALL = {"subset": 96, "batch_size": 16, "steps": f"{STEPS}it", "eval_every": "4it"}


def conv(shape, classes):
    """Everything that has a state: statistics of a normalization and the seed of a dropout."""
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv2D(4, 3, use_bias=False, name="conv"),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(classes, name="logits"),
        ]
    )


def dense(shape, classes):
    layers = [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(12, "relu")]
    return keras.Sequential([*layers, keras.layers.Dense(classes)])


CONFIGS = {
    "conv": Config(
        model=f"{__name__}:conv",
        optimizer="momentum",
        learning_rate=0.05,
        augment="flip_crop",
        warmup="6it",
        lr_drops=("9it",),
        weight_decay=1e-3,
        rewind_to="5it",
        **SMALL,
    ),
    "dense": Config(model=f"{__name__}:dense", learning_rate=0.01, rewind_to="5it", **SMALL),
}


class Whole:
    """A training without interruption, its checkpoints, and its trainer."""

    def __init__(self, name):
        self.trainer = Trainer(CONFIGS[name])
        self.initial = self.trainer.initial(0)
        self.trainer.put(self.initial)
        self.pauses, self.rewind = {}, []
        self.end = self.trainer.train(
            start_of(self.initial), SEED, STEPS, self.rewind.append, self._pause
        )

    def _pause(self, step, curve, progress):
        self.pauses[step] = progress()
        self.pauses[step].curve = {k: list(v) for k, v in curve.items()}

    def run(self, start=None, seed=SEED, until=STEPS, **options):
        start = start or start_of(self.initial)
        self.trainer.put(start.snapshot)
        return self.trainer.train(start, seed, until, **options)


def start_of(snapshot):
    return Progress(Snapshot(snapshot.step, snapshot.variables, snapshot.optimizer))


@pytest.fixture(scope="module", params=CONFIGS)
def whole(request):
    return Whole(request.param)


@pytest.fixture(scope="module")
def whole_conv():
    return Whole("conv")


def bits(snapshot):
    arrays = [*snapshot.variables.values(), *snapshot.optimizer]
    return snapshot.step, [(a.dtype, a.shape, a.tobytes()) for a in arrays]


def same(one, other):
    return bits(one.snapshot) == bits(other.snapshot) and one.curve == other.curve


# Pauses and curves, by hand ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "until", "every", "rewind", "pauses"),
    [
        (0, 14, 4, 5, [4, 5, 8, 12, 14]),
        (5, 14, 4, 5, [8, 12, 14]),
        (4, 14, 4, 0, [8, 12, 14]),
        (0, 12, 4, 4, [4, 8, 12]),
        (12, 12, 4, 5, []),
        (0, 3, 100, 2, [2, 3]),
        (14, 28, 4, 0, [16, 20, 24, 28]),
    ],
)
def test_a_training_pauses_at_evaluations_the_rewind_point_and_the_end(
    step, until, every, rewind, pauses
):
    assert module._pauses(step, until, every, rewind) == pauses


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 20), st.integers(0, 60))
def test_pauses_are_those_of_the_words(step, until, every, rewind):
    wanted = [s for s in range(step + 1, until + 1) if s % every == 0 or s in (rewind, until)]
    assert module._pauses(step, until, every, rewind) == wanted


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("losses", "index"),
    [
        ([3.0, 1.0, 2.0], 1),
        ([1.0, 1.0], 0),
        ([NAN, 2.0, NAN], 1),
        ([None, 2.0, 1.5, None], 2),
        ([NAN, None, NAN], 2),
        ([INF, NAN], 1),
        ([INF, 5.0, NAN], 1),
    ],
)
def test_early_stop_is_at_the_lowest_finite_loss(losses, index):
    assert early_stop({"val_loss": losses}) == index


def test_the_numbers_at_an_evaluation():
    curve = {"step": [4, 8], "loss": [0.5, 0.25]}
    assert at(curve, 0) == {"step": 4, "loss": 0.5}
    assert at(curve, -1) == {"step": 8, "loss": 0.25}


# Interruptions ----------------------------------------------------------------------------


def test_the_curve_has_every_evaluation_and_the_end(whole):
    curve = whole.end.curve
    assert curve["step"] == [4, 8, 12, 14] == list(whole.pauses)
    assert {len(values) for values in curve.values()} == {4}
    names = {"step", "loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy"}
    assert set(curve) == names
    assert whole.end.snapshot.step == int(whole.trainer.model.optimizer.iterations) == STEPS


@pytest.mark.parametrize("step", [4, 8, 12, 14])
def test_a_training_goes_on_from_a_checkpoint_to_the_same_bits(whole, tmp_path, step):
    checkpoints.save(tmp_path / "c", whole.pauses[step])
    whole.run(start_of(whole.trainer.initial(5)), seed=99, until=3)
    resumed = whole.run(checkpoints.load(tmp_path / "c"))
    assert same(resumed, whole.end)


def test_a_training_interrupted_at_every_pause_is_the_same(whole, tmp_path):
    now = start_of(whole.initial)
    for until in (4, 8, 12, 14):
        checkpoints.save(tmp_path / "c", whole.run(now, until=until))
        now = checkpoints.load(tmp_path / "c")
    assert same(now, whole.end)


def test_one_that_fails_between_two_evaluations_leaves_no_trace(whole):
    def fail(snapshot):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        whole.run(on_rewind_point=fail)
    assert same(whole.run(), whole.end)


def test_another_trainer_gives_the_same_bits(whole_conv):
    other = Whole("conv")
    assert same(other.end, whole_conv.end)
    assert bits(other.rewind[0]) == bits(whole_conv.rewind[0])


def test_a_trainer_survives_a_clear_session(whole):
    keras.utils.clear_session()
    keras.utils.set_random_seed(123)
    assert same(whole.run(start_of(whole.trainer.initial(0))), whole.end)


def test_training_leaves_its_start_as_it_was(whole):
    start = whole.pauses[8]
    before, curve = bits(start.snapshot), {k: list(v) for k, v in start.curve.items()}
    end = whole.run(start)
    assert bits(start.snapshot) == before and start.curve == curve
    assert end.seconds > start.seconds


def test_another_order_of_the_data_gives_another_training(whole):
    other = whole.run(seed=SEED + 1)
    assert other.curve["loss"] != whole.end.curve["loss"]
    assert bits(other.snapshot) != bits(whole.end.snapshot)


def test_another_initialization_gives_another_training(whole):
    one, other = whole.trainer.initial(0), whole.trainer.initial(1)
    assert bits(one) == bits(whole.initial)
    kernels = weights.prunable(whole.trainer.model)
    assert not any((one.variables[p] == other.variables[p]).any() for p in kernels)
    assert one.step == 0 and int(one.optimizer[0]) == 0
    assert not any(slot.any() for slot in one.optimizer[2:])


# The rewind point -------------------------------------------------------------------------


def test_the_state_at_the_rewind_point_is_that_of_the_training(whole):
    (rewind,) = whole.rewind
    assert rewind.step == 5
    assert bits(whole.run(until=5).snapshot) == bits(rewind)


def test_a_training_from_the_rewind_point_ends_in_the_same_bits(whole):
    end = whole.run(start_of(whole.rewind[0]))
    assert bits(end.snapshot) == bits(whole.end.snapshot)
    assert end.curve["step"] == [8, 12, 14]
    for name in set(end.curve) - {"loss"}:
        assert end.curve[name] == whole.end.curve[name][1:]
    assert end.curve["loss"][1:] == whole.end.curve["loss"][2:]


def test_the_rewind_point_is_told_only_if_it_lies_ahead(whole):
    found = []
    whole.run(whole.pauses[8], on_rewind_point=found.append)
    assert found == []


# Numbers ----------------------------------------------------------------------------------


def plain(trainer, snapshot):
    """A model that no mask was ever put on, with the state of `snapshot`."""
    model = setup.build_model(trainer.config, trainer.data, seed=3)
    setup.make_compiled(trainer.config, model, trainer.lengths)
    values = list(snapshot.variables.values())
    for variable, value in zip(weights.all_variables(model).values(), values, strict=True):
        variable.assign(value)
    return model


def test_evaluations_are_those_of_keras(whole):
    model = plain(whole.trainer, whole.end.snapshot)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for variable in model.trainable_variables:
        variable.regularizer = None
    model.compile(loss=loss, metrics=["accuracy"])
    data = whole.trainer.data
    for name, part in (("val", data.validation), ("test", data.test)):
        expected = model.evaluate(*part, verbose=0)
        found = [whole.end.curve[f"{name}_{what}"][-1] for what in ("loss", "accuracy")]
        assert found == pytest.approx(expected, rel=1e-5)
    whole.trainer.put(whole.end.snapshot)
    expected = model.evaluate(*data.train, verbose=0)[1]
    assert whole.trainer.train_accuracy() == pytest.approx(expected, rel=1e-6)


def test_a_dense_training_is_that_of_keras(whole):
    model, trainer = plain(whole.trainer, whole.initial), whole.trainer
    augment = "flip_crop" if trainer.config.augment == "flip_crop" else None
    stream = batches(trainer.data.train, 16, SEED, augment=augment)
    history = model.fit(stream, steps_per_epoch=4, epochs=3, verbose=0, shuffle=False)
    np.testing.assert_allclose(history.history["loss"], whole.end.curve["loss"][:3], rtol=1e-5)
    rest = batches(trainer.data.train, 16, SEED, start=12, augment=augment)
    model.fit(rest, steps_per_epoch=2, verbose=0, shuffle=False)
    found = whole.end.snapshot.variables.values()
    for value, variable in zip(found, weights.all_variables(model).values(), strict=True):
        np.testing.assert_allclose(value, variable.numpy(), rtol=1e-5, atol=1e-6)
    for value, variable in zip(
        whole.end.snapshot.optimizer, model.optimizer.variables, strict=True
    ):
        np.testing.assert_allclose(value, variable.numpy(), rtol=1e-5, atol=1e-6)


def test_training_learns(whole):
    loss = whole.end.curve["loss"]
    assert loss[-1] < loss[0]


# Masks ------------------------------------------------------------------------------------


def test_pruned_weights_and_their_slots_stay_zero(whole):
    trainer, rng = whole.trainer, np.random.default_rng(0)
    masks = {p: rng.random(m.shape) < 0.5 for p, m in trainer.full_masks.items()}
    trainer.put(whole.rewind[0], masks)
    end = trainer.train(start_of(whole.rewind[0]), SEED, STEPS)
    named = weights.all_weights(trainer.model)
    slots = weights.slots(trainer.model.optimizer, named)
    for path, mask in masks.items():
        values = end.snapshot.variables[path]
        assert (values[~mask] == 0).all() and (values[mask] != 0).all()
        for slot in slots[path].values():
            assert (slot.numpy()[~mask] == 0).all() and slot.numpy()[mask].any()
    trainer.put(whole.initial, trainer.full_masks)
    assert mask_ops.density(enforcement.enforced_masks(trainer.model)) == 1
    assert same(whole.run(), whole.end)


def test_a_fresh_trainer_prunes_nothing(whole):
    masks = whole.trainer.full_masks
    assert list(masks) == list(weights.prunable(whole.trainer.model))
    assert mask_ops.density(masks) == 1


def test_a_training_that_breaks_goes_on_with_nan(whole_conv):
    broken = whole_conv.trainer.initial(0)
    path = next(iter(whole_conv.trainer.full_masks))
    broken.variables[path] = np.full_like(broken.variables[path], np.nan)
    end = whole_conv.run(start_of(broken))
    assert np.isnan(end.curve["val_loss"]).all() and early_stop(end.curve) == 3
    assert same(whole_conv.run(), whole_conv.end)
