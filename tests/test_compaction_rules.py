"""What each kind of layer lets go: sizes and values by hand, outputs as before."""

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_lottery.compaction.planning import plan
from keras_lottery.compaction.rebuilding import rebuild


def alive(variable):
    return variable.numpy() != 0


def chain(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


def give(layer, *weights):
    """Sets a built layer's weights; fewer arrays leave the last ones."""
    for variable, value in zip(layer.weights, weights, strict=False):
        variable.assign(np.reshape(np.array(value, "float32"), variable.shape))


def fill(model, seed=0):
    """Random weights, none of them zero."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        low = 0.5 if variable.path.endswith("variance") else -1.0
        values = rng.uniform(low, 1.5, variable.shape)
        variable.assign(np.where(np.abs(values) < 0.01, 0.1, values))


def batch(model, seed=1):
    rng = np.random.default_rng(seed)
    shapes = [[n or 5 for n in tensor.shape[1:]] for tensor in model.inputs]
    arrays = [rng.normal(size=(4, *shape)).astype("float32") for shape in shapes]
    return arrays if len(arrays) > 1 else arrays[0]


def small(model, x=None):
    """The smaller model, after its outputs were compared with the model's."""
    made = rebuild(plan(model, alive)).model
    x = batch(model) if x is None else x
    for a, b in zip(keras.tree.flatten(model(x)), keras.tree.flatten(made(x)), strict=True):
        a, b = np.array(a), np.array(b)
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * max(1e-3, np.abs(a).max()))
    return made


def kill(layer, outputs=(), inputs=(), weight=0, bias=None):
    """Zeroes columns and rows of a kernel, whose last axes are channels in and out."""
    kernel = layer.weights[weight].numpy()
    kernel[..., list(outputs)] = 0
    kernel[..., list(inputs), :] = 0
    layer.weights[weight].assign(kernel)
    if bias is not None:
        values = layer.bias.numpy()
        values[list(outputs)] = bias
        layer.bias.assign(values)


def shapes(layer):
    return [tuple(v.shape) for v in layer.weights]


def near(variable, values):
    np.testing.assert_allclose(variable.numpy(), np.array(values, "float32"), rtol=1e-6)


# Dense --------------------------------------------------------------------------------------


def test_a_unit_that_nothing_reads_goes():
    model = chain((2,), L.Dense(3, "relu"), L.Dense(1))
    give(model.layers[0], [[1, 2, 3], [4, 5, 6]], [7, 8, 9])
    give(model.layers[1], [[1], [0], [2]], [3])
    first, second = small(model).layers
    assert (first.units, second.units) == (2, 1)
    near(first.kernel, [[1, 3], [4, 6]])
    near(first.bias, [7, 9])
    near(second.kernel, [[1], [2]])
    near(second.bias, [3])


@pytest.mark.parametrize(
    ("activation", "value"), [("relu", 2.0), ("sigmoid", 1 / (1 + np.exp(-2.0))), (None, 2.0)]
)
def test_a_unit_that_nothing_feeds_moves_into_the_next_bias(activation, value):
    model = chain((2,), L.Dense(2, activation), L.Dense(1))
    give(model.layers[0], [[1, 0], [4, 0]], [7, 2])
    give(model.layers[1], [[1], [5]], [3])
    first, second = small(model).layers
    near(first.kernel, [[1], [4]])
    near(second.bias, [3 + 5 * value])


def test_a_unit_whose_relu_never_opens_leaves_nothing_behind():
    model = chain((2,), L.Dense(2, "relu"), L.Dense(1, use_bias=False))
    give(model.layers[0], [[1, 0], [4, 0]], [7, -2])
    give(model.layers[1], [[1], [5]])
    first, second = small(model).layers
    assert first.units == 1 and not second.use_bias


def test_a_layer_without_bias_gains_one_for_what_moves_into_it():
    model = chain((2,), L.Dense(2, "relu"), L.Dense(2, use_bias=False))
    give(model.layers[0], [[1, 0], [4, 0]], [7, 2])
    give(model.layers[1], [[1, 3], [5, 0]])
    second = small(model).layers[1]
    assert second.use_bias
    near(second.bias, [10, 0])


def test_a_constant_goes_through_batch_normalization():
    model = chain((2,), L.Dense(2), L.BatchNormalization(epsilon=1e-3), L.Dense(1))
    give(model.layers[0], [[1, 0], [4, 0]], [7, 3])
    give(model.layers[1], [5, 2], [6, 1], [0, 1], [1, 3.999])
    give(model.layers[2], [[1], [10]], [0.5])
    first, norm, last = small(model).layers
    assert first.units == 1
    near(norm.gamma, [5])
    near(last.bias, [0.5 + 10 * ((3 - 1) / 2 * 2 + 1)])


def test_a_channel_of_zero_gamma_is_its_beta():
    model = chain((2,), L.Dense(2), L.BatchNormalization(), L.Dense(1))
    fill(model)
    give(model.layers[1], [1, 0], [1, 3])
    kernel, bias = (w.numpy() for w in model.layers[2].weights)
    made = small(model)
    assert shapes(made.layers[0]) == [(2, 1), (1,)]
    near(made.layers[2].bias, bias + 3 * kernel[1])


def test_one_unit_takes_others_with_it_backwards():
    model = chain((2,), L.Dense(3), L.Dense(3), L.Dense(1))
    fill(model)
    kill(model.layers[2], inputs=[0, 1])  # nothing reads units 0, 1 of the second layer,
    give(model.layers[1], [[1, 1, 0], [1, 0, 0], [0, 0, 1]])  # which alone read 0, 1 of the first
    assert [x.units for x in small(model).layers] == [1, 1, 1]


def test_one_unit_takes_others_with_it_forwards():
    model = chain((2,), L.Dense(2, "relu"), L.Dense(2, "relu"), L.Dense(1))
    give(model.layers[0], [[1, 0], [1, 0]], [0, 2])
    give(model.layers[1], [[1, 0], [1, 3]], [0, 1])  # unit 1 reads only a constant: relu(7)
    give(model.layers[2], [[1], [10]], [0])
    first, second, third = small(model).layers
    assert [first.units, second.units] == [1, 1]
    near(second.bias, [2])
    near(third.bias, [70])


def test_a_model_that_is_dead_inside_keeps_one_unit_and_its_constant():
    model = chain((2,), L.Dense(3, "relu"), L.Dense(4, "relu"), L.Dense(2))
    give(model.layers[0], np.zeros((2, 3)), [1, 2, 3])
    give(model.layers[1], np.ones((3, 4)), [0, 0, -9, 0])
    give(model.layers[2], np.ones((4, 2)), [0, 1])
    made = small(model)
    assert [x.units for x in made.layers] == [1, 1, 2]
    near(made.layers[2].bias, [18, 19])
    assert not made.layers[2].kernel.numpy().any()


def test_units_of_the_output_stay_even_if_they_are_dead():
    model = chain((2,), L.Dense(2), L.Dense(3))
    fill(model)
    kill(model.layers[1], outputs=[0, 1], bias=0)
    assert small(model).layers[1].units == 3


def test_dense_on_a_sequence():
    model = chain((4, 3), L.Dense(5, "relu"), L.Dense(2))
    fill(model)
    kill(model.layers[0], outputs=[1], bias=2)
    kill(model.layers[1], inputs=[3])
    assert small(model).layers[0].units == 3


@pytest.mark.parametrize("activation", ["softmax", "log_softmax", lambda x: x * x])
@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_units_under_an_activation_that_is_not_known_stay(activation):
    model = chain((2,), L.Dense(4), L.Dense(3, activation), L.Dense(2))
    fill(model)
    kill(model.layers[1], inputs=[0])
    kill(model.layers[2], inputs=[1])
    assert [x.units for x in small(model).layers] == [3, 3, 2]


def test_an_activation_may_be_a_layer():
    inner = L.Dense(3, activation=L.LeakyReLU(negative_slope=0.5))
    model = chain((2,), inner, L.Dense(1))
    give(inner, [[1, 0, 1], [1, 0, 1]], [0, -2, 0])
    give(model.layers[1], [[1], [3], [0]], [0])
    made = small(model)
    assert made.layers[0].units == 1
    near(made.layers[1].bias, [-3])


@keras.saving.register_keras_serializable("compaction")
class OwnReLU(L.ReLU):
    def call(self, x):
        return keras.ops.softmax(x)


def test_an_activation_of_a_derived_class_is_not_known():
    model = chain((2,), L.Dense(3, activation=OwnReLU()), L.Dense(1))
    fill(model)
    kill(model.layers[1], inputs=[0])
    assert small(model).layers[0].units == 3


def test_a_layer_whose_activation_has_weights_stays_whole():
    model = chain((2,), L.Dense(3), L.Dense(3, activation=L.PReLU()), L.Dense(1))
    model(batch(model))  # builds the slopes
    fill(model)
    kill(model.layers[2], inputs=[0])
    assert small(model).layers[1].units == 3


# Convolutions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("padding", "size", "kept"), [("valid", 2, 1), ("same", 2, 2), ("same", 1, 1)]
)
def test_a_constant_channel_goes_only_where_no_border_shows_it(padding, size, kept):
    model = chain((4, 4, 1), L.Conv2D(2, 1), L.Conv2D(1, size, padding=padding))
    give(model.layers[0], [1, 0], [0, 3])
    fill(model.layers[1])
    kernel, bias = (w.numpy() for w in model.layers[1].weights)
    made = small(model)
    assert made.layers[0].filters == kept
    if kept == 1:
        near(made.layers[1].bias, bias + 3 * kernel[:, :, 1].sum((0, 1)))


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
def test_a_channel_of_zeros_always_goes(padding):
    model = chain((6, 2), L.Conv1D(3, 2, activation="relu"), L.Conv1D(2, 3, padding=padding))
    fill(model)
    kill(model.layers[0], outputs=[1], bias=-1)
    assert small(model).layers[0].filters == 2


@pytest.mark.parametrize("options", [{"strides": 2}, {"dilation_rate": 2}, {"use_bias": False}])
def test_filters_that_nothing_reads_go(options):
    model = chain((9, 9, 2), L.Conv2D(4, 3, **options), L.Conv2D(2, 2, **options))
    fill(model)
    kill(model.layers[1], inputs=[0, 2])
    made = small(model)
    assert shapes(made.layers[0])[0] == (3, 3, 2, 2)
    assert shapes(made.layers[1])[0] == (2, 2, 2, 2)


def test_convolution_in_three_dimensions():
    model = chain((4, 4, 4, 1), L.Conv3D(3, 2), L.Conv3D(2, 2))
    fill(model)
    kill(model.layers[1], inputs=[1])
    assert shapes(small(model).layers[0])[0] == (2, 2, 2, 1, 2)


def grouped():
    model = chain((5, 4), L.Conv1D(8, 1), L.Conv1D(8, 2, groups=4), L.Conv1D(1, 1))
    fill(model)
    return model


def test_whole_groups_go():
    model = grouped()
    kill(model.layers[2], inputs=[2, 3, 6, 7])  # all that groups 1 and 3 give
    first, second, _ = small(model).layers
    assert (first.filters, second.groups, second.filters) == (4, 2, 4)
    kept = model.layers[1].kernel.numpy()[..., [0, 1, 4, 5]]
    assert np.array_equal(second.kernel.numpy(), kept)


def test_kept_groups_stay_equal():
    model = grouped()
    kill(model.layers[2], inputs=[1, 2, 3, 6, 7])  # groups 0 and 2 stay, 0 with one channel less
    second = small(model).layers[1]
    assert (second.groups, second.filters) == (2, 4)
    assert not second.kernel.numpy()[..., 1].any()


def test_every_group_may_lose_the_same_number():
    model = grouped()
    kill(model.layers[2], inputs=[0, 3, 4, 7])
    second = small(model).layers[1]
    assert (second.groups, second.filters) == (4, 4)


def test_channels_of_a_depthwise_convolution_go_with_all_their_multiples():
    model = chain(
        (6, 6, 2), L.Conv2D(3, 1), L.DepthwiseConv2D(2, depth_multiplier=2), L.Conv2D(1, 1)
    )
    fill(model)
    kill(model.layers[2], inputs=[0, 1, 3])
    first, depthwise, _ = small(model).layers
    assert first.filters == 2 and shapes(depthwise) == [(2, 2, 2, 2), (4,)]


@pytest.mark.parametrize(("padding", "kept"), [("valid", 2), ("same", 3)])
def test_a_constant_goes_through_a_depthwise_convolution(padding, kept):
    model = chain((6, 2), L.Conv1D(3, 1), L.DepthwiseConv1D(2, padding=padding), L.Conv1D(1, 1))
    fill(model)
    kill(model.layers[0], outputs=[1], bias=3)
    assert small(model).layers[0].filters == kept


def test_a_depthwise_kernel_of_zeros_lets_its_channel_go():
    model = chain((6, 2), L.Conv1D(3, 1), L.DepthwiseConv1D(2, padding="same"), L.Conv1D(1, 2))
    fill(model)
    kill(model.layers[1], inputs=[1])
    assert small(model).layers[0].filters == 2


@pytest.mark.parametrize("dims", [1, 2])
def test_transposed_convolution(dims):
    kind = getattr(L, f"Conv{dims}DTranspose")
    model = chain((4,) * dims + (2,), L.Dense(3), kind(4, 3, strides=2), L.Dense(2))
    fill(model)
    kernel = model.layers[1].kernel.numpy()
    kernel[..., 1] = 0  # reads channel 1 not: its axes are channels out, channels in
    kernel[..., 2, :] = 0  # gives only its bias as channel 2
    model.layers[1].kernel.assign(kernel)
    kill(model.layers[2], inputs=[0])
    first, middle, _ = small(model).layers
    assert first.units == 2
    assert shapes(middle)[0] == (3,) * dims + (2, 2)


def test_a_constant_stays_under_a_transposed_convolution():
    model = chain((4, 2), L.Dense(2), L.Conv1DTranspose(3, 3, strides=2), L.Dense(1))
    fill(model)
    kill(model.layers[0], outputs=[1], bias=3)
    assert small(model).layers[0].units == 2


def test_separable_convolution():
    model = chain((6, 2), L.Dense(4), L.SeparableConv1D(5, 2, depth_multiplier=2), L.Dense(1))
    fill(model)
    kill(model.layers[0], outputs=[0], bias=2)  # moves into the bias
    kill(model.layers[1], inputs=[2], weight=0)  # the depthwise part does not read it
    kill(model.layers[1], inputs=[6, 7], weight=1)  # the pointwise part does not read it
    kill(model.layers[2], inputs=[4])
    first, middle, _ = small(model).layers
    assert first.units == 1
    assert shapes(middle) == [(2, 1, 2), (1, 2, 4), (4,)]


def test_channels_first_stays_whole_and_says_so():
    model = chain((3, 5, 5), L.Conv2D(4, 1, data_format="channels_first"))
    fill(model)
    found = plan(model, alive)
    assert found.context.left == {"conv2d": "its channels come first"}


# Layers that pass channels on -----------------------------------------------------------------


def test_rows_behind_flatten_go_with_their_filter():
    model = chain((3, 3, 1), L.Conv2D(2, 2), L.Flatten(), L.Dense(1))
    fill(model)
    kill(model.layers[2], inputs=[1, 3, 5, 7])
    kernel = model.layers[2].kernel.numpy()
    conv, _, dense = small(model).layers
    assert conv.filters == 1
    near(dense.kernel, kernel[::2])


def test_a_filter_stays_if_one_of_its_positions_is_read():
    model = chain((3, 3, 1), L.Conv2D(2, 2), L.Flatten(), L.Dense(1))
    fill(model)
    kill(model.layers[2], inputs=[1, 3, 5])
    assert small(model).layers[0].filters == 2


def test_units_behind_reshape_go_channel_by_channel():
    model = chain((3,), L.Dense(12), L.Reshape((2, 2, 3)), L.Conv2D(1, 2))
    fill(model)
    kill(model.layers[2], inputs=[1])
    dense, reshape, _ = small(model).layers
    assert dense.units == 8 and reshape.target_shape == (2, 2, 2)


def test_a_reshape_that_mixes_channels_keeps_what_it_must():
    model = chain((3,), L.Dense(12), L.Reshape((4, 3)), L.Reshape((6, 2)), L.Conv1D(1, 6))
    fill(model)
    kill(model.layers[3], inputs=[1])
    assert small(model).layers[0].units == 12


@pytest.mark.parametrize("shared", [None, [1]])
def test_slopes_of_prelu_go_with_their_channel(shared):
    model = chain((4, 2), L.Dense(3), L.PReLU(shared_axes=shared), L.Dense(1))
    fill(model)
    kill(model.layers[2], inputs=[0])
    assert shapes(small(model).layers[1])[0][-1] == 2


@pytest.mark.parametrize(("value", "kept"), [(2, 2), (-2, 3)])
def test_only_what_prelu_leaves_alone_is_constant_behind_it(value, kept):
    model = chain((4, 2), L.Dense(3), L.PReLU(), L.Dense(1))
    fill(model)
    kill(model.layers[0], outputs=[1], bias=value)
    assert small(model).layers[0].units == kept


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.MaxPooling2D(2, padding="same"),
        lambda: L.AveragePooling2D(2, strides=1, padding="same"),
        lambda: L.UpSampling2D(2, interpolation="bilinear"),
        lambda: L.Cropping2D(1),
        lambda: L.Dropout(0.5),
        lambda: L.ReLU(max_value=1.0, negative_slope=0.1),
        lambda: L.Activation("tanh"),
        L.GlobalMaxPooling2D,
        L.GlobalAveragePooling2D,
    ],
)
def test_constants_and_unread_channels_pass(layer):
    model = chain((5, 5, 2), L.Conv2D(4, 2), layer(), L.Dense(2))
    fill(model)
    kill(model.layers[0], outputs=[2], bias=0.7)
    kill(model.layers[2], inputs=[0])
    assert small(model).layers[0].filters == 2


@pytest.mark.parametrize(("bias", "kept"), [(0, 2), (3, 3)])
def test_padding_with_zeros_keeps_only_zeros_constant(bias, kept):
    model = chain((4, 2), L.Conv1D(3, 1), L.ZeroPadding1D(1), L.Conv1D(1, 2))
    fill(model)
    kill(model.layers[0], outputs=[1], bias=bias)
    assert small(model).layers[0].filters == kept


def test_columns_of_an_embedding_go():
    model = keras.Sequential([keras.Input((3,), dtype="int32"), L.Embedding(5, 4), L.Dense(2)])
    fill(model)
    kill(model.layers[0], outputs=[1])  # always zero
    kill(model.layers[1], inputs=[2])  # not read
    made = small(model, np.array([[0, 1, 2], [3, 4, 0]]))
    assert shapes(made.layers[0]) == [(5, 2)]
