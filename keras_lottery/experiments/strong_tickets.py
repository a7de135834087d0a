"""Strong tickets on a data set: searched by scores over several seeds, or constructed."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lottery import controls, strong, versions, weights
from keras_lottery import masks as mask_ops
from keras_lottery.experiments import datasets, models
from keras_lottery.experiments.batches import batches, steps_per_epoch
from keras_lottery.experiments.config import parse_steps
from keras_lottery.experiments.measuring import Measure
from keras_lottery.experiments.optimizers import WarmupThenDrops, make_optimizer
from keras_lottery.experiments.store import write_json
from keras_lottery.settings import check_integer
from keras_lottery.tickets import Ticket

# What each search is compiled with, as its paper trains scores: optimizer, rate.
SEARCHES: dict[str, tuple[Callable[..., strong.StrongSearch], str, float]] = {
    "edge_popup": (strong.edge_popup, "momentum", 0.1),
    "iterand": (strong.iterand, "momentum", 0.1),
    "biprop": (strong.biprop, "momentum", 0.1),
    "supermask": (strong.supermask, "momentum", 100.0),
    "gem_miner": (strong.gem_miner, "momentum", 0.1),
}
METHODS = (*SEARCHES, "subset_sum")


@dataclass(frozen=True)
class StrongConfig:
    """What is searched, and how.

    `learning_rate=None` stands for the method's own, `density` is not asked by `supermask`
    and `subset_sum`, whose densities follow.
    """

    method: str = "edge_popup"
    dataset: str = "digits"
    model: str = "lenet_300_100"
    density: float = 0.5
    steps: str = "20ep"
    batch_size: int = 128
    learning_rate: float | None = None
    fine_tune: bool = False
    candidates: int = 21
    tolerance: float = 0.01
    structure: str = "relu"
    seeds: int = 3

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"`method` must be one of {list(METHODS)}. Received: {self.method!r}")
        if self.structure not in ("relu", "linear"):
            raise ValueError(f"`structure` must be relu or linear. Received: {self.structure!r}")
        for name in ("batch_size", "seeds", "candidates"):
            check_integer(name, getattr(self, name), least=1)
        if not 0 < self.density <= 1:
            raise ValueError(f"`density` must lie in (0, 1]. Received: {self.density}")
        if not self.tolerance > 0:
            raise ValueError(f"`tolerance` must be above 0. Received: {self.tolerance}")
        parse_steps(self.steps, 1)


def run(
    config: StrongConfig,
    folder: Path,
    say: Callable[[dict[str, Any]], None],
    data_dir: str | None = None,
    step: Callable[[int], None] = lambda steps: None,
    total: Callable[[int], None] = lambda steps: None,
) -> list[dict[str, Any]]:
    """Searches or constructs a strong ticket for each seed and measures it on the test images.

    Args:
        config: What is searched.
        folder: New; gets `results.json` and a ticket for each seed.
        say: Is given each seed's results as soon as they are there.
        data_dir: Where tensorflow-datasets keeps its data.
        step: Is told of optimizer steps as they are done.
        total: Is told, before, how many they will be.

    Returns:
        A dict for each seed: test accuracies in [0, 1], density, steps.

    Raises:
        ValueError: Before training, for settings that cannot work or a folder that is there.
    """
    if folder.exists():
        raise ValueError(f"{str(folder)!r} exists already. Choose another folder: --workdir")
    data = datasets.load(config.dataset, data_dir=data_dir)
    steps = parse_steps(config.steps, steps_per_epoch(data.train, config.batch_size))
    if steps < 1:
        raise ValueError(f"`steps` must be at least one step. Received: {config.steps!r}")
    constructed = config.method == "subset_sum"
    total(config.seeds * steps * (2 if config.fine_tune and not constructed else 1))
    one_seed = _construct if constructed else _search
    results = []
    for found, tickets in (one_seed(config, data, steps, s, step) for s in range(config.seeds)):
        folder.mkdir(parents=True, exist_ok=True)
        for name, ticket in tickets.items():
            ticket.save(folder / f"{name}_{found['seed']}.safetensors")
        results.append(found)
        about = {"config": asdict(config), "versions": versions.versions(), "results": results}
        write_json(folder / "results.json", about)
        say(found)
    return results


Found = tuple[dict[str, Any], dict[str, Ticket]]
Step = Callable[[int], None]


def _search(config: StrongConfig, data: datasets.Data, steps: int, seed: int, step: Step) -> Found:
    """Scores are trained, weights stay; the same network whole and under a random mask beside."""
    model = _model(config, data, seed)
    make, optimizer, rate = SEARCHES[config.method]
    options: dict[str, Any] = {} if config.method == "supermask" else {"density": config.density}
    if config.method == "gem_miner":
        options |= {"steps": steps, "every": max(1, steps // 10)}
    search = make(model, seed=seed, **options)
    before = _all_weights(search)
    rate = config.learning_rate or rate
    _fit(search, data, config.batch_size, steps, make_optimizer(optimizer, _cosine(rate, steps)),
         seed, step)  # fmt: skip
    ticket = strong.ticket(search, {"model": _about(config, data)})
    measure = Measure(model, data.test, jit=False)

    def accuracy(ticket: Ticket) -> float:
        ticket.apply(model)
        return measure()[1]

    dense = Ticket(_full(ticket), before)
    found = {
        "seed": seed,
        "density": ticket.density,
        "steps": steps,
        "whole": accuracy(dense),
        "random_mask": accuracy(controls.random_mask(ticket, seed, dense)),
        "strong": accuracy(ticket),
        "unchanged": all(
            np.array_equal(value, before[path]) for path, value in _all_weights(search).items()
        ),
    }
    tickets = {"strong": ticket}
    if config.fine_tune:
        ticket.apply(model)
        _fit(model, data, config.batch_size, steps,
             make_optimizer("momentum", _cosine(0.01, steps)), seed, step)  # fmt: skip
        tuned = Ticket.of(model, ticket.masks, {**ticket.metadata, "weights": "trained"})
        found["fine_tuned"] = accuracy(tuned)
        tickets["fine_tuned"] = tuned
    return found, tickets


def _construct(
    config: StrongConfig, data: datasets.Data, steps: int, seed: int, step: Step
) -> Found:
    """A network is trained, then another, random one is pruned until it computes the same."""
    model = _model(config, data, seed)
    rate = config.learning_rate or 1.2e-3
    _fit(model, data, config.batch_size, steps, make_optimizer("adam", rate), seed, step)
    made = strong.approximate(
        model,
        candidates=config.candidates,
        tolerance=config.tolerance,
        structure=config.structure,  # type: ignore[arg-type]
        seed=seed,
        widen=True,
    )
    found = {
        "seed": seed,
        "density": made.ticket.density,
        "steps": steps,
        "target": Measure(model, data.test, jit=False)()[1],
        "strong": Measure(made.model, data.test, jit=False)()[1],
        "kept": float(np.mean(list(made.kept.values()))),
        "largest_error": max(float(e.max()) for e in made.errors.values()),
    }
    return found, {"strong": made.ticket}


def _model(config: StrongConfig, data: datasets.Data, seed: int) -> keras.Model:
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    return models.build(config.model, data.input_shape, data.classes)


def _about(config: StrongConfig, data: datasets.Data) -> dict[str, Any]:
    shape = list(data.input_shape)
    return {"name": config.model, "input_shape": shape, "classes": data.classes}


def _cosine(rate: float, steps: int) -> WarmupThenDrops:
    return WarmupThenDrops(rate, cosine_until=steps)


def _fit(
    model: keras.Model,
    data: datasets.Data,
    batch_size: int,
    steps: int,
    optimizer: keras.Optimizer,
    seed: int,
    step: Step,
) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    told = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: step(1))
    stream = batches(data.train, batch_size, seed)
    model.fit(stream, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[told])


def _all_weights(search: strong.StrongSearch) -> dict[str, Any]:
    return weights.read(weights.all_weights(search.network))


def _full(ticket: Ticket) -> mask_ops.Masks:
    return mask_ops.full({p: m.shape for p, m in ticket.masks.items()})
