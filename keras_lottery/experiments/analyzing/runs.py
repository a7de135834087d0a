"""A finished run as the analyses read it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from keras_lottery import enforcement
from keras_lottery.experiments.branching import control
from keras_lottery.experiments.config import from_dict, parse_steps
from keras_lottery.experiments.searching import Replicate
from keras_lottery.experiments.store import TICKET, Store
from keras_lottery.experiments.training import Trainer
from keras_lottery.experiments.watching import Silent, Watch
from keras_lottery.experiments.work import Job
from keras_lottery.masks import Array, Masks
from keras_lottery.settings import check_integer
from keras_lottery.tickets import Ticket

DENSITY = 0.107  # of the LeNet that the papers measure
Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run's folder, opened; data and model come when they are asked for.

    Args:
        folder: The run's.
        data_dir: Where tensorflow-datasets keeps its data.

    Raises:
        ValueError: If the folder is no run, or the data is no longer what it was.
    """

    folder: Path
    data_dir: str | None = None

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.folder.resolve().name

    @cached_property
    def config(self) -> dict[str, Any]:
        """Settings, facts and versions."""
        return Store(self.folder).config()

    @cached_property
    def records(self) -> dict[int, dict[int, Record]]:
        """The search's records by replicate and round.

        Raises:
            ValueError: If the folder is no run, or nothing of it has finished.
        """
        Store(self.folder).config()
        found: dict[int, dict[int, Record]] = {}
        for record in Store(self.folder).records():
            if record["kind"] == TICKET:
                found.setdefault(record["replicate"], {})[record["round"]] = record
        if not found:
            raise ValueError(f"No training of {str(self.folder)!r} has finished yet.")
        return found

    @cached_property
    def trainer(self) -> Trainer:
        """Data, model and compiled step."""
        job = Job(str(self.folder), from_dict(self.config["settings"]), self.data_dir)
        made, there = job.trainer(), self.config["facts"]["data"]
        if made.data.fingerprint != there:
            raise ValueError(
                f"{str(self.folder)!r} was made with other data of the name "
                f"{made.config.dataset!r}: its fingerprint is {there}, now it is "
                f"{made.data.fingerprint}."
            )
        return made

    def replicate(self, index: int, watch: Watch | None = None, seconds: float = 30.0) -> Replicate:
        """One replicate's files and trainings; `seconds` lie between two checkpoints."""
        return Replicate(self.trainer, Store(self.folder), index, watch or Silent(), seconds)

    def replicates(self, most: int | None = None) -> list[int]:
        """The first replicates. Default: all."""
        found = sorted(self.records)
        if most is not None and most > len(found):
            raise ValueError(
                f"{str(self.folder)!r} has {len(found)} replicates. Received: `replicates` {most}"
            )
        return found[:most]

    def one(self, index: int) -> list[int]:
        """A list of one replicate, checked."""
        if index not in self.records:
            raise ValueError(
                f"{str(self.folder)!r} has the replicates {self.replicates()}. Received: "
                f"`replicate` {index}"
            )
        return [index]

    def rounds(self, wanted: Sequence[int], replicates: Sequence[int]) -> list[int]:
        """The wanted rounds, checked. Default: the one nearest to 10.7 % density.

        Raises:
            ValueError: If a round of a replicate has not finished.
        """
        first = self.records[replicates[0]]
        nearest = min(first, key=lambda r: abs(float(first[r]["density"]) - DENSITY))
        chosen = list(dict.fromkeys(wanted)) or [nearest]
        for r in replicates:
            missing = sorted(set(chosen) - set(self.records[r]))
            if missing:
                raise ValueError(
                    f"`rounds` must be finished rounds: replicate {r} of {str(self.folder)!r} has "
                    f"{sorted(self.records[r])}. Received: {missing}"
                )
        return chosen

    def steps(self, wanted: Sequence[str]) -> list[int]:
        """Optimizer steps of texts as `500it`, `2ep`. Default: the rewind point.

        Raises:
            ValueError: If a text is none, or a training ends before the step.
        """
        lengths = self.trainer.lengths
        found = [parse_steps(text, lengths.epoch) for text in wanted] or [lengths.rewind]
        late = [step for step in found if step >= lengths.total]
        if late:
            raise ValueError(
                f"`steps` must lie before the end of a training, step {lengths.total} of "
                f"{str(self.folder)!r}. Received: {late}"
            )
        return sorted(set(found))

    def masks(self, replicate: int, kind: str, round: int) -> Masks:
        """The masks of a round's ticket, of a control of it, or of the `"dense"` network."""
        if kind == "dense":
            return self.trainer.full_masks
        found = self.replicate(replicate)
        if kind == TICKET:
            return found.ticket(round).masks
        made = control(found, kind, {}, round, 0)
        return made.masks if isinstance(made, Ticket) else made.ticket.masks

    def trained(self, replicate: int, round: int) -> dict[str, Array]:
        """Weights and statistics at the end of a round."""
        return self.replicate(replicate).trained(round).weights

    def parts(self, train_images: int) -> dict[str, Any]:
        """Images and labels to measure on: so many of the training part, and all test images."""
        check_integer("train_images", train_images, least=1)
        x, y = self.trainer.data.train
        return {"train": (x[:train_images], y[:train_images]), "test": self.trainer.data.test}

    def images(self, train_images: int) -> str:
        """A sentence that says on how many images is measured."""
        own, n = self.trainer.data, len(self.trainer.data.train[0])
        used = f"all {n:,}" if train_images >= n else f"the first {train_images:,} of {n:,}"
        tested = f"all {len(own.test[0]):,} test images"
        return f"{self.name}: measured on {used} training images and {tested}."

    def release(self) -> None:
        """Lets the model's weights be anything: no mask is in force."""
        enforcement.enforce(self.trainer.model, self.trainer.full_masks)
