"""The search of tf_keras and tfmot: as on Keras 3, on two devices, on two workers."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits
from zoo import two_devices

import keras_lottery as kl
from keras_lottery.tfmot import LotteryCallback, wrap
from keras_lottery.tfmot.importing import load
from keras_lottery.tfmot.views import ModelView, wrappers

tf_keras = load().keras
WORKER = pathlib.Path(__file__).with_name("tfmot_worker.py")


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y


def lenet(k):
    """LeNet-300-100 of either Keras on 8 x 8 digits."""
    sizes = {"a": 300, "b": 100}
    hidden = [k.layers.Dense(n, "relu", name=name) for name, n in sizes.items()]
    return k.Sequential([k.Input((64,)), *hidden, k.layers.Dense(10, name="out")])


def searched(k, model, callback, data, optimizer):
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    options = {"epochs": 4, "batch_size": 60, "shuffle": False, "verbose": 0}
    model.fit(*data, callbacks=[callback], **options)
    return callback


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_keras_3_and_tf_keras_choose_the_same_masks_in_the_first_round(digits, name):
    ours, theirs = lenet(keras), lenet(tf_keras)
    theirs.set_weights(ours.get_weights())
    options = {"epochs_per_round": 2, "prune_fraction": 0.5, "verbose": 0}
    callback = kl.LotteryCallback(**options)
    a = searched(keras, ours, callback, digits, getattr(keras.optimizers, name)(0.01))
    callback = LotteryCallback(**options)
    b = searched(tf_keras, wrap(theirs), callback, digits, getattr(tf_keras.optimizers, name)(0.01))
    start_a, start_b = a.ticket(0).weights.values(), b.ticket(0).weights.values()
    assert all(np.array_equal(v, w) for v, w in zip(start_a, start_b, strict=True))
    masks_a, masks_b = a.ticket(1).masks.values(), b.ticket(1).masks.values()
    assert all(np.array_equal(m, n) for m, n in zip(masks_a, masks_b, strict=True))
    assert [r.density for r in a.rounds] == [r.density for r in b.rounds] == [1.0, 0.5]
    accuracies = [r.metrics["accuracy"] for r in (a.rounds[1], b.rounds[1])]
    np.testing.assert_allclose(*accuracies, atol=0.01)


def test_two_devices_hold_the_same_masks_and_zeros(digits):
    with two_devices().scope():
        model = wrap(lenet(tf_keras))
        optimizer = tf_keras.optimizers.Adam()
    x, y = digits
    data = x[:240], y[:240]
    callback = LotteryCallback(1, 0.5, rewind_steps=2, verbose=0)
    search = searched(tf_keras, model, callback, data, optimizer)
    assert [r.density for r in search.rounds] == [1.0, 0.5, 0.25, 0.125]
    masks = search.ticket().masks
    for (weight, mask, _), path in zip(
        (variables for w in wrappers(model) for variables in w.pruning_vars), masks, strict=True
    ):
        for of_weight, of_mask in zip(weight.values, mask.values, strict=True):
            assert np.array_equal(of_mask.numpy(), masks[path])
            assert not of_weight.numpy()[~masks[path]].any()
            assert np.array_equal(of_weight.numpy(), weight.values[0].numpy())
    assert len(ModelView(model).weights) == 6


def free_ports(n):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def test_two_workers_end_with_the_same_masks_and_weights(tmp_path):
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    workers = []
    for index in range(2):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        env = os.environ | {"TF_CONFIG": json.dumps(task), "CUDA_VISIBLE_DEVICES": "-1"}
        command = [sys.executable, str(WORKER), str(tmp_path / f"{index}.npz")]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        workers.append(subprocess.Popen(command, env=env, **pipes))
    try:
        for worker in workers:
            output, _ = worker.communicate(timeout=400)
            assert worker.returncode == 0, output
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    first, second = (dict(np.load(tmp_path / f"{index}.npz")) for index in range(2))
    assert first["workers"] == 2 and first["densities"].tolist() == [1.0, 0.5, 0.25]
    assert first.keys() == second.keys()
    for name in first:
        assert np.array_equal(first[name], second[name]), name
    for path in ("a/kernel", "out/kernel"):
        mask, weight = first[f"mask {path}"], first[f"weight {path}:0"]
        assert not weight[~mask].any() and weight[mask].all()
