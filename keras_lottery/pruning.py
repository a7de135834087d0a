"""One-shot pruning, without training: after it, or at initialization."""

from typing import Any

import keras

from keras_lottery import criteria, enforcement, masks, scopes, weights
from keras_lottery.schedules import keep_density
from keras_lottery.search import check_finite


def prune(
    model: keras.Model,
    density: float,
    criterion: str | criteria.Criterion = "magnitude",
    scope: str | scopes.Scope = "global",
    filters: weights.Filters | None = None,
    x: Any = None,
    y: Any = None,
    seed: int = 0,
) -> enforcement.Enforcement:
    """Prunes a model to `density` at once and enforces the masks from then on.

    On a trained model this is one-shot pruning, on a fresh one pruning at
    initialization. Masks that the model already carries are kept and deepened.

    Args:
        model: A built Keras model; compiled, if the criterion needs a gradient.
        density: Float in (0, 1]: the fraction of the prunable weights left alive, in
            every group in which weights compete.
        criterion: A name in `kl.criteria` or a callable `State -> scores`.
        scope: `"global"`, `"layerwise"`, `"erk"`, `"nm"`, `"block"`, `"channels"` or a
            `kl.scopes` object.
        filters: Which weights to prune, as in `LotteryCallback`.
        x: A batch of inputs, for criteria that need data.
        y: Its targets.
        seed: Integer for criteria that draw.

    Returns:
        The handle of `kl.enforce`; its `masks` are the result.

    Raises:
        ValueError: For a density out of range, missing data, nothing to prune, or NaN or
            Inf in weights or scores. The model is then untouched.

    Source: SNIP, 1810.02340, for pruning at initialization.

    Example:

    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    >>> masks = prune(model, density=0.25).masks
    >>> [int(m.sum()) for m in masks.values()]
    [25]
    """
    if not 0 < density <= 1:
        raise ValueError(f"`density` must lie in (0, 1]. Received: {density}")
    data = None if x is None else (x, y)
    score = criteria.resolve(criterion, data)
    choose = scopes.resolve(scope)
    variables = weights.prunable(model, filters)
    carried = enforcement.enforced_masks(model) or {}
    shapes = {p: tuple(v.shape) for p, v in variables.items()}
    start = {p: carried.get(p, m) for p, m in masks.full(shapes).items()}
    values = weights.read(variables)
    check_finite(values, "weights")
    scores = score(criteria.State(values, values, start, model, data, seed))
    chosen = choose(scores, start, keep_density(density))
    return enforcement.enforce(model, {**carried, **chosen})
