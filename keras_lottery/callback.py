"""Lottery tickets inside one `model.fit` of Keras 3."""

from typing import Any

import keras

from keras_lottery import weights
from keras_lottery.fitting import FitRounds
from keras_lottery.loop import check_rewind_step
from keras_lottery.search import Search


class LotteryCallback(FitRounds, keras.callbacks.Callback):
    """Finds lottery tickets in `model.fit`: train, prune, rewind, repeat.

    A round lasts `epochs_per_round` epochs. At the start of each next round the trained
    weights are scored, the lowest are pruned, and the rest go back to the rewind point;
    so every callback sees the trained sparse weights at a round's end, whatever the order
    of callbacks. From the first epoch on the logs hold `round` and `density`; put this
    callback before CSVLogger and its like in the list, so that they see both.

    A round rewound to step k trains the steps k to T. After the fit the model keeps its
    masks, and a further fit stays sparse, until `kl.strip(model)`. A model that already
    carries masks (a ticket, an earlier search) starts from them.

    Args:
        epochs_per_round: Integer, at least 1.
        prune_fraction: Float in (0, 1): the fraction of the surviving weights removed
            after each round. Or a schedule: densities by round, the first 1.0; a callable
            `round -> density`; a tfmot `PruningSchedule` or any callable
            `step -> (should_prune, sparsity)`. Default: 0.2.
        rounds: Integer, or `None`: the epochs of `fit` divided by `epochs_per_round`,
            which must leave no remainder. With `rounds`, `fit` stops after the last.
        rewind: `"weights"` sets everything back to the rewind point; `"learning_rate"`
            keeps the weights and sets optimizer, step counter and learning rate back;
            `"none"` goes on training (fine-tuning). Default: `"weights"`.
        rewind_steps: Integer, the rewind point k in optimizer steps. Default: 0, the
            initialization.
        scope: `"global"`, `"layerwise"`, `"erk"`, `"nm"`, `"block"`, `"channels"` or a
            `kl.scopes` object.
        criterion: A name in `kl.criteria` or a callable `State -> scores`.
        filters: Which weights to prune: a regex on paths, a list of them, or a callable
            `(path, variable) -> bool`. Default: trainable weights of rank 2 or more,
            without biases, embeddings and normalizations.
        data: A batch `(x, y)` for criteria that need one.
        seed: Integer for criteria that draw.
        verbose: 0 for silence, 1 for a table with one line a round.

    Raises:
        ValueError: At construction or before the first step, for anything that cannot work.

    Source: Frankle & Carbin, 1803.03635; rewinding, Frankle et al., 1903.01611; learning
    rate rewinding, Renda et al., 2003.02389.

    Example:

    >>> import numpy as np
    >>> x, y = np.random.rand(64, 4), np.random.randint(0, 2, 64)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> lottery = LotteryCallback(epochs_per_round=2, prune_fraction=0.5, verbose=0)
    >>> history = model.fit(x, y, epochs=6, verbose=0, callbacks=[lottery])
    >>> [r.density for r in lottery.rounds]
    [1.0, 0.5, 0.25]
    >>> lottery.ticket().density
    0.25
    """

    def set_model(self, model: Any) -> None:
        weights.check_keras_3(model)
        super().set_model(model)

    def check_model(self) -> None:
        """Raises, before training, for a model that cannot be searched."""
        batches = self.params.get("steps")
        check_rewind_step(self.settings, self.model, batches, self.epochs_per_round)
        if self.model.built:
            weights.prunable(self.model, self.settings.filters)

    def begin_search(self, n_rounds: int) -> None:
        if not self.model.built:
            self._begin_when_built(n_rounds)
            return
        search = Search(self.model, self.settings, n_rounds)
        self.model.make_train_function()
        self.start_search(search)

    def _begin_when_built(self, n_rounds: int) -> None:
        """Keras builds such a model in its first step: build it just before, from the data."""
        model = self.model

        def build_then_step(iterator: Any) -> Any:
            inputs, *_ = keras.utils.unpack_x_y_sample_weight(iterator.element_spec)
            model(keras.tree.map_structure(lambda t: keras.KerasTensor(t.shape, t.dtype), inputs))
            self.begin_search(n_rounds)
            return model.train_function(iterator)

        model.train_function = build_then_step
