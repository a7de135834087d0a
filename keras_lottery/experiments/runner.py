"""Runs one search with its controls into a folder."""

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lottery import controls, scopes, versions, weights
from keras_lottery.experiments import datasets, models, report
from keras_lottery.experiments.feeding import Evaluation, batches
from keras_lottery.experiments.live import Live
from keras_lottery.experiments.store import Store
from keras_lottery.loop import check_rewind_step, check_rounds, find_ticket, train_ticket
from keras_lottery.search import Search
from keras_lottery.settings import Settings, check_integer
from keras_lottery.tickets import Ticket

OPTIMIZERS: dict[str, Callable[[float], keras.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
    "momentum": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "rmsprop": keras.optimizers.RMSprop,
    "lion": keras.optimizers.Lion,
    "lamb": keras.optimizers.Lamb,
    "muon": keras.optimizers.Muon,
}
SCOPES = ("layerwise", "global", "erk", "nm", "block", "channels")


@dataclass(frozen=True)
class Config:
    """All settings of a run, as its `config.json` holds them.

    `epochs=None` stands for 25 on the digits and else for the paper's 50,000 steps;
    `output_fraction=None` for half of `prune_fraction`, as in the paper, if the scope is
    layerwise.
    """

    dataset: str = "digits"
    model: str = "lenet_300_100"
    rounds: int = 16
    epochs: int | None = None
    batch_size: int = 60
    optimizer: str = "adam"
    learning_rate: float = 1.2e-3
    prune_fraction: float = 0.2
    output_fraction: float | None = None
    scope: str = "layerwise"
    criterion: str = "magnitude"
    rewind: str = "weights"
    rewind_to: str = "0it"
    controls: tuple[str, ...] = field(default_factory=tuple)
    seed: int = 0


def run(config: Config, folder: str, live: Live) -> Store:
    """Finds tickets, trains their controls, writes everything and the report to `folder`.

    A round's ticket and numbers are on disk as soon as it has finished; Ctrl-C then still
    writes the report of what there is, and is raised again.

    Raises:
        ValueError: Before anything is trained or written, for settings that cannot work.
    """
    report.check_installed()
    job = _Job(config, live)
    config = job.config
    store = Store.create(folder, {**asdict(config), **job.facts(), "versions": versions.versions()})
    try:
        search = job.search(store)
        for name in dict.fromkeys(config.controls):
            for done in search.rounds[1:]:
                job.control(store, search, name, done.index)
    except KeyboardInterrupt:
        live.say("Interrupted; finished rounds are kept.")
        raise
    finally:
        if store.records():
            report.write(store)
    if not search.rounds:
        raise ValueError(f"No round finished: {search.stopped}")
    return store


class _Job:
    """The data, the model and the training function of one run."""

    def __init__(self, config: Config, live: Live):
        self.live = live
        _check(config)
        keras.utils.set_random_seed(config.seed)
        self.data = datasets.load(config.dataset, config.seed)
        self.batches = len(self.data.train[0]) // config.batch_size
        if self.batches < 1:
            raise ValueError(
                f"A batch of {config.batch_size} needs as many training images. "
                f"Received: {len(self.data.train[0])}."
            )
        self.config = config = _complete(config, self.batches)
        self.epochs = config.epochs or 1
        self._tensors = tuple(tf.constant(a) for a in self.data.train)
        self.rewind_steps = parse_steps(config.rewind_to, self.batches)
        self.model = models.build(config.model, self.data.input_shape, self.data.classes)
        self.model.compile(
            make_optimizer(config.optimizer, config.learning_rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=True,
            steps_per_execution=steps_per_execution(self.batches, self.rewind_steps),
        )
        self.evaluate = Evaluation(self.model, self.data)
        self.options = self._options()
        settings = Settings(**self.options)
        check_rounds(settings, config.rounds)
        check_rewind_step(settings, self.model, self.batches, self.epochs)
        weights.prunable(self.model)

    def _options(self) -> dict[str, Any]:
        """The arguments of the search."""
        x, y = self.data.train
        return {
            "prune_fraction": self.config.prune_fraction,
            "rewind": self.config.rewind,
            "rewind_steps": self.rewind_steps,
            "scope": make_scope(self.config),
            "criterion": self.config.criterion,
            "data": (x[: self.config.batch_size], y[: self.config.batch_size]),
            "seed": self.config.seed,
        }

    def about_model(self) -> dict[str, Any]:
        """How the model is built, for who has its ticket alone."""
        shape = list(self.data.input_shape)
        return {"name": self.config.model, "input_shape": shape, "classes": self.data.classes}

    def facts(self) -> dict[str, Any]:
        sizes = [len(part[0]) for part in (self.data.train, self.data.validation, self.data.test)]
        return {
            "sizes": dict(zip(("train", "validation", "test"), sizes, strict=True)),
            "steps_per_epoch": self.batches,
            "rewind_steps": self.rewind_steps,
            "parameters": self.model.count_params(),
            "built": self.about_model(),
            "device": ", ".join(d.device_type for d in tf.config.list_logical_devices()),
        }

    def search(self, store: Store) -> Search:
        config = self.config

        def on_round(search: Search) -> None:
            done = search.rounds[-1]
            ticket = search.ticket(done.index)
            about = {**ticket.metadata, "model": self.about_model()}
            trained = Ticket.of(self.model, search.masks, {**about, "weights": "trained"})
            store.save_ticket(done.index, replace(ticket, metadata=about), trained)
            self._record(store, "ticket", done.index, done.density, done.seconds)

        self.live.start("search", config.rounds * self.epochs)
        search = find_ticket(
            self.model,
            self._train_with(("ticket",)),
            rounds=config.rounds,
            verbose=0,
            on_round=on_round,
            **self.options,
        )
        if search.stopped and "interrupted" in search.stopped:
            raise KeyboardInterrupt
        if search.stopped:
            self.live.say(search.stopped)
        return search

    def control(self, store: Store, search: Search, name: str, round: int) -> None:
        ticket = Ticket.load(store.ticket_path(round))
        seed = self.config.seed + 1
        if name == "reinitialize":
            other = controls.reinitialize(ticket, self.model, seed)
        else:
            other = controls.NAMED[name](ticket, seed, dense=Ticket.load(store.ticket_path(0)))
        if round == 1:
            self.live.start(name, (len(search.rounds) - 1) * self.epochs)
        train_ticket(search, other, self._train_with((name, round)))
        self._record(store, name, round, other.density, self.live.lap())

    def _train_with(self, key: tuple[Any, ...]) -> Callable[..., Any]:
        calls = iter(range(self.config.rounds + 1))

        def train(model: keras.Model, callbacks: list[keras.callbacks.Callback]) -> Any:
            seed = _seed(self.config.seed, *key, next(calls))
            watch = [self.evaluate, *callbacks, self.live.callback()]
            data = batches(self._tensors, self.config.batch_size, seed)
            return model.fit(data, epochs=self.epochs, shuffle=False, verbose=0, callbacks=watch)

        return train

    def _record(self, store: Store, kind: str, round: int, density: float, seconds: float) -> None:
        curve = self.evaluate.curve
        losses = np.array([e["val_loss"] for e in curve])
        best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
        record = {
            "kind": kind,
            "round": round,
            "density": density,
            "seed": self.config.seed,
            "early_stop_epoch": best + 1,
            "early_stop_test_accuracy": curve[best]["test_accuracy"],
            "test_accuracy": curve[-1]["test_accuracy"],
            "val_accuracy": curve[-1]["val_accuracy"],
            "seconds": round_(seconds),
            "curve": {key: [round_(e[key]) for e in curve] for key in curve[0]},
        }
        store.add(record)
        self.live.row(record)


def parse_steps(text: str, steps_per_epoch: int) -> int:
    """Optimizer steps from `"500it"` or `"2ep"`.

    Raises:
        ValueError: If the text is neither.

    Example:

    >>> parse_steps("500it", 20), parse_steps("2ep", 20)
    (500, 40)
    """
    match = re.fullmatch(r"(\d+)(it|ep)", text)
    if not match:
        raise ValueError(f"Expected steps as `500it` or epochs as `2ep`. Received: {text!r}")
    return int(match[1]) * (steps_per_epoch if match[2] == "ep" else 1)


def steps_per_execution(batches: int, rewind_steps: int, most: int = 100) -> int:
    """The largest number of steps up to `most` that pauses at epoch ends and the rewind point.

    Example:

    >>> steps_per_execution(917, 0), steps_per_execution(20, 10), steps_per_execution(20, 7)
    (7, 10, 1)
    """
    common = math.gcd(batches, rewind_steps)
    return max(n for n in range(1, most + 1) if common % n == 0)


def make_optimizer(name: str, learning_rate: float) -> keras.Optimizer:
    """A Keras optimizer by its lower-case name; `momentum` is SGD with momentum 0.9."""
    if name not in OPTIMIZERS:
        raise ValueError(f"`optimizer` must be one of {list(OPTIMIZERS)}. Received: {name!r}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"`learning_rate` must be above 0 and finite. Received: {learning_rate}")
    return OPTIMIZERS[name](learning_rate)


def make_scope(config: Config) -> scopes.Scope:
    """The scope of a config, with the output layer's own fraction if it is layer-wise."""
    if config.scope == "layerwise":
        return scopes.Layerwise(output_fraction=config.output_fraction)
    return scopes.resolve(config.scope)


def _check(config: Config) -> None:
    for name in ("rounds", "epochs", "batch_size"):
        if getattr(config, name) is not None:
            check_integer(name, getattr(config, name), least=1)
    unknown = [c for c in config.controls if c not in controls.NAMED]
    if unknown:
        raise ValueError(f"Unknown controls {unknown}. Expected: {sorted(controls.NAMED)}")
    if config.output_fraction is not None and config.scope != "layerwise":
        raise ValueError(
            f"`output_fraction` goes with the scope layerwise. Received: {config.scope!r}"
        )


def _complete(config: Config, steps_per_epoch: int) -> Config:
    """The config with its open defaults filled in."""
    epochs, output = config.epochs, config.output_fraction
    if epochs is None:
        epochs = 25 if config.dataset == "digits" else math.ceil(50_000 / steps_per_epoch)
    if output is None and config.scope == "layerwise":
        output = config.prune_fraction / 2
    return replace(config, epochs=epochs, output_fraction=output)


def _seed(*key: Any) -> int:
    numbers = [k if isinstance(k, int) else int.from_bytes(k.encode()[:8]) for k in key]
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] % 2**31)


def round_(value: float) -> float | None:
    """Six digits are enough for a log; JSON has no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
