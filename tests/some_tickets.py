"""Small models and tickets for the tests of the controls."""

import keras
import numpy as np
from keras import layers as L

import keras_lottery as kl
from keras_lottery import weights


def chain(shape, *layers):
    x = y = keras.Input(shape)
    for layer in layers:
        y = layer(y)
    return keras.Model(x, y)


def of(model, density=0.3, metadata=None):
    rng = np.random.default_rng(0)
    masks = {p: rng.random(v.shape) < density for p, v in weights.prunable(model).items()}
    return kl.Ticket.of(model, masks, metadata)


def dense_of(model):
    return of(model, density=2.0)


def mlp():
    return chain(
        (8,),
        L.Dense(20, name="a", bias_initializer="normal"),
        L.BatchNormalization(name="norm"),
        L.Dense(10, name="b"),
    )


def same(a, b):
    return list(a) == list(b) and all(
        a[p].dtype == b[p].dtype and np.array_equal(a[p], b[p]) for p in a
    )


def zero_where_pruned(ticket):
    return all(not ticket.weights[p][~m].any() for p, m in ticket.masks.items())


def four(values, alive=(1, 1, 1, 1)):
    """A ticket of one layer "w" of four weights, and an unmasked bias "b"."""
    bias = np.array([7.0, 8.0], np.float32)
    own = {"w": np.array(values, np.float32), "b": bias}
    return kl.Ticket({"w": np.array(alive, bool)}, own, {"round": 3})


def w(ticket):
    """The values of the layer "w" as a list."""
    return ticket.weights["w"].tolist()
