"""Data sets of tensorflow-datasets: small ones written and read back, and what does not fit."""

import socket
import sys
from typing import ClassVar

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds

from keras_lottery.experiments import datasets


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Image i is all i, its label i % 3: 30 images to train, 10 to test."""

    VERSION = tfds.core.Version("1.0.0")
    KEYS, SUPERVISED, SHAPE = ("image", "label"), None, (4, 3, 3)
    SPLITS: ClassVar = {"train": 30, "test": 10}

    def _info(self):
        kinds = tfds.features.Image(shape=self.SHAPE), tfds.features.ClassLabel(num_classes=3)
        features = tfds.features.FeaturesDict(dict(zip(self.KEYS, kinds, strict=True)))
        return tfds.core.DatasetInfo(
            builder=self, features=features, supervised_keys=self.SUPERVISED
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(n) for split, n in self.SPLITS.items()}

    def _generate_examples(self, n):
        for i in range(n):
            shape = [4 + i % 2 if size is None else size for size in self.SHAPE]
            yield i, dict(zip(self.KEYS, (np.full(shape, i, np.uint8), i % 3), strict=True))


class TinyPairs(TinyShapes):
    KEYS = SUPERVISED = ("what_is_seen", "what_it_is")


class TinyUnlabelled(TinyShapes):
    KEYS = ("image", "number")


class TinyUntested(TinyShapes):
    SPLITS: ClassVar = {"train": 30, "validation": 10}


class TinyRagged(TinyShapes):
    SHAPE = (None, 3, 3)


class TinyEven(TinyShapes):
    """Declares no height, but all images have one."""

    SHAPE = (None, 3, 3)

    def _generate_examples(self, n):
        for i in range(n):
            yield i, {"image": np.full((4, 3, 3), i, np.uint8), "label": i % 3}


class TinyRemote(TinyShapes):
    def _split_generators(self, dl_manager):
        dl_manager.download("http://nowhere.invalid/images.zip")
        return super()._split_generators(dl_manager)


def numbers(data):
    """The numbers of the images of TinyShapes, by what they look like."""
    looks = np.concatenate([data.train[0], data.validation[0]])[:, 0, 0, 0]
    step = np.diff(np.sort(looks)).mean()
    return np.round((looks - looks.min()) / step).astype(int).tolist()


@pytest.mark.parametrize("name", ["tiny_shapes", "tiny_shapes:1.0.0", "tiny_pairs", "tiny_even"])
def test_every_image_and_its_label_is_read_once(tmp_path, name):
    data = datasets.load(name, 3, data_dir=tmp_path, validation=5)
    assert (data.name, data.input_shape, data.classes) == (name, (4, 3, 3), 3)
    assert [len(part[0]) for part in (data.train, data.validation, data.test)] == [25, 5, 10]
    images, labels = numbers(data), np.concatenate([data.train[1], data.validation[1]])
    assert sorted(images) == list(range(30))
    assert labels.tolist() == [i % 3 for i in images]
    np.testing.assert_allclose(data.train[0].mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(data.train[0].std((0, 1, 2)), 1, atol=1e-5)


def test_a_prepared_data_set_is_read_again_without_its_source(tmp_path, monkeypatch):
    one = datasets.load("tiny_shapes", data_dir=str(tmp_path))
    monkeypatch.setattr(TinyShapes, "_split_generators", None)
    assert datasets.load("tiny_shapes", data_dir=tmp_path).fingerprint == one.fingerprint


@pytest.mark.parametrize(
    ("name", "shape", "classes"), [("mnist", (28, 28, 1), 10), ("cifar100", (32, 32, 3), 100)]
)
def test_well_known_names_have_their_shapes(name, shape, classes):
    with tfds.testing.mock_data(num_examples=200):
        data = datasets.load(name)
    assert (data.input_shape, len(data.train[0]), len(data.test[0])) == (shape, 180, 200)
    assert classes / 2 < data.classes <= classes  # mocked labels are random


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny_unlabelled", r"does not fit.*image.*label.*Received.*number.*\(\)"),
        ("imdb_reviews", r"does not fit.*Received.*text"),
        ("tiny_untested", r"train and test. Received: \['train', 'validation'\]"),
        ("tiny_ragged", r"differ in size, \((4|5), 3, 3\) and \((4|5), 3, 3\)"),
        ("tiny_shapes:9.9.9", r"Cannot load.*9\.9\.9.*1\.0\.0.*list_builders"),
        ("tiny shapes", r"Cannot load.*digits.*npz"),
        ("tiny_shape", r"Unknown.*digits.*npz.*list_builders.*Did you mean 'tiny_shapes'\?"),
        ("", "Cannot load.*digits"),
    ],
)
def test_a_name_that_does_not_fit_is_a_value_error_that_says_why(tmp_path, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load(name, data_dir=tmp_path)
    assert name in str(caught.value)


def test_without_network_the_reason_and_the_way_out_are_told(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise requests.exceptions.ConnectionError("no route to host")

    monkeypatch.setattr(requests.Session, "get", unreachable)
    with pytest.raises(ValueError, match=r"tiny_remote.*no route to host.*--data_dir.*Received"):
        datasets.load("tiny_remote", data_dir=tmp_path)


def test_without_a_name_server_it_is_told_at_once(tmp_path, monkeypatch):
    def unknown(*args, **kwargs):
        raise OSError("Name or service not known")

    def session(*args, **kwargs):
        raise AssertionError("the download was tried")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(requests.Session, "get", session)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with pytest.raises(ValueError, match=r"mnist.*no address of .* can be found.*--data_dir"):
        datasets.load("mnist", data_dir=tmp_path)


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"'mnist'.*keras-lottery\[datasets\]"):
        datasets.load("mnist")
    assert datasets.load("digits").classes == 10


def test_a_package_that_a_data_set_needs_is_named(monkeypatch, tmp_path):
    def needs(self, dl_manager):
        raise ImportError("Failed importing scipy: pip install scipy")

    monkeypatch.setattr(TinyShapes, "_split_generators", needs)
    with pytest.raises(ImportError, match=r"tiny_shapes.*pip install scipy"):
        datasets.load("tiny_shapes", data_dir=tmp_path)
