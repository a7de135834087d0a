"""The XNNPACK policy for Keras 3: by hand, and against tfmot's on twins of tf_keras."""

import inspect

import keras
import pytest
from keras import layers as L

import keras_lottery as kl
from keras_lottery import xnnpack
from keras_lottery.tfmot import importing


def start(k, size=17, channels=3, strides=2):
    x = k.Input((size, size, channels))
    h = k.layers.ZeroPadding2D(1)(x)
    return x, k.layers.Conv2D(4, 3, strides=strides, name="first")(h)


def separable(k):
    x, h = start(k)
    h = k.layers.ReLU(6.0)(k.layers.BatchNormalization()(h))
    h = k.layers.DepthwiseConv2D(3, padding="same", name="deep")(h)
    h = k.layers.Conv2D(8, 1, name="one")(h)
    h = k.layers.Activation("relu")(h)
    h = k.layers.DepthwiseConv2D(3, strides=2, name="wide")(k.layers.ZeroPadding2D(1)(h))
    h = k.layers.Conv2D(8, 1, use_bias=False, name="two")(h)
    h = k.layers.GlobalAveragePooling2D()(h)
    return k.Model(x, k.layers.Dense(3, name="head")(h))


def residual(k):
    x, h = start(k)
    a = k.layers.Conv2D(8, 1, name="one")(h)
    b = k.layers.Conv2D(8, 1, name="two")(k.layers.ELU()(a))
    h = k.layers.Add()([a, b])
    h = k.layers.Multiply()([h, k.layers.Activation("sigmoid")(h)])
    return k.Model(x, k.layers.GlobalAveragePooling2D(keepdims=True)(h))


def sequential(k):
    return k.Sequential(
        [
            k.layers.InputLayer((9, 9, 3)),
            k.layers.ZeroPadding2D(1),
            k.layers.Conv2D(4, 3, strides=2, name="first"),
            k.layers.Conv2D(6, 1, name="one"),
            k.layers.DepthwiseConv2D(5, padding="same", name="deep"),
            k.layers.GlobalAveragePooling2D(),
            k.layers.Dense(2, name="head"),
        ]
    )


def no_padding(k):
    x = k.Input((9, 9, 3))
    h = k.layers.Conv2D(6, 1, name="one")(k.layers.Conv2D(4, 3, strides=2, name="first")(x))
    return k.Model(x, k.layers.GlobalAveragePooling2D()(h))


def grey(k):
    x, h = start(k, channels=1)
    return k.Model(x, k.layers.GlobalAveragePooling2D()(k.layers.Conv2D(6, 1, name="one")(h)))


def no_stride(k):
    x, h = start(k, strides=1)
    return k.Model(x, k.layers.GlobalAveragePooling2D()(k.layers.Conv2D(6, 1, name="one")(h)))


def flattened(k):
    x, h = start(k)
    h = k.layers.Flatten()(k.layers.Conv2D(6, 1, name="one")(h))
    return k.Model(x, k.layers.Dense(2, name="head")(h))


def two_outputs(k):
    x, h = start(k)
    h = k.layers.Conv2D(6, 1, name="one")(h)
    return k.Model(x, [k.layers.GlobalAveragePooling2D()(h), h])


def between(k, *layers):
    x, h = start(k)
    for layer in (*layers, k.layers.Conv2D(6, 1, name="one"), k.layers.GlobalAveragePooling2D()):
        h = layer(h)
    return k.Model(x, h)


def convolution(k):
    return between(k, k.layers.Conv2D(4, 3, padding="same", name="three"))


def strided(k):
    return between(k, k.layers.Conv2D(4, 1, strides=2, name="strided"))


def grouped(k):
    return between(k, k.layers.Conv2D(4, 1, groups=2, name="grouped"))


def tanh(k):
    return between(k, k.layers.Activation("tanh"))


def pooled(k):
    return between(k, k.layers.MaxPooling2D())


def multiplied(k):
    return between(k, k.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="deep"))


def unpadded(k):
    return between(k, k.layers.DepthwiseConv2D(3, name="deep"))


def wide_unpadded(k):
    return between(k, k.layers.ZeroPadding2D(1), k.layers.DepthwiseConv2D(5, name="deep"))


def resized(k):
    return between(k, k.layers.UpSampling2D(interpolation="bilinear"))


def nearest(k):
    return between(k, k.layers.UpSampling2D())


def first_axis(k):
    return between(k, k.layers.BatchNormalization(axis=1))


def leaky(k):
    return between(k, k.layers.LeakyReLU(), k.layers.Dropout(0.1), k.layers.BatchNormalization())


NETWORKS = {
    name: made
    for name, made in globals().items()
    if inspect.isfunction(made) and list(inspect.signature(made).parameters) == ["k"]
}


@pytest.fixture(scope="module")
def verdicts():
    """By network: what tfmot prunes of its twin; nothing where it complains."""
    legacy = importing.load()
    policy = legacy.tfmot.sparsity.keras.PruneForLatencyOnXNNPack()
    found = {}
    for name, made in NETWORKS.items():
        model = made(legacy.keras)
        try:
            policy.ensure_model_supports_pruning(model)
            found[name] = [layer.name for layer in model.layers if policy.allow_pruning(layer)]
        except ValueError:
            found[name] = []
    return found


def qualified(model):
    return [row.layer for row in xnnpack.report(model) if row.qualifies]


def test_verdicts_are_tfmots(verdicts):
    found = {name: qualified(made(keras)) for name, made in NETWORKS.items()}
    assert found == verdicts
    assert {name for name in found if found[name]} == {
        "separable", "residual", "sequential", "resized", "leaky"
    }  # fmt: skip


def test_the_report_says_why_a_layer_does_not_qualify():
    rows = {row.layer: row for row in xnnpack.report(NETWORKS["separable"](keras))}
    assert {name for name, row in rows.items() if row.qualifies} == {"one", "two"}
    assert rows["one"].why_not == "" and rows["one"].path.endswith("one/kernel")
    assert rows["first"].why_not == "its kernel is 3x3, not 1x1"
    assert rows["deep"].why_not == "DepthwiseConv2D: sparse kernels run 1x1 Conv2D only"
    assert rows["head"].why_not.startswith("Dense")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_padding", "not every input leads to a ZeroPadding2D"),
        ("grey", "3 input channels"),
        ("flattened", "not every output comes from a GlobalAveragePooling2D"),
        ("two_outputs", "not every output"),
        ("convolution", r"'three' \(Conv2D\) lies between .*: a convolution is 1x1"),
        ("tanh", r"\(Activation\).*its activation is one of.*relu6"),
        ("pooled", r"\(MaxPooling2D\).*not supported"),
        ("multiplied", r"\(DepthwiseConv2D\).*one multiplier"),
        ("nearest", "bilinear"),
        ("first_axis", "last axis"),
    ],
)
def test_a_model_of_which_nothing_qualifies_is_told_with_the_reasons(name, why):
    with pytest.raises(ValueError, match=rf"will run no layer(?s:.)*one.*{why}"):
        xnnpack.filters(NETWORKS[name](keras))


def test_filters_choose_what_the_lottery_prunes():
    model = NETWORKS["separable"](keras)
    masks = kl.prune(model, 0.25, filters=xnnpack.filters(model)).masks
    assert [p.split("/")[-2] for p in masks] == ["one", "two"]


def test_the_report_prints_as_a_table_a_line_a_weight():
    lines = str(xnnpack.report(NETWORKS["sequential"](keras))).splitlines()
    assert lines[0].split() == ["layer", "weight", "sparse", "kernel", "why", "not"]
    assert [line.split()[0] for line in lines[1:]] == ["first", "one", "deep", "head"]
    assert [line.split()[2] for line in lines[1:]] == ["no", "yes", "no", "no"]


def test_a_convolution_behind_the_pooling_runs_dense():
    x, h = start(keras)
    h = keras.layers.GlobalAveragePooling2D(keepdims=True)(keras.layers.Conv2D(4, 1)(h))
    model = keras.Model(x, keras.layers.Conv2D(2, 1, name="after")(h))
    with pytest.raises(ValueError, match="GlobalAveragePooling2D"):
        xnnpack.filters(keras.Model(x, [model.output, model.layers[2].output]))
    rows = {row.layer: row for row in xnnpack.report(model)}
    assert "outside of the part" in rows["after"].why_not


def test_nested_models_and_operations_are_seen_through():
    inner = keras.Sequential([keras.Input((9, 9, 4)), keras.layers.Conv2D(4, 1, name="inner")])
    x, h = start(keras)
    h = keras.ops.relu(inner(h) + h)
    model = keras.Model(x, keras.layers.GlobalAveragePooling2D()(h))
    assert qualified(model) == ["inner"]
    mixed = keras.Model(x, keras.layers.GlobalAveragePooling2D()(keras.ops.tanh(inner(h))))
    assert not qualified(mixed)


@pytest.mark.parametrize("activation", ["gelu", "softmax", "tanh", lambda x: x * x, L.PReLU()])
def test_a_built_in_activation_is_judged_as_a_layer_of_its_own(activation):
    x, h = start(keras)
    pooled = L.GlobalAveragePooling2D()
    h = L.Conv2D(4, 1, name="one")(L.Activation(activation)(h))
    [_, row] = xnnpack.report(keras.Model(x, pooled(h)))[:2]
    assert "its activation is one of ['elu'" in row.why_not
    x = keras.Input((17, 17, 3))
    for places in ((activation, None, None), (None, activation, None), (None, None, activation)):
        h = L.Conv2D(4, 3, 2, activation=places[0], name="first")(L.ZeroPadding2D(1)(x))
        h = L.DepthwiseConv2D(3, padding="same", activation=places[1], name="deep")(h)
        h = L.Conv2D(4, 1, activation=places[2], name="one")(h)
        rows = {row.layer: row.why_not for row in xnnpack.report(keras.Model(x, pooled(h)))}
        at = ("first", "deep", "one")[[p is activation for p in places].index(True)]
        assert rows["one"].startswith(f"the layer {at!r}") and "its activation" in rows["one"]


@pytest.mark.parametrize("activation", [None, "relu", keras.ops.relu6, L.ReLU(6.0)])
def test_an_activation_that_sparse_kernels_run_may_be_built_in(activation):
    layer = L.Conv2D(4, 1, activation=activation, name="two")
    assert qualified(between(keras, layer)) == ["two", "one"]


def test_subtract_is_elementwise_as_a_layer_and_as_an_operation():
    for subtract in (L.Subtract(), lambda pair: pair[0] - pair[1]):
        x, h = start(keras)
        h = subtract([L.Conv2D(4, 1, name="one")(h), h])
        assert qualified(keras.Model(x, L.GlobalAveragePooling2D()(h))) == ["one"]


def test_the_graph_of_a_subclassed_model_cannot_be_seen():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.one = keras.layers.Conv2D(2, 1)

        def call(self, x):
            return self.one(x)

    model = Own()
    with pytest.raises(ValueError, match="has no weights yet"):
        xnnpack.report(keras.Sequential([keras.layers.Conv2D(2, 1)]))
    model(keras.ops.zeros((1, 4, 4, 3)))
    with pytest.raises(ValueError, match="subclassed model cannot be seen"):
        xnnpack.filters(model)
