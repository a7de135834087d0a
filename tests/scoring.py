"""What the tests of structured scopes share: scores by hand, and random ones."""

import numpy as np
from hypothesis import strategies as st

from keras_lottery.schedules import keep_density

ALL = keep_density(1.0)


def alive(scores):
    return {p: np.ones(np.shape(s), bool) for p, s in scores.items()}


def arrays(**scores):
    return {p: np.asarray(s, np.float64) for p, s in scores.items()}


def column(*values):
    return np.asarray(values, np.float64)[:, None]


def bits(mask):
    return mask.astype(int).ravel().tolist()


def one(scope, score, keep, mask=None):
    """The mask of a single path."""
    score = np.asarray(score, np.float64)
    return scope({"w": score}, {"w": np.ones(score.shape, bool) if mask is None else mask}, keep)[
        "w"
    ]


@st.composite
def states(draw):
    """Scores with many ties, masks, all of random shapes of rank 2 to 4."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    names = draw(st.permutations("abcd"))[: draw(st.integers(1, 3))]
    levels = draw(st.sampled_from([1, 2, 5, 10**6]))
    scores, masks = {}, {}
    for name in names:
        shape = tuple(rng.integers(1, 7, rng.integers(2, 5)))
        scores[name] = rng.integers(-levels, levels + 1, shape).astype(np.float32)
        masks[name] = rng.random(shape) < rng.choice([0.0, 0.5, 1.0])
    return scores, masks
