"""The folder of a run: what is written where, and reading it back."""

import json
import math
import os
from pathlib import Path
from typing import Any

from keras_lottery.files import write_atomic
from keras_lottery.tickets import Ticket

CONFIG, METRICS, REPORT, FIGURE = "config.json", "metrics.jsonl", "report.html", "accuracy.png"


class Store:
    """A run's folder: `config.json`, `metrics.jsonl`, two files a round, report.

    `ticket_<round>.safetensors` holds a round's masks and the weights it started from,
    `trained_<round>.safetensors` the same masks and the weights it ended with.

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

    def trained_path(self, round: int) -> Path:
        """Where the trained weights of a round lie, under its masks."""
        return self.folder / f"trained_{round:02d}.safetensors"

    def save_ticket(self, round: int, ticket: Ticket, trained: Ticket) -> None:
        """Writes one round's ticket, and what it trained to."""
        ticket.save(self.ticket_path(round))
        trained.save(self.trained_path(round))

    def add(self, record: dict[str, Any]) -> None:
        """Adds a finished training as one line."""
        with open(self.folder / METRICS, "a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """All finished trainings, in the order in which they finished.

        Raises:
            ValueError: If a line is damaged.
        """
        path = self.folder / METRICS
        found = []
        for n, line in enumerate(path.read_text().splitlines() if path.exists() else [], start=1):
            try:
                found.append(dict(json.loads(line)))
            except (ValueError, TypeError) as error:
                raise ValueError(f"Cannot read line {n} of {str(path)!r}: {error}") from error
        return found


def free_folder(parent: str, stem: str) -> Path:
    """The first of `parent/stem-1`, `parent/stem-2`, ... that does not exist."""
    n = 1
    while (Path(parent) / f"{stem}-{n}").exists():
        n += 1
    return Path(parent) / f"{stem}-{n}"


def newest_run(parent: str | os.PathLike[str]) -> Path:
    """The run under a folder whose config was written last.

    Raises:
        ValueError: If there is none.
    """
    runs = [path.parent for path in Path(parent).glob(f"*/{CONFIG}")]
    if not runs:
        raise ValueError(
            f"There is no run under {os.fspath(parent)!r}. Make one with `keras-lottery find`, or "
            "name a run's folder or a ticket."
        )
    return max(runs, key=lambda folder: (folder / CONFIG).stat().st_mtime_ns)


def sparsest_within(records: list[dict[str, Any]], tolerance: float) -> int:
    """The sparsest round whose validation accuracy is that of the dense one, but for a bit.

    Accuracies at the end of each training; test images choose nothing.

    Args:
        records: Of a run.
        tolerance: How much lower it may be, in [0, 1]: 0.01 is one point.

    Raises:
        ValueError: If the tolerance is out of range, or the run has no finished round, or no
            validation accuracy to compare with.

    Example:

    >>> rows = [(0, 1.0, 0.98), (1, 0.5, 0.97), (2, 0.25, 0.90)]
    >>> names = ("round", "density", "val_accuracy")
    >>> records = [{"kind": "ticket", **dict(zip(names, row))} for row in rows]
    >>> sparsest_within(records, 0.02)
    1
    """
    if not 0 <= tolerance <= 1:
        raise ValueError(f"`tolerance` must lie in [0, 1]. Received: {tolerance}")
    rows = [r for r in records if r["kind"] == "ticket"]
    if not rows:
        raise ValueError("The run has no finished round.")
    dense = max(rows, key=lambda r: float(r["density"]))
    least = _accuracy(dense) - tolerance - 1e-9  # 0.8 - 0.1 is a little more than 0.7
    good = [r for r in rows if _accuracy(r) >= least]
    if not good:
        raise ValueError("The dense round has no validation accuracy. Name a round: --round")
    return int(min(good, key=lambda r: (float(r["density"]), -_accuracy(r)))["round"])


def _accuracy(record: dict[str, Any]) -> float:
    value = record.get("val_accuracy")
    return math.nan if value is None else float(value)
