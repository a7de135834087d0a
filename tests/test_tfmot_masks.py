"""Masks are those of TensorFlow's model optimization toolkit.

m:n masks are, ties and padding included; single weights and blocks for weights without ties,
at any sparsity, as tfmot's `Pruning` computes them.

tfmot counts zeros, `(m, n)` is m zeros in n.
"""

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as kl
from keras_lottery import scopes
from keras_lottery.schedules import StepSchedule, keep_density
from keras_lottery.tfmot import importing

PATTERNS = [(2, 4), (1, 4), (3, 4), (1, 2), (2, 3), (4, 8), (5, 7)]
POOLING = {"AVG": "mean", "MAX": "max"}
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


def sparsity_cases():
    """Arrays without ties by `number_sparsity_rows_columns_pooling`; half counts among them."""
    rng = np.random.default_rng(1)
    cases = {}
    for sparsity in (0.0, 0.1, 0.25, 0.35, 0.5, 0.55, 0.7, 0.9, 0.999):
        for rank in (1, 2, 3, 4, 5):
            shape = tuple(rng.integers(1, 6, rank))
            cases[f"{len(cases)}_{sparsity}_1_1_AVG"] = distinct(rng, shape)
        for rows, columns in ((4, 1), (1, 2), (2, 2), (1, 1)):
            for pooling in ("AVG", "MAX"):
                shape = tuple(rng.integers(2, 8, 2) * (rows, columns))
                cases[f"{len(cases)}_{sparsity}_{rows}_{columns}_{pooling}"] = distinct(rng, shape)
    return cases


def distinct(rng, shape):
    """No two magnitudes, and no two means of a block, are near to each other."""
    size = int(np.prod(shape))
    values = rng.permutation(size) + 1 + rng.random(size) * 0.1
    return (values * rng.choice([-1, 1], size)).reshape(shape).astype("float32")


def inner(name):
    """A module of tfmot's that has no public name."""
    importing.load()
    return importlib.import_module(
        f"tensorflow_model_optimization.python.core.sparsity.keras.{name}"
    )


@pytest.fixture(scope="module")
def compared():
    """What tfmot says of the random cases and of the network's kernels."""
    utils = inner("pruning_utils")
    kernels = {f"kernel{i}_2_4": k for i, k in enumerate(kernel_values(network()))}
    cases, answers = random_cases() | kernels, {}
    for key, array in cases.items():
        zeros, group = (int(part) for part in key.split("_")[1:])
        weights = tf.constant(array)
        rows = utils.weights_rearrange(weights)
        mask = utils.generate_m_by_n_mask(rows, (zeros, group))
        mask = utils.m_by_n_sparsity_mask_prepare(mask, weights.shape)
        answers["mask_" + key] = mask.numpy().astype(bool)
        answers["is_" + key] = utils.is_pruned_m_by_n(weights, (zeros, group))
    return cases, answers


@pytest.fixture(scope="module")
def pruned():
    """What tfmot's `Pruning` makes of weights without ties."""
    constant = importing.load().tfmot.sparsity.keras.ConstantSparsity
    cases, answers = sparsity_cases(), {}
    for key, array in cases.items():
        _, sparsity, rows, columns, pooling = key.split("_")
        weight, mask = tf.Variable(array), tf.Variable(np.zeros_like(array))
        pruning = inner("pruning_impl").Pruning(
            lambda: 1,
            [(weight, mask, tf.Variable(0.0))],
            constant(float(sparsity), 0, frequency=1),
            (int(rows), int(columns)),
            pooling,
        )
        pruning.conditional_mask_update()
        answers[key] = mask.numpy().astype(bool)
    return cases, answers


class Constant:
    """tfmot's ConstantSparsity, by protocol: a float32 sparsity."""

    def __init__(self, sparsity):
        self.sparsity = np.float32(sparsity)

    def __call__(self, step):
        return True, self.sparsity

    def get_config(self):
        return {}


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


def test_is_m_by_n_agrees_with_tfmot(compared):
    cases, answers = compared
    for key, weights in cases.items():
        _, zeros, m = key.split("_")
        n, m = int(m) - int(zeros), int(m)
        assert scopes.is_m_by_n(weights, n, m) == answers["is_" + key], (key, weights.shape)
        assert scopes.is_m_by_n(answers["mask_" + key], n, m)
    assert {bool(answers["is_" + key]) for key in cases} == {False, True}


def test_a_pruned_models_masks_are_tfmots(compared):
    _, answers = compared
    model = network()
    masks = kl.prune(model, 1.0, scope=kl.scopes.NM(2, 4)).masks
    for i, mask in enumerate(masks.values()):
        assert np.array_equal(mask, answers[f"mask_kernel{i}_2_4"])
    assert [int(m.sum()) for m in masks.values()] == [108, 144, 160]


def test_masks_of_single_weights_and_blocks_are_tfmots(pruned):
    cases, answers = pruned
    for key, weights in cases.items():
        _, sparsity, rows, columns, pooling = key.split("_")
        keep = StepSchedule(Constant(float(sparsity))).keep(1, 1)
        scope = scopes.Layerwise()
        if (rows, columns) != ("1", "1"):
            scope = scopes.Block((int(rows), int(columns)), POOLING[pooling])
        alive = {"w": np.ones(weights.shape, bool)}
        mask = scope({"w": np.abs(weights)}, alive, keep)["w"]
        assert np.array_equal(mask, answers[key]), (key, weights.shape)
    assert {answers[key].mean() for key in cases} > {1.0}


@pytest.mark.parametrize(
    ("shape", "groups"), [((4, 1), 1), ((4, 2, 1), 2), ((3, 3, 4, 1), 9), ((2, 1, 1, 4, 1), 2)]
)
def test_groups_of_four_lie_along_the_inputs_at_every_rank(shape, groups):
    axis = -2 if len(shape) != 3 else 0
    scores = np.arange(4 * groups, dtype=float).reshape(shape)
    mask = scopes.NM(axis=axis)({"w": scores}, {"w": np.ones(shape, bool)}, keep_density(1.0))["w"]
    assert scopes.is_m_by_n(mask, axis=axis) and mask.sum() == 2 * groups
    assert np.moveaxis(mask, axis, 0)[2:].all()


def test_patterns_need_two_axes():
    one = {"w": np.ones(4)}
    for scope, why in ((scopes.NM(), "no axis -2"), (scopes.Block(), "rank 2 or more")):
        with pytest.raises(ValueError, match=why):
            scope(one, {"w": np.ones(4, bool)}, keep_density(1.0))
    assert scopes.is_m_by_n(np.array([1, 0, 0, 1]), axis=0)
