"""Models of tf_keras in the hands of what is for Keras 3."""

import keras
import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery.analysis import EarlyBird
from keras_lottery.tfmot import importing

tf_keras = importing.load().keras


def lottery_and_friend(folder):
    lottery = kl.LotteryCallback(1, verbose=0)
    return kl.PerRound(lottery, lambda: keras.callbacks.Callback())


CALLBACKS = {
    "GradualPruning": lambda folder: kl.GradualPruning(lambda step: 0.5),
    "PruningSummaries": kl.PruningSummaries,
    "PerRound": lottery_and_friend,
    "EarlyBird": lambda folder: EarlyBird(0.5),
}


@pytest.fixture
def model():
    model = tf_keras.Sequential([tf_keras.Input((2,)), tf_keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_say_that_the_model_is_of_the_wrong_keras(name, model, tmp_path):
    x = np.ones((2, 2))
    with pytest.raises(ValueError, match=r"Expected a model of Keras 3.*of tf_keras"):
        model.fit(x, x[:, :1], verbose=0, callbacks=[CALLBACKS[name](tmp_path)])


def test_strip_names_tfmots_own(model):
    with pytest.raises(ValueError, match=r"Keras 3.*of tf_keras.*`strip_pruning`"):
        kl.strip(model)
