"""GradualPruning: schedules that go wrong while training, and what it is not for."""

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_lottery as kl
from keras_lottery.gradual import GradualPruning


def fit(*callbacks, epochs=2, model=None, **options):
    """4 steps an epoch; 16 prunable weights."""
    model = model or keras.Sequential([keras.Input((4,)), L.Dense(4)])
    model.compile("sgd", "mse", **options)
    x, y = np.random.default_rng(0).normal(size=(2, 8, 4))
    return model.fit(x, y, 2, epochs=epochs, verbose=0, callbacks=list(callbacks))


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        (lambda step: 0.5 if step < 3 else 1.5, r"\(0, 1\].*1.5 at step 3"),
        (lambda step: 0.5 if step < 3 else "a", "'a' at step 3"),
        (lambda step: (step > 0, np.where(step < 3, 0.5, 1.5)), r"\[0, 1\).*1.5 at step 3"),
        (lambda step: (True, 0.5 if step < 3 else 1.5), r"\[0, 1\).*1.5 at step 3"),
        (lambda step: (True, 0.5) if step < 3 else 0.5, "should_prune.*0.5 at step 3"),
    ],
)
def test_a_schedule_that_goes_wrong_stops_the_training_with_a_warning(schedule, why):
    gradual = GradualPruning(schedule)
    with pytest.warns(RuntimeWarning, match=f"{why}.*Training stops at step 3") as told:
        history = fit(gradual)
    assert len(told) == 1 and len(history.epoch) == 1
    assert gradual.prunings == [(1, 0.5)] and kl.density(gradual.model) == 0.5


def test_what_a_schedule_says_of_steps_never_reached_does_not_matter():
    gradual = GradualPruning(lambda step: (step > 0, np.where(step < 9, 0.5, 1.5)))
    fit(gradual)
    assert gradual.prunings == [(1, 0.5)]


def test_each_kind_of_message_is_told_once():
    schedule = {2: 0.5, 4: 0.75, 6: 0.9, 8: 0.25}
    gradual = GradualPruning(lambda step: schedule.get(int(step), 1.0))
    with pytest.warns(UserWarning, match="must not grow") as told:
        fit(gradual)
    assert len(told) == 1


def test_a_schedule_that_pruned_nothing_is_told():
    with pytest.warns(UserWarning, match="pruned nothing in the steps to 8"):
        fit(GradualPruning(lambda step: 1.0))


def test_a_fit_under_masks_may_prune_nothing_more():
    model = keras.Sequential([keras.Input((4,)), L.Dense(4)])
    kl.prune(model, 0.5)
    gradual = GradualPruning(lambda step: 0.5)
    fit(gradual, model=model)
    assert gradual.prunings == [] and gradual.density == 0.5


@pytest.mark.parametrize("lottery_first", [True, False])
def test_gradual_pruning_and_a_lottery_in_one_fit_are_refused_before_training(lottery_first):
    model = keras.Sequential([keras.Input((4,)), L.Dense(4)])
    lottery, gradual = kl.LotteryCallback(1, 0.5, verbose=0), GradualPruning(lambda step: 0.5)
    both = [lottery, gradual] if lottery_first else [gradual, lottery]
    with pytest.raises(ValueError, match=r"GradualPruning.*LotteryCallback.*Leave one out"):
        fit(*both, model=model)
    assert model.optimizer.iterations == 0
    fit(gradual, model=model)  # one after the other is fine, also after a failure
    assert gradual.prunings == [(1, 0.5)]
    fit(lottery, model=model)
    fit(gradual, model=model)
