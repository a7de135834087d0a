"""Information flow and gradient flow of networks small enough to compute by hand."""

import keras
import numpy as np
import pytest
import zoo
from keras import layers as L

import keras_lottery as kl
from keras_lottery.analysis.flow import gradient_flow, information_flow

RNG = np.random.default_rng(0)


def linear(*kernels):
    model = keras.Sequential(
        [keras.Input((len(kernels[0]),))]
        + [L.Dense(len(k[0]), use_bias=False, name=f"layer{i}") for i, k in enumerate(kernels)]
    )
    model.set_weights([np.asarray(k, np.float32) for k in kernels])
    return model


def only(flow):
    (value,) = flow.values()
    return value


def test_a_copied_signal_correlates_with_one_a_negated_one_with_minus_one():
    x = np.array([[1.0], [2.0], [5.0]])
    assert only(information_flow(linear([[2.0]], [[3.0]]), x)) == pytest.approx(1)
    assert only(information_flow(linear([[2.0]], [[-3.0]]), x)) == pytest.approx(-1)


def test_correlations_are_signed_and_averaged_over_all_pairs_of_units():
    # Units a, -a against a: the mean of 1 and -1.
    x = np.array([[1.0], [2.0], [5.0]])
    assert only(information_flow(linear([[1.0, -1.0]], [[2.0], [1.0]]), x)) == pytest.approx(0)


def test_it_is_the_mean_of_the_correlation_matrix():
    model = linear(RNG.normal(size=(4, 3)), RNG.normal(size=(3, 5)))
    x = RNG.normal(size=(20, 4)).astype("float32")
    hidden = x @ model.layers[0].kernel.numpy()
    both = np.corrcoef(hidden.T, (hidden @ model.layers[1].kernel.numpy()).T)
    assert only(information_flow(model, x, batch_size=7)) == pytest.approx(
        both[:3, 3:].mean(), abs=1e-5
    )


def test_a_constant_unit_counts_with_correlation_zero():
    model = linear([[1.0, 0.0]], [[1.0], [0.0]])
    x = np.array([[1.0], [2.0], [5.0]])
    assert only(information_flow(model, x)) == pytest.approx(0.5)


def test_a_cut_network_has_no_flow():
    model = linear([[1.0]], [[0.0]], [[1.0]])
    assert list(information_flow(model, np.array([[1.0], [2.0]])).values()) == [0.0, 0.0]


def test_a_unit_of_a_convolution_is_a_channel_averaged_over_positions():
    model = keras.Sequential(
        [
            keras.Input((2, 1)),
            L.Conv1D(1, 1, use_bias=False, name="conv"),
            L.Flatten(),
            L.Dense(1, use_bias=False, name="out"),
        ]
    )
    model.set_weights([np.ones((1, 1, 1)), np.ones((2, 1))])  # out = sum over the positions
    flow = information_flow(model, RNG.normal(size=(6, 2, 1)))
    assert list(flow) == [("conv", "out")]
    assert only(flow) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("build", [zoo.functional, zoo.conv, zoo.attention, zoo.shared])
def test_real_models_have_a_flow_between_each_two_weight_layers(build):
    model = build()
    before = model.get_weights()
    flow = information_flow(model, RNG.normal(size=(5, 8, 8, 1)).astype("float32"))
    names = [a for a, _ in flow] + [list(flow)[-1][1]]
    in_order = [layer.name for layer in model.layers if layer.name in names]
    assert names == in_order and len(flow) >= 2
    assert all(-1 <= v <= 1 for v in flow.values())
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_nested_model_counts_as_one_layer():
    model = zoo.nested()
    inner = next(layer.name for layer in model.layers if isinstance(layer, keras.Sequential))
    flow = information_flow(model, RNG.normal(size=(4, 8, 8, 1)))
    assert next(b for _, b in flow) == inner and len(flow) == 2


def correlation(a, b):
    return np.corrcoef(a.T, b.T)[: a.shape[1], a.shape[1] :].mean()


@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_layers_and_models_that_were_used_elsewhere_before_are_read_here(kind):
    x, first, second = keras.Input((3,)), L.Dense(4), L.Dense(2)
    keras.Model(x, second(first(x)))
    if kind == "functional":
        base, z = keras.Model(x, first(x)), keras.Input((3,))
        model = keras.Model(z, second(base(z)))
    else:
        model = keras.Sequential([keras.Input((3,)), first, second])
    data = RNG.normal(size=(9, 3)).astype("float32")
    hidden = np.asarray(first(data))
    expected = correlation(hidden, np.asarray(second(hidden)))
    assert only(information_flow(model, data)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (zoo.subclassed, "Sequential and functional models only. Received: Subclassed"),
        (lambda: keras.Sequential([keras.Input((8, 8, 1)), L.Dense(2)]), "at least two layers"),
    ],
)
def test_models_whose_activations_cannot_be_read_are_told(build, message):
    with pytest.raises(ValueError, match=message):
        information_flow(build(), np.zeros((2, 8, 8, 1)))


@pytest.mark.parametrize("n", [0, 1])
def test_one_example_is_too_few(n):
    with pytest.raises(ValueError, match=rf"at least two examples\. Received: {n}"):
        information_flow(linear([[1.0]], [[1.0]]), np.ones((n, 1)))


def test_no_example_is_too_few_for_a_gradient():
    model = linear([[1.0]])
    model.compile(loss="mse")
    with pytest.raises(ValueError, match=r"at least one example\. Received: 0"):
        gradient_flow(model, np.ones((0, 1)), np.ones((0, 1)))


def test_examples_that_are_not_finite_are_refused():
    x, bad = np.array([[1.0], [2.0]]), np.array([[1.0], [np.nan]])
    with pytest.raises(ValueError, match="NaN or an Inf in its x"):
        information_flow(linear([[1.0]], [[1.0]]), bad)
    model = linear([[1.0]])
    model.compile(loss="mse")
    for place, data in (("x", (bad, x)), ("y", (x, bad))):
        with pytest.raises(ValueError, match=f"NaN or an Inf in its {place}"):
            gradient_flow(model, *data)


def test_a_model_that_is_not_built_or_none_and_a_wrong_batch_size_are_told():
    x = np.array([[1.0], [2.0]])
    for flow in (information_flow, lambda model, x: gradient_flow(model, x, x)):
        with pytest.raises(ValueError, match="is not built"):
            flow(keras.Sequential([L.Dense(2), L.Dense(1)]), x)
        with pytest.raises(TypeError, match=r"must be a Keras model\. Received: 'x'"):
            flow("x", x)
    with pytest.raises(ValueError, match="`batch_size` must be an integer"):
        information_flow(linear([[1.0]], [[1.0]]), x, batch_size="2")


def test_gradient_flow_is_the_norm_of_the_loss_gradient_by_path():
    model = linear([[1.0], [1.0]])
    model.compile(loss="mse")  # loss = (3 a + 4 b)^2 = 49: dloss = 2 * 7 * (3, 4)
    norms = gradient_flow(model, np.array([[3.0, 4.0]]), np.array([[0.0]]))
    assert norms == {model.layers[0].kernel.path: pytest.approx(70)}


def test_pruned_weights_do_not_count_in_the_gradient_flow():
    model = linear([[1.0], [1.0]])
    model.compile(loss="mse")
    path = model.layers[0].kernel.path
    with kl.enforce(model, {path: np.array([[True], [False]])}):  # loss = (3 a)^2: dloss/da = 18
        norms = gradient_flow(model, np.array([[3.0, 4.0]]), np.array([[0.0]]))
    assert norms[path] == pytest.approx(18)
    after = gradient_flow(model, np.array([[3.0, 4.0]]), np.array([[0.0]]))
    assert after == norms  # without masks, zeros count as pruned


def test_a_model_that_is_not_compiled_is_told():
    with pytest.raises(ValueError, match="compiled model"):
        gradient_flow(linear([[1.0]]), np.ones((1, 1)), np.ones((1, 1)))
