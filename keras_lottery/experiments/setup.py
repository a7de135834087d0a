"""From a config's settings to data, model, optimizer and options of the search."""

import re
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from keras_lottery import scopes, weights
from keras_lottery.experiments import datasets, models
from keras_lottery.experiments.batches import steps_per_epoch
from keras_lottery.experiments.config import Config, parse_steps
from keras_lottery.experiments.optimizers import WarmupThenDrops, make_optimizer
from keras_lottery.settings import Settings

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


@dataclass(frozen=True)
class Lengths:
    """A config's counts, in optimizer steps.

    Attributes:
        total: Of a training from step 0.
        epoch: Of an epoch.
        rewind: Of the rewind point.
        evaluate: Between two evaluations.
    """

    total: int
    epoch: int
    rewind: int
    evaluate: int


def load_data(config: Config, data_dir: str | None = None) -> datasets.Data:
    """The config's data set."""
    return datasets.load(
        config.dataset,
        config.seed,
        data_dir=data_dir,
        validation=config.validation,
        subset=config.subset,
        label_noise=config.label_noise,
        shuffle_labels=config.shuffle_labels,
    )


def lengths(config: Config, data: datasets.Data) -> Lengths:
    """The counts of a completed config.

    Raises:
        ValueError: If a training has no step, or ends before the rewind point.
    """
    epoch = steps_per_epoch(data.train, config.batch_size)
    total, rewind, evaluate = (
        parse_steps(text or "0it", epoch)
        for text in (config.steps, config.rewind_to, config.eval_every)
    )
    if total < 1 or evaluate < 1:
        raise ValueError(
            "`steps` and `eval_every` must be at least one step. Received: "
            f"{config.steps!r} and {config.eval_every!r}"
        )
    if rewind >= total:
        raise ValueError(
            f"`rewind_to` must lie before the end of a training, step {total}. Received: "
            f"{config.rewind_to!r}, which is step {rewind}."
        )
    return Lengths(total, epoch, rewind, evaluate)


def build_model(config: Config, data: datasets.Data, seed: int) -> keras.Model:
    """The config's model, freshly initialized by `seed`, its paths the same in each process."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    model = models.build(config.model, data.input_shape, data.classes, dropout=config.dropout)
    if config.initializer is not None:
        _initialize(model, config.initializer, seed)
    return model


def make_compiled(config: Config, model: keras.Model, lengths: Lengths) -> None:
    """Compiles the model with the config's optimizer, schedule and L2 penalty."""
    if config.weight_decay:
        for variable in model.trainable_variables:
            variable.regularizer = keras.regularizers.L2(config.weight_decay / 2)
    steps = {t: parse_steps(t, lengths.epoch) for t in (config.warmup, *config.lr_drops)}
    plain = not (config.lr_drops or config.cosine or steps[config.warmup])
    schedule = WarmupThenDrops(
        config.learning_rate,
        steps[config.warmup],
        [steps[t] for t in config.lr_drops],
        config.drop_factor,
        lengths.total if config.cosine else None,
    )
    model.compile(
        make_optimizer(config.optimizer, config.learning_rate if plain else schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )


def make_settings(
    config: Config, model: keras.Model, data: datasets.Data, lengths: Lengths
) -> Settings:
    """How the search prunes and rewinds."""
    x, y = data.train
    return Settings(
        prune_fraction=config.prune_fraction,
        rewind=config.rewind,  # type: ignore[arg-type]
        rewind_steps=lengths.rewind,
        scope=make_scope(config, model),
        criterion=config.criterion,
        data=(x[: config.batch_size], y[: config.batch_size]),
        seed=config.seed,
    )


def make_scope(config: Config, model: keras.Model) -> scopes.Scope:
    """The scope of a config, with the fractions of some layers, for this model's paths."""
    prunable = weights.prunable(model)
    if config.exclude is not None and not any(re.search(config.exclude, p) for p in prunable):
        raise ValueError(f"`exclude` {config.exclude!r} matches no path of {list(prunable)}.")
    if config.scope == "global":
        return scopes.Global(exclude=config.exclude)
    if config.scope != "layerwise":
        return scopes.resolve(config.scope)
    fractions = {} if config.exclude is None else {config.exclude: 0.0}
    if config.conv_fraction is not None:
        kernels = {p: v for p, v in prunable.items() if len(v.shape) > 2}
        fractions |= {f"^{re.escape(path)}$": config.conv_fraction for path in kernels}
    return scopes.Layerwise(fractions, output_fraction=config.output_fraction)


def use_jit(model: keras.Model) -> bool:
    """Whether XLA compiles the step: on accelerators, and without convolutions on CPUs.

    XLA's convolutions took 1.3 times the CPU time of TensorFlow's own on a Conv-2.
    """
    if tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"):
        return True
    return not any(isinstance(layer, _CONVOLUTIONS) for layer in weights.sublayers(model))


def _initialize(model: keras.Model, name: str, seed: int) -> None:
    try:
        kind = type(keras.initializers.get(name))
    except (ValueError, TypeError) as error:
        raise ValueError(f"Unknown `initializer` {name!r}: {error}") from error
    for i, variable in enumerate(weights.prunable(model).values()):
        drawn = int(np.random.SeedSequence((seed, i)).generate_state(1)[0] % 2**31)
        variable.assign(kind(seed=drawn)(variable.shape, dtype=variable.dtype))
