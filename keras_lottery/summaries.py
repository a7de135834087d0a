"""Sparsity in TensorBoard while a model trains under masks."""

import importlib.util
import os
import warnings
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_lottery import enforcement, weights
from keras_lottery import masks as mask_ops
from keras_lottery.rewinding import steps_done
from keras_lottery.settings import check_integer

Logs = dict[str, Any]


class PruningSummaries(keras.callbacks.Callback):
    """Shows in TensorBoard how sparse each masked weight is.

    For each weight under a mask, by its path (in tfmot by the wrapper's name):

    - `<path>/mask:0/sparsity`: the pruned fraction;
    - `<path>/threshold:0/threshold`: the smallest magnitude among its alive weights, now.
      tfmot shows what this was when it last pruned.

    And for the model `density`, and `round` where the epoch's logs have it. They are drawn
    over optimizer steps; steps that a lottery trains again after rewinding count again.
    Works with any masks of this package: `LotteryCallback` and `GradualPruning` (put this
    one behind them in the list), `kl.prune`, `kl.enforce`, tickets. The end of an epoch shows
    the weights that it trained.

    Args:
        log_dir: The folder to give to `tensorboard --logdir`; files lie in its `metrics`.
        update_freq: `"epoch"`: at each epoch's end; `"batch"`: after each batch, too; an
            integer n: after each n-th step, too. Default: `"epoch"`.

    Raises:
        ValueError: For arguments out of range.
        ImportError: If TensorBoard, which `tf.summary` needs, is not installed.

    Source: tfmot's `PruningSummaries`.

    Example:

    >>> import os, tempfile
    >>> import keras_lottery as kl
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> _ = kl.prune(model, density=0.5)
    >>> folder = tempfile.mkdtemp()
    >>> x, y = np.random.rand(8, 4), np.random.rand(8, 2)
    >>> _ = model.fit(x, y, verbose=0, callbacks=[PruningSummaries(folder)])
    >>> os.listdir(folder)
    ['metrics']
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        update_freq: Literal["epoch", "batch"] | int = "epoch",
    ):
        super().__init__()
        if not isinstance(log_dir, (str, os.PathLike)) or not os.fspath(log_dir):
            raise ValueError(f"`log_dir` must be the path of a folder. Received: {log_dir!r}")
        if isinstance(update_freq, str) and update_freq not in ("epoch", "batch"):
            raise ValueError(
                '`update_freq` must be "epoch", "batch" or a number of steps. Received: '
                f"{update_freq!r}"
            )
        if not isinstance(update_freq, str):
            check_integer("update_freq", update_freq, least=1)
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError("TensorBoard is missing: pip install 'keras-lottery[tensorboard]'")
        self.log_dir = os.path.join(os.fspath(log_dir), "metrics")
        self.update_freq = update_freq
        self._forget()

    def _forget(self) -> None:
        self._writer: Any = None
        self._step = self._before = 0
        self._shown: int | None = None
        self._wrote = False

    def set_model(self, model: Any) -> None:
        """Called by `fit`: the first to meet a model of the wrong Keras."""
        weights.check_keras_3(model)
        super().set_model(model)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._forget()
        self._writer = tf.summary.create_file_writer(self.log_dir)
        self._step = steps_done(self.model)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._before = steps_done(self.model)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._step += steps_done(self.model) - self._before
        if self.update_freq == "epoch":
            return
        each = 1 if self.update_freq == "batch" else int(self.update_freq)
        if self._shown is None or self._step // each > self._shown // each:
            self._write({})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._write({"round": (logs or {})["round"]} if "round" in (logs or {}) else {})

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
        if not self._wrote:
            warnings.warn(
                f"No summaries were written to {self.log_dir!r}: the model {self.model.name!r} "
                "trained without masks. Prune it with `kl.prune`, `kl.enforce` or a callback.",
                stacklevel=2,
            )
        self._writer = None

    def _write(self, more: dict[str, float]) -> None:
        values = _measure(self.model)
        if values and self._writer is not None:
            self._wrote, self._shown = True, self._step
            with self._writer.as_default(step=self._step):
                for tag, value in {**values, **more}.items():
                    tf.summary.scalar(tag, value)
            self._writer.flush()


def _measure(model: keras.Model) -> dict[str, float]:
    """Tag to value; nothing without masks."""
    masks = enforcement.enforced_masks(model)
    if not masks:
        return {}
    variables = weights.all_weights(model)
    values = {"density": mask_ops.density(masks)}
    for path, density in mask_ops.layer_density(masks).items():
        alive = np.abs(variables[path].numpy().astype(np.float64))[masks[path]]
        values[f"{path}/mask:0/sparsity"] = 1 - density
        values[f"{path}/threshold:0/threshold"] = float(alive.min()) if alive.size else 0.0
    return values
