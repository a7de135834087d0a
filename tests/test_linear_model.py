"""Lottery tickets in linear models (Elesedy et al., 2020): what iterative pruning removes first.

With an orthonormal design, X'X = I, least squares gives w = X'y, each feature by itself; so
magnitude pruning removes features exactly in the order of |X'y|.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as kl

EXAMPLES, FEATURES = 12, 5


def removed_features(x, y, rate, steps, seed=0):
    """Features in the order in which iterative pruning, one a round, removes them."""
    n, d = x.shape
    model = keras.Sequential(
        [keras.Input((d,)), keras.layers.Dense(1, use_bias=False, dtype="float64")]
    )
    (start,) = model.get_weights()
    start[:] = np.random.default_rng(seed).normal(size=start.shape)
    model.set_weights([start])
    # The gradient of the mean squared error is 2 / n times that of |Xw - y|^2 / 2.
    model.compile(keras.optimizers.SGD(rate * n / 2), "mse")
    data = tf.data.Dataset.from_tensors((x, y)).repeat(steps)
    trained = []

    def train(model, callbacks):
        model.fit(data, shuffle=False, verbose=0, callbacks=callbacks)
        trained.append(model.get_weights()[0].ravel())

    densities = [(d - r) / d for r in range(d)]
    search = kl.find_ticket(model, train, rounds=d, prune_fraction=densities, verbose=0)
    (path,) = search.ticket().masks
    alive = [search.ticket(r).masks[path].ravel() for r in range(d)]
    for r in range(d):
        assert alive[r].sum() == d - r
        kept = np.where(alive[r], start.ravel(), 0)
        assert np.array_equal(search.ticket(r).weights[path].ravel(), kept)  # rewound to init
    gone = [int(np.flatnonzero(alive[r - 1] & ~alive[r])[0]) for r in range(1, d)]
    return gone + [int(np.flatnonzero(alive[-1])[0])], trained, alive


def orthonormal(seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(EXAMPLES, FEATURES)))[0]


@pytest.mark.parametrize("seed", range(3))
def test_with_an_orthonormal_design_features_go_exactly_in_the_order_of_their_projections(seed):
    rng = np.random.default_rng(seed)
    x, y = orthonormal(seed), rng.normal(size=(EXAMPLES, 1))
    projections = (x.T @ y).ravel()
    order, trained, alive = removed_features(x, y, rate=0.5, steps=40, seed=seed)
    assert order == np.argsort(np.abs(projections)).tolist()
    for weights, mask in zip(trained, alive, strict=True):
        assert np.abs(weights - np.where(mask, projections, 0)).max() < 1e-5


def test_neither_signs_nor_the_initialization_change_the_order():
    x = orthonormal(7)
    coefficients = np.array([2.0, -5.0, 1.0, -3.0, 4.0])
    y = (x @ coefficients)[:, None]
    orders = [removed_features(x, y, rate=0.5, steps=40, seed=s)[0] for s in (0, 1)]
    assert orders[0] == orders[1] == [2, 0, 3, 4, 1]


def test_with_correlated_features_the_order_is_not_that_of_the_projections():
    x = np.linalg.cholesky([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]]).T
    weights = np.array([1.0, -1.0, 0.3])
    y = (x @ weights)[:, None]  # X'y = 0.1, -0.1, 0.3
    order, trained, _ = removed_features(x, y, rate=1.0, steps=250)
    assert np.allclose(trained[0], weights, atol=1e-5)
    assert order[0] == 2 and np.argmax(np.abs(x.T @ y)) == 2
