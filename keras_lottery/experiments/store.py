"""The folder of a run: what is written where, and reading it back."""

import json
import os
from pathlib import Path
from typing import Any

from keras_lottery.files import write_atomic
from keras_lottery.tickets import Ticket

CONFIG, METRICS, REPORT, FIGURE = "config.json", "metrics.jsonl", "report.html", "accuracy.png"


class Store:
    """A run's folder: `config.json`, `metrics.jsonl`, `ticket_<round>.safetensors`, report.

    Args:
        folder: Where the run lives.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)

    @classmethod
    def create(cls, folder: str | os.PathLike[str], config: dict[str, Any]) -> "Store":
        """A new run with its config; nothing of another run is touched.

        Raises:
            ValueError: If the folder already holds a run, or cannot be written.
        """
        store = cls(folder)
        if (store.folder / CONFIG).exists() or (store.folder / METRICS).exists():
            raise ValueError(
                f"{str(store.folder)!r} already holds a run. Choose another folder (--workdir), or "
                "remove it."
            )
        try:
            store.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(store.folder / CONFIG, json.dumps(config, indent=2).encode() + b"\n")
        except OSError as error:
            raise ValueError(f"Cannot write to {str(store.folder)!r}: {error}") from error
        return store

    def config(self) -> dict[str, Any]:
        """The run's settings."""
        return dict(json.loads((self.folder / CONFIG).read_text()))

    def ticket_path(self, round: int) -> Path:
        """Where the ticket of a round lies."""
        return self.folder / f"ticket_{round:02d}.safetensors"

    def save_ticket(self, round: int, ticket: Ticket) -> None:
        """Writes one round's ticket."""
        ticket.save(self.ticket_path(round))

    def add(self, record: dict[str, Any]) -> None:
        """Adds a finished training as one line."""
        with open(self.folder / METRICS, "a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """All finished trainings, in the order in which they finished."""
        path = self.folder / METRICS
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def free_folder(parent: str, stem: str) -> Path:
    """The first of `parent/stem-1`, `parent/stem-2`, ... that does not exist."""
    n = 1
    while (Path(parent) / f"{stem}-{n}").exists():
        n += 1
    return Path(parent) / f"{stem}-{n}"
