"""The searches of strong tickets: what stays frozen, how dense, in which models, with what."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from keras_lottery import strong, weights
from keras_lottery.strong import drawing

SEARCHES = {
    "edge_popup": strong.edge_popup,
    "biprop": strong.biprop,
    "iterand": lambda model, **options: strong.iterand(model, every=2, **options),
    "supermask": strong.supermask,
    "gem_miner": lambda model, **options: strong.gem_miner(
        model, density=0.3, steps=6, every=2, **options
    ),
}
KERNELS = (0, 4)  # of `mlp`, among what `frozen` gives


def mlp(units=12, **options):
    return keras.Sequential(
        [keras.Input((8,)), L.Dense(units, "relu", **options), L.BatchNormalization(), L.Dense(3)]
    )


def data(shape=(8,), n=24):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, *shape)).astype("float32"), rng.integers(0, 3, n)


def train(search, x, y, epochs=2, rate=0.1, batch=8, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9)
    search.compile(optimizer, loss, metrics=["accuracy"], **options)
    search.fit(x, y, epochs=epochs, batch_size=batch, verbose=0)
    return search


def frozen(search):
    """Everything of the network but statistics and seeds."""
    named = weights.all_weights(search.network)
    kept = [v.numpy() for p, v in named.items() if "moving" not in p]
    return dict(enumerate(kept))


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[p], b[p]) for p in a)


# What is frozen ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_training_moves_scores_and_statistics_but_no_weight(name):
    search = SEARCHES[name](mlp())
    before, scores = frozen(search), search.learner.scores
    moving = search.network.layers[1].moving_mean.numpy()
    train(search, *data())
    assert same(before, frozen(search)) == (name != "iterand")
    assert not any(np.array_equal(scores[p], s) for p, s in search.learner.scores.items())
    assert not np.array_equal(moving, search.network.layers[1].moving_mean.numpy())


def test_the_users_model_is_left_as_it_is():
    model = mlp()
    before = [v.numpy() for v in model.variables]
    search = train(strong.edge_popup(model), *data())
    assert all(np.array_equal(b, v.numpy()) for b, v in zip(before, model.variables, strict=True))
    assert len(model.trainable_variables) == 6
    assert [v.name for v in search.trainable_variables] == ["scores_0", "scores_1"]


def test_signed_constants_have_the_papers_size():
    search = strong.edge_popup(mlp())
    kernel = search.network.layers[0].kernel.numpy()
    assert np.allclose(np.abs(kernel), np.sqrt(2 / 8)) and 0.2 < (kernel > 0).mean() < 0.8


@pytest.mark.parametrize("name", drawing.DRAWS)
def test_drawn_weights_have_variance_two_by_fan_in(name):
    kernel = drawing.draw(name, (50, 400), 50, np.random.default_rng(0))
    chance = tf.constant(np.random.default_rng(1).random((50, 400), np.float32))
    for sample in (kernel, drawing.draw_tensor(name, 50, chance).numpy()):
        assert abs(sample.mean()) < 0.01 and abs(sample.std() / 0.2 - 1) < 0.02


def test_biases_and_scales_are_neutral_unless_kept():
    def values(search):
        return [v.numpy() for v in search.network.weights if v.name in ("bias", "gamma", "beta")]

    model = mlp(bias_initializer="ones")
    model.layers[1].gamma.assign(np.full(12, 2.0))
    zero, one = np.zeros(12), np.ones(12)
    for value, expected in zip(
        values(strong.edge_popup(model)), (zero, one, zero, np.zeros(3)), strict=True
    ):
        assert np.array_equal(value, expected)
    for value, expected in zip(
        values(strong.edge_popup(model, weights="keep")), (one, 2 * one, zero, np.zeros(3)),
        strict=True,
    ):  # fmt: skip
        assert np.array_equal(value, expected)


def test_kept_weights_are_the_models_own():
    model = mlp()
    kept = frozen(strong.edge_popup(model, weights="keep"))
    own = [v.numpy() for p, v in weights.all_weights(model).items() if "moving" not in p]
    assert all(np.array_equal(a, b) for a, b in zip(kept.values(), own, strict=True))


@pytest.mark.parametrize(
    ("layer", "shape", "fan_in"),
    [
        (L.Dense(4), (6,), [6]),
        (L.Conv2D(4, 3), (5, 5, 2), [18]),
        (L.Conv2DTranspose(4, 3), (5, 5, 2), [18]),
        (L.DepthwiseConv2D(3), (5, 5, 2), [9]),
        (L.EinsumDense("abc,cde->abde", (None, 2, 3)), (5, 4), [4]),
        (L.EinsumDense("abcd,cde->abe", (None, 6)), (5, 2, 3), [6]),
    ],
)
def test_fan_in_counts_the_inputs_of_a_unit(layer, shape, fan_in):
    model = keras.Sequential([keras.Input(shape), layer])
    assert list(drawing.fans(model, weights.prunable(model))) == fan_in


# Density ----------------------------------------------------------------------------------


class Densities(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append([int(m.sum()) for m in self.model.learner.masks.values()])


def densities(search, epochs=2):
    search.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    watch = Densities()
    search.fit(*data(), epochs=epochs, batch_size=8, verbose=0, callbacks=[watch])
    return watch.seen


def test_every_step_has_the_exact_density_in_each_layer():
    assert densities(strong.edge_popup(mlp(), density=0.3)) == [[29, 11]] * 6


def test_every_step_has_the_exact_density_over_all_layers():
    seen = densities(strong.edge_popup(mlp(), density=0.3, scope="global"))
    assert {sum(counts) for counts in seen} == {40}


def test_an_annealed_density_falls_geometrically():
    seen = densities(strong.edge_popup(mlp(), density=0.25, scope="global", anneal=4))
    steps = [132 * 0.25 ** (t / 4) for t in (1, 2, 3, 4, 4, 4)]
    assert [sum(counts) for counts in seen] == [round(n) for n in steps]


def test_gem_miner_freezes_on_schedule_over_all_layers():
    search = strong.gem_miner(mlp(), density=0.1, steps=6, every=2)
    active = []
    search.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for _ in range(8):
        search.train_on_batch(*data(n=8))
        active.append(sum(int(m.numpy().sum()) for m in search.learner._mask_variables))
    one, two, three = (round(132 * 0.1 ** (i / 3)) for i in (1, 2, 3))
    assert active == [132, one, one, two, two, three, three, three]
    assert strong.ticket(search).density <= three / 132


def test_gem_miners_penalty_and_projection():
    search = strong.gem_miner(mlp(), penalty=0.5)
    scores = np.concatenate([s.ravel() for s in search.learner.scores.values()])
    assert scores.min() >= 0 and scores.max() <= 1
    search(data()[0])
    assert np.isclose(search.losses[0], 0.5 * np.square(scores.astype("float64")).sum(), rtol=1e-5)
    train(search, *data(), rate=10.0)
    scores = np.concatenate([s.ravel() for s in search.learner.scores.values()])
    assert scores.min() == 0 and scores.max() <= 1


# Draws ------------------------------------------------------------------------------------


def test_iterand_redraws_pruned_weights_alone_and_by_its_seed():
    def searched(seed):
        search = strong.iterand(mlp(50), every=2, probability=0.5, seed=seed)
        search.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        states = []
        for _ in range(3):
            masks, before = list(search.learner.masks.values()), frozen(search)
            search.train_on_batch(*data(n=8))
            states.append((masks, before, frozen(search)))
        return states

    first, second, third = searched(0)
    assert same(*first[1:]) and same(*second[1:])
    for mask, kernel in zip(third[0], KERNELS, strict=True):
        moved = third[1][kernel] != third[2][kernel]
        assert not moved[mask].any()
        assert 0.3 < moved[~mask].mean() < 0.7
    assert same(searched(0)[2][2], third[2])
    assert not same(searched(1)[2][2], third[2])


def test_supermasks_are_drawn_by_their_chances_and_step():
    search = strong.supermask(mlp(2000), rescale=False, seed=3)
    score = search.learner._scores[0]
    score.assign(np.full(score.shape, np.log(3)))
    mask = next(iter(search.learner.masks.values()))
    assert abs(mask.mean() - 0.75) < 0.01
    assert np.array_equal(mask, next(iter(search.learner.masks.values())))
    train(search, *data(n=8), epochs=1, rate=0.0)
    assert 0.55 < (mask == next(iter(search.learner.masks.values()))).mean() < 0.7


def test_a_supermask_may_be_thresholded_in_tests():
    search = strong.supermask(mlp(), test="threshold")
    score = search.learner._scores[0]
    score.assign(np.where(np.arange(96).reshape(8, 12) % 3, 1.0, -1.0))
    assert [int(m.sum()) for m in search.learner.masks.values()] == [64, 36]
