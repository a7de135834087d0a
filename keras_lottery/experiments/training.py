"""One training, from a state to its last step: the same bits however often interrupted."""

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_lottery import enforcement, weights
from keras_lottery import masks as mask_ops
from keras_lottery.experiments import setup
from keras_lottery.experiments.batches import batches
from keras_lottery.experiments.checkpoints import Curve, Progress
from keras_lottery.experiments.config import Config
from keras_lottery.experiments.measuring import Measure
from keras_lottery.rewinding import Snapshot
from keras_lottery.schedules import keep_density

Pause = Callable[[int, Curve, Callable[[], Progress]], None]


def _no_pause(step: int, curve: Curve, progress: Callable[[], Progress]) -> None:
    """Goes on at once."""


class Trainer:
    """Data, model and compiled step of a config; all its trainings go through one.

    Args:
        config: All settings.
        data_dir: Where tensorflow-datasets keeps its data.

    Raises:
        ValueError: For settings that cannot work, before anything is trained.
    """

    def __init__(self, config: Config, data_dir: str | None = None):
        self.config = config.complete()
        self.data = setup.load_data(self.config, data_dir)
        self.lengths = setup.lengths(self.config, self.data)
        self.model = setup.build_model(self.config, self.data, self.config.seed)
        setup.make_compiled(self.config, self.model, self.lengths)
        self.settings = setup.make_settings(self.config, self.model, self.data, self.lengths)
        self._check_scope()
        enforcement.enforce(self.model, self.full_masks)
        jit = setup.use_jit(self.model)
        parts = {"val": self.data.validation, "test": self.data.test}
        accelerated = any(d.device_type != "CPU" for d in tf.config.list_logical_devices())
        self._measures = {n: Measure(self.model, part, accelerated) for n, part in parts.items()}
        self._part = tuple(tf.constant(a) for a in self.data.train)
        self._on_train = Measure(self.model, self._part, accelerated)
        self._run = _compiled(self.model, jit)
        self._fresh = [v.numpy() for v in self.model.optimizer.variables]

    @property
    def full_masks(self) -> mask_ops.Masks:
        """Masks that prune nothing."""
        prunable = weights.prunable(self.model)
        return mask_ops.full({p: tuple(v.shape) for p, v in prunable.items()})

    def initial(self, seed: int) -> Snapshot:
        """A new initialization and a fresh optimizer, at step 0."""
        model = setup.build_model(self.config, self.data, seed)
        drawn = weights.read(weights.all_variables(model)).values()
        return Snapshot(
            0, dict(zip(weights.all_variables(self.model), drawn, strict=True)), self._fresh
        )

    def put(self, snapshot: Snapshot, masks: mask_ops.Masks | None = None) -> None:
        """Writes a state into model and optimizer, under masks; default: those in force."""
        if masks is not None:
            enforcement.enforce(self.model, masks)
        snapshot.restore(self.model, masks)

    def train(
        self,
        start: Progress,
        seed: int,
        until: int,
        on_rewind_point: Callable[[Snapshot], None] | None = None,
        on_pause: Pause = _no_pause,
    ) -> Progress:
        """Trains the model, which holds the state `start`, to the step `until`.

        Args:
            start: Where the training stands.
            seed: Of the order of the data and of augmentation.
            until: Optimizer step, counted as in `start`.
            on_rewind_point: Is given the state at the config's rewind point, if that lies
                ahead; `None` if nobody needs it.
            on_pause: Is given, after each evaluation, the step, the curve so far, and a
                function that copies the whole state.

        Returns:
            The progress at the end.
        """
        curve = {name: list(values) for name, values in start.curve.items()}
        augment = None if self.config.augment == "none" else self.config.augment
        step, began = start.snapshot.step, time.monotonic()
        stream = batches(self._part, self.config.batch_size, seed, start=step, augment=augment)

        def progress() -> Progress:
            seconds = start.seconds + time.monotonic() - began
            return Progress(Snapshot.take(self.model, step), curve, seconds)

        self.model.reset_metrics()
        iterator, rewind = iter(stream), self.lengths.rewind if on_rewind_point else 0
        for stop in _pauses(step, until, self.lengths.evaluate, rewind):
            self._run(iterator, tf.constant(stop - step))
            step = stop
            if on_rewind_point is not None and step == rewind:
                on_rewind_point(Snapshot.take(self.model, step))
            if step % self.lengths.evaluate == 0 or step == until:
                self._evaluate(curve, step)
                on_pause(step, curve, progress)
        return progress()

    def train_accuracy(self) -> float:
        """Accuracy of the model as it is on the whole training part."""
        return self._on_train()[1]

    def _evaluate(self, curve: Curve, step: int) -> None:
        loss = float(self.model.get_metrics_result()["loss"])
        self.model.reset_metrics()
        found: dict[str, Any] = {"step": step, "loss": loss}
        for name, measure in self._measures.items():
            found[f"{name}_loss"], found[f"{name}_accuracy"] = measure()
        for name, value in found.items():
            curve.setdefault(name, []).append(value)

    def _check_scope(self) -> None:
        """A scope that fits no path fails here, on scores of zero."""
        masks = self.full_masks
        zeros = {p: m * 0.0 for p, m in masks.items()}
        self.settings.scope(zeros, masks, keep_density(1.0))  # type: ignore[operator]


def _compiled(model: keras.Model, jit: bool) -> Callable[[Any, tf.Tensor], None]:
    """A function `(iterator, n)` that trains n steps in one graph."""
    one = tf.function(model.train_step, jit_compile=jit, reduce_retracing=True)

    @tf.function(reduce_retracing=True)
    def run(iterator: Any, n: tf.Tensor) -> None:
        for _ in tf.range(n):
            one(next(iterator))

    return run  # type: ignore[no-any-return]


def _pauses(step: int, until: int, every: int, rewind: int) -> list[int]:
    """Where a training from `step` pauses: at evaluations, the rewind point, the end."""
    marks = set(range(step - step % every + every, until, every)) | {rewind, until}
    return sorted(m for m in marks if step < m <= until)


def early_stop(curve: Curve) -> int:
    """Index of the lowest finite validation loss; the last one without any."""
    found = enumerate(curve["val_loss"])
    losses = [(v, i) for i, v in found if v is not None and math.isfinite(v)]
    return min(losses)[1] if losses else len(curve["val_loss"]) - 1


def at(curve: Curve, index: int) -> dict[str, Any]:
    """All numbers of a curve at one evaluation."""
    return {name: values[index] for name, values in curve.items()}
