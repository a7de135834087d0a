"""Lottery tickets inside one `model.fit` of tf_keras, on models wrapped by tfmot."""

import dataclasses
from typing import Any

from keras_lottery import weights
from keras_lottery.fitting import FitRounds
from keras_lottery.loop import check_rewind_step
from keras_lottery.masks import Path
from keras_lottery.search import Search
from keras_lottery.tfmot import masking
from keras_lottery.tfmot.importing import load
from keras_lottery.tfmot.views import ModelView, embeddings, wrappers
from keras_lottery.tfmot.wrapping import check_schedules, check_tf_keras

_keras: Any = load().keras


class LotteryCallback(FitRounds, _keras.callbacks.Callback):  # type: ignore[misc]
    """Finds lottery tickets in `model.fit` of tf_keras: train, prune, rewind, repeat.

    For models wrapped by tfmot, best by `kl.tfmot.wrap`. Arguments, rounds, logs, records
    and tickets are those of `kl.LotteryCallback`, and the same function chooses the masks;
    they are written into tfmot's own mask variables, so that `strip_pruning` and all else of
    tfmot goes on working. `UpdatePruningStep` is not needed, and does no harm.

    Pruned weights are exactly 0 after every step, and so are their momenta: a step is one of
    the network without them, as on Keras 3. tfmot's own wrapper masks the forward pass only,
    so that pruned weights leave zero between steps. In three epochs of training 64-32-16-10
    at density 0.5 its alive weights ended within 1e-7 of that network's with SGD, Adam, AdamW
    and Lion, but up to 0.04 away with Adafactor or gradients clipped by norm; here 1e-7 in
    all of these.

    After the fit the model keeps its masks. A further fit with this optimizer, or with this
    callback, stays sparse throughout; with another optimizer add `UpdatePruningStep`, which
    zeroes pruned weights at the end of each epoch.

    What differs from Keras 3: weights that no wrapper holds are never pruned. What lies
    outside `optimizer.variables` is not rewound: dropout's random numbers, a dynamic loss
    scale, Nadam's product of momenta. Where `fit` is given arrays, an epoch cut short by a
    rewind point inside it leaves its other batches to the next epoch. Averages of the weights
    (`use_ema`), which wipe tfmot's sparsity, are refused.

    Args:
        epochs_per_round: Integer, at least 1.
        prune_fraction: Float in (0, 1), or a schedule as in `kl.LotteryCallback`, a tfmot
            `PruningSchedule` among them. Default: 0.2.
        rounds: Integer, or `None`: the epochs of `fit` divided by `epochs_per_round`.
        rewind: `"weights"`, `"learning_rate"` or `"none"`. Default: `"weights"`.
        rewind_steps: Integer, the rewind point k in optimizer steps. Default: 0.
        scope: As in `kl.LotteryCallback`. Default: `"global"`.
        criterion: A name in `kl.criteria` or a callable `State -> scores`, whose
            `state.model` passes on what it is asked to the tf_keras model.
        filters: Which of the weights that tfmot masks to prune: a regex on paths, a list of
            them, or a callable `(path, variable) -> bool`. Default: trainable ones of rank 2
            or more, without embeddings. Paths are tf_keras's names, `"dense/kernel"`.
        data: A batch `(x, y)` for criteria that need one.
        seed: Integer for criteria that draw.
        verbose: 0 for silence, 1 for a table with one line a round.

    Raises:
        ValueError: At construction or before the first step, for anything that cannot work.

    Source: Frankle & Carbin, 1803.03635; rewinding, Frankle et al., 1903.01611; the wrapper,
    Zhu & Gupta, 1710.01878.

    Example:

    >>> import numpy as np
    >>> from keras_lottery.tfmot.importing import load
    >>> from keras_lottery.tfmot.wrapping import wrap
    >>> tf_keras = load().keras
    >>> x, y = np.random.rand(64, 4), np.random.rand(64, 2)
    >>> layers = [tf_keras.layers.Dense(8), tf_keras.layers.Dense(2)]
    >>> model = wrap(tf_keras.Sequential([tf_keras.Input((4,)), *layers]))
    >>> model.compile("adam", "mse")
    >>> lottery = LotteryCallback(epochs_per_round=1, prune_fraction=0.5, verbose=0)
    >>> history = model.fit(x, y, epochs=3, verbose=0, callbacks=[lottery])
    >>> [r.density for r in lottery.rounds]
    [1.0, 0.5, 0.25]
    """

    def set_model(self, model: Any) -> None:
        """Called by `fit`: the first to meet a model of the wrong Keras."""
        check_tf_keras(model)
        super().set_model(model)

    def check_model(self) -> None:
        """Raises, before training, for a model that cannot be searched."""
        _check_masks(self.model)
        check_schedules(self.model)
        _check_optimizer(self.model)
        self._view = self._look_at_model()
        batches = self.params.get("steps")
        check_rewind_step(self.settings, self._view, batches, self.epochs_per_round)
        weights.prunable(self._view, self._settings.filters)

    def begin_search(self, n_rounds: int) -> None:
        """The model is built, so the search begins at once."""
        self.start_search(Search(self._view, self._settings, n_rounds, masking))

    def _look_at_model(self) -> ModelView:
        with self.model.distribute_strategy.scope():
            self.model.optimizer.build(self.model.trainable_variables)
        view = ModelView(self.model)
        self._settings = dataclasses.replace(
            self.settings, filters=chosen(view, self.settings.filters)
        )
        return view


def chosen(view: ModelView, user: weights.Filters | None) -> weights.Filters:
    """The user's choice among the weights that tfmot masks, as a callable."""
    spared = set(embeddings(view.model)) if user is None else set()

    def prunable(path: Path, variable: Any) -> bool:
        if view.mask_of(variable) is None:
            return False
        if callable(user):
            return bool(user(path, variable))
        return id(variable.variable) not in spared and weights.matches(path, variable, user)

    return prunable


def _check_masks(model: Any) -> None:
    if not any(wrapper.pruning_vars for wrapper in wrappers(model)):
        raise ValueError(
            f"The model {model.name!r} has no masks of tfmot. Wrap it by `kl.tfmot.wrap(model)` "
            "and compile the result. Received: "
            f"{len(wrappers(model))} wrappers that hold masks of no weight"
            + ("." if model.built else "; the model is not built, its input shape is unknown.")
        )


def _check_optimizer(model: Any) -> None:
    optimizer = model.optimizer
    if not isinstance(optimizer, _keras.optimizers.Optimizer):
        raise ValueError(
            "Expected an optimizer of `tf_keras.optimizers`, not a legacy one, which clips "
            f"gradients before they can be masked. Received: {type(optimizer).__name__} of "
            f"{type(optimizer).__module__}. Compile with "
            f"`tf_keras.optimizers.{type(optimizer).__name__}(...)` or another of that module."
        )
    if optimizer.use_ema:
        raise ValueError(
            f"The optimizer {type(optimizer).__name__} has `use_ema=True`: at the end of `fit` "
            "tf_keras writes averages from before pruning over the weights, which wipes the "
            "sparsity. Compile with `use_ema=False`."
        )
