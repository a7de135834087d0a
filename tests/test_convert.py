"""States in the layouts that open_lth and torch.nn.utils.prune write, made with NumPy."""

import pathlib
import re

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L
from safetensors.numpy import save_file

import keras_lottery as kl
from keras_lottery import convert

RNG = np.random.default_rng(0)


def blocks():
    """The page's code that needs no torch, in its order."""
    page = (pathlib.Path(__file__).parents[1] / "docs" / "convert.md").read_text()
    found = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    return [block for block in found if "torch." not in block]


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def sequential(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


def pruned(name, weight, bias=True):
    """A module's part of a state, in the order that torch.nn.utils.prune leaves."""
    mask = (RNG.random(weight.shape) < 0.5).astype(np.float32)
    state = {f"{name}.bias": draw(len(weight))} if bias else {}
    return state | {f"{name}.weight_orig": weight, f"{name}.weight_mask": mask}


def norm(name, n):
    return {
        f"{name}.weight": draw(n),
        f"{name}.bias": draw(n),
        f"{name}.running_mean": draw(n),
        f"{name}.running_var": draw(n) ** 2 + 0.5,
        f"{name}.num_batches_tracked": np.array(7),
    }


def lenet():
    """What open_lth saves of `mnist_lenet_5_4` on 6 inputs: state and mask."""
    state = {}
    sizes = {"fc_layers.0": (5, 6), "fc_layers.1": (4, 5), "fc": (3, 4)}
    for name, (n_out, n_in) in sizes.items():
        state |= {f"{name}.weight": draw(n_out, n_in), f"{name}.bias": draw(n_out)}
    masks = {f"{n}.weight": RNG.integers(0, 2, s).astype(np.int32) for n, s in sizes.items()}
    return state, masks


def lenet_model():
    return sequential((6,), L.Dense(5, "relu"), L.Dense(4, "relu"), L.Dense(3))


def assert_lenet(ticket, state, masks):
    names = [n.removesuffix(".weight") for n in masks]
    kernels, biases = list(ticket.weights.values())[::2], list(ticket.weights.values())[1::2]
    for name, kernel, bias, mask in zip(names, kernels, biases, ticket.masks.values(), strict=True):
        np.testing.assert_array_equal(mask, masks[f"{name}.weight"].T)
        np.testing.assert_array_equal(kernel, state[f"{name}.weight"].T * mask)
        np.testing.assert_array_equal(bias, state[f"{name}.bias"])


def test_a_linear_weight_is_transposed_with_its_mask():
    model = sequential((2,), L.Dense(2, use_bias=False))
    state = {"fc.weight": np.array([[1.0, 2.0], [3.0, 4.0]])}
    ticket = convert.from_open_lth(model, state, {"fc.weight": np.array([[1, 0], [1, 1]])})
    assert ticket.weights["sequential/dense/kernel"].tolist() == [[1, 3], [0, 4]]
    assert ticket.masks["sequential/dense/kernel"].tolist() == [[True, True], [False, True]]
    assert ticket.weights["sequential/dense/kernel"].dtype == "float32"


def test_rows_after_a_flattened_image_go_from_channels_first_to_channels_last():
    model = sequential((1, 2, 2), L.Flatten(), L.Dense(1, use_bias=False))
    ticket = convert.from_torch_prune(model, {"fc.weight": np.array([[1.0, 2.0, 3.0, 4.0]])})
    # torch: (c0 w0) (c0 w1) (c1 w0) (c1 w1); Keras: (w0 c0) (w0 c1) (w1 c0) (w1 c1)
    assert ticket.weights["sequential/dense/kernel"].ravel().tolist() == [1, 3, 2, 4]
    assert ticket.metadata["rows_permuted"] == ["sequential/dense"]


def test_rows_after_a_flattened_sequence_of_a_convolution_are_permuted_too():
    model = sequential((3, 1), L.Conv1D(2, 2, use_bias=False), L.Flatten(), L.Dense(1))
    state = {
        **{"0.weight": draw(2, 1, 2), "2.weight": np.array([[1.0, 2.0, 3.0, 4.0]])},
        **{"2.bias": draw(1)},
    }
    kernel = convert.from_open_lth(model, state).weights[model.layers[2].kernel.path]
    # torch: (c0 t0) (c0 t1) (c1 t0) (c1 t1); Keras: (t0 c0) (t0 c1) (t1 c0) (t1 c1)
    assert kernel.ravel().tolist() == [1, 3, 2, 4]


def test_rows_stay_where_only_one_channel_or_no_image_is_flattened():
    weight = {"fc.weight": np.arange(1.0, 5.0)[None]}
    for shape in ((2, 2, 1), (2, 2), (1, 1, 4), (4,)):
        ticket = convert.from_torch_prune(
            sequential(shape, L.Flatten(), L.Dense(1, use_bias=False)), weight
        )
        assert next(iter(ticket.weights.values())).ravel().tolist() == [1, 2, 3, 4]
        assert ticket.metadata["rows_permuted"] == []


def test_lenet_of_open_lth_crosses_whole():
    state, masks = lenet()
    assert_lenet(convert.from_open_lth(lenet_model(), state, masks), state, masks)


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_files_give_what_dicts_give(kind, tmp_path):
    state, masks = lenet()
    paths = [tmp_path / f"{name}.{kind}" for name in ("model", "mask")]
    for path, arrays in zip(paths, (state, masks), strict=True):
        np.savez(path, **arrays) if kind == "npz" else save_file(arrays, path)
    assert_lenet(convert.from_open_lth(lenet_model(), *paths), state, masks)
    assert_lenet(convert.from_open_lth(lenet_model(), str(paths[0]), paths[1]), state, masks)


def test_without_a_mask_file_all_prunable_weights_are_alive():
    ticket = convert.from_open_lth(lenet_model(), lenet()[0])
    assert ticket.density == 1 and len(ticket.masks) == 3


def test_a_ticket_of_open_lth_is_trained_and_stays_sparse():
    state, masks = lenet()
    ticket = convert.from_open_lth(lenet_model(), state, masks)
    model = lenet_model()
    ticket.apply(model)
    model.compile("adam", "mse")
    model.fit(draw(8, 6), draw(8, 3), epochs=2, verbose=0)
    for layer, mask in zip(model.layers, ticket.masks.values(), strict=True):
        assert not layer.kernel.numpy()[~mask].any()
        assert layer.kernel.numpy()[mask].any()


@pytest.mark.parametrize(
    ("layer", "shape", "torch_shape", "axes"),
    [
        (L.Conv1D(5, 2), (7, 3), (5, 3, 2), (2, 1, 0)),
        (L.Conv2D(5, (2, 3)), (7, 7, 3), (5, 3, 2, 3), (2, 3, 1, 0)),
        (L.Conv2D(6, 2, groups=3), (7, 7, 3), (6, 1, 2, 2), (2, 3, 1, 0)),
        (L.Conv3D(5, 2), (4, 4, 4, 3), (5, 3, 2, 2, 2), (2, 3, 4, 1, 0)),
        (L.Conv1DTranspose(5, 2), (7, 3), (3, 5, 2), (2, 1, 0)),
        (L.Conv2DTranspose(5, 2), (7, 7, 3), (3, 5, 2, 2), (2, 3, 1, 0)),
    ],
)
def test_kernels_have_the_axes_of_keras(layer, shape, torch_shape, axes):
    n_bias = 5 if "groups" not in layer.get_config() or layer.groups == 1 else 6
    state = {"0.weight": draw(*torch_shape), "0.bias": draw(n_bias)}
    ticket = convert.from_open_lth(sequential(shape, layer), state)
    np.testing.assert_array_equal(
        next(iter(ticket.weights.values())), state["0.weight"].transpose(axes)
    )


def test_a_depthwise_kernel_splits_the_outputs_into_channels_and_multiples():
    layer = L.DepthwiseConv2D((1, 2), depth_multiplier=2, use_bias=False)
    weight = draw(6, 1, 1, 2)  # 3 channels, 2 filters each
    convert.from_open_lth(sequential((4, 4, 3), layer), {"0.weight": weight}).apply(
        model := sequential((4, 4, 3), layer)
    )
    for channel in range(3):
        for filter in range(2):
            found = model.weights[0].numpy()[:, :, channel, filter]
            np.testing.assert_array_equal(found, weight[2 * channel + filter, 0])


def conv_state():
    return (
        pruned("0", draw(4, 3, 3, 3), bias=False)
        | norm("1", 4)
        | pruned("3", draw(6, 4, 3, 3))
        | norm("5", 24)
        | pruned("6", draw(3, 24))
    )


def conv_model():
    return sequential(
        (6, 6, 3),
        L.Conv2D(4, 3, use_bias=False),
        L.BatchNormalization(epsilon=1e-5),
        L.ReLU(),
        L.Conv2D(6, 3),
        L.Flatten(),
        L.BatchNormalization(epsilon=1e-5),
        L.Dropout(0.5),
        L.Dense(3),
    )


def convolution(x, weight, bias=0.0):
    """A valid convolution of (c, h, w) images, by the definition."""
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, weight) + np.reshape(bias, (-1, 1, 1))


def forward(state, x):
    """What torch computes of `conv_state`: channels first, flattened as (c, h, w)."""

    def masked(name):
        return state[f"{name}.weight_orig"] * state[f"{name}.weight_mask"]

    def normed(name, x, shape):
        mean, var, gamma, beta = (
            state[f"{name}.{part}"].reshape(shape)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(var + 1e-5) * gamma + beta

    x = normed("1", convolution(x, masked("0")), (-1, 1, 1))
    x = convolution(np.maximum(x, 0), masked("3"), state["3.bias"])
    return normed("5", x.reshape(len(x), -1), (-1,)) @ masked("6").T + state["6.bias"]


def test_the_network_computes_what_torch_computes():
    state, model = conv_state(), conv_model()
    ticket = convert.from_torch_prune(model, state)
    ticket.apply(model)
    x = draw(2, 3, 6, 6)
    found = model(np.moveaxis(x, 1, -1), training=False)
    np.testing.assert_allclose(found, forward(state, x), rtol=1e-5, atol=1e-5)
    assert [p.rpartition("/")[2] for p in ticket.metadata["rows_permuted"]] == [
        model.layers[5].name,
        model.layers[7].name,
    ]


def test_back_to_torch_bit_for_bit():
    state, model = conv_state(), conv_model()
    ticket = convert.from_torch_prune(model, state)
    for target in (model, conv_model()):  # a fresh model has other paths
        back = convert.to_torch_prune(ticket, target)
        assert list(back) == list(state)
        for name, value in state.items():
            if name.endswith("_orig"):
                value = value * state[name.replace("_orig", "_mask")]
            if not name.endswith("num_batches_tracked"):
                np.testing.assert_array_equal(back[name], value)
    again = convert.from_torch_prune(conv_model(), back)
    for one, other in zip(again.weights.values(), ticket.weights.values(), strict=True):
        assert one.tobytes() == other.tobytes()
    for one, other in zip(again.masks.values(), ticket.masks.values(), strict=True):
        assert one.tobytes() == other.tobytes()


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_every_value_is_moved_and_none_changed(data):
    side = st.integers(1, 4)
    h, w, c, o = (data.draw(side) for _ in range(4))
    layer = data.draw(st.sampled_from([L.Conv2D, L.Conv2DTranspose, L.DepthwiseConv2D, L.Dense]))
    if layer is L.DepthwiseConv2D:
        layers = [layer((h, w), depth_multiplier=o)]
    elif layer is L.Dense:
        layers = [L.Flatten(), L.Dense(o)]
    else:
        layers = [layer(o, (h, w))]
    model = sequential((h, w, c), *layers)
    kernel = model.weights[0].path
    ticket = kl.Ticket.of(
        model, {kernel: np.random.default_rng(h).random(model.weights[0].shape) < 0.5}
    )
    back = convert.from_torch_prune(model, convert.to_torch_prune(ticket, model))
    assert all(back.weights[p].tobytes() == v.tobytes() for p, v in ticket.weights.items())
    np.testing.assert_array_equal(back.masks[kernel], ticket.masks[kernel])


def test_permanent_pruning_is_read_from_the_zeros():
    model = sequential((2,), L.Dense(1))
    ticket = convert.from_torch_prune(
        model, {"0.bias": np.zeros(1), "0.weight": np.array([[0.0, 5.0]])}
    )
    assert [m.ravel().tolist() for m in ticket.masks.values()] == [[False, True]]


def test_a_pruned_bias_has_a_mask_too():
    model = sequential((1,), L.Dense(2))
    state = {
        "0.weight": np.ones((2, 1)),
        "0.bias_orig": np.array([1.0, 2.0]),
        "0.bias_mask": np.array([0.0, 1.0]),
    }
    ticket = convert.from_torch_prune(model, state)
    assert ticket.weights[model.layers[0].bias.path].tolist() == [0, 2]
    assert list(convert.to_torch_prune(ticket, model)) == [
        *("0.weight_orig", "0.weight_mask", "0.bias_orig", "0.bias_mask"),
    ]


def test_the_page_s_code_runs_as_it_stands(tmp_path, monkeypatch):
    sizes = {"fc_layers.0": (300, 784), "fc_layers.1": (100, 300), "fc": (10, 100)}
    state = {f"{n}.{part}": draw(*s) for n, size in sizes.items()
             for part, s in (("weight", size), ("bias", size[:1]))}  # fmt: skip
    masks = {f"{n}.weight": RNG.integers(0, 2, size) for n, size in sizes.items()}
    torch_state = {k: v for n, s in sizes.items() for k, v in pruned(n, draw(*s)).items()}
    monkeypatch.chdir(tmp_path)
    for name, arrays in (("model", state), ("mask", masks), ("pruned", torch_state)):
        np.savez(f"{name}.npz", **arrays)
    from_open_lth, from_prune, back, _ = blocks()
    space = {"keras": keras, "kl": kl}
    exec(from_open_lth, space)
    kernel = space["model"].layers[1].kernel.numpy()
    first = state["fc_layers.0.weight"] * masks["fc_layers.0.weight"]
    np.testing.assert_array_equal(kernel, first.T)
    exec(from_prune + back, space)
    assert list(space["state"]) == list(torch_state)
    np.testing.assert_array_equal(space["state"]["fc.weight_mask"], torch_state["fc.weight_mask"])


def test_a_safetensors_file_of_two_dtypes_swaps_no_layers(tmp_path):
    # The file has the float32 module before the float16 one, whatever their names.
    state = {f"{n}.{part}": np.full(s, i, d) for i, (n, d) in enumerate((("0", "f2"), ("1", "f4")))
             for part, s in (("weight", (2, 2)), ("bias", 2))}  # fmt: skip
    save_file(state, tmp_path / "state.safetensors")
    model = sequential((2,), L.Dense(2), L.Dense(2))
    ticket = convert.from_torch_prune(model, tmp_path / "state.safetensors")
    assert ticket.metadata["torch_modules"] == ["0", "1"]
    assert ticket.weights[model.layers[1].bias.path].tolist() == [1, 1]
    named = {name.replace("0", "a").replace("1", "b"): v for name, v in state.items()}
    save_file(named, tmp_path / "named.safetensors")
    with pytest.raises(ValueError, match="'a' and 'b' have the same shapes"):
        convert.from_torch_prune(model, tmp_path / "named.safetensors")
