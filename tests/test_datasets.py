"""Data sets: parts, standardization, and files that are not what they should be."""

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from keras_lottery.experiments import datasets

KEYS = ("x_train", "y_train", "x_test", "y_test")


def arrays(n=40, n_test=12, shape=(3, 2), dtype=np.uint8, classes=3):
    """Arrays of the Keras layout; every image of a part is another one."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n + n_test, *shape)).astype(dtype)
    y = (np.arange(n + n_test) % classes).astype(np.uint8)
    return {"x_train": x[:n], "y_train": y[:n], "x_test": x[n:], "y_test": y[n:]}


def write(path, **changes):
    """An .npz of `arrays()` with some of them changed; `None` leaves one out."""
    content = {k: v for k, v in {**arrays(), **changes}.items() if v is not None}
    np.savez(path, **content)
    return str(path)


def rows(x):
    return {np.round(image, 4).tobytes() for image in x}


# Digits ---------------------------------------------------------------------------------


def test_digits_have_500_test_images_and_a_tenth_of_the_others_for_validation():
    data = datasets.load("digits")
    assert [len(part[0]) for part in (data.train, data.validation, data.test)] == [1168, 129, 500]
    assert [len(part[1]) for part in (data.train, data.validation, data.test)] == [1168, 129, 500]
    assert (data.name, data.input_shape, data.classes) == ("digits", (8, 8, 1), 10)


def test_digits_are_float32_images_and_int32_labels():
    data = datasets.load("digits")
    for x, y in (data.train, data.validation, data.test):
        assert (x.dtype, y.dtype) == (np.float32, np.int32)
        assert (x.shape[1:], y.ndim) == ((8, 8, 1), 1)


def test_the_three_parts_of_the_digits_are_together_all_the_digits_once():
    data = datasets.load("digits", seed=3)
    parts = [data.train, data.validation, data.test]
    x = np.concatenate([part[0] for part in parts])
    y = np.concatenate([part[1] for part in parts])
    every_x, every_y = load_digits(return_X_y=True)
    # Standardization is one affine map: undo it by the extremes, the pixels are 0 to 16.
    pixels = np.round((x - x.min()) / (x.max() - x.min()) * 16).reshape(-1, 64)
    found = sorted((tuple(p), int(c)) for p, c in zip(pixels.tolist(), y, strict=True))
    assert found == sorted(
        (tuple(p), int(c)) for p, c in zip(every_x.tolist(), every_y, strict=True)
    )


def test_the_test_digits_are_the_same_for_every_seed_and_the_validation_digits_are_not():
    one, two, again = (datasets.load("digits", seed=s) for s in (0, 1, 0))
    assert np.array_equal(one.test[1], two.test[1])
    np.testing.assert_allclose(one.test[0], two.test[0], atol=0.05)  # other mean and deviation
    assert not np.array_equal(one.validation[1], two.validation[1])
    for a, b in zip((*one.train, *one.test), (*again.train, *again.test), strict=True):
        assert a.tobytes() == b.tobytes()


def test_digits_name_the_extra_if_scikit_learn_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"keras-lottery\[examples\]"):
        datasets.load("digits")


# Files ----------------------------------------------------------------------------------


def test_a_file_of_grey_uint8_images_has_a_channel_and_is_split_9_to_1(tmp_path):
    data = datasets.load(write(tmp_path / "grey.npz"))
    assert data.train[0].shape == (36, 3, 2, 1)
    assert data.validation[0].shape == (4, 3, 2, 1)
    assert data.test[0].shape == (12, 3, 2, 1)
    assert data.classes == 3
    assert not rows(data.train[0]) & rows(data.validation[0])
    assert len(rows(data.train[0]) | rows(data.validation[0])) == 40


def test_images_keep_their_labels(tmp_path):
    x = np.arange(40, dtype=np.float32).reshape(40, 1, 1)
    data = datasets.load(
        write(
            tmp_path / "a.npz",
            x_train=x,
            y_train=np.arange(40),
            x_test=x[:12],
            y_test=np.arange(12),
        )
    )
    slope = float(data.test[0][1, 0, 0, 0] - data.test[0][0, 0, 0, 0])
    zero = float(data.test[0][0, 0, 0, 0])
    for images, labels in (data.train, data.validation, data.test):
        assert np.array_equal(np.round((images.reshape(-1) - zero) / slope), labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 1), (3, 2, 3)])
def test_standardization_is_by_the_training_part_alone_channel_by_channel(tmp_path, dtype, shape):
    content = arrays(shape=shape, dtype=dtype)
    content["x_test"] = np.full_like(content["x_test"], 200)  # must not be looked at
    data = datasets.load(write(tmp_path / "a.npz", **content), seed=5)
    x = data.train[0]
    assert x.dtype == data.validation[0].dtype == data.test[0].dtype == np.float32
    np.testing.assert_allclose(x.mean((0, 1, 2), np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(x.std((0, 1, 2), np.float64), 1, atol=1e-4)
    assert abs(data.validation[0].mean()) > 1e-4  # by the training part, not by its own


def test_uint8_and_the_same_values_as_floats_give_the_same_images(tmp_path):
    content = arrays()
    floats = {k: v / 255 if k.startswith("x") else v for k, v in content.items()}
    a = datasets.load(write(tmp_path / "a.npz", **content))
    b = datasets.load(write(tmp_path / "b.npz", **floats))
    np.testing.assert_allclose(a.train[0], b.train[0], atol=1e-5)
    np.testing.assert_allclose(a.test[0], b.test[0], atol=1e-5)


def test_standardization_is_exact_for_millions_of_colour_pixels(tmp_path):
    """A running float32 sum over so many pixels would lose the mean's digits."""
    x = np.full((1200, 64, 64, 3), 100, np.uint8)
    x[::2] = 101
    y = np.zeros(1200, np.uint8)
    path = write(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])
    images = datasets.load(path).train[0]
    np.testing.assert_allclose(images.mean((0, 1, 2), np.float64), 0, atol=1e-3)
    np.testing.assert_allclose(images.std((0, 1, 2), np.float64), 1, atol=1e-3)


def test_a_constant_image_is_zero_and_not_nan(tmp_path):
    content = arrays()
    x, x_test = np.zeros_like(content["x_train"]), np.zeros_like(content["x_test"])
    data = datasets.load(write(tmp_path / "a.npz", x_train=x, x_test=x_test))
    assert not data.train[0].any()
    assert not data.test[0].any()


def test_labels_of_shape_n_1_are_flattened(tmp_path):
    content = arrays()
    column = {k: v[:, None] if k.startswith("y") else v for k, v in content.items()}
    a = datasets.load(write(tmp_path / "a.npz", **content))
    b = datasets.load(write(tmp_path / "b.npz", **column))
    assert np.array_equal(a.train[1], b.train[1])
    assert b.test[1].shape == (12,)


@pytest.mark.parametrize(("n", "held"), [(50_000, 5000), (49_999, 4999), (60_000, 5000)])
def test_5000_are_held_out_of_50000_or_more_else_a_tenth(tmp_path, n, held):
    path = write(tmp_path / "a.npz", **arrays(n=n, n_test=10, shape=(1, 1)))
    data = datasets.load(path)
    assert (len(data.validation[0]), len(data.train[0])) == (held, n - held)


@given(n=st.integers(10, 60), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_every_training_image_is_in_just_one_part(tmp_path_factory, n, seed):
    path = tmp_path_factory.mktemp("data") / "a.npz"
    x = np.arange(n, dtype=np.float32).reshape(n, 1, 1)
    np.savez(path, x_train=x, y_train=np.arange(n), x_test=x, y_test=np.arange(n))
    data = datasets.load(str(path), seed)
    assert len(data.validation[1]) == n // 10
    assert sorted([*data.train[1], *data.validation[1]]) == list(range(n))


def test_the_number_of_classes_counts_labels_that_are_only_held_out():
    x, few, many = np.zeros((2, 1, 1, 1), np.float32), np.array([0, 1]), np.array([0, 2])
    parts = {"train": (x, few), "validation": (x, many), "test": (x, few)}
    assert datasets.Data("a", **parts).classes == 3


# What is asked of a data set -------------------------------------------------------------


def one_pixel(path, n=60, classes=5):
    """Image i is the one pixel i, so an image tells which it is; its label is i % classes."""
    x, y = np.arange(n, dtype=np.float32).reshape(n, 1, 1), np.arange(n) % classes
    return write(path, x_train=x, y_train=y, x_test=x[:12], y_test=y[:12])


def pixels(data, part):
    """Which images a part holds; images 0 and 1 of the test part give the scale."""
    zero, one = data.test[0].reshape(-1)[:2].astype(float)
    return np.round((part[0].reshape(-1) - zero) / (one - zero)).astype(int)


def test_validation_and_subset_are_as_large_as_asked_for(tmp_path):
    path = one_pixel(tmp_path / "a.npz")
    data = datasets.load(path, validation=7, subset=20)
    assert [len(part[0]) for part in (data.train, data.validation, data.test)] == [20, 7, 12]
    assert len({*pixels(data, data.train), *pixels(data, data.validation)}) == 27
    np.testing.assert_allclose(data.train[0].mean(), 0, atol=1e-6)  # by the images that are left
    np.testing.assert_allclose(data.train[0].std(), 1, atol=1e-6)
    assert len(datasets.load(path, validation=59).train[0]) == 1


def test_a_smaller_subset_is_part_of_a_larger_one_and_has_the_same_validation_part(tmp_path):
    path = one_pixel(tmp_path / "a.npz")
    whole, large, small = (datasets.load(path, 1, subset=k) for k in (None, 30, 10))
    for data in (large, small):
        assert np.array_equal(pixels(data, data.validation), pixels(whole, whole.validation))
    found = [set(pixels(data, data.train)) for data in (small, large, whole)]
    assert found[0] < found[1] < found[2]
    other = datasets.load(path, 2, subset=10)
    assert found[0] != set(pixels(other, other.train))


@given(n=st.integers(10, 60), noise=st.floats(0, 1), seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_label_noise_draws_a_known_number_of_training_labels(tmp_path_factory, n, noise, seed):
    """Of a million classes: a drawn label is hardly ever the true one."""
    path = tmp_path_factory.mktemp("data") / "a.npz"
    x, y = np.arange(n, dtype=np.float32).reshape(n, 1, 1), np.arange(n)
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=[*y[:-1], 10**6 - 1])
    true, noisy = (datasets.load(str(path), seed, label_noise=p) for p in (0, noise))
    assert noisy.train[0].tobytes() == true.train[0].tobytes()
    assert abs(np.sum(noisy.train[1] != true.train[1]) - round(noise * len(true.train[1]))) <= 1
    assert noisy.train[1].dtype == np.int32
    for a, b in ((noisy.validation, true.validation), (noisy.test, true.test)):
        assert np.array_equal(a[1], b[1])


def test_noise_is_of_all_classes_alike_and_the_drawn_one_may_be_the_right_one(tmp_path):
    """2,700 labels drawn from 5 classes: 540 of each, deviation 21; as many stay right."""
    path = one_pixel(tmp_path / "a.npz", n=3000)
    true, noisy = (datasets.load(path, label_noise=p).train[1] for p in (0, 1))
    assert np.abs(np.bincount(noisy, minlength=5) - 540).max() < 100
    assert abs(np.sum(noisy == true) - 540) < 100


def test_shuffled_labels_are_the_same_labels_at_other_training_images(tmp_path):
    path = one_pixel(tmp_path / "a.npz", classes=60)
    true, mixed = (datasets.load(path, 4, shuffle_labels=flag) for flag in (False, True))
    assert mixed.train[0].tobytes() == true.train[0].tobytes()
    assert sorted(mixed.train[1]) == sorted(true.train[1])
    assert np.sum(mixed.train[1] == true.train[1]) < 10
    assert np.array_equal(mixed.validation[1], true.validation[1])
    assert np.array_equal(mixed.test[1], true.test[1])
    both = datasets.load(path, 4, shuffle_labels=True, label_noise=0.5).train[1]
    assert 20 <= np.sum(both == mixed.train[1]) < 54  # the noise comes on top


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": 0}, "validation.*at least 1.*Received: 0"),
        ({"validation": 1297}, "validation.*leave.*1297.*Received: 1297"),
        ({"validation": 0.1}, "validation.*integer.*Received: 0.1"),
        ({"subset": 0}, "subset.*at least 1.*Received: 0"),
        ({"subset": 1169}, "subset.*at most 1168.*129 for validation.*Received: 1169"),
        ({"validation": 1000, "subset": 298}, "subset.*at most 297.*Received: 298"),
        ({"label_noise": 1.01}, r"label_noise.*\[0, 1\].*Received: 1.01"),
        ({"label_noise": -0.1}, r"label_noise.*\[0, 1\].*Received: -0.1"),
        ({"label_noise": float("nan")}, "label_noise.*Received: nan"),
        ({"label_noise": True}, "label_noise.*Received: True"),
        ({"shuffle_labels": 1}, "shuffle_labels.*True or False.*Received: 1"),
        ({"seed": -1}, "seed.*at least 0.*Received: -1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.load("digits", **arguments)


def test_a_fingerprint_is_known_and_sees_every_pixel_label_part_and_shape():
    def data(pixel=0.0, label=0, swap=False, shape=(2, 2, 2, 1)):
        x, y = np.zeros(shape, np.float32), np.zeros(len(np.zeros(shape)), np.int32)
        other = x.copy(), y.copy()
        other[0].flat[-1], other[1][-1] = pixel, label
        return datasets.Data("a", other if swap else (x, y), (x, y), (x, y) if swap else other)

    kinds = [data(), data(1e-7), data(label=1), data(label=1, swap=True), data(shape=(1, 4, 2, 1))]
    assert len({kind.fingerprint for kind in kinds}) == 5
    assert data().fingerprint == "2009c9ae"  # so in every process


def test_what_is_asked_for_changes_the_fingerprint_and_loading_again_does_not():
    asked = [{}, {"seed": 1}, {"subset": 99}, {"label_noise": 0.1}, {"shuffle_labels": True}]
    one, two = ([datasets.load("digits", **a).fingerprint for a in asked] for _ in range(2))
    assert one == two
    assert len(set(one)) == 5


# What is not a data set -----------------------------------------------------------------


def npz_bytes():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays(n=400))
    return buffer.getvalue()


def huge_member():
    """A header that promises a petabyte."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 10**6)}
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for key in KEYS:
            file.writestr(f"{key}.npy", header.getvalue())
    return buffer.getvalue()


def flipped():
    """Compressed data with bytes turned over in the middle of the images."""
    content = bytearray(npz_bytes())
    for i in range(200, 260):
        content[i] ^= 0xFF
    return bytes(content)


def not_arrays():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for key in KEYS:
            file.writestr(key, b"not an array")
    return buffer.getvalue()


def npy_bytes():
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def pickled():
    buffer = io.BytesIO()
    np.savez(buffer, **{**arrays(), "x_train": np.array([{"a": 1}] * 40, dtype=object)})
    return buffer.getvalue()


BAD_BYTES = {
    "empty": b"",
    "text": b"label,pixel\n1,2\n",
    "truncated": npz_bytes()[:300],
    "without its last byte": npz_bytes()[:-1],
    "damaged": flipped(),
    "a single array": npy_bytes(),
    "a zip of texts": not_arrays(),
    "pickled objects": pickled(),
    "a petabyte promised": huge_member(),
}


@pytest.mark.parametrize("content", BAD_BYTES.values(), ids=BAD_BYTES.keys())
def test_a_bad_file_is_a_value_error_that_names_it(tmp_path, content):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.npz"):
        datasets.load(str(path))


def test_no_object_of_a_file_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "sprung").touch, ())

    path = tmp_path / "bad.npz"
    np.savez(path, **{**arrays(), "y_train": np.array([Trap()] * 40, dtype=object)})
    with pytest.raises(ValueError, match=r"bad\.npz"):
        datasets.load(str(path))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_missing_file_or_a_folder_is_a_value_error_that_names_it(tmp_path, kind):
    path = tmp_path / "bad.npz"
    if kind == "folder":
        path.mkdir()
    with pytest.raises(ValueError, match=r"bad\.npz"):
        datasets.load(str(path))


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named_with_the_file(tmp_path, key):
    path = write(tmp_path / "bad.npz", **{key: None})
    with pytest.raises(ValueError, match=rf"bad\.npz.*{key}"):
        datasets.load(path)


ZEROS = np.zeros((40, 3, 2), np.uint8)
BAD_ARRAYS = {
    "fewer labels than images": {"y_train": np.zeros(39, np.uint8)},
    "fewer test labels than images": {"y_test": np.zeros(11, np.uint8)},
    "flat images": {"x_train": ZEROS.reshape(40, 6), "x_test": ZEROS[:12].reshape(12, 6)},
    "images of rank 5": {"x_train": ZEROS[..., None, None], "x_test": ZEROS[:12, ..., None, None]},
    "a number for the images": {"x_train": np.uint8(3)},
    "a number for the labels": {"y_train": np.uint8(3)},
    "test images of another size": {"x_test": np.zeros((12, 4, 4), np.uint8)},
    "colour test images": {"x_test": np.zeros((12, 3, 2, 3), np.uint8)},
    "no test images": {"x_test": ZEROS[:0], "y_test": np.zeros(0, np.uint8)},
    "too few images": {"x_train": ZEROS[:9], "y_train": np.zeros(9, np.uint8)},
    "one-hot labels": {"y_train": np.eye(40, 3, dtype=np.uint8)},
    "one-hot test labels": {"y_test": np.eye(12, 3, dtype=np.uint8)},
    "negative labels": {"y_train": np.full(40, -1)},
    "broken numbers as labels": {"y_train": np.full(40, 0.5)},
    "labels as words": {"y_train": np.array(["cat"] * 40)},
    "images as words": {"x_train": np.full((40, 3, 2), "cat")},
    "images with NaN": {"x_train": np.full((40, 3, 2), np.nan)},
    "test images with Inf": {"x_test": np.full((12, 3, 2), np.inf)},
}


@pytest.mark.parametrize("changes", BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_arrays_that_do_not_fit_are_a_value_error_that_names_the_file(tmp_path, changes):
    path = write(tmp_path / "bad.npz", **changes)
    with pytest.raises(ValueError, match=r"bad\.npz"):
        datasets.load(path)
