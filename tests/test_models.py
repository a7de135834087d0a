"""The papers' networks and users' own."""

import sys

import numpy as np
import pytest

from keras_lottery.experiments import models


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


def test_every_named_model_resolves_and_builds():
    for name, builder in models.NAMED.items():
        assert models.resolve(name) is builder
        assert builder((8, 8, 1), 4).output_shape == (None, 4)


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
