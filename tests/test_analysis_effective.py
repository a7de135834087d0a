"""Alive weights on a path from input to output: nets drawn by hand, then models of all kinds."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers as L
from random_models import ACTS, grow, inputs_of, kill

import keras_lottery as kl
from keras_lottery import weights
from keras_lottery.analysis.effective import effective_masks
from keras_lottery.summary import alive


def bools(rows):
    return np.array(rows, bool)


def effective(model, *kernels):
    """Effective masks of the prunable weights, in order; `None`: all of it is alive."""
    paths = weights.prunable(model)
    pairs = zip(kernels, paths.values(), strict=True)
    given = [np.ones(v.shape) if k is None else k for k, v in pairs]
    found = effective_masks(model, {p: bools(k) for p, k in zip(paths, given, strict=True)})
    assert list(found) == list(paths)
    return [mask.astype(int).tolist() for mask in found.values()]


def dense(*units, inputs=2, **options):
    return keras.Sequential([keras.Input((inputs,)), *[L.Dense(n, **options) for n in units]])


def random_masks(model, density, seed=0):
    rng = np.random.default_rng(seed)
    return {p: rng.random(v.shape) < density for p, v in weights.prunable(model).items()}


# Drawn by hand ------------------------------------------------------------------------------


def test_a_unit_that_nothing_feeds_and_one_that_nothing_reads_are_on_no_path():
    # Unit 0 is fed and read, unit 1 is only read, unit 2 only fed.
    found = effective(dense(3, 1), [[1, 0, 1], [1, 0, 0]], [[1], [1], [0]])
    assert found == [[[1, 0, 0], [1, 0, 0]], [[1], [0], [0]]]


def test_a_dense_network_is_on_paths_as_a_whole():
    assert effective(dense(2, 1), None, None) == [[[1, 1], [1, 1]], [[1], [1]]]


def test_a_gap_in_the_middle_leaves_no_path():
    found = effective(dense(1, 1, 1), None, [[0]], None)
    assert found == [[[0], [0]], [[0]], [[0]]]


def test_a_unit_with_only_a_bias_begins_no_path():
    model = dense(2, 1, inputs=1, bias_initializer="ones", activation="sigmoid")
    assert effective(model, [[1, 0]], [[1], [1]]) == [[[1, 0]], [[1], [0]]]


def test_a_chain_of_useless_units_goes_at_once():
    # Units 1 of both hidden layers feed each other only.
    found = effective(dense(2, 2, 1), [[1, 0], [0, 0]], [[1, 0], [0, 1]], [[1], [0]])
    assert found == [[[1, 0], [0, 0]], [[1, 0], [0, 0]], [[1], [0]]]


def test_softmax_mixes_units_and_other_activations_do_not():
    kernels = [[1, 0], [0, 0]], [[0], [1]]
    nothing = [[[0, 0], [0, 0]], [[0], [0]]]
    model = [keras.Input((2,)), L.Dense(2, "softmax"), L.Dense(1)]
    assert effective(keras.Sequential(model), *kernels) == [[[1, 0], [0, 0]], [[0], [1]]]
    for name in ("relu", "tanh", "sigmoid", "gelu", None):
        assert effective(dense(2, 1, activation=name), *kernels) == nothing


def test_a_function_of_the_user_connects_everything():
    found = effective(dense(2, 1, activation=lambda x: x[:, ::-1]), [[1, 0], [0, 0]], [[0], [1]])
    assert found == [[[1, 0], [0, 0]], [[0], [1]]]


def test_pixels_behind_a_flatten_are_units_of_their_own():
    model = keras.Sequential([keras.Input((2, 1, 1)), L.Conv2D(2, 1), L.Flatten(), L.Dense(1)])
    # Channel 1 is read at one pixel only, channel 0 is not fed.
    found = effective(model, [[[[0, 1]]]], [[1], [1], [1], [0]])
    assert found == [[[[[0, 1]]]], [[0], [1], [0], [0]]]


def test_what_a_kernel_sees_of_the_padding_only_is_on_no_path():
    model = keras.Sequential([keras.Input((1, 1)), L.Conv1D(1, 3, padding="same")])
    assert effective(model, None) == [[[[0]], [[1]], [[0]]]]


def test_a_causal_convolution_looks_back():
    model = keras.Sequential([keras.Input((2, 1)), L.Conv1D(1, 3, padding="causal")])
    assert effective(model, None) == [[[[0]], [[1]], [[1]]]]


def test_a_residual_sum_leads_one_way():
    x = keras.Input((2,))
    h = L.Dense(2)(x)
    y = L.Dense(2)(h)
    model = keras.Model(x, L.Dense(1)(L.Add()([h, y])))
    # Of the sum only unit 0 is read; h's unit 1 is read by y, y's unit 1 by nothing.
    found = effective(model, None, [[0, 1], [1, 1]], [[1], [0]])
    assert found == [[[1, 1], [1, 1]], [[0, 0], [1, 0]], [[1], [0]]]
    # h's unit 0 is not fed, y feeds the sum's unit 0; y does not read what it makes itself.
    found = effective(model, [[0, 1], [0, 0]], [[1, 0], [1, 0]], [[1], [1]])
    assert found == [[[0, 1], [0, 0]], [[0, 0], [1, 0]], [[1], [1]]]


def test_operations_of_keras_lead_on():
    x = keras.Input((2,))
    h = L.Dense(2)(x)
    model = keras.Model(x, L.Dense(1)(keras.ops.relu(h * 2.0 + 1.0)[:, 1:]))
    assert effective(model, None, None) == [[[0, 1], [0, 1]], [[1]]]


def test_batch_normalization_and_dropout_keep_units_apart():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            L.Dense(2),
            L.BatchNormalization(),
            L.Dropout(0.5),
            L.ReLU(),
            L.Dense(1),
        ]
    )
    assert effective(model, [[1, 1], [0, 1]], [[0], [1]]) == [[[0, 1], [0, 1]], [[0], [1]]]


def test_layer_normalization_mixes_units():
    model = keras.Sequential([keras.Input((2,)), L.Dense(2), L.LayerNormalization(), L.Dense(1)])
    found = effective(model, [[1, 0], [0, 0]], [[0], [1]])
    assert found == [[[1, 0], [0, 0]], [[0], [1]]]


def test_a_shared_layer_counts_at_each_of_its_calls():
    x = keras.Input((2,))
    twice = L.Dense(2)
    model = keras.Model(x, L.Dense(1)(twice(twice(x))))
    # Input 0 -> unit 1 at the first call, unit 1 -> unit 0 at the second.
    assert effective(model, [[0, 1], [1, 0]], [[1], [0]]) == [[[0, 1], [1, 0]], [[1], [0]]]
    # Unit 0 is never read at the end, and what it says at the first call ends nowhere.
    assert effective(model, [[1, 0], [0, 1]], [[0], [1]]) == [[[0, 0], [0, 1]], [[0], [1]]]


def test_a_path_may_begin_and_end_anywhere():
    a, b = keras.Input((1,)), keras.Input((1,))
    one, two = L.Dense(1)(a), L.Dense(1)(b)
    both = L.Concatenate()([one, two])
    model = keras.Model([a, b], [L.Dense(1)(both), L.Dense(1)(both)])
    found = effective(model, [[1]], [[0]], [[0], [1]], [[1], [1]])
    assert found == [[[1]], [[0]], [[0], [0]], [[1], [0]]]


def test_a_nested_model_is_looked_into():
    inner = dense(2, 1)
    model = keras.Sequential([keras.Input((1,)), L.Dense(2), inner])
    found = effective(model, [[1, 0]], [[0, 1], [1, 1]], None)
    assert found == [[[1, 0]], [[0, 1], [0, 0]], [[0], [1]]]


def test_each_group_sees_its_own_channels():
    model = keras.Sequential([keras.Input((1, 4)), L.Conv1D(2, 1), L.Conv1D(2, 1, groups=2)])
    found = effective(model, [[[1, 0], [0, 0], [0, 0], [0, 0]]], None)
    assert found == [[[[1, 0], [0, 0], [0, 0], [0, 0]]], [[[1, 0]]]]


def test_both_kernels_of_a_separable_convolution_lie_on_the_path():
    model = keras.Sequential([keras.Input((1, 2)), L.SeparableConv1D(1, 1)])
    assert effective(model, [[[0], [1]]], [[[1], [1]]]) == [[[[0], [1]]], [[[0], [1]]]]
    assert effective(model, None, [[[1], [0]]]) == [[[[1], [0]]], [[[1], [0]]]]


def test_a_recurrent_unit_remembers():
    model = keras.Sequential([keras.Input((3, 1)), L.SimpleRNN(3), L.Dense(1)])
    # 0 -> 1 -> 2 takes the three steps there are; 2 -> 0 leads to nothing that is read.
    found = effective(model, [[1, 0, 0]], [[0, 1, 0], [0, 0, 1], [1, 0, 0]], [[0], [0], [1]])
    assert found == [[[1, 0, 0]], [[0, 1, 0], [0, 0, 1], [0, 0, 0]], [[0], [0], [1]]]


def test_a_query_counts_where_its_key_and_the_value_do():
    x = keras.Input((3, 2))
    model = keras.Model(x, L.MultiHeadAttention(2, 1)(x, x))
    q, k, v, o = (np.ones(s.shape) for s in weights.prunable(model).values())
    k[:, 0] = 0  # head 0 looks at nothing, so all it gives is a mean of its values
    v[:, 1] = 0  # head 1 has nothing to give
    found = effective(model, q, k, v, o)
    expected = [np.zeros_like(q), np.zeros_like(k), v, np.stack([o[0], 0 * o[1]])]
    assert found == [e.astype(int).tolist() for e in expected]


def test_a_layer_without_a_rule_connects_everything():
    model = keras.Sequential([keras.Input((2,)), L.Dense(2), zoo.Scaled(), L.Dense(1)])
    scaled, out = np.zeros((2, 12)), np.zeros((12, 1))
    scaled[0, 3] = out[5] = 1
    assert effective(model, [[0, 1], [0, 0]], scaled, out)[1] == scaled.astype(int).tolist()
    assert not np.any(effective(model, np.zeros((2, 2)), scaled, out)[1])


def test_sizes_that_are_not_known_do_not_matter():
    model = keras.Sequential(
        [keras.Input((None, None, 1)), L.Conv2D(2, 3, padding="same"), L.MaxPooling2D(),
         L.GroupNormalization(1), L.GlobalMaxPooling2D(), L.Dense(1)]
    )  # fmt: skip
    found = effective_masks(model, {weights.prunable(model).popitem()[0]: bools([[1], [0]])})
    assert [m.tolist() for m in found.values()] == [[[True], [False]]]


def test_channels_may_come_first():
    model = keras.Sequential(
        [keras.Input((2, 3, 3)), L.Conv2D(2, 3, data_format="channels_first"),
         L.GlobalMaxPooling2D(data_format="channels_first"), L.Dense(1)]
    )  # fmt: skip
    first, _ = weights.prunable(model).values()
    kernel = np.ones(first.shape)
    kernel[..., 0, 1] = 0
    found = effective(model, kernel, [[0], [1]])
    kernel[..., 0] = 0
    assert found == [kernel.astype(int).tolist(), [[0], [1]]]


# Models of all kinds ------------------------------------------------------------------------


def positive(model, masks):
    """All weights positive, the statistics of a normalization those of doing nothing."""
    rng = np.random.default_rng(1)
    for p, v in weights.all_weights(model).items():
        value = rng.uniform(0.5, 1.5, v.shape) * masks.get(p, 1)
        v.assign(0 * value if v.name in ("bias", "beta", "moving_mean") else value)


@pytest.mark.parametrize("name", ["sequential", "conv", "nested", "shared"])
def test_weights_on_a_path_are_those_with_a_derivative_where_all_is_positive(name):
    model = zoo.MODELS[name]()
    masks = random_masks(model, 0.15)
    positive(model, masks)
    kernels = weights.prunable(model)
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(model(np.ones((1, *model.input_shape[1:]), "float32")))
    found = tape.gradient(y, [v.value for v in kernels.values()])
    effective = effective_masks(model, masks)
    for path, slope in zip(kernels, found, strict=True):
        np.testing.assert_array_equal(effective[path], masks[path] & (slope.numpy() > 0))


def random_model(seed):
    """A model with dead units, whose layers but the last make nothing of zeros."""
    rng = np.random.default_rng(seed)

    def pick(choices):
        left = [c for c in ACTS if c not in ("sigmoid", "softplus", "softmax")]
        choices = left if choices is ACTS else choices
        return choices[rng.integers(len(choices))]

    model = grow(pick, 6)
    kill(model, rng)
    for v in model.weights:
        if v.name in ("bias", "beta", "moving_mean"):
            v.assign(0 * v.value)
    return model, inputs_of(model, rng)


def makes_something_of_zeros(layer):
    return type(layer) is L.Activation and layer.activation is keras.activations.sigmoid


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis")
def test_random_models_compute_the_same_with_their_effective_weights_only():
    smaller = same = 0
    for seed in range(20):
        keras.utils.clear_session(free_memory=False)
        model, x = random_model(seed)
        masks = alive(model)
        found = effective_masks(model, masks)
        again = effective_masks(model, found)
        for path, mask in found.items():
            assert not np.any(mask & ~masks[path])
            np.testing.assert_array_equal(again[path], mask)
        smaller += any((found[p] != masks[p]).any() for p in masks)
        if any(map(makes_something_of_zeros, weights.sublayers(model))):
            continue
        before = keras.tree.flatten(model(x))
        kernels = weights.prunable(model)
        weights.write(kernels, {p: v.numpy() * found[p] for p, v in kernels.items()})
        for a, b in zip(before, keras.tree.flatten(model(x)), strict=True):
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * max(1e-3, np.abs(a).max()))
        same += 1
    assert smaller >= 8
    assert same >= 12


# What is given ------------------------------------------------------------------------------


def test_without_masks_the_enforced_ones_count_and_then_the_zeros():
    model = dense(2, 1, inputs=1)
    first, second = weights.prunable(model)
    model.layers[0].kernel.assign([[1.0, 0.0]])
    assert effective_masks(model)[second].tolist() == [[True], [False]]
    kl.enforce(model, {first: bools([[0, 0]]), second: bools([[1], [1]])})
    assert not effective_masks(model)[second].any()


def test_a_ticket_fits_another_model_of_its_architecture():
    model = dense(2, 1, inputs=1)
    masks = dict(zip(weights.prunable(model), (bools([[1, 0]]), bools([[1], [1]])), strict=True))
    ticket = kl.Ticket.of(model, masks)
    other = keras.Sequential([keras.Input((1,)), L.Dense(2, name="a"), L.Dense(1, name="b")])
    found = effective_masks(other, ticket)
    assert list(found) == list(weights.prunable(other))
    assert [m.astype(int).tolist() for m in found.values()] == [[[1, 0]], [[1], [0]]]
    with pytest.raises(ValueError, match="another architecture"):
        effective_masks(keras.Sequential([keras.Input((1,)), L.Dense(2, name="a")]), ticket)


def test_the_model_is_not_changed():
    model = zoo.conv()
    before = weights.read(weights.all_variables(model))
    effective_masks(model, random_masks(model, 0.5))
    after = weights.read(weights.all_variables(model))
    assert all(np.array_equal(after[p], before[p]) for p in before)
    assert L.Dense(1).name == "dense_1"


def test_weights_that_are_no_connections_stay_as_they_are():
    model = dense(1, inputs=1)
    kernel, bias = weights.all_weights(model)
    found = effective_masks(model, {kernel: bools([[0]]), bias: bools([1])})
    assert [found[kernel].tolist(), found[bias].tolist()] == [[[False]], [True]]


def test_a_subclassed_model_is_refused():
    with pytest.raises(ValueError, match=r"functional or Sequential.*Received: 'subclassed'"):
        effective_masks(zoo.subclassed())


def test_masks_that_do_not_fit_are_refused():
    model = keras.Sequential([keras.Input((2,)), L.Dense(1)], name="m")
    with pytest.raises(ValueError, match=r"'m' has no weight 'nowhere/kernel'"):
        effective_masks(model, {"nowhere/kernel": bools([1])})
    with pytest.raises(ValueError, match=r"shape \(2, 1\) for 'm/dense/kernel'.*shape \(1, 2\)"):
        effective_masks(model, {"m/dense/kernel": bools([[1, 1]])})
    with pytest.raises(ValueError, match=r"bool arrays.*'m/dense/kernel': float64"):
        effective_masks(model, {"m/dense/kernel": np.array([[0.5], [0.0]])})
    with pytest.raises(TypeError, match=r"Keras model. Received: str"):
        effective_masks("m")
