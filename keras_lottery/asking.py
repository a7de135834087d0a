"""What schedules answer: a density, or tfmot's `(should_prune, sparsity)`. NumPy only."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def is_turn(answer: Any) -> bool:
    """Whether an answer is `(should_prune, sparsity)`, as tfmot's schedules give.

    Example:

    >>> is_turn((True, 0.5)), is_turn(0.5)
    (True, False)
    """
    return isinstance(answer, (tuple, list)) and len(answer) == 2


def as_density(answer: Any, when: str) -> float:
    """The answer as a number; `when` is what was asked for, such as `"at step 3"`.

    Raises:
        ValueError: If it is none.

    Example:

    >>> as_density(np.float32(0.5), "at step 3")
    0.5
    """
    try:
        return float(answer)
    except (TypeError, ValueError):
        raise ValueError(
            "A schedule must answer with a density, or with `(should_prune, sparsity)` as tfmot's "
            f"do. Received: {answer!r} {when}"
        ) from None


def as_sparsity(answer: Any, step: int) -> Any:
    """The answer as a NumPy float of its own precision.

    Raises:
        ValueError: If it does not lie in [0, 1).

    Example:

    >>> float(as_sparsity(0.5, step=3))
    0.5
    """
    try:
        value = np.asarray(answer, None if hasattr(answer, "dtype") else np.float64)[()]
        fits = bool(0 <= value < 1)
    except (TypeError, ValueError):
        value, fits = answer, False
    if not fits:
        raise ValueError(f"A sparsity must lie in [0, 1). Received: {value} at step {step}")
    return value


def ask(schedule: Callable[[Any], Any], step: int) -> tuple[bool, Any]:
    """What a tfmot schedule answers for a step: whether it prunes, and the sparsity.

    Raises:
        ValueError: If the answer is no pair, or the sparsity does not lie in [0, 1).

    Example:

    >>> prunes, sparsity = ask(lambda step: (step > 2, 0.5), 3)
    >>> prunes, float(sparsity)
    (True, 0.5)
    """
    answer = schedule(np.int64(step))
    if not is_turn(answer):
        raise ValueError(
            "A tfmot PruningSchedule must answer a step with `(should_prune, sparsity)`. Received: "
            f"{answer!r} at step {step} from {schedule!r}"
        )
    return bool(answer[0]), as_sparsity(answer[1], step)


def ask_all(
    schedule: Callable[[Any], Any], steps: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[Any]] | None:
    """The answers for many steps in one call; `None` if the schedule takes no array.

    tfmot's own schedules compute with arrays as with numbers. Whether to prune must be
    answered step by step; a sparsity may be one for all. It is not checked: steps that are
    never reached may answer anything.

    Example:

    >>> prunes, sparsity = ask_all(lambda step: (step > 2, 0.5), np.arange(1, 5))
    >>> prunes.tolist(), sparsity.tolist()
    ([False, False, True, True], [0.5, 0.5, 0.5, 0.5])
    >>> ask_all(lambda step: (bool(np.any(step > 2)), 0.5), np.arange(1, 5))
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            prunes, sparsity = schedule(steps)
            if np.shape(prunes) != steps.shape:
                return None
            return np.asarray(prunes).astype(bool), np.broadcast_to(sparsity, steps.shape)
    except Exception:  # whatever a schedule made for one number says to an array
        return None
