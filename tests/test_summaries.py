"""PruningSummaries: files as TensorBoard reads them back."""

import importlib.util

import keras
import numpy as np
import pytest
from keras import layers as L
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

import keras_lottery as kl
from keras_lottery.gradual import GradualPruning
from keras_lottery.summaries import PruningSummaries


def network():
    """6 and 4 prunable weights."""
    model = keras.Sequential([keras.Input((3,)), L.Dense(2, name="a"), L.Dense(2, name="b")])
    model.compile("sgd", "mse")
    return model


def fit(model, *callbacks, epochs=2):
    """4 steps an epoch."""
    rng = np.random.default_rng(0)
    x, y = rng.random((8, 3)), rng.random((8, 2))
    model.fit(x, y, batch_size=2, epochs=epochs, verbose=0, callbacks=list(callbacks))


def scalars(folder):
    """Dict of tag to list of (step, value)."""
    found = EventAccumulator(str(folder / "metrics"), {"tensors": 0}).Reload()
    return {
        tag: [(e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in found.Tensors(tag)]
        for tag in found.Tags()["tensors"]
    }


def test_each_mask_has_its_sparsity_and_threshold_at_each_epochs_end(tmp_path):
    model = network()
    a, b = (layer.kernel.path for layer in model.layers)
    model.layers[0].kernel.assign([[1.0, -2.0], [3.0, -4.0], [5.0, 6.0]])
    kl.prune(model, 0.5, filters=lambda path, v: path == a)
    model.optimizer.learning_rate.assign(0.0)
    fit(model, PruningSummaries(tmp_path))
    assert scalars(tmp_path) == {
        f"{a}/mask:0/sparsity": [(4, 0.5), (8, 0.5)],
        f"{a}/threshold:0/threshold": [(4, 4.0), (8, 4.0)],
        "density": [(4, 0.5), (8, 0.5)],
    }
    assert b not in str(scalars(tmp_path))


def test_beside_gradual_pruning_every_batch_may_be_shown(tmp_path):
    gradual = GradualPruning(lambda step: 1 - 0.1 * step)
    fit(network(), gradual, PruningSummaries(tmp_path, "batch"), epochs=1)
    shown = scalars(tmp_path)["density"]
    assert [s for s, _ in shown] == [1, 2, 3, 4, 4]
    np.testing.assert_allclose([d for _, d in shown], [0.9, 0.8, 0.7, 0.6, 0.6], rtol=1e-6)


def test_a_number_shows_every_so_many_steps(tmp_path):
    model = network()
    kl.prune(model, 0.5)
    fit(model, PruningSummaries(tmp_path, 3))
    assert [s for s, _ in scalars(tmp_path)["density"]] == [1, 3, 4, 6, 8]


def test_beside_the_lottery_rounds_are_shown_and_steps_go_on_over_rewinding(tmp_path):
    lottery = kl.LotteryCallback(1, 0.5, verbose=0)
    fit(network(), lottery, PruningSummaries(tmp_path), epochs=3)
    shown = scalars(tmp_path)
    assert shown["round"] == [(4, 0.0), (8, 1.0), (12, 2.0)]
    assert [s for s, _ in shown["density"]] == [4, 8, 12]
    np.testing.assert_allclose(
        [d for _, d in shown["density"]], [r.density for r in lottery.rounds]
    )
    assert sum(tag.endswith("/mask:0/sparsity") for tag in shown) == 2


def test_a_layer_without_an_alive_weight_has_the_threshold_zero(tmp_path):
    model = network()
    path = model.layers[0].kernel.path
    kl.enforce(model, {path: np.zeros((3, 2), bool)})
    fit(model, PruningSummaries(tmp_path), epochs=1)
    assert scalars(tmp_path)[f"{path}/threshold:0/threshold"] == [(4, 0.0)]


def test_a_fit_without_masks_is_told(tmp_path):
    with pytest.warns(UserWarning, match="trained without masks"):
        fit(network(), PruningSummaries(tmp_path))


@pytest.mark.parametrize("log_dir", ["", None, 3])
def test_a_folder_must_be_named(log_dir):
    with pytest.raises(ValueError, match=r"log_dir.*Received"):
        PruningSummaries(log_dir)


@pytest.mark.parametrize("update_freq", ["step", 0, -1, 1.5, True])
def test_how_often_must_be_epoch_batch_or_a_number(update_freq, tmp_path):
    with pytest.raises(ValueError, match=r"update_freq.*Received"):
        PruningSummaries(tmp_path, update_freq)


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"keras-lottery\[tensorboard\]"):
        PruningSummaries(tmp_path)
