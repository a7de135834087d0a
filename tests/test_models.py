"""The papers' networks and users' own."""

import sys
from itertools import pairwise

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from keras_lottery import controls, weights
from keras_lottery.experiments import models
from keras_lottery.tickets import Ticket

# On 28x28x1 (the LeNets) or 32x32x3 and 10 classes: all parameters, those that training
# changes, prunable weights.
COUNTS = {
    "lenet_300_100": (266_610, 266_610, 266_200),
    "lenet_5": (431_080, 431_080, 430_500),
    "conv_2": (4_301_642, 4_301_642, 4_300_992),
    "conv_4": (2_425_930, 2_425_930, 2_425_024),
    "conv_6": (2_262_602, 2_262_602, 2_261_184),
    "resnet_20": (274_042, 272_474, 270_896),
    "resnet_18": (11_183_562, 11_173_962, 11_164_352),
    "resnet_50": (23_573_962, 23_520_842, 23_467_712),
    "vgg_16": (14_732_490, 14_724_042, 14_715_584),
    "vgg_19": (20_046_026, 20_035_018, 20_024_000),
    "vit": (810_890, 810_890, 793_856),
}
IMAGES = sorted(set(models.NAMED) - {"lenet_300_100"})
NORMED = ["resnet_20", "resnet_18", "resnet_50", "vgg_16", "vgg_19"]
DROPS = ["conv_2", "conv_4", "conv_6"]


def named(name, classes=10):
    """A named model for the images that its paper trains it on."""
    return models.NAMED[name]((28, 28, 1) if name.startswith("lenet") else (32, 32, 3), classes)


def size(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


def convolutions(model):
    return [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]


def deviation(name, shape):
    """The initial deviation of a kernel that the paper of a network asks for."""
    fan_in, fan_out = np.prod(shape[:-1]), np.prod(shape[:-2]) * shape[-1]
    if name == "vit":
        return 0.02 * 0.8796  # a normal that is cut off at two deviations
    if name in ("resnet_18", "resnet_50", "vgg_16"):
        return np.sqrt(2 / fan_in)
    return np.sqrt(2 / (fan_in + fan_out))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder; modules imported from it are forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


def test_lenet_on_mnist_has_266610_parameters():
    model = models.lenet_300_100((28, 28, 1), 10)
    assert model.count_params() == 266_610
    assert model.output_shape == (None, 10)
    shapes = [tuple(v.shape) for v in model.trainable_variables]
    assert shapes == [(784, 300), (300,), (300, 100), (100,), (100, 10), (10,)]


def test_lenet_ends_in_logits():
    model = models.lenet_300_100((4, 4, 3), 5)
    assert model(np.full((2, 4, 4, 3), 9.0)).numpy().min() < 0
    activations = [layer.activation.__name__ for layer in model.layers if layer.weights]
    assert activations == ["relu", "relu", "linear"]


def test_lenet_kernels_are_glorot_normal_and_biases_zero():
    model = models.lenet_300_100((28, 28, 1), 10)
    for layer in model.layers[1:]:
        kernel, bias = (np.asarray(v) for v in layer.get_weights())
        fan_in, fan_out = kernel.shape
        deviation = np.sqrt(2 / (fan_in + fan_out))
        # Truncated at two deviations of a normal that is widened to have this one.
        assert kernel.std() == pytest.approx(deviation, rel=0.06)
        assert abs(kernel).max() < 2.28 * deviation
        assert abs(kernel).max() > 1.9 * deviation  # a uniform one ends at 1.73
        assert not bias.any()


@pytest.mark.parametrize("name", models.NAMED)
def test_named_models_have_the_sizes_of_the_papers(name):
    model = named(name)
    sizes = model.count_params(), size(model.trainable_variables)
    assert (*sizes, size(weights.prunable(model).values())) == COUNTS[name]
    assert models.resolve(name) is models.NAMED[name]
    assert (model.name, model.output_shape) == (name, (None, 10))


def test_resnet_20_has_2560_weights_in_shortcuts_and_640_in_the_last_layer():
    prunable = weights.prunable(named("resnet_20"))
    shortcuts = [v for path, v in prunable.items() if "shortcut" in path]
    assert [tuple(v.shape) for v in shortcuts] == [(1, 1, 16, 32), (1, 1, 32, 64)]
    assert size(v for path, v in prunable.items() if path == "logits/kernel") == 640
    assert size(v for v in prunable.values() if tuple(v.shape)[:2] == (3, 3)) == 267_696


@pytest.mark.parametrize(("name", "count"), [("resnet_18", 11_689_512), ("resnet_50", 25_557_032)])
def test_on_imagenet_a_resnet_has_its_well_known_size(name, count):
    model = models.NAMED[name]((224, 224, 3), 1000)
    assert size(model.trainable_variables) == count
    assert model.get_layer("average").input.shape[1:3] == (7, 7)


@pytest.mark.parametrize("name", ["resnet_18", "resnet_50"])
def test_images_of_64_pixels_get_the_stem_of_imagenet(name):
    small, large = (models.NAMED[name]((n, n, 3), 10) for n in (63, 64))
    assert small.get_layer("stem").kernel.shape == (3, 3, 3, 64)
    assert large.get_layer("stem").kernel.shape == (7, 7, 3, 64)
    assert large.get_layer("stem_pool").output.shape[1:3] == (16, 16)
    assert small.get_layer("stage1_block1_relu").output.shape[1:3] == (63, 63)


def test_residual_networks_end_with_the_image_of_their_paper():
    assert named("resnet_20").get_layer("average").input.shape == (None, 8, 8, 64)
    assert named("resnet_18").get_layer("average").input.shape == (None, 4, 4, 512)
    assert named("vgg_19").get_layer("average").input.shape == (None, 2, 2, 512)


@pytest.mark.parametrize(
    ("side", "patch", "grid"), [(8, 1, 8), (9, 2, 5), (28, 4, 7), (32, 4, 8), (224, 28, 8)]
)
def test_the_vit_cuts_an_image_into_at_most_8_by_8_patches(side, patch, grid):
    model = models.vit((side, side, 1), 3)
    assert model.get_layer("patches").kernel.shape[:2] == (patch, patch)
    assert model.get_layer("positions").position.shape == (grid * grid, 128)


def silence(model, ending, weight):
    """Zero weights for all layers whose name ends so; the sums then pass their shortcuts on."""
    for layer in model.layers:
        if layer.name.endswith(ending):
            variable = next(v for v in layer.weights if weight in v.path)
            variable.assign(keras.ops.zeros_like(variable))


@pytest.mark.parametrize(
    ("name", "ending", "weight", "first", "last"),
    [
        ("resnet_20", "_conv2_norm", "gamma", "stem_relu", "stage1_block3_relu"),
        ("resnet_18", "_conv2_norm", "gamma", "stem_relu", "stage1_block2_relu"),
        ("resnet_50", "_conv3_norm", "gamma", "stage3_block1_relu", "stage3_block6_relu"),
        ("vit", "_dense2", "kernel", "block2_add1", "block2_add2"),
        ("vit", "_attention", "attention_output/kernel", "positions", "block1_add1"),
    ],
)
def test_a_block_adds_to_its_input(name, ending, weight, first, last):
    model = models.NAMED[name]((8, 8, 1), 4)
    ends = [model.get_layer(layer).output for layer in (first, last)]
    inner, x = keras.Model(model.input, ends), np.ones((1, 8, 8, 1), "float32")
    assert not np.array_equal(*inner(x))
    silence(model, ending, weight)
    assert np.array_equal(*inner(x))


def test_lenet_5_keeps_5x5_windows_on_images_that_do_not_fit_them():
    small, least = (models.lenet_5((n, n, 1), 3) for n in (12, 13))
    assert small.get_layer("pool2").output.shape == (None, 3, 3, 50)
    assert least.get_layer("pool2").output.shape == (None, 1, 1, 50)


@pytest.mark.parametrize("name", models.NAMED)
def test_named_models_end_in_logits(name):
    last = models.NAMED[name]((8, 8, 1), 4).layers[-1]
    assert (last.name, last.units, last.activation.__name__) == ("logits", 4, "linear")


@pytest.mark.parametrize("name", models.NAMED)
def test_the_same_seed_gives_the_same_paths_and_weights(name):
    found = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        model = models.NAMED[name]((8, 8, 1), 4)
        found.append(weights.read(weights.all_weights(model)))
    first, second, other = found
    assert list(first) == list(second)
    assert all(np.array_equal(first[p], second[p]) for p in first)
    assert not any(np.array_equal(first[p], other[p]) for p in weights.prunable(model))


@pytest.mark.parametrize("name", models.NAMED)
def test_kernels_have_the_deviation_of_their_paper_and_differ(name):
    kernels = weights.read(weights.prunable(models.NAMED[name]((8, 8, 3), 10)))
    for path, kernel in kernels.items():
        if kernel.size >= 5000 and "attention" not in path:
            assert kernel.std() == pytest.approx(deviation(name, kernel.shape), rel=0.06), path
    assert len({kernel.tobytes() for kernel in kernels.values()}) == len(kernels)


def test_the_kernels_of_attention_have_the_deviation_of_the_others():
    kernels = weights.read(weights.prunable(models.vit((8, 8, 3), 10), "attention"))
    assert len(kernels) == 24
    for kernel in kernels.values():
        assert kernel.std() == pytest.approx(0.02 * 0.8796, rel=0.06)


@pytest.mark.parametrize("name", NORMED)
def test_each_convolution_has_a_norm_and_no_bias(name):
    model = models.NAMED[name]((8, 8, 1), 4)
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    assert {f"{layer.name}_norm" for layer in convolutions(model)} == {n.name for n in norms}
    assert not any(layer.use_bias for layer in convolutions(model))
    assert {(n.momentum, n.epsilon) for n in norms} == {(0.9, 1e-5)}


@pytest.mark.parametrize("name", models.NAMED)
def test_a_gradient_step_lowers_the_loss(name):
    model = models.NAMED[name]((16, 16, 1), 4)
    x = np.random.default_rng(0).normal(size=(8, 16, 16, 1)).astype("float32")
    losses = []
    for _ in range(2):
        with tf.GradientTape() as tape:
            loss = keras.losses.sparse_categorical_crossentropy(
                np.arange(8) % 4, model(x, training=True), from_logits=True
            )
        gradients = tape.gradient(loss, model.trainable_variables)
        losses.append(float(tf.reduce_sum(loss)))
        length = tf.linalg.global_norm(gradients)
        for v, gradient in zip(model.trainable_variables, gradients, strict=True):
            v.assign_sub(0.01 * gradient / length**2)  # to first order, 0.01 off the loss
    assert losses[1] == pytest.approx(losses[0] - 0.01, abs=0.004)


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(["lenet_5", "conv_6", "resnet_20", "vit"]),
    st.tuples(st.integers(8, 21), st.integers(8, 21), st.integers(1, 4)),
)
def test_images_of_any_shape_from_8_pixels_are_accepted(name, shape):
    model = models.build(name, shape, 3)
    assert model(np.ones((2, *shape), "float32")).shape == (2, 3)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("shape", [(7, 8, 1), (32, 7, 3), (64,), (8, 8), (None, 8, 1), (8, 8, 0)])
def test_what_is_not_an_image_of_8_pixels_is_an_error_that_says_so(name, shape):
    with pytest.raises(ValueError) as caught:
        models.NAMED[name](shape, 3)
    assert str(caught.value).startswith(name)
    assert f"at least 8 pixels. Received: {shape}" in str(caught.value)


@pytest.mark.parametrize("name", DROPS)
def test_dropout_stands_before_each_dense_layer(name):
    model = models.NAMED[name]((8, 8, 1), 4, dropout=0.25)
    pairs = {b.name: a.rate for a, b in pairwise(model.layers) if isinstance(a, layers.Dropout)}
    assert pairs == {"dense1": 0.25, "dense2": 0.25, "logits": 0.25}
    without = models.NAMED[name]((8, 8, 1), 4)
    assert not any(isinstance(layer, layers.Dropout) for layer in without.layers)


def test_dropout_acts_in_training_only_and_changes_no_initial_weight():
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
    keras.utils.set_random_seed(3)
    model = models.conv_2((8, 8, 1), 4, dropout=0.5)
    assert not np.array_equal(model(x, training=True), model(x, training=True))
    assert np.array_equal(model(x, training=False), model(x, training=False))
    without = models.conv_2((8, 8, 1), 4)
    without.set_weights(model.get_weights())
    assert np.array_equal(model(x, training=False), without(x, training=True))


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, "half", float("nan")])
def test_a_dropout_that_is_no_rate_is_an_error(rate):
    with pytest.raises(ValueError, match=r"conv_4: `dropout` must be a rate.*Received"):
        models.conv_4((8, 8, 1), 4, dropout=rate)


def test_options_reach_the_builder_unless_they_are_none():
    dropped = models.build("conv_6", (8, 8, 1), 4, dropout=0.5)
    assert dropped.get_layer("dropout1").rate == 0.5
    assert models.build("resnet_20", (8, 8, 1), 4, dropout=None).output_shape == (None, 4)


@pytest.mark.parametrize("name", sorted(set(models.NAMED) - set(DROPS)))
def test_an_option_that_a_model_does_not_take_is_an_error_that_names_those_that_do(name):
    with pytest.raises(ValueError, match=f"{name!r} .*'dropout'.*{DROPS}".replace("[", r"\[")):
        models.build(name, (8, 8, 1), 4, dropout=0.0)


def test_an_option_that_no_model_takes_is_an_error():
    with pytest.raises(ValueError, match=r"'conv_2' takes no option 'width'.*none"):
        models.build("conv_2", (8, 8, 1), 4, width=3)


def test_options_reach_a_users_function_that_takes_any(folder):
    (folder / "my_nets_d.py").write_text(
        "from keras_lottery.experiments.models import conv_2\n"
        "def free(shape, classes, **options):\n    return conv_2(shape, classes, **options)\n"
        "def fixed(shape, classes, dropout, /):\n    return None\n"
    )
    model = models.build("my_nets_d:free", (8, 8, 1), 4, dropout=0.5)
    assert model.get_layer("dropout3").rate == 0.5
    with pytest.raises(ValueError, match=r"my_nets_d:fixed.*'dropout'"):
        models.build("my_nets_d:fixed", (8, 8, 1), 4, dropout=0.5)


@pytest.mark.parametrize(
    ("body", "message"),
    [("return 3", "built Keras model"), ("return conv_2(shape, 2)", "each of 4 classes")],
)
def test_what_a_builder_gives_is_checked(folder, body, message):
    (folder / "my_nets_e.py").write_text(
        "from keras_lottery.experiments.models import conv_2\n"
        f"def net(shape, classes):\n    {body}\n"
    )
    with pytest.raises(ValueError, match=message):
        models.build("my_nets_e:net", (8, 8, 1), 4)


def test_positions_are_learned_but_not_pruned():
    model = models.vit((8, 8, 1), 4)
    assert "positions/position" in {v.path for v in model.trainable_variables}
    assert "positions/position" not in weights.prunable(model)


@pytest.mark.parametrize("name", ["conv_2", "resnet_20", "vit"])
def test_a_saved_model_computes_the_same(name, tmp_path):
    model = models.NAMED[name]((8, 8, 1), 4)
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(again(x), model(x))


def test_a_position_embedding_keeps_its_initializer_in_its_config():
    config = models.PositionEmbedding("ones", name="p").get_config()
    again = models.PositionEmbedding.from_config(config)
    assert again(np.zeros((1, 2, 3), "float32")).numpy().tolist() == [[[1.0] * 3] * 2]


@pytest.mark.parametrize("name", ["conv_2", "resnet_20", "vit"])
def test_a_ticket_can_be_reinitialized_in_all_its_kernels(name):
    model = models.NAMED[name]((8, 8, 1), 4)
    kernels = weights.prunable(model)
    ticket = Ticket.of(model, {p: np.ones(v.shape, bool) for p, v in kernels.items()})
    again = controls.reinitialize(ticket, model, seed=1)
    drawn = [*kernels, *(p for p in ticket.weights if p.startswith("positions"))]
    assert not any(np.array_equal(again.weights[p], ticket.weights[p]) for p in drawn)


def test_a_function_of_a_module_in_the_working_folder_is_found(folder):
    (folder / "my_nets_a.py").write_text("def build(shape, classes):\n    return shape, classes\n")
    assert models.resolve("my_nets_a:build")((2, 2, 1), 3) == ((2, 2, 1), 3)


def test_a_function_of_a_package_in_the_working_folder_is_found(folder):
    (folder / "nets_pkg").mkdir()
    (folder / "nets_pkg" / "small.py").write_text("def build(shape, classes):\n    return 7\n")
    assert models.resolve("nets_pkg.small:build")(None, None) == 7


def test_an_installed_function_is_found():
    assert models.resolve("keras_lottery.experiments.models:lenet_300_100") is models.lenet_300_100


@pytest.mark.parametrize("name", ["resnet20", "lenet", "", "module:", "module.function"])
def test_an_unknown_name_lists_the_valid_ones(name):
    with pytest.raises(ValueError, match=r"lenet_300_100.*module:function"):
        models.resolve(name)


@pytest.mark.parametrize(
    "name", ["no_such_module:build", "my_nets_b:no_such", "..:build", ":build"]
)
def test_what_cannot_be_loaded_is_a_value_error_that_names_it(folder, name):
    (folder / "my_nets_b.py").write_text("def build(shape, classes):\n    return None\n")
    with pytest.raises(ValueError) as caught:
        models.resolve(name)
    assert repr(name) in str(caught.value)


def test_what_is_not_a_function_is_a_value_error_that_names_it(folder):
    (folder / "my_nets_c.py").write_text("build = 3\n")
    with pytest.raises(ValueError, match="my_nets_c:build"):
        models.resolve("my_nets_c:build")
