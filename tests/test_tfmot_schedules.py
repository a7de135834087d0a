"""tfmot's own pruning schedules drive rounds and gradual pruning."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import keras_lottery as kl
from keras_lottery.asking import ask_all
from keras_lottery.gradual import GradualPruning
from keras_lottery.schedules import KeepSparsity, StepSchedule
from keras_lottery.tfmot import importing

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def tfmot():
    return importing.load().tfmot.sparsity.keras


def network():
    """56 prunable weights: 4 x 8 and 8 x 3."""
    model = keras.Sequential([keras.Input((4,)), L.Dense(8, "relu"), L.Dense(3)])
    model.compile("adam", LOSS)
    return model


def train(model, callbacks, epochs=1):
    """4 steps an epoch."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(32, 4)).astype("float32"), rng.integers(0, 3, 32)
    return model.fit(x, y, 8, epochs=epochs, verbose=0, callbacks=callbacks)


def densities(schedule, rounds, **options):
    """By both doors: LotteryCallback with a round of one epoch, and find_ticket."""
    lottery = kl.LotteryCallback(1, schedule, verbose=0, **options)
    train(network(), [lottery], epochs=rounds)
    search = kl.find_ticket(network(), train, rounds, prune_fraction=schedule, verbose=0, **options)
    found = [r.density for r in lottery.rounds]
    assert found == [r.density for r in search.rounds]
    return found


def test_constant_sparsity_prunes_once(tfmot):
    schedule = tfmot.ConstantSparsity(0.75, begin_step=8, frequency=4)
    assert densities(schedule, 4) == [1.0, 1.0, 0.25, 0.25]


def test_polynomial_decay_prunes_round_by_round(tfmot):
    schedule = tfmot.PolynomialDecay(0.25, 0.75, begin_step=4, end_step=12, power=1, frequency=4)
    assert densities(schedule, 4) == [1.0, 0.75, 0.5, 0.25]


def own(tfmot):
    class Own(tfmot.PruningSchedule):
        """Half, a pause, then an eighth; at the steps of rounds of four."""

        def __call__(self, step):
            return tf.reduce_any(step == tf.constant([4, 12])), 0.5 if step < 12 else 0.875

        def get_config(self):
            return {}

    return Own()


def test_a_users_schedule_may_pause_in_the_middle(tfmot):
    assert densities(own(tfmot), 4) == [1.0, 0.5, 0.5, 0.125]


def test_a_turn_inside_a_round_comes_at_the_next_rounds_start_with_a_warning(tfmot):
    schedule = tfmot.PolynomialDecay(0.25, 0.75, begin_step=3, end_step=7, power=1, frequency=4)
    with pytest.warns(UserWarning, match="inside a round.*GradualPruning") as told:
        assert densities(schedule, 4) == [1.0, 0.75, 0.25, 0.25]
    assert {str(w.message).partition(". Choose")[0] for w in told} == {
        "The schedule prunes at step 3, inside a round, but rounds prune where they start: "
        "its sparsity 0.25 comes at step 4",
        "The schedule prunes at step 7, inside a round, but rounds prune where they start: "
        "its sparsity 0.75 comes at step 8",
    }


def test_turns_that_prune_nothing_more_are_not_told(tfmot):
    schedule = tfmot.ConstantSparsity(0.5, begin_step=4, end_step=5, frequency=1)
    with pytest.warns(UserWarning, match="step 5") as told:
        late = StepSchedule(schedule).keep(2, 8)
        assert late(100, 100) == 50
    assert len(told) == 1 and late(50, 100) == 50
    assert densities(schedule, 3) == [1.0, 0.5, 0.5]


def test_many_steps_are_asked_at_once_with_the_same_answers(tfmot):
    steps = np.arange(1, 40)
    for schedule in (
        tfmot.ConstantSparsity(0.3, 5, 30, frequency=3),
        tfmot.PolynomialDecay(0.1, 0.9, 4, 32, frequency=2),
    ):
        prunes, sparsity = ask_all(schedule, steps)
        each = [schedule(int(step)) for step in steps]
        assert prunes.tolist() == [bool(p) for p, _ in each]
        np.testing.assert_array_equal(sparsity, [s.numpy() for _, s in each])
    assert ask_all(own(tfmot), steps) is None


@pytest.mark.parametrize("total", [1, 7, 10, 96, 1000, 235_200])
def test_the_count_is_tfmots(total):
    for sparsity in (0.0, 0.15, 0.35, 0.55, 0.8, 0.95, 0.9999):
        s = tf.constant(sparsity, tf.float32)
        tfmots = tf.maximum(tf.round(tf.cast(total, tf.float32) * (1 - s)), 1)
        assert KeepSparsity(s.numpy())(total, total) == int(tfmots)


def test_gradual_pruning_follows_polynomial_decay(tfmot):
    schedule = tfmot.PolynomialDecay(0.25, 0.75, begin_step=2, end_step=6, power=1, frequency=2)
    gradual = GradualPruning(schedule)
    history = train(network(), [gradual], epochs=2).history
    assert gradual.prunings == [(2, 0.75), (4, 0.5), (6, 0.25)]
    assert history["density"] == [0.5, 0.25]


def test_gradual_pruning_follows_a_users_schedule_and_constant_sparsity(tfmot):
    gradual = GradualPruning(own(tfmot))
    train(network(), [gradual], epochs=4)
    assert gradual.prunings == [(4, 0.5), (12, 0.125)]
    gradual = GradualPruning(tfmot.ConstantSparsity(0.5, begin_step=0, frequency=3))
    train(network(), [gradual], epochs=2)
    assert gradual.prunings == [(3, 0.5)]


def test_what_looks_like_a_schedule_and_is_none_is_told(tfmot):
    for answer, match in (
        (0.5, "starting with 1.0"),
        ((True,), r"must answer with a density, or with.*Received: \(True,\)"),
        ((True, 1.0), r"\[0, 1\)"),
        ((True, "half"), r"\[0, 1\).*half"),
    ):

        class Wrong(tfmot.PruningSchedule):
            def __call__(self, step, answer=answer):
                return answer

            def get_config(self):
                return {}

        with pytest.raises(ValueError, match=match):
            kl.LotteryCallback(1, Wrong(), rounds=2)


def test_a_schedule_that_takes_no_array_makes_up_for_turns_inside_a_round(tfmot):
    class Own(tfmot.PruningSchedule):
        def __call__(self, step):
            if int(step) == 3:
                return True, 0.5
            return False, 0.0

        def get_config(self):
            return {}

    with pytest.warns(UserWarning, match="step 3, inside a round"):
        assert densities(Own(), 3) == [1.0, 0.5, 0.5]


def test_a_schedule_that_answers_many_steps_with_one_yes_is_asked_step_by_step(tfmot):
    class AtSix(tfmot.PruningSchedule):
        def __call__(self, step):
            return tf.reduce_any(tf.equal(tf.cast(step, tf.int64), [6])), tf.constant(0.5)

        def get_config(self):
            return {}

    assert ask_all(AtSix(), np.arange(1, 9)) is None
    gradual = GradualPruning(AtSix())
    train(network(), [gradual], epochs=2)
    assert gradual.prunings == [(6, 0.5)]


def test_a_schedule_that_prunes_at_no_step_trained_is_told(tfmot):
    schedule = tfmot.ConstantSparsity(0.5, begin_step=0)  # frequency 100
    with pytest.warns(UserWarning, match="nothing in 2 rounds.*began at step 4.*`frequency`"):
        train(network(), [kl.LotteryCallback(1, schedule, verbose=0)], epochs=2)
    with pytest.warns(UserWarning, match="nothing in the steps to 8.*`begin_step`"):
        train(network(), [GradualPruning(schedule)], epochs=2)
