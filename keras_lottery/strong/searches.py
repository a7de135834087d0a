"""The searches: each takes a built model and gives a model whose `fit` finds a ticket."""

import keras

from keras_lottery import weights as keras_weights
from keras_lottery.strong.bernoulli import GemMiner, Supermask
from keras_lottery.strong.learning import StrongSearch
from keras_lottery.strong.rules import Biprop, EdgePopup, IteRand
from keras_lottery.strong.starting import start

Filters = keras_weights.Filters


def edge_popup(
    model: keras.Model,
    density: float = 0.5,
    weights: str = "signed_constant",
    scope: str = "layerwise",
    anneal: int | None = None,
    filters: Filters | None = None,
    seed: int = 0,
) -> StrongSearch:
    """Searches a strong ticket: the weights stay random, training learns which are alive.

    Each step computes with w * M, where M marks the k largest |s|, exactly
    `round(density * size)` of them in every step (ties by position). The scores s get
    dL/d|s| = dL/d(w M) * w, through |s| as in the authors' code. They start uniform within
    1 / sqrt(fan_in). The paper trains them by SGD, rate 0.1 with cosine decay, momentum 0.9,
    weight decay 1e-4.

    Args:
        model: A built Keras model: Sequential, functional, or subclassed with `get_config`.
            It is copied and left as it is. Layers without a selected weight stay.
        density: Float in (0, 1]: the fraction left alive, of each weight or of all.
        weights: What is searched in: `"signed_constant"` (+-sqrt(2 / fan_in)),
            `"kaiming_normal"`, `"kaiming_uniform"` (of the same variance), or `"keep"`: the
            model's own. Unless kept, biases are 0 and normalizations have no scale and
            shift, as in the paper. All of it is frozen; statistics still move.
        scope: `"layerwise"` or `"global"`: where scores compete.
        anneal: Training steps in which the density falls geometrically from 1 to
            `density`. Default: none.
        filters: Which weights get scores: a regex or a list of them, as in
            `LotteryCallback`. Others are frozen as the model has them.
        seed: Integer, for weights and scores.

    Returns:
        A `StrongSearch`, to be compiled and fitted; `ticket` reads the result.

    Raises:
        ValueError: For a density or a name out of range; if the model is not built, already
            carries masks, cannot be copied or holds nothing to select.

    Source: Ramanujan et al., 1911.13299.

    Example:

    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    >>> search = edge_popup(model, density=0.25)
    >>> [int(mask.sum()) for mask in search.learner.masks.values()]
    [25]
    """
    return start(model, EdgePopup(seed, density, scope, anneal), weights, filters)


def biprop(
    model: keras.Model,
    density: float = 0.5,
    weights: str = "kaiming_normal",
    scope: str = "layerwise",
    anneal: int | None = None,
    binary_activations: bool = False,
    filters: Filters | None = None,
    seed: int = 0,
) -> StrongSearch:
    """Searches a multi-prize ticket: as `edge_popup`, with binary weights.

    The layer computes with alpha * sign(w) * M, alpha the mean |w| of its alive weights;
    dL/d|s| = dL/d(effective) * w. The ticket holds the effective weights.

    Args:
        model: As in `edge_popup`.
        density: As in `edge_popup`.
        weights: As in `edge_popup`.
        scope: As in `edge_popup`.
        anneal: As in `edge_popup`.
        binary_activations: Whether `binary_activation` takes the place of each activation
            "relu" (MPT-1/1). The ticket then belongs to `search.network`.
        filters: As in `edge_popup`.
        seed: As in `edge_popup`.

    Returns:
        As in `edge_popup`.

    Raises:
        ValueError: As in `edge_popup`; or if there is no "relu" to replace.

    Source: Diffenderfer and Kailkhura, 2103.09377.

    Example:

    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    >>> (weight,) = biprop(model).learner.effective_weights.values()
    >>> len(set(abs(weight[weight != 0])))
    1
    """
    rule = Biprop(seed, density, scope, anneal)
    return start(model, rule, weights, filters, binary_activations)


def iterand(
    model: keras.Model,
    density: float = 0.5,
    weights: str = "kaiming_uniform",
    every: int = 300,
    probability: float = 0.1,
    filters: Filters | None = None,
    seed: int = 0,
) -> StrongSearch:
    """Searches a strong ticket while pruned weights are drawn anew now and then.

    As `edge_popup`, but scores compete by s rather than |s|, as in the authors' code, so that
    dL/ds = dL/d(w M) * w. Every
    `every` steps each pruned weight is drawn anew with the given probability, from the
    distribution it had. So here weights do change, though no gradient reaches them; those
    alive do not in that step. Draws depend on the seed and the step alone.

    Args:
        model: As in `edge_popup`.
        density: As in `edge_popup`, of each weight.
        weights: As in `edge_popup`, but not `"keep"`.
        every: Integer of at least 1: training steps between draws.
        probability: Float in [0, 1]: the chance of each pruned weight; 0 never draws.
        filters: As in `edge_popup`.
        seed: As in `edge_popup`.

    Returns:
        As in `edge_popup`.

    Raises:
        ValueError: As in `edge_popup`; or for a number out of range.

    Source: Chijiwa et al., 2106.09269.

    Example:

    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    >>> iterand(model, every=100).learner.rule.every
    100
    """
    rule = IteRand(seed, density, every=every, probability=probability, weights=weights)
    return start(model, rule, weights, filters)


def supermask(
    model: keras.Model,
    weights: str = "signed_constant",
    rescale: bool = True,
    test: str = "sample",
    filters: Filters | None = None,
    seed: int = 0,
) -> StrongSearch:
    """Searches a supermask: each weight is alive with a learned chance.

    Each step computes with w * M, M drawn from Bernoulli(sigmoid(m)); the logits m start
    at 0 and get dL/dm = dL/d(w M) * w * sigmoid'(m). The density follows from training. The
    paper trains m by SGD with a rate of 100 and momentum 0.9.

    Args:
        model: As in `edge_popup`.
        weights: As in `edge_popup`.
        rescale: Whether a layer's weights are multiplied by its size over its alive
            weights (dynamic weight rescaling).
        test: `"sample"`: outside of training M is drawn too, the same M until the next
            training step; or `"threshold"`: alive is what has a chance of at least 1/2.
        filters: As in `edge_popup`.
        seed: As in `edge_popup`; draws depend on it and the step alone.

    Returns:
        As in `edge_popup`; the ticket is the M of a test.

    Raises:
        ValueError: As in `edge_popup`.

    Source: Zhou et al., 1905.01067, section 5.

    Example:

    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    >>> search = supermask(model, test="threshold")
    >>> [bool(mask.all()) for mask in search.learner.masks.values()]
    [True]
    """
    return start(model, Supermask(seed, rescale, test), weights, filters)


def gem_miner(
    model: keras.Model,
    density: float = 0.05,
    steps: int = 1000,
    every: int = 100,
    penalty: float = 1e-4,
    weights: str = "signed_constant",
    filters: Filters | None = None,
    seed: int = 0,
) -> StrongSearch:
    """Searches a rare gem: a sparse ticket that is good before its weights are trained.

    Each step computes with w * round(p). The scores p in [0, 1] start uniform, get
    dL/dp = dL/d(w round(p)) * w and the gradient of `penalty * |p|^2`, and are projected onto
    [0, 1]. In every `every`-th step the lowest active scores of all layers together are
    frozen to 0, so that the active fraction falls as density^(t / steps). What is active but
    below 1/2 at the end is pruned too: the ticket's density is at most `density`. Fine-tune
    it as an ordinary ticket: `ticket(search).apply(model)`, compile, fit.

    Args:
        model: As in `edge_popup`.
        density: Float in (0, 1]: the fraction of all weights that is active in the end.
        steps: Integer of at least 1: training steps until then. Train that many.
        every: Integer from 1 to `steps`: training steps between freezings.
        penalty: Float of at least 0: the weight of the scores' L2 norm.
        weights: As in `edge_popup`.
        filters: As in `edge_popup`.
        seed: As in `edge_popup`.

    Returns:
        As in `edge_popup`.

    Raises:
        ValueError: As in `edge_popup`; or for a number out of range.

    Source: Sreenivasan et al., 2202.12002.

    Example:

    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    >>> gem_miner(model, density=0.02, steps=500).learner.rule.every
    100
    """
    return start(model, GemMiner(seed, density, steps, every, penalty), weights, filters)
