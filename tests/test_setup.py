"""From settings to data, model, optimizer and scope."""

import keras
import numpy as np
import pytest

from keras_lottery import masks as mask_ops
from keras_lottery import schedules, scopes, weights
from keras_lottery.experiments import setup
from keras_lottery.experiments.config import Config


def data_of(config):
    return setup.load_data(config.complete())


def build(seed=0, **settings):
    config = Config(**{"subset": 60, "batch_size": 20, **settings})
    return setup.build_model(config, data_of(config), seed)


def values(model):
    return [w.numpy() for w in model.weights]


def same(one, other):
    return [np.array_equal(a, b) for a, b in zip(values(one), values(other), strict=True)]


@pytest.fixture(scope="module")
def data():
    return data_of(Config(subset=60, batch_size=20))


# Data and lengths -------------------------------------------------------------------------


def test_the_settings_of_the_data_reach_it():
    clean = data_of(Config(subset=50, validation=30, seed=2))
    assert (len(clean.train[0]), len(clean.validation[0]), clean.name) == (50, 30, "digits")
    noisy = data_of(Config(subset=50, validation=30, seed=2, label_noise=1.0))
    shuffled = data_of(Config(subset=50, validation=30, seed=2, shuffle_labels=True))
    assert np.array_equal(clean.train[0], noisy.train[0])
    assert not np.array_equal(clean.train[1], noisy.train[1])
    assert not np.array_equal(clean.train[1], shuffled.train[1])
    assert sorted(clean.train[1]) == sorted(shuffled.train[1])
    assert np.array_equal(clean.validation[1], noisy.validation[1])
    assert clean.fingerprint != data_of(Config(subset=50, validation=30, seed=3)).fingerprint


def test_the_counts_of_the_digits_by_default(data):
    counts = setup.lengths(Config(batch_size=20).complete(), data)
    assert counts == setup.Lengths(total=75, epoch=3, rewind=0, evaluate=3)


def test_a_rewind_point_one_step_before_the_end_is_allowed(data):
    config = Config(batch_size=20, steps="3it", rewind_to="2it").complete()
    assert setup.lengths(config, data).rewind == 2
    with pytest.raises(ValueError, match=r"`rewind_to` must lie before .* step 3"):
        setup.lengths(Config(batch_size=20, steps="3it", rewind_to="1ep").complete(), data)


# Models -----------------------------------------------------------------------------------


def test_a_seed_gives_the_same_model_and_paths_again():
    one = build(seed=4)
    paths = list(weights.all_variables(one))
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    other = build(seed=4)
    assert list(weights.all_variables(other)) == paths and all(same(one, other))
    third = build(seed=5)
    kernels = [len(w.shape) == 2 for w in third.weights]
    assert same(one, third) == [not kernel for kernel in kernels]


def test_an_initializer_draws_every_kernel_anew():
    model = build(initializer="he_normal", seed=1)
    drawn = [v.numpy() for v in weights.prunable(model).values()]
    for kernel in drawn:
        assert kernel.std() == pytest.approx(np.sqrt(2 / kernel.shape[0]), rel=0.15)
        assert kernel.mean() == pytest.approx(0, abs=0.02)
    again = [v.numpy() for v in weights.prunable(build(initializer="he_normal", seed=1)).values()]
    other = [v.numpy() for v in weights.prunable(build(initializer="he_normal", seed=2)).values()]
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert not any((a == b).any() for a, b in zip(drawn, other, strict=True))
    firsts = [kernel.ravel()[:10] / kernel.std() for kernel in drawn]
    assert not np.allclose(firsts[0], firsts[1], atol=0.1)


def test_xla_is_left_out_for_convolutions_on_a_cpu():
    assert setup.use_jit(build(model="lenet_300_100"))
    assert not setup.use_jit(build(model="conv_2"))


# Optimizers -------------------------------------------------------------------------------


def compiled(data, **settings):
    config = Config(**{"subset": 60, "batch_size": 20, "steps": "12it", **settings}).complete()
    model = setup.build_model(config, data, 0)
    setup.make_compiled(config, model, setup.lengths(config, data))
    return model


def rates(model, steps):
    found = []
    for step in steps:
        model.optimizer.iterations.assign(step)
        found.append(float(model.optimizer.learning_rate))
    return found


def test_epochs_of_warmup_and_drops_are_counted_in_steps(data):
    model = compiled(data, learning_rate=0.6, warmup="1ep", lr_drops=("2ep", "9it"))
    expected = [0, 0.2, 0.4, 0.6, 0.06, 0.06, 0.006]
    assert rates(model, (0, 1, 2, 3, 6, 8, 9)) == pytest.approx(expected, rel=1e-5)


def test_a_cosine_ends_with_the_training(data):
    model = compiled(data, learning_rate=0.5, cosine=True)
    assert rates(model, (0, 6, 12)) == pytest.approx([0.5, 0.25, 0], abs=1e-6)


def test_the_penalty_lies_on_every_trainable_weight(data):
    model = compiled(data, weight_decay=0.5)
    expected = 0.25 * sum((w.numpy() ** 2).sum() for w in model.trainable_variables)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)
    assert compiled(data).losses == []


# Scopes -----------------------------------------------------------------------------------


def pruned(config, model):
    """Alive weights of each layer after one round of the config's own fraction."""
    rng = np.random.default_rng(0)
    masks = mask_ops.full({p: tuple(v.shape) for p, v in weights.prunable(model).items()})
    scores = {p: rng.random(m.shape) for p, m in masks.items()}
    keep = schedules.resolve(config.prune_fraction).keep(1, 0)
    chosen = setup.make_scope(config, model)(scores, masks, keep)
    return {p.split("/")[-2]: n for p, n in mask_ops.counts(chosen).items()}


def test_lenet_prunes_a_fifth_and_a_tenth_of_the_output():
    counts = pruned(Config().complete(), build())
    assert list(counts.values()) == [(15360, 19200), (24000, 30000), (900, 1000)]


def test_convolutions_and_excluded_layers_have_their_own_fractions():
    settings = {"model": "conv_2", "conv_fraction": 0.5, "exclude": "dense1"}
    counts = pruned(Config(**settings).complete(), build(**settings))
    alive = {name: round(a / n, 3) for name, (a, n) in counts.items()}
    assert alive == {"conv1": 0.5, "conv2": 0.5, "dense1": 1.0, "dense2": 0.8, "logits": 0.9}


def test_global_leaves_what_is_excluded():
    settings = {"scope": "global", "exclude": "logits", "prune_fraction": 0.5}
    counts = pruned(Config(**settings).complete(), build(**settings))
    assert counts["logits"] == (1000, 1000)
    assert sum(a for a, _ in counts.values()) == 1000 + 49200 // 2


@pytest.mark.parametrize("scope", ["layerwise", "global"])
def test_an_exclude_that_matches_nothing_is_refused(scope):
    with pytest.raises(ValueError, match=r"`exclude` 'shortcut' matches no path of \['lenet"):
        setup.make_scope(Config(scope=scope, exclude="shortcut"), build())


@pytest.mark.parametrize("scope", ["erk", "nm", "block", "channels"])
def test_other_scopes_are_those_of_the_package(scope):
    assert setup.make_scope(Config(scope=scope), build()) == scopes.resolve(scope)


# Settings of the search -------------------------------------------------------------------


def test_the_search_gets_what_the_config_says(data):
    config = Config(
        batch_size=20, steps="9it", rewind="learning_rate", rewind_to="2it", prune_fraction=0.3,
        scope="global", criterion="random", seed=5,
    ).complete()  # fmt: skip
    model = setup.build_model(config, data, 0)
    made = setup.make_settings(config, model, data, setup.lengths(config, data))
    assert (made.rewind, made.rewind_steps, made.seed) == ("learning_rate", 2, 5)
    assert made.prune_fraction == schedules.Fraction(0.3)
    assert made.scope == scopes.Global()
    x, y = made.data
    assert np.array_equal(x, data.train[0][:20]) and np.array_equal(y, data.train[1][:20])
