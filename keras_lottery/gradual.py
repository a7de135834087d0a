"""Gradual pruning inside one training: masks that follow a schedule in steps."""

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lottery import criteria, enforcement, scopes, weights
from keras_lottery import masks as mask_ops
from keras_lottery.asking import as_density, as_sparsity, ask, ask_all, is_turn
from keras_lottery.fitting import is_searched
from keras_lottery.masks import Array, Masks, Path
from keras_lottery.rewinding import steps_done
from keras_lottery.schedules import Keep, KeepSparsity, keep_density
from keras_lottery.search import check_finite

Logs = dict[str, Any]
_AHEAD = 1024


class _Densities:
    """A callable `step -> density`, asked where training pauses."""

    def __init__(self, function: Callable[[int], Any]):
        self._function = function

    def last(self, first: int, last: int) -> tuple[int, Keep] | None:
        answer = self._function(last)
        density = as_density(answer, f"at step {last} from {self._function!r}")
        if not 0 < density <= 1:
            raise ValueError(
                f"A schedule's density must lie in (0, 1]. Received: {density} at step {last}"
            )
        return last, keep_density(density)


class _Turns:
    """A tfmot schedule: the last step within some at which it prunes.

    It is asked for many steps at once where it can answer that, since one answer of a
    schedule that computes with tensors may take as long as a small step of training.
    """

    def __init__(self, schedule: Callable[[Any], Any]):
        self._schedule = schedule
        self._known: dict[int, Any] = {}
        self._asked = range(0)

    def last(self, first: int, last: int) -> tuple[int, Keep] | None:
        if first not in self._asked or last not in self._asked:
            self._ask(first, last)
        due = [step for step in range(last, first - 1, -1) if step in self._known][:1]
        return (due[0], KeepSparsity(as_sparsity(self._known[due[0]], due[0]))) if due else None

    def _ask(self, first: int, last: int) -> None:
        self._asked = range(first, max(last, first + _AHEAD) + 1)
        answers = ask_all(self._schedule, np.arange(first, self._asked.stop))
        if answers is None:
            self._asked = range(first, last + 1)
            each = {step: ask(self._schedule, step) for step in self._asked}
            self._known = {step: sparsity for step, (prunes, sparsity) in each.items() if prunes}
        else:
            turns = np.flatnonzero(answers[0])
            self._known = {first + int(i): answers[1][i] for i in turns}


def _resolve(schedule: Any) -> _Densities | _Turns:
    """Tells the two kinds by what they answer, which is checked at step 1."""
    if not callable(schedule):
        raise ValueError(
            "`schedule` must be a callable `step -> density` or a tfmot PruningSchedule, `step -> "
            f"(should_prune, sparsity)`. Received: {schedule!r}"
        )
    if is_turn(schedule(np.int64(1))):
        ask(schedule, 1)
        return _Turns(schedule)
    found = _Densities(schedule)
    found.last(1, 1)
    return found


class GradualPruning(keras.callbacks.Callback):
    """Prunes in one `model.fit`, step by step after a schedule.

    After each optimizer step the schedule is asked with the number of steps done
    (`optimizer.iterations`, so first with 1); when it asks for less than before, the lowest
    scores go. Masks change between steps and nothing is traced again. Where training
    pauses more rarely (`steps_per_execution`), pruning that is due in between comes at the
    next pause, and a warning says so.

    Masks are nested as everywhere in this package: what is pruned stays pruned. In tfmot
    pruned weights may come back at the next update. A schedule that asks for more weights
    than before changes nothing, with a warning. The count is exact and, for a schedule of
    tfmot, the one that tfmot takes. Weights compete over all layers by default, as in
    `LotteryCallback`; tfmot prunes each layer alike: `scope="layerwise"`.

    The epoch's logs gain `density`. Masks stay after the fit, and a further fit goes on
    from them, until `kl.strip(model)`. It is not for one fit with `LotteryCallback`. A schedule
    that cannot go on while it trains (a density out of range) ends the fit with a warning, and
    so does one that pruned nothing.

    Args:
        schedule: A tfmot `PruningSchedule` or any callable `step -> (should_prune,
            sparsity)`, sparsity in [0, 1); or a callable `step -> density` in (0, 1], such
            as a Keras `LearningRateSchedule` of densities.
        criterion: A name in `kl.criteria` or a callable `State -> scores`; the initial
            weights of its `State` are those that the fit began with.
        scope: As in `LotteryCallback`. Default: `"global"`.
        filters: Which weights to prune, as in `LotteryCallback`.
        data: A batch `(x, y)` for criteria that need one.
        seed: Integer for criteria that draw.

    Attributes:
        masks: Dict of path to bool array, the masks so far; empty before the fit.
        prunings: List of `(step, density)`, one for each time that something was pruned.

    Raises:
        ValueError: At construction or before the first step, for anything that cannot work.

    Source: Zhu & Gupta, 1710.01878.

    Example:

    >>> import numpy as np
    >>> x, y = np.random.rand(64, 4), np.random.randint(0, 2, 64)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> gradual = GradualPruning(lambda step: 0.5 if step < 6 else 0.25)
    >>> history = model.fit(x, y, 16, epochs=2, verbose=0, callbacks=[gradual])
    >>> gradual.prunings, history.history["density"]
    ([(1, 0.5), (6, 0.25)], [0.5, 0.25])
    """

    def __init__(
        self,
        schedule: Callable[[Any], Any],
        criterion: str | criteria.Criterion = "magnitude",
        scope: str | scopes.Scope = "global",
        filters: weights.Filters | None = None,
        data: tuple[Any, Any] | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.schedule = schedule
        self._turns = _resolve(schedule)
        self._criterion = criteria.resolve(criterion, data)
        self._scope = scopes.resolve(scope)
        self._filters, self._data, self._seed = filters, data, seed
        self._forget()

    def _forget(self) -> None:
        self.masks: Masks = {}
        self.prunings: list[tuple[int, float]] = []
        self._handle: enforcement.Enforcement | None = None
        self._variables: weights.Variables = {}
        self._initial: dict[Path, Array] = {}
        self._step = 0
        self._least: tuple[int, ...] = ()
        self._told: set[str] = set()
        self._stopped = False

    @property
    def density(self) -> float:
        """Alive over all prunable weights, in [0, 1]."""
        return mask_ops.density(self.masks) if self.masks else 1.0

    # Keras events ---------------------------------------------------------------------

    def set_model(self, model: Any) -> None:
        """Called by `fit`: the first to meet a model of the wrong Keras."""
        weights.check_keras_3(model)
        super().set_model(model)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if is_searched(self.model):
            raise ValueError(
                "`GradualPruning` and `LotteryCallback` are in the callbacks of one fit, where "
                "each would write its own masks. Leave one out. To let a schedule drive the "
                "rounds: `LotteryCallback(prune_fraction=schedule)`."
            )

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._forget()
        if self.model.built:
            self._begin()
        else:
            self._begin_when_built()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        first, self._step = self._step + 1, steps_done(self.model)
        try:
            due = self._turns.last(first, self._step) if self._step >= first else None
        except ValueError as error:
            self._stop(error)
            return
        if due is not None:
            if due[0] != self._step:
                self._tell(
                    "pauses",
                    f"The schedule prunes at step {due[0]}, where training does not pause "
                    f"(`steps_per_execution={self.model.steps_per_execution}`): pruned at the "
                    f"next pause, step {self._step}, and so on.",
                )
            self._reach(due[1])

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["density"] = self.density

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._handle is not None:
            self._handle.remask()
            if self.density == 1 and not self._stopped:
                self._tell(
                    "nothing",
                    f"The schedule pruned nothing in the steps to {self._step} that were trained. "
                    "Choose one that asks for less within them; in tfmot's that is `begin_step`, "
                    "and `frequency` from there.",
                )
        self._initial = {}

    # Pruning --------------------------------------------------------------------------

    def _begin(self) -> None:
        model = self.model
        self._variables = weights.prunable(model, self._filters)
        shapes = {p: tuple(v.shape) for p, v in self._variables.items()}
        carried = enforcement.enforced_masks(model) or {}
        self.masks = {p: carried.get(p, mask) for p, mask in mask_ops.full(shapes).items()}
        zeros = {p: np.broadcast_to(np.float32(0), shape) for p, shape in shapes.items()}
        self._scope(zeros, self.masks, keep_density(1.0))  # an unfit scope fails before training
        together = {**carried, **self.masks}
        in_order = [p for p in weights.all_weights(model) if p in together]
        self._handle = enforcement.enforce(model, {p: together[p] for p in in_order})
        self._initial = weights.read(self._variables)
        self._step = steps_done(model)
        model.make_train_function()

    def _begin_when_built(self) -> None:
        """Keras builds such a model in its first step: build it just before, from the data."""
        model = self.model

        def build_then_step(iterator: Any) -> Any:
            inputs, *_ = keras.utils.unpack_x_y_sample_weight(iterator.element_spec)
            model(keras.tree.map_structure(lambda t: keras.KerasTensor(t.shape, t.dtype), inputs))
            self._begin()
            return model.train_function(iterator)

        model.train_function = build_then_step

    def _reach(self, keep: Keep) -> None:
        """Prunes to what the schedule asks for, if that is less than it asked for before.

        Of all weights or of those of one layer: scopes count differently.
        """
        sizes = [mask.size for mask in self.masks.values()]
        total = sum(sizes)
        asked = tuple(keep(n, n) for n in (total, *sizes))
        if self._least and asked > self._least:
            self._tell(
                "grows",
                "A schedule must not grow: what is pruned stays pruned. Received density "
                f"{asked[0] / total:.4g} at step {self._step} after {self._least[0] / total:.4g}; "
                "the masks stay.",
            )
        elif asked != self._least:
            self._least = asked
            try:
                self._prune(keep)
            except ValueError as error:
                self._stop(error)

    def _prune(self, keep: Keep) -> None:
        values = weights.read(self._variables)
        check_finite(values, "weights")
        seed = (self._seed, len(self.prunings) + 1)
        state = criteria.State(values, self._initial, self.masks, self.model, self._data, seed)
        masks = dict(self._scope(self._criterion(state), self.masks, keep))
        if any(np.any(mask != masks[p]) for p, mask in self.masks.items()):
            self.masks = masks
            if self._handle is not None:
                self._handle.update({**self._handle.masks, **masks})
            self.prunings.append((self._step, self.density))

    def _stop(self, error: ValueError) -> None:
        self._stopped = True
        warnings.warn(
            f"{str(error).rstrip('.')}. Training stops at step {self._step} and the masks stay.",
            RuntimeWarning,
            stacklevel=2,
        )
        self.model.stop_training = True

    def _tell(self, kind: str, text: str) -> None:
        """Once a fit for each kind of message."""
        if kind not in self._told:
            self._told.add(kind)
            warnings.warn(text, stacklevel=2)
