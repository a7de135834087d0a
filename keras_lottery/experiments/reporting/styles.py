"""How kinds and densities are named and drawn."""

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

from keras_lottery.drawing import COLOURS

LABELS = {
    "ticket": "ticket",
    "reinitialize": "random re-initialization",
    "random_mask": "random mask",
    "shuffle_mask": "shuffled mask",
    "noise": "noise on the initial weights",
    "one_shot": "one-shot pruning",
    "keep_signs": "random re-initialization, signs kept",
    "resample_survivors": "initial weights resampled",
    "prune_at_init_magnitude": "pruned by initial magnitude",
    "invert_scores": "smallest weights kept",
    "signed_constant": "signed constant",
    "random_signed_constant": "constant of random sign",
    "signed_reshuffle": "initial weights shuffled, signs kept",
    "freeze_init": "pruned weights frozen at their initial values",
    "freeze_increased": "pruned weights that grew frozen, others 0",
    "freeze_init_zero_all": "pruned weights that grew frozen, shrunk survivors start at 0",
    "freeze_reinit": "pruned weights frozen at new random values",
    "continued_training": "masks of continued training",
    "dense": "dense, another initialization",
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES = ("-", "-.", ":")


def label(kind: str) -> str:
    """A kind in words; options of a control follow its name.

    Example:

    >>> label("reinitialize"), label("noise:scale=0.5"), label("my_control")
    ('random re-initialization', 'noise on the initial weights, scale 0.5', 'my control')
    """
    name, *options = kind.split(":", 1)
    words = [LABELS.get(name, name.replace("_", " ").strip() or name)]
    words += [o.replace("_", " ").replace("=", " ") for o in ",".join(options).split(",") if o]
    return ", ".join(words)


def percent(fraction: float) -> str:
    """A density as percent, three digits.

    Example:

    >>> percent(1.0), percent(0.512), percent(0.035184), percent(0.00028)
    ('100', '51.2', '3.52', '0.028')
    """
    return f"{100 * fraction:.3g}"


def style(index: int) -> dict[str, Any]:
    """Colour, marker and line of the index-th line; the first 90 are all different."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[index // len(COLOURS) % len(LINES)],
    }


def of_kinds(kinds: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A style for each kind: the known ones always have the same, the others the free ones."""
    order = list(dict.fromkeys(kinds))
    known = list(LABELS)
    fixed = {kind: known.index(kind) for kind in order if kind in LABELS}
    free = (i for i in count(1) if i not in fixed.values())
    return {kind: style(fixed[kind] if kind in fixed else next(free)) for kind in order}


def ticks(fractions: Sequence[float], most: int = 8) -> list[float]:
    """At most `most` of the densities, the densest first, evenly apart on a log axis.

    Example:

    >>> ticks([1.0, 0.5, 0.49, 0.25, 0.01], most=4)
    [1.0, 0.25, 0.01]
    """
    present = sorted({f for f in fractions if f > 0}, reverse=True)
    if not present:
        return []
    gap = (present[0] / present[-1]) ** (1 / most)
    chosen = [present[0]]
    for fraction in present[1:]:
        if chosen[-1] / fraction >= gap and fraction / present[-1] >= gap:
            chosen.append(fraction)
    return list(dict.fromkeys([*chosen[: most - 1], present[-1]]))
