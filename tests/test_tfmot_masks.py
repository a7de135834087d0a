"""N:M masks are those of TensorFlow's model optimization toolkit, ties and padding included.

tfmot counts zeros, `(m, n)` is m zeros in n, and changes the process that imports it (Keras 2,
an environment variable, warnings): it runs in a process of its own, once.
"""

import importlib.util
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery import scopes
from keras_lottery.schedules import keep_density

SCRIPT = """
import sys
import numpy as np
import tensorflow as tf
tf.keras.layers  # Keras 3 first: tfmot asks for Keras 2
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_utils as tfmot

answers = {}
with np.load(sys.argv[1]) as cases:
    for key, array in cases.items():
        zeros, group = (int(part) for part in key.split("_")[1:])
        weights = tf.constant(array)
        rows = tfmot.weights_rearrange(weights)
        mask = tfmot.generate_m_by_n_mask(rows, (zeros, group))
        mask = tfmot.m_by_n_sparsity_mask_prepare(mask, weights.shape)
        answers["mask_" + key] = mask.numpy().astype(bool)
        answers["is_" + key] = tfmot.is_pruned_m_by_n(weights, (zeros, group))
np.savez(sys.argv[2], **answers)
"""
PATTERNS = [(2, 4), (1, 4), (3, 4), (1, 2), (2, 3), (4, 8), (5, 7)]
LEVELS = {"ties": 2, "all_equal": 0, "distinct": 10**6}


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(6, 3),
            keras.layers.Conv2D(4, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
        ]
    )


def random_cases():
    """Arrays of ranks 2 and 4 by `number_zeros_group`; half of them already sparse."""
    rng = np.random.default_rng(0)
    cases = {}
    for n, m in PATTERNS:
        for levels in LEVELS.values():
            for rank in (2, 4):
                for sparse in (False, True):
                    shape = (*rng.integers(1, 4, rank - 2), *rng.integers(1, 20, 2))
                    weights = rng.integers(-levels, levels + 1, shape).astype("float32")
                    if sparse:
                        weights *= rng.random(shape) < n / m * rng.choice([0.5, 1.0])
                    cases[f"{len(cases)}_{m - n}_{m}"] = weights
    return cases


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """What tfmot says of the random cases and of the network's kernels."""
    if importlib.util.find_spec("tensorflow_model_optimization") is None:
        pytest.fail(
            "These tests compare with tfmot. Install it as the Makefile does: pip install "
            "--no-deps tensorflow-model-optimization==0.8.1 tf_keras==2.21.0 dm-tree==0.1.10"
        )
    folder = tmp_path_factory.mktemp("tfmot")
    kernels = {f"kernel{i}_2_4": k for i, k in enumerate(kernel_values(network()))}
    cases = random_cases() | kernels
    np.savez(folder / "cases.npz", **cases)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "cases.npz", "answers.npz"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "answers.npz") as answers:
        return cases, dict(answers)


def kernel_values(model):
    return [v.numpy() for v in model.trainable_variables if len(v.shape) > 1]


def test_nm_masks_are_tfmots(compared):
    cases, answers = compared
    for key, weights in cases.items():
        _, zeros, m = key.split("_")
        scope = scopes.NM(int(m) - int(zeros), int(m))
        alive = {"w": np.ones(weights.shape, bool)}
        mask = scope({"w": np.abs(weights)}, alive, keep_density(1.0))["w"]
        assert np.array_equal(mask, answers["mask_" + key]), (key, weights.shape)


def test_is_nm_agrees_with_tfmot(compared):
    cases, answers = compared
    for key, weights in cases.items():
        _, zeros, m = key.split("_")
        n, m = int(m) - int(zeros), int(m)
        assert scopes.is_nm(weights, n, m) == answers["is_" + key], (key, weights.shape)
        assert scopes.is_nm(answers["mask_" + key], n, m)
    assert {bool(answers["is_" + key]) for key in cases} == {False, True}


def test_a_pruned_models_masks_are_tfmots(compared):
    _, answers = compared
    model = network()
    masks = kl.prune(model, 1.0, scope=kl.scopes.NM(2, 4)).masks
    for i, mask in enumerate(masks.values()):
        assert np.array_equal(mask, answers[f"mask_kernel{i}_2_4"])
    assert [int(m.sum()) for m in masks.values()] == [108, 144, 160]
