"""One task of a plan, done in this process."""

import functools
from dataclasses import dataclass
from typing import Any

from keras_lottery.experiments.branching import run_branch, transferred
from keras_lottery.experiments.config import Config
from keras_lottery.experiments.plan import Task
from keras_lottery.experiments.searching import Replicate
from keras_lottery.experiments.store import TICKET, Store
from keras_lottery.experiments.training import Trainer
from keras_lottery.experiments.watching import Watch
from keras_lottery.search import SearchStoppedError


@dataclass(frozen=True)
class Job:
    """What all tasks of a run share.

    Attributes:
        folder: The run's.
        config: All settings.
        data_dir: Where tensorflow-datasets keeps its data.
        checkpoint_seconds: The least time between two checkpoints.
    """

    folder: str
    config: Config
    data_dir: str | None = None
    checkpoint_seconds: float = 30.0

    def trainer(self) -> Trainer:
        """The trainer of the config, made once a process."""
        return _trainer(self.config, self.data_dir)

    def do(self, task: Task, watch: Watch) -> None:
        """Trains what is missing of a task."""
        store, trainer = Store(self.folder), self.trainer()
        places = [store.place(task.replicate, r, task.kind, task.seed) for r in task.rounds]
        missing = sum(not place.done for place in places)
        if not missing:
            return
        other = transferred(self.config, task.kind, self.data_dir) if task.kind != TICKET else None
        lengths = (other or trainer).lengths
        first = 0 if other else lengths.rewind
        steps = missing * (lengths.total - first) + (first if not places[0].done else 0)
        watch.begin(task.title, steps)
        replicate = Replicate(trainer, store, task.replicate, watch, self.checkpoint_seconds)
        try:
            if task.kind == TICKET:
                replicate.search(len(task.rounds))
            else:
                run_branch(replicate, task, self.data_dir)
        except SearchStoppedError as error:
            watch.say(f"The {task.title} stopped: {error}. Earlier rounds were kept.")

    def facts(self) -> dict[str, Any]:
        """What the data and the model turn out to be, for the run's config."""
        trainer = self.trainer()
        data, lengths = trainer.data, trainer.lengths
        parts = {"train": data.train, "validation": data.validation, "test": data.test}
        return {
            "data": data.fingerprint,
            "sizes": {name: len(part[0]) for name, part in parts.items()},
            "parameters": trainer.model.count_params(),
            "prunable": sum(m.size for m in trainer.full_masks.values()),
            "steps_per_epoch": lengths.epoch,
            "total_steps": lengths.total,
            "rewind_step": lengths.rewind,
            "device": device(),
        }


def device() -> str:
    """The devices that TensorFlow sees, as it names their kinds."""
    import tensorflow as tf

    return ", ".join(d.device_type for d in tf.config.list_logical_devices())


@functools.lru_cache(maxsize=1)
def _trainer(config: Config, data_dir: str | None) -> Trainer:
    return Trainer(config, data_dir)
