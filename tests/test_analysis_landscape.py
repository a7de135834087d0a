import keras
import numpy as np
import pytest
import zoo
from keras import layers as L

import keras_lottery as kl
from keras_lottery import weights
from keras_lottery.analysis.evaluating import Evaluation
from keras_lottery.analysis.landscape import direction, landscape


def line(units=1):
    model = keras.Sequential([keras.Input((2,)), L.Dense(units, name="out")])
    model.compile(loss="mse")
    return model


DATA = (np.eye(2), np.zeros((2, 1)))
KERNEL = np.array([[3.0, 0.0], [4.0, 2.0]])


def drawn(normalization, masks=None, kernel=KERNEL):
    model = line(2)
    path = model.layers[0].kernel.path
    masks = {} if masks is None else {path: masks}
    found = direction(model, {path: kernel.astype(np.float32)}, masks, normalization, 5)
    assert list(found) == [path]
    return found[path]


def test_each_unit_of_a_direction_gets_the_norm_of_its_weights():
    raw, filters = drawn("none"), drawn("filter")
    assert filters == pytest.approx(raw * np.array([5, 2]) / np.linalg.norm(raw, axis=0))


def test_each_layer_of_a_direction_gets_the_norm_of_its_weights():
    raw, layer = drawn("none"), drawn("layer")
    assert layer == pytest.approx(raw * 29**0.5 / np.linalg.norm(raw))


def test_without_normalization_the_numbers_are_gaussian_as_drawn():
    expected = np.random.default_rng(5).standard_normal((2, 2), np.float32)
    assert np.array_equal(drawn("none"), expected)


@pytest.mark.parametrize("normalization", ["filter", "layer", "none"])
def test_pruned_weights_have_no_direction_and_do_not_count_for_the_norm(normalization):
    mask = np.array([[True, False], [False, True]])
    found = drawn(normalization, mask)
    assert np.array_equal(found != 0, mask)
    if normalization == "filter":
        assert np.abs(found[mask]) == pytest.approx([3, 2])


def test_a_unit_whose_weights_are_all_zero_or_pruned_stays_where_it_is():
    zero = np.array([[3.0, 0.0], [4.0, 0.0]])
    assert not drawn("filter", kernel=zero)[:, 1].any()
    pruned = np.array([[True, False], [True, False]])
    found = drawn("filter", pruned)
    assert not found[:, 1].any() and np.linalg.norm(found) == pytest.approx(5)


def test_filters_of_a_convolution_are_its_output_channels():
    model = zoo.conv()
    values = weights.read(weights.all_weights(model))
    found = direction(model, values, {})
    conv = next(p for p in found if "conv2d/" in p)
    for channel in range(4):
        expected = np.linalg.norm(values[conv][..., channel])
        assert np.linalg.norm(found[conv][..., channel]) == pytest.approx(expected, rel=1e-5)
    assert not any("normalization" in p or "bias" in p for p in found) and len(found) == 4


@pytest.mark.parametrize(
    ("layer", "shape", "name", "units"),
    [
        (lambda: L.DepthwiseConv2D(2, depth_multiplier=2), (4, 4, 3), "kernel", (-2, -1)),
        (lambda: L.SeparableConv1D(3, 2), (5, 3), "depthwise_kernel", (-2, -1)),
        (lambda: L.SeparableConv1D(3, 2), (5, 3), "pointwise_kernel", (-1,)),
        (lambda: L.Conv2DTranspose(2, 3), (4, 4, 3), "kernel", (-2,)),
        (lambda: L.EinsumDense("abd,dhk->abhk", (None, 2, 3)), (5, 4), "kernel", (1, 2)),
        (lambda: L.EinsumDense("abd,hd->abh", (None, 3)), (5, 4), "kernel", (0,)),
    ],
    ids=["depthwise", "separable", "pointwise", "transposed", "heads", "turned"],
)
def test_a_filter_is_what_leads_to_one_unit_of_the_layer(layer, shape, name, units):
    model = keras.Sequential([keras.Input(shape), layer()])
    values = weights.read(weights.all_weights(model))
    path = next(p for p in values if p.endswith("/" + name))
    rng = np.random.default_rng(0)
    weight = rng.normal(size=values[path].shape) * 10.0 ** rng.uniform(-3, 3, values[path].shape)
    moved = direction(model, values | {path: weight}, {})[path]
    kept = {u % weight.ndim for u in units}
    others = tuple(set(range(weight.ndim)) - kept)
    norms = [np.sqrt(np.sum(np.square(v, dtype=float), others)) for v in (moved, weight)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_the_loss_of_a_parabola_is_a_parabola():
    """One alive weight, loss w^2 / 2: its direction is w or -w, so the loss at step t is
    (1 + t)^2 w^2 / 2 or its mirror image."""
    model = line()
    path = model.layers[0].kernel.path
    masks = {path: np.array([[True], [False]])}
    middle = [np.array([[2.0], [0.0]]), np.zeros(1)]
    found = landscape(model, DATA, middle, masks, points=5)
    assert found.axes[0].tolist() == [-1, -0.5, 0, 0.5, 1]
    values = found.values["data"]
    assert sorted(values[[0, 1, 3, 4]]) == pytest.approx([0, 0.5, 4.5, 8]) and values[2] == 2
    assert np.all(np.diff(values) > 0) or np.all(np.diff(values) < 0)
    assert (found.metric, found.normalization, found.center) == ("loss", "filter", "weights")


def test_the_middle_of_a_plane_is_the_plain_evaluation_and_its_cross_the_lines():
    model = line()
    evaluation = Evaluation(model, {"a": DATA, "b": (DATA[0] * 2, DATA[1])}, "loss")
    expected = evaluation()
    seen = []
    plane = landscape(
        model, dimensions=2, points=3, evaluation=evaluation, on_point=lambda i, m: seen.append(i)
    )
    assert seen == list(range(9)) and len(plane.axes) == 2 and plane.center == "model"
    one = landscape(model, dimensions=1, points=3, evaluation=evaluation)
    for part in ("a", "b"):
        assert plane.values[part].shape == (3, 3)
        assert plane.values[part][1, 1] == expected[part]
        assert np.array_equal(plane.values[part][:, 1], one.values[part])
        assert not np.array_equal(plane.values[part][1], one.values[part])
    assert evaluation.traces == 1


def test_the_same_seed_gives_the_same_bytes_under_other_names_and_another_seed_others():
    arrays = line().get_weights()
    first, again = (landscape(line(), DATA, arrays, points=3, seed=4) for _ in range(2))
    other = landscape(line(), DATA, arrays, points=3, seed=5)
    assert first.values["data"].tobytes() == again.values["data"].tobytes()
    assert first.values["data"].tobytes() != other.values["data"].tobytes()


def test_around_a_ticket_its_masks_hold_and_around_a_masked_model_the_enforced_ones():
    model, other = line(), line()
    mask = np.array([[True], [False]])
    source = {other.layers[0].kernel.path: mask}
    seen = []

    def look(index, measured):
        seen.append(model.layers[0].kernel.numpy())

    other.layers[0].kernel.assign([[2.0], [7.0]])
    found = landscape(model, DATA, kl.Ticket.of(other, source), points=4, on_point=look)
    assert found.center == "ticket" and 0.0 not in found.axes[0]
    kl.enforce(model, {model.layers[0].kernel.path: mask})
    before = model.get_weights()
    landscape(model, DATA, points=4, on_point=look)
    assert len(seen) == 8 and all(w[1] == 0 for w in seen)
    assert [len({float(w[0, 0]) for w in half}) for half in (seen[:4], seen[4:])] == [4, 4]
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_every_float_type_move(dtype):
    keras.config.set_dtype_policy(dtype)
    found = landscape(line(), DATA, points=3)
    assert np.isfinite(found.values["data"]).all() and len(set(found.values["data"])) > 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dimensions": 3}, "1 or 2. Received: 3"),
        ({"reach": 0}, "above 0. Received: 0"),
        ({"reach": float("nan")}, "above 0"),
        ({"reach": "a"}, "above 0. Received: 'a'"),
        ({"reach": True}, "above 0. Received: True"),
        ({"points": 1}, "`points` must be at least 2. Received: 1"),
        ({"points": "3"}, "`points` must be an integer. Received: '3'"),
        ({"dimensions": "1"}, "`dimensions` must be an integer. Received: '1'"),
        ({"dimensions": 0}, "`dimensions` must be at least 1. Received: 0"),
        ({"seed": 1.5}, "`seed` must be an integer. Received: 1.5"),
        ({"seed": -1}, "`seed` must be at least 0. Received: -1"),
        ({"normalization": "unit"}, "'filter', 'layer', 'none'"),
        ({"weights": [np.zeros(3)]}, "another architecture"),
        ({"weights": [np.array([[np.inf], [0]]), np.zeros(1)]}, "NaN or an Inf"),
        ({"weights": [np.zeros((2, 1)), np.zeros(1)]}, "No weight .* can move"),
        ({"masks": {"elsewhere": np.array([True])}}, "no weight 'elsewhere'"),
        ({"data": None}, "neither"),
        ({"metric": "los"}, "Received: 'los'"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        landscape(line(), **({"data": DATA} | change))
