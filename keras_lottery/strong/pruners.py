"""What is tried on planted tickets: a pruner finds masks for a mother, given data."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from numpy.typing import NDArray

from keras_lottery import criteria
from keras_lottery.loop import find_ticket
from keras_lottery.masks import Masks
from keras_lottery.pruning import prune
from keras_lottery.scopes import Global
from keras_lottery.strong.learning import StrongSearch, ticket
from keras_lottery.strong.searches import edge_popup

Data = tuple[NDArray[Any], NDArray[Any]]
Pruner = Callable[[keras.Model, float, Data], Masks]
REFERENCES = ("planted", "dense")


def one_shot(criterion: str | criteria.Criterion, **options: Any) -> Pruner:
    """A pruner that calls `kl.prune` once, on the untrained mother.

    All layers compete, and a layer may be emptied, as in the paper. A criterion that draws is
    seeded by Python's `random`, which `seek` seeds.

    Args:
        criterion: A name in `kl.criteria` or a callable `State -> scores`.
        **options: Of `kl.prune`: `scope`, `filters`.

    Example:

    >>> from keras_lottery.strong.planting import plant
    >>> from keras_lottery.strong.problems import relu
    >>> model, data = plant(relu(), depth=2, width=10).model, relu().data(20)
    >>> sum(int(m.sum()) for m in one_shot("magnitude")(model, 0.2, data).values())
    4
    """
    settings = {"scope": Global(min_layer_density=0.0), **options}

    def pruner(model: keras.Model, density: float, data: Data) -> Masks:
        seed = random.randrange(2**31)
        return prune(model, density, criterion, x=data[0], y=data[1], seed=seed, **settings).masks

    return pruner


def iterative(rounds: int = 10, epochs: int = 10, batch_size: int = 32, **settings: Any) -> Pruner:
    """A pruner that calls `kl.find_ticket`: train, prune, rewind, `rounds` times.

    Round r leaves the density rho^(r / rounds), rho being the density asked for.

    Args:
        rounds: Integer, at least 1: how often is pruned.
        epochs: Epochs of each round.
        batch_size: Samples of a step.
        **settings: Of `kl.find_ticket`. Default: magnitude over all layers, of which one may
            be emptied; weights rewound to the mother's.

    Source: Fischer & Burkholz, 2111.11153, "multishot".

    Example:

    >>> callable(iterative(rounds=2))
    True
    """
    if rounds < 1:
        raise ValueError(f"`rounds` must be at least 1. Received: {rounds}")
    chosen = {"scope": Global(min_layer_density=0.0), **settings}

    def pruner(model: keras.Model, density: float, data: Data) -> Masks:
        def train(model: keras.Model, callbacks: list[keras.callbacks.Callback]) -> Any:
            return model.fit(
                *data, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=callbacks
            )

        steps = [density ** (r / rounds) for r in range(rounds + 1)]
        search = find_ticket(model, train, rounds + 1, 0, prune_fraction=steps, **chosen)
        return dict(search.masks)

    return pruner


def searched(
    find: Callable[..., StrongSearch] = edge_popup,
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    **options: Any,
) -> Pruner:
    """A pruner that trains scores over the mother's own weights, which stay as they are.

    Args:
        find: `kl.strong.edge_popup` or another search that is asked for a density.
        epochs: Epochs in which the scores are trained.
        batch_size: Samples of a step.
        learning_rate: Adam's.
        **options: Of `find`, `scope` or `anneal`, say.

    Source: Ramanujan et al., 1911.13299, for edge-popup.

    Example:

    >>> from keras_lottery.strong.planting import plant
    >>> from keras_lottery.strong.problems import relu
    >>> from keras_lottery.strong.seeking import compiled
    >>> model, data = compiled(plant(relu(), depth=2, width=10).model, relu()), relu().data(20)
    >>> sum(int(m.sum()) for m in searched(epochs=1)(model, 0.2, data).values())
    4
    """

    def pruner(model: keras.Model, density: float, data: Data) -> Masks:
        search = find(model, density, weights="keep", seed=random.randrange(2**31), **options)
        search.compile(keras.optimizers.Adam(learning_rate), model.loss, steps_per_execution=10)
        search.fit(*data, batch_size=batch_size, epochs=epochs, verbose=0)
        return dict(ticket(search).masks)

    return pruner


def by_name(pruners: Sequence[str] | Mapping[str, Pruner]) -> dict[str, Pruner]:
    """Name to pruner; names alone are criteria.

    Raises:
        ValueError: If a name is unknown or taken, or a pruner is not callable.

    Example:

    >>> list(by_name(["snip"]))
    ['snip']
    """
    if isinstance(pruners, str):
        pruners = [pruners]
    if isinstance(pruners, Mapping):
        bad = [n for n, pruner in pruners.items() if not callable(pruner) or n in REFERENCES]
        if bad:
            raise ValueError(
                "A pruner is a callable (model, density, (x, y)) -> masks, under a name other than "
                f"{REFERENCES}. Received: { {n: pruners[n] for n in bad} }"
            )
        return dict(pruners)
    unknown = [name for name in pruners if name not in criteria.NAMED]
    if unknown:
        raise ValueError(
            f"`pruners` must be names of {sorted(criteria.NAMED)} or a dict of name to callable. "
            f"Received: {unknown}"
        )
    return {name: one_shot(name) for name in pruners}
