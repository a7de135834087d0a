"""One network at a rewind point, and the copies of it that train on from there."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lottery import enforcement, weights
from keras_lottery import masks as mask_ops
from keras_lottery.analysis.comparing import DENSE, Case
from keras_lottery.analysis.watching import Watch
from keras_lottery.masks import Array, Masks, Path
from keras_lottery.rewinding import Snapshot, steps_done

Build = Callable[[int], keras.Model]
Train = Callable[[keras.Model, int, int | None, int], Any]


class Copies:
    """One replicate at its rewind point; called with a case, the weights of that copy trained.

    Attributes:
        model: Trains every copy.
        masks: Dict of kind to masks, at the present rewind point.
    """

    def __init__(self, build: Build, train: Train, replicate: int, seed: int, watch: Watch):
        self.model = _built(build, seed)
        self.masks: dict[str, Masks] = {}
        self._train, self._watch = train, watch
        self._replicate, self._seed = replicate, seed
        self._state = Snapshot.take(self.model)
        self._held: dict[Case, dict[Path, Array]] = {}
        self._end: int | None = None

    def cases(self, orders: int) -> list[Case]:
        """All copies from this rewind point, the dense ones first."""
        step = self._state.step
        return [Case(k, step, self._replicate, u) for k in self.masks for u in range(orders)]

    def masks_of(self, case: Case) -> Masks:
        """The masks that a copy trains under."""
        return self.masks[case.kind]

    def go_to(self, step: int) -> None:
        """Moves the rewind point on to `step`, by dense training."""
        self._held = {}
        if step > self._state.step:
            self._restore(self.masks[DENSE])
            self._watch.say(f"replicate {self._replicate}, dense, up to step {step}")
            self._train(self.model, self._state.step, step, self._seed)
            self._check_reached(step)
            self._state = Snapshot.take(self.model, step)

    def __call__(self, case: Case) -> dict[Path, Array]:
        if case not in self._held:
            self._held = {c: v for c, v in self._held.items() if c.kind in (DENSE, case.kind)}
            self._held[case] = self._trained(case)
        return self._held[case]

    def _trained(self, case: Case) -> dict[Path, Array]:
        name = f"{case.kind} from step {case.step}, replicate {case.replicate}, order {case.order}"
        self._restore(self.masks[case.kind])
        self._watch.begin(name)
        self._train(self.model, case.step, None, _order_seed(self._seed, case.order))
        self._check_end(case.step)
        values = weights.read(weights.all_weights(self.model))
        bad = weights.not_finite(values)
        if bad:
            raise ValueError(f"Training ended with NaN or Inf in {bad[0]!r}: {name}.")
        return values

    def _restore(self, masks: Masks) -> None:
        enforcement.enforce(self.model, masks)
        self._state.restore(self.model, masks)

    def _check_reached(self, step: int) -> None:
        done = steps_done(self.model)
        if done != step:
            raise ValueError(
                f"`train(model, {self._state.step}, {step}, seed)` must end when the optimizer has "
                f"done {step} steps, and must not compile anew. Received: {done} steps."
            )

    def _check_end(self, step: int) -> None:
        done = steps_done(self.model)
        self._end = self._end or done
        if done <= step or done != self._end:
            raise ValueError(
                f"`train(model, {step}, None, seed)` must train from step {step} to the end, which "
                "is the same step for every copy and later than every rewind point. Received: "
                f"{done} steps; the first copy ended with {self._end}."
            )


def _order_seed(seed: int, order: int) -> int:
    """Differs from the seed of the training before the rewind point, and from all others."""
    return int(np.random.SeedSequence([seed, order + 1]).generate_state(1)[0]) >> 1


def _built(build: Build, seed: int) -> keras.Model:
    """A fresh model with a built optimizer, so that its state at step 0 can be copied."""
    model = build(seed)
    if not isinstance(model, keras.Model) or not model.compiled or model.optimizer is None:
        raise ValueError(
            "`build(seed)` must return a compiled Keras model, whose optimizer goes back to the "
            f"rewind point with it. Received: {type(model).__name__}"
        )
    weights.prunable(model)
    if steps_done(model) or enforcement.enforced_masks(model) is not None:
        raise ValueError(
            "`build(seed)` must return a fresh model without masks. Received: "
            f"{steps_done(model)} optimizer steps done, density "
            f"{mask_ops.density(enforcement.enforced_masks(model) or full_masks(model)):.2%}. Pass "
            "the masks as `masks`."
        )
    if not model.optimizer.built:
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
    return model


def full_masks(model: keras.Model) -> Masks:
    """Everything prunable is alive."""
    return mask_ops.full({p: tuple(v.shape) for p, v in weights.prunable(model).items()})
