"""Checkpoints: back to the bit, or an error that names the file."""

import json
import os
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from keras_lottery.experiments import checkpoints
from keras_lottery.experiments.checkpoints import Progress, load, save
from keras_lottery.rewinding import Snapshot

TYPES = ["float32", "float16", "float64", "int8", "int32", "int64", "uint8", "uint32", "bool"]


def progress(*arrays, slots=None, step=3):
    """Variables `v0`, `v1`, ... and slots."""
    named = {f"v{i}": np.asarray(a) for i, a in enumerate(arrays)}
    return Progress(Snapshot(step, named, slots), {"step": [1, 3], "loss": [0.5, None]}, 1.25)


def same(one, other):
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


# There and back ---------------------------------------------------------------------------


def test_four_numbers_come_back(path):
    save(path, progress(np.float32([[1, 2], [3, 4]])))
    back = load(path)
    assert back.snapshot.variables["v0"].tolist() == [[1, 2], [3, 4]]
    assert (back.snapshot.step, back.snapshot.optimizer) == (3, None)
    assert back.curve == {"step": [1, 3], "loss": [0.5, None]}
    assert back.seconds == 1.25


@pytest.mark.parametrize("dtype", [*TYPES, ml_dtypes.bfloat16])
def test_every_type_comes_back_with_its_shape(path, dtype):
    arrays = [
        np.array([[1, 0, 1]]).astype(dtype),
        np.array(1).astype(dtype),
        np.zeros((0, 2), dtype),
    ]
    save(path, progress(*arrays, slots=arrays[::-1]))
    back = load(path).snapshot
    assert all(same(back.variables[f"v{i}"], a) for i, a in enumerate(arrays))
    assert all(same(b, a) for b, a in zip(back.optimizer, arrays[::-1], strict=True))
    assert back.variables["v1"].shape == ()


def test_slots_of_zeros_without_memory_come_back_as_zeros(path):
    compact = np.broadcast_to(np.zeros((), np.float32), (2, 3))
    save(path, progress(np.float32(1), slots=[np.int64(7), compact]))
    step, slot = load(path).snapshot.optimizer
    assert step == 7 and same(slot, np.zeros((2, 3), np.float32))


def test_other_memory_orders_come_back(path):
    array = np.arange(6.0).reshape(2, 3)
    save(path, progress(array.T, array[:, ::2], np.asfortranarray(array)))
    back = load(path).snapshot.variables
    assert [v.tolist() for v in back.values()] == [
        array.T.tolist(),
        array[:, ::2].tolist(),
        array.tolist(),
    ]


def test_names_keep_their_order_beyond_ten(path):
    save(path, progress(*range(12), slots=[np.float32(i) for i in range(101)]))
    back = load(path).snapshot
    assert list(back.variables) == [f"v{i}" for i in range(12)]
    assert [int(v) for v in back.variables.values()] == list(range(12))
    assert [float(v) for v in back.optimizer] == list(range(101))


def test_not_a_number_comes_back_in_arrays_and_curve(path):
    one = progress(np.float32([np.nan, np.inf, -0.0]))
    one.curve["val_loss"] = [float("nan"), float("inf")]
    save(path, one)
    back = load(path)
    assert same(back.snapshot.variables["v0"], one.snapshot.variables["v0"])
    assert np.isnan(back.curve["val_loss"][0]) and back.curve["val_loss"][1] == np.inf


def test_paths_may_be_any_text(path):
    names = ["dense/kernel", "dense/kernel:2", "größe 3", "", "about"]
    variables = {name: np.array(i) for i, name in enumerate(names)}
    save(path, Progress(Snapshot(0, variables, [])))
    back = load(path).snapshot
    assert list(back.variables) == names and back.optimizer == []


@settings(max_examples=60, deadline=None)
@given(
    arrays=st.lists(
        hnp.arrays(st.sampled_from(TYPES), hnp.array_shapes(min_dims=0, max_side=4)), max_size=5
    ),
    slots=st.integers(0, 5),
    step=st.integers(0, 2**40),
)
def test_whatever_is_saved_is_loaded(tmp_path_factory, arrays, slots, step):
    path = tmp_path_factory.mktemp("any") / "c"
    save(path, progress(*arrays, slots=arrays[:slots], step=step))
    back = load(path).snapshot
    assert back.step == step
    found = [*back.variables.values(), *back.optimizer]
    assert all(same(a, b) for a, b in zip(found, [*arrays, *arrays[:slots]], strict=True))


def test_loaded_arrays_can_be_written(path):
    save(path, progress(np.float32([1, 2])))
    found = load(path).snapshot.variables["v0"]
    found[0] = 5
    assert found.tolist() == [5, 2]


# Damage -----------------------------------------------------------------------------------


def test_a_missing_one_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at '.*checkpoint\.safetensors'"):
        load(path)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 20, 200])
def test_a_truncated_one_is_named(path, size):
    save(path, progress(np.arange(100.0)))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"Cannot read the checkpoint '.*checkpoint\.safetensors'"):
        load(path)


@pytest.mark.parametrize("cut", [1, 8, 400])
def test_one_that_lost_its_end_is_named(path, cut):
    save(path, progress(np.arange(100.0)))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match="Cannot read the checkpoint"):
        load(path)


def test_a_flipped_bit_is_found(path):
    save(path, progress(np.arange(100.0)))
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        load(path)


def header(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])["__metadata__"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({checkpoints.FORMAT: "2"}, f"expected format {checkpoints.FORMAT} 1, found 2"),
        ({"about": "{"}, "Cannot read"),
        ({"about": "{}"}, "crc32"),
    ],
)
def test_another_header_is_refused(path, change, words):
    save(path, progress(np.float32(1)))
    tensors, found = load_file(path), header(path)
    save_file(tensors, path, {**found, **change})
    with pytest.raises(ValueError, match=words):
        load(path)


def test_a_file_of_something_else_is_refused(path):
    save_file({"w": np.zeros(2, np.float32)}, path)
    with pytest.raises(ValueError, match=r"expected format .* found None"):
        load(path)
    path.write_text("not tensors at all")
    with pytest.raises(ValueError, match="Cannot read the checkpoint"):
        load(path)
    with pytest.raises(ValueError, match="Cannot read the checkpoint"):
        load(path.parent)


# Writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_one(path, monkeypatch, call):
    save(path, progress(np.float32(1)))
    old = path.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space left"):
            save(path, progress(np.float32(2)))
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_later_one_replaces_it(path):
    save(path, progress(np.float32(1)))
    save(path, progress(np.float32(2), step=5))
    assert (load(path).snapshot.step, float(load(path).snapshot.variables["v0"])) == (5, 2)
