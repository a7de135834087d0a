"""The papers' protocols: their numbers written by hand, and the densities they print."""

import functools
import re

import numpy as np
import pytest

from keras_lottery import masks as mask_ops
from keras_lottery import schedules, weights
from keras_lottery.experiments import models, setup
from keras_lottery.experiments.config import Config
from keras_lottery.experiments.presets import PRESETS, Preset, preset

# Batch, optimizer, rate, length, drops, warmup, rewind point, L2, conv fraction.
IMAGE = ("20000it", "25000it")
VGG = ("56240it", "84360it")
LMC = ("32000it", "48000it")
TABLE = {
    "lth/lenet": (60, "adam", 1.2e-3, "50000it", (), "0it", "0it", 0, None),
    "lth/conv2": (60, "adam", 2e-4, "20000it", (), "0it", "0it", 0, 0.1),
    "lth/conv4": (60, "adam", 3e-4, "25000it", (), "0it", "0it", 0, 0.1),
    "lth/conv6": (60, "adam", 3e-4, "30000it", (), "0it", "0it", 0, 0.15),
    "lth/conv2_dropout": (60, "adam", 3e-4, "60000it", (), "0it", "0it", 0, 0.1),
    "lth/conv4_dropout": (60, "adam", 2e-4, "75000it", (), "0it", "0it", 0, 0.1),
    "lth/conv6_dropout": (60, "adam", 2e-4, "90000it", (), "0it", "0it", 0, 0.15),
    "lth/resnet20": (128, "momentum", 0.1, "30000it", IMAGE, "0it", "0it", 1e-4, None),
    "lth/resnet20_low": (128, "momentum", 0.01, "30000it", IMAGE, "0it", "0it", 1e-4, None),
    "lth/resnet20_warmup": (128, "momentum", 0.03, "30000it", IMAGE, "20000it", "0it", 1e-4, None),
    "lth/vgg19": (64, "momentum", 0.1, "112480it", VGG, "0it", "0it", 1e-4, None),
    "lth/vgg19_low": (64, "momentum", 0.01, "112480it", VGG, "0it", "0it", 1e-4, None),
    "lth/vgg19_warmup": (64, "momentum", 0.1, "112480it", VGG, "10000it", "0it", 1e-4, None),
    "stabilizing/lenet": (60, "adam", 1.2e-3, "50000it", (), "0it", "0it", 0, None),
    "stabilizing/resnet20": (128, "momentum", 0.1, "30000it", IMAGE, "0it", "500it", 1e-4, None),
    "stabilizing/resnet20_low":
        (128, "momentum", 0.01, "30000it", IMAGE, "0it", "500it", 1e-4, None),
    "stabilizing/vgg19": (64, "momentum", 0.1, "112480it", VGG, "0it", "100it", 1e-4, None),
    "lmc/lenet": (60, "adam", 1.2e-3, "24000it", (), "0it", "0it", 0, None),
    "lmc/resnet20": (128, "momentum", 0.1, "63000it", LMC, "0it", "500it", 1e-4, None),
    "lmc/resnet20_low": (128, "momentum", 0.01, "63000it", LMC, "0it", "0it", 1e-4, None),
    "lmc/resnet20_warmup":
        (128, "momentum", 0.03, "63000it", LMC, "30000it", "0it", 1e-4, None),
    "lmc/vgg16": (128, "momentum", 0.1, "63000it", LMC, "0it", "1000it", 1e-4, None),
    "lmc/vgg16_low": (128, "momentum", 0.01, "63000it", LMC, "0it", "0it", 1e-4, None),
    "lmc/vgg16_warmup": (128, "momentum", 0.1, "63000it", LMC, "30000it", "0it", 1e-4, None),
    "renda/resnet20":
        (128, "nesterov", 0.1, "182ep", ("91ep", "136ep"), "0it", "0it", 1e-4, None),
    "openlth/lenet": (128, "sgd", 0.1, "40ep", (), "0it", "0it", 0, None),
    "openlth/resnet20":
        (128, "momentum", 0.1, "160ep", ("80ep", "120ep"), "0it", "0it", 1e-4, None),
}  # fmt: skip


def made(name):
    return Config(**preset(name).settings).complete()


@functools.cache
def shapes(name):
    """Shapes of a preset's prunable weights by path, and the whole scope of the preset."""
    config = made(name)
    size = (28, 28, 1) if config.dataset == "mnist" else (32, 32, 3)
    model = models.build(config.model, size, 10, dropout=config.dropout)
    prunable = {p: tuple(v.shape) for p, v in weights.prunable(model).items()}
    return prunable, setup.make_scope(config, model)


def ladder(name, rounds):
    """Density of each round, pruned by random scores."""
    prunable, scope = shapes(name)
    masks, rng = mask_ops.full(prunable), np.random.default_rng(0)
    keep = schedules.resolve(made(name).prune_fraction).keep(1, 0)
    densities = [mask_ops.density(masks)]
    for _ in range(rounds):
        scores = {p: rng.random(m.shape, np.float32) for p, m in masks.items()}
        masks = scope(scores, masks, keep)
        densities.append(mask_ops.density(masks))
    return densities


# Settings ---------------------------------------------------------------------------------


def test_the_table_has_every_preset():
    assert set(TABLE) == set(PRESETS)


@pytest.mark.parametrize("name", TABLE)
def test_a_preset_has_the_papers_numbers(name):
    config = made(name)
    found = (
        config.batch_size,
        config.optimizer,
        config.learning_rate,
        config.steps,
        config.lr_drops,
        config.warmup,
        config.rewind_to,
        config.weight_decay,
        config.conv_fraction,
    )
    assert found == TABLE[name]
    assert (config.prune_fraction, config.drop_factor, config.eval_every) == (0.2, 0.1, "100it")
    assert config.criterion == "magnitude" and not config.cosine


@pytest.mark.parametrize("name", TABLE)
def test_data_and_scope_go_with_the_model(name):
    config = made(name)
    if "lenet" in name:
        assert (config.dataset, config.model) == ("mnist", "lenet_300_100")
    else:
        assert config.dataset == "cifar10"
        assert config.model.replace("_", "") in name
    images = "resnet" in name or "vgg" in name
    assert config.augment == ("flip_crop" if images else "none")
    assert config.dropout == (0.5 if "dropout" in name else None)
    layerwise = not images and not name.startswith("openlth")
    assert config.scope == ("layerwise" if layerwise else "global")
    output = 0.2 if name in ("stabilizing/lenet", "lmc/lenet") else 0.1
    assert config.output_fraction == (output if layerwise else None)
    assert config.rewind == ("learning_rate" if name.startswith("renda") else "weights")


@pytest.mark.parametrize("name", TABLE)
def test_a_preset_tells_where_it_comes_from(name):
    one = PRESETS[name]
    assert one.rounds >= 16 and one.words
    assert re.search(r"\d{4}\.\d{5}|open_lth", one.source)


def test_presets_cannot_be_changed():
    with pytest.raises(TypeError):
        PRESETS["mine"] = PRESETS["lth/lenet"]


def test_a_changed_preset_leaves_the_old_one():
    old = Preset("source", "words", 3, {"seed": 1})
    new = old.changed("more", seed=2, batch_size=5)
    assert (new.settings, new.words, new.rounds) == ({"seed": 2, "batch_size": 5}, "more", 3)
    assert old.settings == {"seed": 1}


def test_an_unknown_preset_lists_the_presets():
    with pytest.raises(ValueError, match=r"'lth/resnet18'.*lth/lenet, lth/conv2,.*lmc/vgg16"):
        preset("lth/resnet18")


# Which weights ----------------------------------------------------------------------------

COUNTS = {  # weights that count, and those among them that are never pruned
    "lth/resnet20": (270_896, 3_200),
    "lmc/resnet20": (270_896, 0),
    "renda/resnet20": (270_896, 0),
    "openlth/resnet20": (270_896, 0),
    "lth/vgg19": (20_024_000, 5_120),
    "lmc/vgg16": (14_715_584, 5_120),
    "openlth/lenet": (266_200, 1_000),
}


@pytest.mark.parametrize("name", COUNTS)
def test_dense_and_shortcut_kernels_are_spared_where_the_paper_does(name):
    prunable, scope = shapes(name)
    spared = {p for p in prunable if scope.exclude and re.search(scope.exclude, p)}
    sizes = {p: int(np.prod(s)) for p, s in prunable.items()}
    assert (sum(sizes.values()), sum(sizes[p] for p in spared)) == COUNTS[name]
    if spared and "lenet" not in name:
        assert spared == {p for p, s in prunable.items() if len(s) == 2 or s[:2] == (1, 1)}


@pytest.mark.parametrize("name", ["lth/conv2", "lth/conv4", "lth/conv6"])
def test_convolutions_have_a_fraction_of_their_own(name):
    prunable, scope = shapes(name)
    matched = {p for p in prunable for pattern in scope.fractions if re.search(pattern, p)}
    assert matched == {p for p, s in prunable.items() if len(s) == 4}
    assert len(matched) == int(name[-1])
    assert set(scope.fractions.values()) == {made(name).conv_fraction}


# Densities that the papers print ----------------------------------------------------------

LADDERS = {
    "lth/lenet": {3: 51.28, 7: 21.07, 9: 13.52, 11: 8.68, 15: 3.58, 16: 2.87, 18: 1.85,
                  20: 1.19, 24: 0.50},
    "lth/conv2": {11: 8.81, 14: 4.57, 24: 0.54},
    "lth/conv4": {11: 11.06, 12: 9.18, 24: 1.28},
    "lth/conv6": {7: 26.61, 10: 15.29, 12: 10.62},
    "lth/resnet20": {4: 41.7, 6: 27.1, 7: 21.9, 10: 11.8},
    "stabilizing/lenet": {10: 10.7},
    "stabilizing/resnet20": {8: 16.8},  # printed as 16.7, which is 0.8**8 cut off
    "lmc/lenet": {15: 3.5},
    "lmc/resnet20": {1: 80.0, 3: 51.2, 8: 16.8, 9: 13.4, 11: 8.6},
    "renda/resnet20": {1: 80.0, 3: 51.2, 5: 32.8, 7: 21.0, 9: 13.4, 10: 10.7},
}  # fmt: skip
# Counted, not pruned: these have 15 and 20 million weights.
LARGE = {
    "lth/vgg19": {15: 3.5, 19: 1.5},
    "lmc/vgg16": {8: 16.8, 12: 6.9, 13: 5.5, 19: 1.5, 20: 1.2},
}


@pytest.mark.parametrize("name", LADDERS)
def test_pruning_gives_the_printed_densities(name):
    digits = 2 if name == "lth/lenet" or "conv" in name else 1
    densities = ladder(name, max(LADDERS[name]))
    assert {n: round(100 * densities[n], digits) for n in LADDERS[name]} == LADDERS[name]


@pytest.mark.parametrize("name", LARGE)
def test_counting_gives_the_printed_densities(name):
    total, spared = COUNTS[name]
    keep, left, found = schedules.keep_fraction(made(name).prune_fraction), total - spared, {}
    for n in range(1, max(LARGE[name]) + 1):
        left = keep(left, total)
        found[n] = round(100 * (left + spared) / total, 1)
    assert {n: found[n] for n in LARGE[name]} == LARGE[name]


@pytest.mark.parametrize("name", [*LADDERS, *LARGE])
def test_a_preset_has_rounds_enough_for_what_the_paper_prints(name):
    assert max({**LADDERS, **LARGE}[name]) < PRESETS[name].rounds
