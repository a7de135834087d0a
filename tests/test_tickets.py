"""Tickets: bit for bit to a file and back, into a fresh model, and never from a bad file."""

import base64
import json
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib

import keras
import numpy as np
import pytest
from keras import layers as L
from safetensors.numpy import load_file, save_file

import keras_lottery as kl
from keras_lottery import enforcement, tickets, weights


def chain(shape, *layers):
    x = y = keras.Input(shape)
    for layer in layers:
        y = layer(y)
    return keras.Model(x, y)


def mlp(name="", units=(20, 10)):
    return chain(
        (8,),
        L.Dense(units[0], "relu", name=f"{name}a"),
        L.BatchNormalization(name=f"{name}norm"),
        L.Dense(units[1], name=f"{name}b"),
    )


def random_masks(model, density=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return {p: rng.random(v.shape) < density for p, v in weights.prunable(model).items()}


def mlp_ticket(**kwargs):
    model = mlp(**kwargs)
    return kl.Ticket.of(model, random_masks(model), {"round": 3, "seed": 7})


def identical(a, b):
    return (
        list(a.masks) == list(b.masks)
        and list(a.weights) == list(b.weights)
        and a.metadata == b.metadata
        and all(same(a.masks[p], b.masks[p]) for p in a.masks)
        and all(same(a.weights[p], b.weights[p]) for p in a.weights)
    )


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def values(model):
    return {p: v.numpy() for p, v in weights.all_variables(model).items()}


def unchanged(model, before):
    return all(same(v, before[p]) for p, v in values(model).items())


# What a ticket is -------------------------------------------------------------------------


def test_a_ticket_is_zero_where_a_mask_prunes():
    w = np.array([[1.0, -2.0], [3.0, -4.0]], np.float32)
    ticket = kl.Ticket({"w": np.array([[True, False], [False, True]])}, {"w": w, "b": w[0]})
    assert ticket.weights["w"].tolist() == [[1, 0], [0, -4]]
    assert ticket.weights["b"].tolist() == [1, -2]
    assert ticket.density == 0.5
    assert w.tolist() == [[1, -2], [3, -4]]
    assert not np.signbit(ticket.weights["w"][0, 1])


def test_a_ticket_of_nan_at_a_pruned_place_is_zero_there():
    ticket = kl.Ticket({"w": np.array([True, False])}, {"w": np.array([1.0, np.nan])})
    assert ticket.weights["w"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("shape", [(3,), (2, 1)])
def test_a_mask_must_have_a_weight_of_its_shape(shape):
    with pytest.raises(ValueError, match="no weight of its shape for 'w'"):
        kl.Ticket({"w": np.ones(shape, bool)}, {"w": np.ones(2)})
    with pytest.raises(ValueError, match="'v'"):
        kl.Ticket({"v": np.ones(2, bool)}, {"w": np.ones(2)})


def test_a_ticket_does_not_follow_the_model():
    model = mlp()
    ticket = kl.Ticket.of(model, random_masks(model))
    before = {p: v.copy() for p, v in ticket.weights.items()}
    for variable in model.variables:
        variable.assign(variable + 1)
    assert all(same(ticket.weights[p], before[p]) for p in before)


# Round trips ------------------------------------------------------------------------------


def test_a_file_gives_back_the_ticket_bit_for_bit(tmp_path):
    model = mlp()
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(32, 8)), rng.normal(size=(32, 10)), verbose=0)
    ticket = kl.Ticket.of(model, random_masks(model), {"round": 2, "densities": [1.0, 0.5]})
    assert ticket.weights["norm/moving_mean"].any()
    ticket.save(tmp_path / "t.safetensors")
    assert identical(kl.Ticket.load(tmp_path / "t.safetensors"), ticket)
    assert identical(kl.Ticket.load(str(tmp_path / "t.safetensors")), ticket)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_precision_comes_back_bit_for_bit(tmp_path, dtype):
    layer = L.Dense(5, dtype=dtype, name="a")
    model = chain((7,), layer)
    layer.bias.assign([float("nan"), float("inf"), -0.0, 1e-5, -3.0])
    ticket = kl.Ticket.of(model, {layer.kernel.path: np.arange(35).reshape(7, 5) % 3 == 0})
    ticket.save(tmp_path / "t")
    again = kl.Ticket.load(tmp_path / "t")
    assert identical(again, ticket)
    assert again.weights["a/bias"].dtype.name == dtype


@pytest.mark.parametrize(
    "masks",
    [
        {},
        {"w": np.zeros((3, 5), bool)},
        {"w": np.ones((3, 5), bool)},
        {"w": np.arange(15).reshape(3, 5) == 7, "v": np.zeros(9, bool)},
        {"v": np.arange(9) < 4, "w": np.eye(3, 5, dtype=bool)},
    ],
    ids=["none", "emptied", "full", "one alive", "other order"],
)
def test_masks_of_every_kind_come_back(tmp_path, masks):
    rng = np.random.default_rng(0)
    values = {
        "w": rng.normal(size=(3, 5)).astype(np.float32),
        "flag": np.array([True, False]),
        "count": np.array(3, np.int64),
        "v": rng.normal(size=9).astype(np.float16),
        "nothing": np.zeros((0, 4), np.float32),
    }
    ticket = kl.Ticket(masks, values, {"name": "ü ✓", "nested": {"a": [1, None, True]}})
    ticket.save(tmp_path / "t")
    assert identical(kl.Ticket.load(tmp_path / "t"), ticket)


def test_loaded_arrays_can_be_written_to(tmp_path):
    mlp_ticket().save(tmp_path / "t")
    ticket = kl.Ticket.load(tmp_path / "t")
    for array in [*ticket.masks.values(), *ticket.weights.values()]:
        array[...] = 0


def lenet():
    return chain((784,), L.Dense(300), L.Dense(100), L.Dense(10))


def deep():
    sizes = np.random.default_rng(0).integers(4, 40, 150)
    return chain((8,), *[L.Dense(int(n), name=f"block_{i}_dense") for i, n in enumerate(sizes)])


@pytest.mark.parametrize("build", [lenet, deep])
def test_a_file_costs_four_bytes_an_alive_weight_and_a_bit_a_weight(tmp_path, build):
    model = build()
    for density in (1.0, 0.2, 0.02):
        masks = random_masks(model, density)
        kl.Ticket.of(model, masks, {"round": 7, "seed": 0}).save(tmp_path / "t")
        alive = sum(int(m.sum()) for m in masks.values())
        prunable = sum(m.size for m in masks.values())
        others = [v for p, v in weights.all_weights(model).items() if p not in masks]
        rest = sum(v.numpy().nbytes for v in others)
        assert os.path.getsize(tmp_path / "t") <= 4 * alive + prunable / 8 + rest + 4096


def test_a_found_ticket_of_many_rounds_stays_as_small(tmp_path):
    model = mlp()
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 8)), rng.normal(size=(16, 10))
    lottery = kl.LotteryCallback(epochs_per_round=1, prune_fraction=0.1)
    model.fit(x, y, epochs=8, verbose=0, callbacks=[lottery])
    ticket = lottery.ticket()
    ticket.save(tmp_path / "t")
    assert identical(kl.Ticket.load(tmp_path / "t"), ticket)
    alive = sum(int(m.sum()) for m in ticket.masks.values())
    rest = sum(v.nbytes for p, v in ticket.weights.items() if p not in ticket.masks)
    assert os.path.getsize(tmp_path / "t") <= 4 * alive + 360 / 8 + rest + 4096


def test_saving_replaces_the_file_and_leaves_nothing_beside_it(tmp_path):
    mlp_ticket().save(tmp_path / "t")
    other = mlp_ticket(name="other_")
    other.save(tmp_path / "t")
    assert identical(kl.Ticket.load(tmp_path / "t"), other)
    assert os.listdir(tmp_path) == ["t"]


def test_saving_into_a_missing_folder_leaves_nothing_behind(tmp_path):
    with pytest.raises(OSError, match="missing"):
        mlp_ticket().save(tmp_path / "missing" / "t")
    assert os.listdir(tmp_path) == []


def test_metadata_that_is_no_json_leaves_the_old_file(tmp_path):
    mlp_ticket().save(tmp_path / "t")
    before = (tmp_path / "t").read_bytes()
    bad = kl.Ticket({}, {"w": np.ones(2)}, {"model": object()})
    with pytest.raises((TypeError, ValueError)):
        bad.save(tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == before
    assert os.listdir(tmp_path) == ["t"]


# Applying ---------------------------------------------------------------------------------


def check_applied(model, ticket, order=None):
    now = {p: v.numpy() for p, v in weights.all_weights(model).items()}
    pairs = zip(ticket.weights, order or now, strict=True)
    assert all(same(ticket.weights[p], now[q]) for p, q in pairs)
    masks = enforcement.enforced_masks(model)
    assert all(same(a, b) for a, b in zip(ticket.masks.values(), masks.values(), strict=True))


def test_applying_by_path():
    ticket = mlp_ticket()
    keras.utils.clear_session(free_memory=False)
    model = mlp()
    handle = ticket.apply(model)
    assert list(handle.masks) == list(ticket.masks)
    check_applied(model, ticket)


def test_applying_by_path_wins_over_order():
    x = keras.Input((4,))
    one = keras.Model(x, L.Dense(4, name="b")(L.Dense(4, name="a")(x)))
    ticket = kl.Ticket.of(one, random_masks(one))
    x = keras.Input((4,))
    other = keras.Model(x, L.Dense(4, name="a")(L.Dense(4, name="b")(x)))
    ticket.apply(other)
    check_applied(other, ticket, order=list(ticket.weights))
    assert np.array_equal(other.get_layer("a").kernel.numpy(), ticket.weights["a/kernel"])


def test_applying_by_order_to_a_model_of_other_names():
    ticket = mlp_ticket()
    model = mlp(name="other_")
    handle = ticket.apply(model)
    assert list(handle.masks) == ["other_a/kernel", "other_b/kernel"]
    check_applied(model, ticket)


def test_applying_with_automatic_names_in_one_session():
    def build():
        return chain((6,), L.Dense(6), L.Dense(6), L.Dense(6))

    first = build()
    ticket = kl.Ticket.of(first, random_masks(first))
    second = build()  # dense_3, dense_4, dense_5
    ticket.apply(second)
    check_applied(second, ticket)


def test_applying_to_a_compiled_model_then_training_keeps_zeros():
    ticket = mlp_ticket()
    model = mlp(name="z")
    model.compile(keras.optimizers.Adam(0.05), "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 8)), rng.normal(size=(32, 10))
    model.fit(x, y, verbose=0)
    ticket.apply(model)
    model.fit(x, y, epochs=2, verbose=0)
    for mask, name in zip(ticket.masks.values(), ("za", "zb"), strict=True):
        assert np.array_equal(model.get_layer(name).kernel.numpy() != 0, mask)


def test_applying_again_replaces_the_masks():
    model = mlp()
    kl.Ticket.of(model, random_masks(model, 0.2)).apply(model)
    dense = kl.Ticket.of(model, random_masks(model, 2.0))
    dense.apply(model)
    assert kl.density(model) == 1.0


def test_applying_to_an_unbuilt_model_is_told():
    with pytest.raises(ValueError, match=r"not built.*keras\.Input"):
        mlp_ticket().apply(keras.Sequential([L.Dense(2)]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mlp(units=(20, 11)), r"'b/kernel' of shape \(20, 10\).*'b/kernel'.*\(20, 11\)"),
        (
            lambda: mlp(name="z", units=(21, 10)),
            r"'a/kernel' of shape \(8, 20\).*'za/kernel' of shape \(8, 21\)",
        ),
        (lambda: chain((8,), L.Dense(20, name="a")), r"6.*2|8.*2"),
        (
            lambda: chain(
                (8,),
                L.Dense(20, name="a"),
                L.BatchNormalization(name="norm"),
                L.Dense(10, name="b"),
                L.Dense(3, name="more"),
            ),
            "more/kernel",
        ),
    ],
    ids=["shape", "renamed", "shorter", "longer"],
)
@pytest.mark.parametrize("enforced", [False, True])
def test_another_architecture_is_told_and_the_model_untouched(build, message, enforced):
    ticket = mlp_ticket()
    keras.utils.clear_session(free_memory=False)
    model = build()
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    if enforced:
        kl.prune(model, 0.5)
    before, masks = values(model), enforcement.enforced_masks(model)
    with pytest.raises(ValueError, match="another architecture.*(" + message + ")"):
        ticket.apply(model)
    assert unchanged(model, before)
    after = enforcement.enforced_masks(model)
    assert (after is None) == (masks is None)
    assert masks is None or all(same(after[p], masks[p]) for p in masks)


IN_A_NEW_PROCESS = """
import sys
import keras, numpy as np
import keras_lottery as kl
L = keras.layers
layers = [keras.Input((8,)), L.Dense(20, "relu"), L.BatchNormalization(), L.Dense(10)]
model = keras.Sequential(layers)
model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=False)
ticket = kl.Ticket.load(sys.argv[1])
ticket.apply(model)
for variable, value in zip(model.weights, ticket.weights.values(), strict=True):
    assert variable.numpy().tobytes() == value.tobytes()
rng = np.random.default_rng(0)
model.fit(rng.normal(size=(64, 8)), rng.normal(size=(64, 10)), epochs=3, verbose=0)
for kernel, mask in zip((v for v in model.weights if v.name == "kernel"), ticket.masks.values()):
    assert np.array_equal(kernel.numpy() != 0, mask)
print("density", kl.density(model))
"""


def test_a_new_process_trains_the_ticket_on(tmp_path):
    ticket = mlp_ticket()
    ticket.save(tmp_path / "t.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS, str(tmp_path / "t.safetensors")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == str(ticket.density)


# Bad files --------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """A saved ticket: its path, bytes and content."""
    ticket = mlp_ticket()
    path = tmp_path / "t.safetensors"
    ticket.save(path)
    return path, path.read_bytes(), ticket


def refused(path, reason="."):
    with pytest.raises(ValueError) as told:
        kl.Ticket.load(path)
    message = str(told.value)
    assert str(path) in message
    assert re.search(reason, message.replace(str(path), ""))


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        kl.Ticket.load(tmp_path / "nowhere.safetensors")


def test_truncated_files_are_refused_at_every_length(saved):
    path, content, _ = saved
    n = len(content)
    lengths = {0, 1, 7, 8, 9, 20, n // 2, n - 2, n - 1} | set(range(0, n, 37))
    for length in sorted(lengths):
        path.write_bytes(content[:length])
        refused(path)


@pytest.mark.parametrize("extra", [b"\0", b"more"])
def test_a_file_with_something_behind_it_is_refused(saved, extra):
    path, content, _ = saved
    path.write_bytes(content + extra)
    refused(path)


@pytest.mark.parametrize("n_bytes", [1, 2, 16])
def test_flipped_bytes_are_refused_or_change_nothing(saved, n_bytes):
    path, content, ticket = saved
    rng = np.random.default_rng(n_bytes)
    for i in range(200):
        damaged = bytearray(content)
        # Half of the damage goes to the header, where the meaning is.
        end = len(content) if i % 2 else 8 + struct.unpack("<Q", content[:8])[0]
        for at in rng.integers(0, end, n_bytes):
            damaged[at] = damaged[at] ^ (1 << rng.integers(8)) if i % 3 else rng.integers(256)
        path.write_bytes(damaged)
        try:
            loaded = kl.Ticket.load(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert identical(loaded, ticket)


def test_every_single_bit_of_the_plain_header_is_refused_or_changes_nothing(saved):
    path, content, ticket = saved
    packed = content.index(tickets.FORMAT.encode()) + len(tickets.FORMAT) + 20
    plain = [*range(packed), *range(content.index(b'"}', packed), content.index(b"}}") + 12)]
    for at in plain:
        for bit in range(8):
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                loaded = kl.Ticket.load(path)
            except ValueError as error:
                assert str(path) in str(error)
            else:
                assert identical(loaded, ticket)


@pytest.mark.parametrize(
    "content", [b"", b"hello, I am no ticket\n" * 20, b"\x80\x04K\x01.", b"{}"]
)
def test_files_of_another_kind_are_refused(tmp_path, content):
    path = tmp_path / "t"
    path.write_bytes(content)
    refused(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "t"
    save_file({"w": np.ones(3, np.float32)}, path)
    refused(path, "not a ticket")
    save_file({"w": np.ones(3, np.float32)}, path, {"format": "pt"})
    refused(path, "not a ticket")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises((ValueError, OSError), match=re.escape(str(tmp_path))):
        kl.Ticket.load(tmp_path)


def rewrite(path, version=None, packed=None, **about):
    """The same file with another header; a callable changes what is there."""
    size = struct.unpack("<Q", path.read_bytes()[:8])[0]
    plain = json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]
    old_version, _, old_packed = plain[tickets.FORMAT].partition(" ")
    inside = json.loads(zlib.decompress(base64.b85decode(old_packed)))
    for key, value in about.items():
        inside[key] = value(inside[key]) if callable(value) else value
    new = base64.b85encode(zlib.compress(json.dumps(inside).encode())).decode()
    new = f"{old_version if version is None else version} {new if packed is None else packed}"
    save_file(load_file(path), path, {tickets.FORMAT: new})


def first_layout(**changes):
    def change(layout):
        path, shape, dtype = layout[0]
        new = {"path": path, "shape": shape, "dtype": dtype} | changes
        return [list(new.values())] + layout[1:]

    return change


def test_equal_tickets_are_equal_files(tmp_path):
    ticket = mlp_ticket()
    for name in "abcd":
        ticket.save(tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


def test_rewriting_a_header_as_it_is_changes_nothing(saved):
    path, _, ticket = saved
    rewrite(path)
    assert identical(kl.Ticket.load(path), ticket)


def test_a_later_version_is_refused_with_both_numbers(saved):
    path, _, _ = saved
    rewrite(path, version=tickets.VERSION + 1)
    refused(path, f"version {tickets.VERSION + 1}.*{tickets.VERSION}.*[Uu]pdate")


@pytest.mark.parametrize("version", ["", "new", "1.5"])
def test_a_version_that_never_was_is_refused(saved, version):
    path, _, _ = saved
    rewrite(path, version=version)
    refused(path)


@pytest.mark.parametrize(
    "about",
    [
        {"layout": first_layout(shape=[2**40])},
        {"layout": first_layout(shape=[2**20, 2**20])},
        {"layout": first_layout(shape=[2**32, 2**32])},  # 0 in 64 bits
        {"layout": first_layout(shape=[2**70])},
        {"layout": first_layout(shape=[10**400])},
        {"layout": first_layout(shape=[-8, -20])},
        {"layout": first_layout(shape=[8.0, 20.0])},
        {"layout": first_layout(shape="820")},
        {"layout": first_layout(shape=8)},
        {"layout": first_layout(shape=None)},
        {"layout": first_layout(dtype="float64")},
        {"layout": first_layout(dtype="float16")},
        {"layout": first_layout(dtype="object")},
        {"layout": first_layout(dtype="nonsense")},
        {"layout": first_layout(dtype="(2,")},
        {"layout": first_layout(dtype=None)},
        {"layout": first_layout(dtype=7)},
        {"layout": first_layout(path="renamed")},
        {"layout": first_layout(path=["a"])},
        {"layout": lambda layout: layout[1:]},
        {"layout": lambda layout: [row[:2] for row in layout]},
        {"layout": []},
        {"layout": None},
        {"layout": 3},
        {"masked": []},
        {"masked": ["a/kernel"]},
        {"masked": ["a/kernel", "a/kernel"]},
        {"masked": ["a/kernel", "nowhere"]},
        {"masked": 5},
        {"masked": [["a/kernel"]]},
        {"crc32": {}},
        {"crc32": None},
        {"crc32": {"masks": 1, "alive": 2, "rest": 3}},
        {"metadata": None},
        {"metadata": 3},
        {"metadata": [1]},
    ],
)
def test_a_header_that_tells_another_story_is_refused(saved, about):
    path, _, _ = saved
    rewrite(path, **about)
    tracemalloc.start()
    try:
        refused(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_a_huge_dtype_of_an_emptied_layer_is_refused(tmp_path):
    kl.Ticket({"w": np.zeros(64, bool)}, {"w": np.zeros(64)}).save(tmp_path / "t")
    rewrite(tmp_path / "t", layout=[["w", [64], "S1000000000"]])
    refused(tmp_path / "t")


@pytest.mark.parametrize(
    "about",
    [
        "",
        "not base 85 \x7f",
        base64.b85encode(b"not deflated").decode(),
        base64.b85encode(zlib.compress(b"not json")).decode(),
        base64.b85encode(zlib.compress(b"\xff\xfe")).decode(),
        base64.b85encode(zlib.compress(b"[1, 2]")).decode(),
        base64.b85encode(zlib.compress(b"{}")).decode(),
        base64.b85encode(zlib.compress(b"{}")[:-1]).decode(),
        base64.b85encode(zlib.compress(b"[" * 200_000)).decode(),
        base64.b85encode(zlib.compress(b" " * (65 << 20))).decode(),
    ],
    ids=[
        "empty",
        "letters",
        "deflate",
        "json",
        "utf-8",
        "list",
        "bare",
        "cut",
        "deep",
        "bomb",
    ],
)
def test_a_header_that_cannot_be_read_is_refused(saved, about):
    path, _, _ = saved
    rewrite(path, packed=about)
    refused(path)


@pytest.mark.parametrize("name", ["masks", "alive", "rest"])
def test_a_damaged_missing_or_retyped_part_is_refused(saved, name):
    path, content, _ = saved
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])["__metadata__"]
    parts = load_file(path)
    flipped = parts[name].copy()
    flipped[len(flipped) // 2] ^= 4
    save_file(parts | {name: flipped}, path, header)
    refused(path, f"'{name}' is damaged")
    save_file({n: p for n, p in parts.items() if n != name}, path, header)
    refused(path, name)
    save_file(parts | {name: parts[name][:-1]}, path, header)
    refused(path)
