"""What of a torch state does not fit a model, or cannot be known, and how that is said."""

import keras
import numpy as np
import pytest
from keras import layers as L
from test_convert import RNG, blocks, draw, lenet, lenet_model, norm, sequential

import keras_lottery as kl
from keras_lottery import convert, weights
from keras_lottery.experiments.models import resnet_20


def branched():
    x = keras.Input((4,))
    a, b = L.Dense(4, name="side")(x), L.Dense(5, name="main")(x)
    return keras.Model(x, L.Concatenate()([a, b]))


def test_names_say_which_module_is_which_layer_and_the_rest_goes_in_order():
    state = {
        **{"stem.weight": draw(5, 4), "stem.bias": draw(5)},
        **{"other.weight": draw(4, 4), "other.bias": draw(4)},
    }
    model = branched()
    with pytest.raises(ValueError, match=r"(?s)module 'stem' has .*\(5, 4\).*layer 'side'"):
        convert.from_open_lth(model, state)
    ticket = convert.from_open_lth(model, state, names={"other": "side"})
    np.testing.assert_array_equal(ticket.weights["side/kernel"], state["other.weight"].T)
    np.testing.assert_array_equal(ticket.weights["main/kernel"], state["stem.weight"].T)
    assert ticket.metadata["torch_modules"] == ["other", "stem"]
    back = convert.to_torch_prune(ticket, model)
    np.testing.assert_array_equal(back["stem.weight_orig"], state["stem.weight"])
    renamed = convert.to_torch_prune(ticket, model, names={"one": "side", "two": "main"})
    assert list(renamed)[:2] == ["one.bias", "one.weight_orig"]


def numbered(names, sizes):
    return {
        f"{name}.{part}": array
        for name, n in zip(names, sizes, strict=True)
        for part, array in (("bias", draw(n)), ("weight", draw(n, 3)))
    }


def test_a_state_sorted_by_name_is_matched_by_shapes_and_numbers():
    state = numbered(["fc.10", "fc.2", "head"], [3, 3, 4])
    model = sequential((3,), L.Dense(3), L.Dense(3), L.Dense(4))
    found = list(convert.from_open_lth(model, state).weights.values())[::2]
    for kernel, name in zip(found, ("fc.2", "fc.10", "head"), strict=True):
        np.testing.assert_array_equal(kernel, state[f"{name}.weight"].T)


def test_a_state_sorted_by_name_with_two_layers_alike_is_refused():
    state = numbered(["decoder", "encoder"], [3, 3])
    with pytest.raises(ValueError, match="'decoder' and 'encoder' have the same shapes"):
        convert.from_open_lth(sequential((3,), L.Dense(3), L.Dense(3)), state)
    names = {"encoder": "first"}
    model = sequential((3,), L.Dense(3, name="first"), L.Dense(3, name="second"))
    ticket = convert.from_open_lth(model, state, names=names)
    assert ticket.metadata["torch_modules"] == ["encoder", "decoder"]


class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv, self.flat, self.out = L.Conv2D(2, 1), L.Flatten(), L.Dense(1, name="out")

    def call(self, x):
        return self.out(self.flat(self.conv(x)))


def test_a_subclassed_model_asks_for_the_flattened_shape():
    model = Net()
    model(np.zeros((1, 1, 2, 3), np.float32))
    state = {
        **{"conv.weight": draw(2, 3, 1, 1), "conv.bias": draw(2)},
        **{"out.weight": np.arange(4.0)[None], "out.bias": draw(1)},
    }
    with pytest.raises(ValueError, match=r"graph .* cannot be seen.*`flattened="):
        convert.from_open_lth(model, state)
    ticket = convert.from_open_lth(model, state, flattened={"out": (1, 2, 2)})
    assert ticket.weights[model.out.kernel.path].ravel().tolist() == [0, 2, 1, 3]
    as_it_is = convert.from_open_lth(model, state, flattened={})
    assert as_it_is.weights[model.out.kernel.path].ravel().tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="names 'other', which is no layer"):
        convert.from_open_lth(model, state, flattened={"other": (1, 2, 2)})


def test_flattening_is_followed_through_nested_models():
    inner = sequential((8,), L.Dropout(0.5), L.Dense(1, use_bias=False))
    model = sequential((2, 2, 2), L.Flatten(), inner)
    ticket = convert.from_open_lth(model, {"0.weight": np.arange(8.0)[None]})
    expected = np.moveaxis(np.arange(8.0).reshape(2, 2, 2), 0, -1).ravel()
    np.testing.assert_array_equal(next(iter(ticket.weights.values())).ravel(), expected)


def test_a_join_of_flattened_images_is_refused():
    x = keras.Input((2, 2, 2))
    joined = L.Concatenate()([L.Flatten()(x), L.GlobalAveragePooling2D()(x)])
    model = keras.Model(x, L.Dense(1, use_bias=False)(joined))
    with pytest.raises(ValueError, match="joins flattened images"):
        convert.from_open_lth(model, {"0.weight": draw(1, 10)})


def test_what_does_not_fit_is_named():
    state, masks = lenet()
    model = lenet_model()
    before = weights.read(weights.all_weights(model))
    bad = {
        "First without a partner: 'head'": state | {"head.weight": draw(2, 3)},
        r"First mismatch: the module 'fc_layers.1'": state | {"fc_layers.1.weight": draw(4, 7)},
        "end in weight, bias.*'rnn.weight_ih_l0'": state | {"rnn.weight_ih_l0": draw(2, 3)},
    }
    for message, wrong in bad.items():
        with pytest.raises(ValueError, match=message):
            convert.from_open_lth(model, wrong)
    bad_masks = {
        "'fc2.weight', which the state has not": {"fc2.weight": np.ones((5, 6))},
        "zeros and ones only": {"fc.weight": np.full((3, 4), 2)},
        r"weight's shape \(3, 4\). Received: \(4, 3\)": {"fc.weight": np.ones((4, 3))},
    }
    for message, wrong in bad_masks.items():
        with pytest.raises(ValueError, match=message):
            convert.from_open_lth(model, state, masks | wrong)
    with pytest.raises(ValueError, match=r"mask of 'fc.weight' has the shape \(2,\)"):
        convert.from_torch_prune(model, state | {"fc.weight_mask": np.ones(2)})
    for names in ({"nothing": "dense"}, {"fc": "nothing"}):
        with pytest.raises(ValueError, match="`names` has 'nothing', which is no"):
            convert.from_open_lth(model, state, names=names)
    after = weights.read(weights.all_weights(model))
    assert all(np.array_equal(after[p], v) for p, v in before.items())


def test_models_that_are_not_built_or_not_converted_are_refused():
    with pytest.raises(ValueError, match="is not built"):
        convert.from_open_lth(keras.Sequential([L.Dense(1)]), {"0.weight": draw(1, 1)})
    with pytest.raises(ValueError, match="class LSTMCell, which is not converted"):
        convert.from_open_lth(sequential((2, 3), L.LSTM(2)), {"0.weight": draw(1, 1)})
    ticket = convert.from_open_lth(lenet_model(), lenet()[0])
    with pytest.raises(ValueError, match=r"First mismatch: .*kernel' of shape \(6, 5\)"):
        convert.to_torch_prune(ticket, sequential((2,), L.Dense(1)))


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        convert.from_open_lth(lenet_model(), tmp_path / "absent.npz")
    for name in ("model_ep0_it0.pth", "broken.npz", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"PK no such thing")
        with pytest.raises(ValueError, match=rf"(?s){name}.*numpy.savez"):
            convert.from_open_lth(lenet_model(), tmp_path / name)


def resnet_state():
    """The layout of open_lth's `cifar_resnet_20`: state and mask."""
    state, masks = {}, {}

    def conv(name, n_out, n_in, side):
        state[f"{name}.weight"] = draw(n_out, n_in, side, side)
        masks[f"{name}.weight"] = RNG.integers(0, 2, (n_out, n_in, side, side))

    conv("conv", 16, 3, 3)
    state.update(norm("bn", 16))
    width = 16
    for b in range(9):
        n = 16 * 2 ** (b // 3)
        for i, n_in in ((1, width), (2, n)):
            conv(f"blocks.{b}.conv{i}", n, n_in, 3)
            state.update(norm(f"blocks.{b}.bn{i}", n))
        if n != width:
            conv(f"blocks.{b}.shortcut.0", n, width, 1)
            state.update(norm(f"blocks.{b}.shortcut.1", n))
        width = n
    state.update({"fc.weight": draw(10, 64), "fc.bias": draw(10)})
    return state, masks | {"fc.weight": np.ones((10, 64))}


def test_a_residual_network_of_open_lth_needs_names_for_its_shortcuts_only(tmp_path, monkeypatch):
    state, masks = resnet_state()
    model = resnet_20((32, 32, 3), 10)
    with pytest.raises(ValueError, match=r"module 'blocks.3.conv2' .* 'stage2_block1_shortcut'"):
        convert.from_open_lth(model, state, masks)
    monkeypatch.chdir(tmp_path)
    np.savez("model.npz", **state)
    np.savez("mask.npz", **masks)
    space = {"kl": kl, "resnet_20": resnet_20}
    exec(blocks()[-1], space)
    ticket = space["ticket"]
    for layer, module in (("stage2_block1_shortcut", "blocks.3.shortcut.0"),
                          ("stage3_block3_conv2", "blocks.8.conv2")):  # fmt: skip
        alive = state[f"{module}.weight"] * masks[f"{module}.weight"]
        kernel = alive.transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(ticket.weights[f"{layer}/kernel"], kernel)
    gamma = ticket.weights["stage2_block1_conv2_norm/gamma"]
    np.testing.assert_array_equal(gamma, state["blocks.3.bn2.weight"])
