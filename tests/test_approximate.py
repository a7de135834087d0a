"""A pruned random network computes the target: the gadget, bounds, untouched draws, errors."""

import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L

import keras_lottery as kl
from keras_lottery import weights
from keras_lottery.strong import approximate, gadgets, layers
from keras_lottery.strong.bounds import largest_difference

SLACK = 1e-5  # float32 rounding


def dense(*units, inputs=6, last="linear", bias=True):
    hidden = [L.Dense(n, "relu", use_bias=bias, name=f"d{n}") for n in units[:-1]]
    out = L.Dense(units[-1], last, use_bias=bias, name="out")
    return filled(keras.Sequential([keras.Input((inputs,)), *hidden, out]))


def filled(model):
    """Random biases and statistics too, which Keras starts at 0 and 1."""
    rng = np.random.default_rng(1)
    for v in model.weights:
        if len(v.shape) == 1:
            v.assign(
                rng.uniform(0.3, 1.2, v.shape)
                if v.name == "moving_variance"
                else rng.normal(0, 0.3, v.shape)
            )
    return model


def small_conv_net():
    x = keras.Input((8, 8, 2))
    h = L.Conv2D(4, 3, padding="same", activation="relu", name="c1")(x)
    h = L.MaxPooling2D()(L.BatchNormalization()(h))
    h = L.Add()([h, L.Conv2D(4, 3, padding="same", name="c2")(h)])
    h = L.Dropout(0.5)(L.Flatten()(h))
    return filled(keras.Model(x, L.Dense(5, "softmax", name="out")(h)))


def inputs(model, n=40):
    shape = (n, *model.input_shape[1:])
    return np.random.default_rng(2).normal(size=shape).astype("float32")


def outputs(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def difference(found, x):
    return np.abs(outputs(found.model, x) - outputs(found.target, x))


def test_one_weight_by_hand():
    s = gadgets.Shape(1, 1, 1, 2, False, "relu", "none")
    drawn = gadgets.Drawn(
        np.array([[0.5, 1.0, -1.0, -0.5]], "float32"),
        np.zeros(4, "float32"),
        np.array([0.6, 0.2, 0.1, 1.0], "float32").reshape(1, 4, 1),
        np.zeros(1, "float32"),
    )
    found = gadgets.choose(s, drawn, np.full((1, 1, 1), 0.5), None, 0, 0.01)
    # 0.5 = 0.5 * 0.6 + 1.0 * 0.2 for x >= 0; -1.0 * 0.1 and -0.5 * 1.0 are both negative.
    assert found.masks.second.ravel().tolist() == [True, True, False, False]
    assert found.masks.first.tolist() == [[True, True, False, False]]
    assert found.errors.ravel() == pytest.approx([0.0, 0.5], abs=1e-7)
    assert (found.missing, found.kept) == (1, 2.0)


@pytest.mark.parametrize("structure", ["relu", "linear"])
@pytest.mark.parametrize("share", ["none", "row", "input"])
def test_a_dense_network_within_the_bound(structure, share):
    target = dense(8, 5, 3, last="softmax")
    found = approximate(target, structure=structure, share=share, widen=True)
    x = inputs(target)
    off, bound = difference(found, x), found.bound(x)
    assert (off <= bound + SLACK).all()
    assert off.max() > 0 and bound.max() < 1.01
    assert all(e.max() <= 0.01 for e in found.errors.values())
    assert found.missing == {"d8": 0, "d5": 0, "out": 0}


@pytest.mark.parametrize("structure", ["relu", "linear"])
def test_a_small_conv_net_within_the_bound(structure):
    target = small_conv_net()
    found = approximate(target, structure=structure, tolerance=0.003, widen=True)
    x = inputs(target)
    off, bound = difference(found, x), found.bound(x)
    assert (off <= bound + SLACK).all()
    assert off.max() < 0.02
    assert bound.shape == (40, 5)


def test_a_lenet_within_the_bound():
    target = dense(30, 10, 10, inputs=784)
    found = approximate(target, widen=True)
    x = np.random.default_rng(0).random((50, 784)).astype("float32")
    off, bound = difference(found, x), found.bound(x)
    assert (off <= bound + SLACK).all()
    assert 0 < off.max() < bound.max()


def test_the_bound_is_reached_where_it_can_be():
    target = dense(1, inputs=4, bias=False)
    found = approximate(target, structure="linear", tolerance=0.05)
    x = np.eye(4, dtype="float32")
    assert found.bound(x) == pytest.approx(difference(found, x), abs=1e-6)
    assert found.bound(x).ravel() == pytest.approx(found.errors["out"].ravel(), abs=1e-6)


def test_both_signs_of_an_input_are_served():
    target = dense(1, inputs=1, bias=False)
    found = approximate(target, tolerance=1e-4, candidates=30)
    x = np.array([[2.0], [-2.0]], "float32")
    w = target.layers[0].kernel.numpy().item()
    assert outputs(found.model, x).ravel() == pytest.approx([2 * w, -2 * w], abs=3e-4)


@pytest.mark.parametrize("share", ["none", "row", "input"])
@pytest.mark.parametrize("structure", ["relu", "linear"])
def test_alive_weights_are_those_of_the_draw_bit_by_bit(share, structure):
    target = small_conv_net()
    options = {"structure": structure, "share": share, "seed": 7, "widen": True}
    found = approximate(target, **options)
    named = layers.targets(target)
    for index, (name, layer) in enumerate(named.items()):
        taps, rows, columns = layers.kernel_of(layer).shape
        about = found.ticket.metadata
        n, attempt = about["candidates"][name], about["attempts"][name]
        s = gadgets.Shape(taps, rows, columns, n, True, structure, share)
        values = [*layer.kernel.numpy().ravel(), *layer.bias.numpy()]
        scale = max(1.0, float(np.abs(values).max()))
        drawn = gadgets.draw(s, gadgets.uniform, scale, np.random.default_rng([7, index, attempt]))
        hidden, out = found.model.get_layer(name).layers
        pairs = [
            (hidden.kernel, drawn.first), (hidden.bias, drawn.first_bias),
            (out.kernel, drawn.second), (out.bias, drawn.second_bias),
        ]  # fmt: skip
        for variable, draw in pairs:
            mask = found.ticket.masks[variable.path]
            draw = draw.reshape(mask.shape)
            assert mask.dtype == bool
            assert np.array_equal(variable.numpy(), np.where(mask, draw, np.float32(0)))


def test_shared_draws_repeat():
    rng = np.random.default_rng(0)
    s = gadgets.Shape(2, 3, 4, 5, False, "relu", "row")
    drawn = gadgets.draw(s, gadgets.uniform, 1.0, rng)
    body = drawn.second.reshape(2, 2, 3, 5, 4)
    assert (body == body[:1, :, :1]).all() and len(np.unique(body)) == 2 * 5 * 4
    edges = np.array([drawn.first[i].reshape(2, 3, 5)[:, i] for i in range(3)])
    assert (edges == edges[0]).all()
    s = gadgets.Shape(2, 3, 4, 5, False, "relu", "input")
    body = gadgets.draw(s, gadgets.uniform, 1.0, rng).second.reshape(2, 2, 3, 5, 4)
    assert (body == body[:1, ..., :1]).all() and len(np.unique(body)) == 2 * 3 * 5


def test_units_have_the_sign_of_their_half():
    s = gadgets.Shape(1, 3, 2, 50, True, "relu", "none")
    drawn = gadgets.draw(s, gadgets.normal, 1.0, np.random.default_rng(0))
    edges = np.array([drawn.first[i, :300].reshape(2, 3, 50)[:, i] for i in range(3)])
    assert (edges[:, 0] > 0).all() and (edges[:, 1] < 0).all()
    assert (drawn.first_bias[300:] > 0).all()
    assert (drawn.first_bias[:300] < 0).any()


def test_only_edges_of_a_units_own_input_stay():
    found = approximate(dense(4, 3, inputs=5), widen=True)
    hidden = found.model.get_layer("d4").layers[0]
    mask = found.ticket.masks[hidden.kernel.path]
    assert mask.sum(axis=0).max() == 1
    bias = found.ticket.masks[hidden.bias.path]
    assert not (mask.any(axis=0) & bias).any() and bias.any()
    assert not found.ticket.masks[found.model.get_layer("d4").layers[1].bias.path].any()


def test_the_ticket_counts_saves_loads_and_applies(tmp_path):
    target = dense(6, 3)
    found = approximate(target, widen=True)
    found.ticket.save(tmp_path / "t.safetensors")
    ticket = kl.Ticket.load(tmp_path / "t.safetensors")
    assert ticket.density == found.ticket.density < 0.2
    json.dumps(ticket.metadata)
    fresh = keras.models.clone_model(found.model)
    ticket.apply(fresh)
    x = inputs(target)
    assert np.array_equal(outputs(fresh, x), outputs(found.model, x))


def test_the_network_is_plain_keras_saves_and_compacts(tmp_path):
    target = small_conv_net()
    found = approximate(target, widen=True)
    x = inputs(target)
    expected = outputs(found.model, x)
    smaller = kl.export.compact(found.model, verbose=0)
    assert smaller.count_params() < found.model.count_params()
    assert outputs(smaller, x) == pytest.approx(expected, abs=1e-5)
    plain = kl.strip(found.model)
    assert {type(v).__module__.split(".")[0] for v in weights.sublayers(plain)} == {"keras"}
    plain.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert np.array_equal(outputs(loaded, x), expected)


def test_masks_hold_while_it_trains():
    found = approximate(dense(4, 2), widen=True)
    found.model.compile("adam", "mse")
    found.model.fit(inputs(found.target), np.ones((40, 2)), verbose=0)
    named = weights.all_weights(found.model)
    assert all(not named[p].numpy()[~m].any() for p, m in found.ticket.masks.items())


def test_the_target_is_left_as_it_was():
    target = small_conv_net()
    before = target.get_weights()
    x = inputs(target)
    approximate(target, widen=True).bound(x)
    assert all(np.array_equal(a, b) for a, b in zip(before, target.get_weights(), strict=True))
    assert target.get_layer("c1").output.shape == (None, 8, 8, 4)  # of one call


@pytest.mark.parametrize(
    "layer",
    [
        L.Conv2D(3, 3, strides=2, padding="same"),
        L.Conv2D(3, (1, 4), padding="valid", dilation_rate=(1, 2)),
        L.Conv2D(3, 2, padding="same", activation="tanh"),
        L.Conv2D(3, 5, strides=3, padding="same", use_bias=False),
        L.Dense(3, "sigmoid"),
    ],
)
@pytest.mark.parametrize("size", [7, 8])
def test_windows_of_all_kinds(layer, size):
    layer = type(layer).from_config(layer.get_config())
    target = filled(keras.Sequential([keras.Input((size, size, 2)), layer]))
    found = approximate(target, structure="linear", tolerance=0.003, widen=True)
    x = inputs(target, 5)
    assert (difference(found, x) <= found.bound(x) + SLACK).all()
    assert difference(found, x).max() < 0.1


def test_one_and_three_dimensions():
    causal = L.Conv1D(3, 3, padding="causal", dilation_rate=2)
    for shape, layer in (((9, 2), causal), ((4, 4, 4, 1), L.Conv3D(2, 2, padding="same"))):
        target = filled(keras.Sequential([keras.Input(shape), layer]))
        found = approximate(target, tolerance=0.003, widen=True)
        x = inputs(target, 5)
        assert (difference(found, x) <= found.bound(x) + SLACK).all()
        assert difference(found, x).max() < 0.1


def test_shared_and_nested_layers():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4, "relu", name="twin")], name="inner")
    twin = L.Dense(4, "tanh", name="twin")
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    target = filled(keras.Model([a, b], L.Concatenate()([twin(a), twin(inner(b))])))
    found = approximate(target, widen=True)
    assert list(found.errors) == ["twin", "twin:2"]
    x = [inputs(target.get_layer("inner"), 9)] * 2
    off = np.abs(outputs(found.model, x) - outputs(target, x))
    assert (off <= found.bound(x) + SLACK).all()


def test_a_layer_that_stands_in_two_models_is_drawn_once():
    shared = L.Dense(4, "relu", name="shared")
    inner = keras.Sequential([keras.Input((4,)), shared], name="inner")
    x = keras.Input((4,))
    target = filled(keras.Model(x, shared(inner(x))))
    found = approximate(target, widen=True)
    assert list(found.errors) == ["shared"]
    batch = inputs(target)
    assert (difference(found, batch) <= found.bound(batch) + SLACK).all()
    assert len(found.ticket.masks) == 4


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=3, unique=True),
    st.sampled_from(["uniform", "normal"]),
    st.sampled_from(["relu", "linear"]),
    st.sampled_from(["relu", "linear", "tanh", "softmax", "elu"]),
    st.booleans(),
    st.integers(0, 99),
)
def test_random_networks_keep_their_bound(units, distribution, structure, last, bias, seed):
    target = dense(*units, inputs=3, last=last, bias=bias)
    found = approximate(target, 8, 0.05, distribution, structure, seed=seed, on_missing="nearest")
    x = 3 * inputs(target)
    assert (difference(found, x) <= found.bound(x) * (1 + 1e-5) + SLACK).all()


def test_wide_weights_scale_the_draw():
    target = dense(2, inputs=3)
    target.layers[-1].kernel.assign(np.array([[5.0, -4.0], [0.1, 3.0], [-2.0, 1.0]]))
    found = approximate(target, 30, tolerance=0.01, structure="linear")
    assert difference(found, inputs(target)).max() < 0.2


def test_widening_adds_candidates_until_all_are_within():
    target = dense(8, 3)
    with pytest.raises(ValueError, match=r"weights of the layer 'd8'.*2 candidates.*`widen"):
        approximate(target, 2)
    found = approximate(target, 2, widen=True)
    assert min(found.candidates.values()) > 2
    assert max(e.max() for e in found.errors.values()) <= 0.01
    nearest = approximate(target, 2, on_missing="nearest")
    assert nearest.missing["d8"] > 0
    assert nearest.errors["d8"].max() > 0.01


def test_a_distribution_of_ones_own():
    def narrow(rng, shape):
        return rng.uniform(-0.5, 0.5, shape)

    found = approximate(dense(3), distribution=narrow, structure="linear", on_missing="nearest")
    assert np.abs(found.model.get_layer("out").layers[0].kernel.numpy()).max() <= 0.5
    assert found.ticket.metadata["distribution"] == "custom"
    for bad, says in (
        (lambda rng, shape: np.ones(shape), "both signs"),
        (lambda rng, shape: np.ones(3), r"Received: shape \(3,\)"),
        (lambda rng, shape: np.full(shape, np.nan), "NaN or Inf"),
    ):
        with pytest.raises(ValueError, match=says):
            approximate(dense(3), distribution=bad)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (L.DepthwiseConv2D(3, name="dw"), r"layer 'dw' \(DepthwiseConv2D\).*What can be"),
        (L.Conv2D(4, 3, groups=2, name="grouped"), "'grouped': it has 2 groups"),
        (L.Conv2D(2, 2, dilation_rate=2, padding="same", name="even"), "bias of 'even'"),
        (L.Flatten(), "no layer to approximate"),
    ],
)
def test_layers_that_cannot_be_approximated(layer, says):
    target = keras.Sequential([keras.Input((6, 6, 2)), layer])
    with pytest.raises(ValueError, match=says):
        approximate(target)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"candidates": 0}, "`candidates`.*1 to 40. Received: 0"),
        ({"candidates": 41}, "Received: 41"),
        ({"tolerance": 0.0}, "`tolerance` must be positive"),
        ({"seed": -1}, "`seed`"),
        ({"structure": "tanh"}, "`structure` must be one of.*'tanh'"),
        ({"share": "column"}, "`share`"),
        ({"on_missing": "ignore"}, "`on_missing`"),
        ({"distribution": "cauchy"}, "`distribution`.*'cauchy'"),
    ],
)
def test_bad_options_are_explained(options, says):
    with pytest.raises(ValueError, match=says):
        approximate(dense(2), **options)


def test_models_without_a_graph_or_with_nan_are_refused():
    with pytest.raises(ValueError, match="built Sequential or functional"):
        approximate(keras.Sequential([L.Dense(2)]))
    target = dense(2)
    target.layers[0].bias.assign([np.nan, 0])
    with pytest.raises(ValueError, match=r"NaN or Inf, found in \['.*out/bias'\]"):
        approximate(target)


def test_no_bound_through_what_is_not_monotone():
    target = dense(3, last="gelu")
    found = approximate(target, widen=True)
    with pytest.raises(ValueError, match=r"layer 'out' \(gelu\)"):
        found.bound(inputs(target))
    normed = keras.Sequential([keras.Input((3,)), L.LayerNormalization(name="norm")])
    with pytest.raises(ValueError, match=r"'norm' \(LayerNormalization\)"):
        largest_difference(normed, {}, np.ones((1, 3)))
