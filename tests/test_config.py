"""Settings: what is refused, what names a run, and lengths as texts."""

import json
from dataclasses import asdict, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lottery.experiments import config as module
from keras_lottery.experiments import setup
from keras_lottery.experiments.config import Config, from_dict, parse_steps
from keras_lottery.experiments.training import Trainer

OTHER = {
    "dataset": "mnist",
    "validation": 10,
    "subset": 100,
    "label_noise": 0.1,
    "shuffle_labels": True,
    "augment": "flip_crop",
    "model": "conv_2",
    "dropout": 0.5,
    "initializer": "he_normal",
    "steps": "24ep",
    "batch_size": 61,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "warmup": "5it",
    "lr_drops": ("10it",),
    "drop_factor": 0.5,
    "cosine": True,
    "weight_decay": 1e-4,
    "prune_fraction": 0.3,
    "conv_fraction": 0.1,
    "output_fraction": 0.2,
    "exclude": "logits",
    "scope": "global",
    "criterion": "random",
    "rewind": "learning_rate",
    "rewind_to": "5it",
    "eval_every": "2ep",
    "seed": 1,
}
IMPLICIT = {"steps": "25ep", "eval_every": "1ep", "output_fraction": 0.1}
NAMES = [f.name for f in fields(Config)]


# Names ------------------------------------------------------------------------------------


def test_every_setting_is_tried_here():
    assert list(OTHER) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_changes_the_name(name):
    assert Config(**{name: OTHER[name]}).identity() != Config().identity()


def test_no_two_changes_give_one_name():
    named = {Config(**{name: value}).identity() for name, value in OTHER.items()}
    assert len(named) == len(OTHER)


@pytest.mark.parametrize("name", NAMES)
def test_a_default_that_is_spelled_out_changes_nothing(name):
    explicit = {name: getattr(Config().complete(), name)}
    assert explicit[name] == IMPLICIT.get(name, getattr(Config(), name))
    assert Config(**explicit).identity() == Config().identity()


def test_a_name_is_eight_hex_digits_and_that_of_this_format(monkeypatch):
    name = Config().identity()
    assert len(name) == 8 and int(name, 16) >= 0
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    assert Config().identity() != name


def test_numbers_of_other_types_give_the_same_name():
    plain = Config(learning_rate=1.0, batch_size=8, lr_drops=("3it",))
    other = Config(learning_rate=np.float64(1), batch_size=np.int64(8), lr_drops=["3it"])
    assert other == plain == Config(learning_rate=1, batch_size=8, lr_drops=("3it",))
    assert other.identity() == plain.identity()
    assert type(other.learning_rate) is float and type(other.batch_size) is int


def test_completing_twice_is_completing_once():
    for config in (Config(), Config(scope="global"), Config(dataset="mnist", output_fraction=0.0)):
        assert config.complete().complete() == config.complete()


def test_open_defaults_follow_data_and_scope():
    papers = Config(dataset="mnist", prune_fraction=0.5).complete()
    assert (papers.steps, papers.eval_every, papers.output_fraction) == ("50000it", "100it", 0.25)
    assert Config(scope="global").complete().output_fraction is None
    assert Config(output_fraction=0.0).complete().output_fraction == 0


def test_a_config_goes_through_json():
    for config in (Config(), Config(**{**OTHER, "scope": "layerwise", "cosine": False})):
        assert from_dict(json.loads(json.dumps(asdict(config)))) == config


def test_every_setting_has_words_for_help():
    assert all(f.metadata["help"].endswith(".") for f in fields(Config))


# Refusals ---------------------------------------------------------------------------------

REFUSED = [
    ("validation", 0), ("validation", -1), ("validation", 2.5), ("subset", 0), ("subset", True),
    ("label_noise", -0.1), ("label_noise", 1.1), ("label_noise", float("nan")),
    ("shuffle_labels", "yes"), ("shuffle_labels", 1), ("augment", "mixup"), ("augment", None),
    ("dropout", -0.1), ("dropout", 1.0), ("dropout", "much"),
    ("batch_size", 0), ("batch_size", None), ("batch_size", "8"), ("optimizer", "ftrl"),
    ("learning_rate", 0), ("learning_rate", -1.0), ("learning_rate", float("inf")),
    ("learning_rate", float("nan")), ("learning_rate", "high"), ("lr_drops", "20it"),
    ("lr_drops", (20,)), ("drop_factor", 0.0), ("cosine", "no"), ("weight_decay", -1e-9),
    ("weight_decay", float("inf")), ("prune_fraction", 0), ("prune_fraction", 1),
    ("prune_fraction", 3), ("prune_fraction", float("nan")), ("conv_fraction", 1.0),
    ("conv_fraction", -0.1), ("output_fraction", 1.0), ("scope", "layer"), ("criterion", "size"),
    ("rewind", "maybe"), ("seed", -1), ("seed", 1.5), ("dataset", None), ("model", 3),
    ("steps", 100), ("exclude", 1), ("exclude", "("), ("initializer", 0.1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"`{name}`.*Received: "):
        Config(**{name: value})


@pytest.mark.parametrize("name", ["steps", "warmup", "rewind_to", "eval_every"])
@pytest.mark.parametrize("text", ["", "10", "ten", "-5it", "1.5it", "5 ep", "5epochs", "1e3it"])
def test_a_length_that_is_none_is_refused(name, text):
    with pytest.raises(ValueError, match=f"`500it` or epochs as `2ep`. Received: '{text}'"):
        Config(**{name: text})


def test_a_drop_that_is_no_length_is_refused():
    with pytest.raises(ValueError, match="Received: '20'"):
        Config(lr_drops=("10it", "20"))


def test_cosine_and_drops_exclude_each_other():
    with pytest.raises(ValueError, match="`cosine` or `lr_drops`"):
        Config(cosine=True, lr_drops=("1it",))


@pytest.mark.parametrize("scope", ["global", "erk", "nm", "block", "channels"])
@pytest.mark.parametrize("name", ["conv_fraction", "output_fraction"])
def test_fractions_of_layers_belong_to_layerwise(scope, name):
    with pytest.raises(ValueError, match=f"`{name}` goes with the scope layerwise"):
        Config(scope=scope, **{name: 0.1})


@pytest.mark.parametrize("scope", ["erk", "nm", "block", "channels"])
def test_exclude_belongs_to_layerwise_and_global(scope):
    assert Config(scope="layerwise", exclude="x") != Config(scope="global", exclude="x")
    with pytest.raises(ValueError, match=f"`exclude` goes with .* Received: {scope}"):
        Config(scope=scope, exclude="logits")


def test_an_unknown_setting_lists_the_settings():
    with pytest.raises(ValueError, match=r"Unknown settings \['epochs'\].*'batch_size'.*'warmup'"):
        from_dict({"epochs": 3, "seed": 1})


def test_from_dict_refuses_as_the_config_does():
    with pytest.raises(ValueError, match="`steps` must be a text"):
        from_dict({"steps": 100})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"eval_every": "0it"}, "`steps` and `eval_every` must be at least one step"),
        ({"eval_every": "0.001ep"}, "`steps` and `eval_every` must be at least one step"),
        ({"steps": "0ep"}, "`steps` and `eval_every` must be at least one step"),
        ({"steps": "6it", "rewind_to": "6it"}, r"`rewind_to` .* step 6\. .* which is step 6"),
        ({"steps": "1ep", "rewind_to": "2ep"}, r"`rewind_to` .* step 10\. .* which is step 20"),
        ({"batch_size": 101}, "A batch of 101 .* Received: 100"),
        ({"subset": 5000}, "`subset` must be at most"),
        ({"model": "lenet_301"}, "lenet_301"),
        ({"dropout": 0.5}, "dropout"),
        ({"initializer": "he_norm"}, "Unknown `initializer` 'he_norm'"),
        ({"exclude": "nowhere"}, "`exclude` 'nowhere' matches no path"),
        ({"exclude": "nowhere", "scope": "global"}, "`exclude` 'nowhere' matches no path"),
        ({"exclude": ".", "scope": "global"}, "leaves no path"),
        ({"rewind": "none", "rewind_to": "5it"}, "`rewind_steps`"),
    ],
)
def test_what_data_or_model_do_not_allow_is_refused_before_training(settings, words):
    with pytest.raises(ValueError, match=words):
        Trainer(Config(**{"subset": 100, "batch_size": 10, **settings}))


def test_lengths_are_counted_in_steps():
    config = Config(
        subset=100, batch_size=30, steps="4ep", rewind_to="0.5ep", eval_every="1ep"
    ).complete()
    counted = setup.lengths(config, setup.load_data(config))
    assert counted == setup.Lengths(total=12, epoch=3, rewind=2, evaluate=3)


# Steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "steps"),
    [("0it", 0), ("7it", 7), ("0ep", 0), ("1ep", 20), ("0.5ep", 10), ("0.01ep", 0), ("1.26ep", 25)],
)
def test_steps_are_parsed(text, steps):
    assert parse_steps(text, 20) == steps


def test_a_tenth_by_hand():
    config = Config(
        steps="30000it", warmup="182ep", rewind_to="3it", lr_drops=("0it", "15it"), dataset="x"
    ).scaled(0.1)
    assert (config.steps, config.warmup, config.rewind_to) == ("3000it", "18.2ep", "1it")
    assert config.lr_drops == ("0it", "2it")
    assert (config.eval_every, config.batch_size) == ("100it", 60)
    assert Config().scaled(0.1).steps == "2.5ep"


def test_a_scale_of_one_changes_nothing():
    assert Config(rewind_to="5it").scaled(1) == Config(rewind_to="5it")


@pytest.mark.parametrize("scale", [0, -1, float("inf"), float("nan")])
def test_a_scale_is_above_zero(scale):
    with pytest.raises(ValueError, match="`scale` must be above 0"):
        Config().scaled(scale)


@given(
    scale=st.floats(1e-9, 1e9),
    number=st.integers(0, 10**7),
    unit=st.sampled_from(["it", "ep"]),
)
def test_what_is_scaled_is_a_length_again(scale, number, unit):
    scaled = Config(steps=f"{number}{unit}", rewind_to=f"{number}{unit}").scaled(scale)
    assert scaled.steps == scaled.rewind_to
    assert parse_steps(scaled.steps, 10) == pytest.approx(
        number * scale * (10 if unit == "ep" else 1), abs=1, rel=1e-9
    )
