"""The folder of a run: what is written where, and reading it back.

RUN/config.json                          settings, plan, facts, versions
RUN/replicate_0/rewind.safetensors       all state at the rewind point
RUN/replicate_0/ticket/round_03/         one training; its record is there when it is done
    ticket.safetensors                   masks and the weights it started from
    trained.safetensors                  masks and the weights it ended with
    record.json                          its numbers and curve
    checkpoint.safetensors               its state, while it is not done
RUN/replicate_0/reinitialize-0/round_03/ a control, with its seed
"""

import json
import math
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from keras_lottery.experiments.config import FORMAT
from keras_lottery.files import write_atomic
from keras_lottery.tickets import Ticket

CONFIG, RECORD, REPORT, LOCK = "config.json", "record.json", "report.html", ".lock"
TICKET = "ticket"
_LONGEST = 100  # of a control's name in a folder's; file systems take 255


@dataclass(frozen=True)
class Place:
    """The folder of one training.

    Attributes:
        folder: Where it lies.
    """

    folder: Path

    @property
    def ticket(self) -> Path:
        """Masks and the weights it started from."""
        return self.folder / "ticket.safetensors"

    @property
    def trained(self) -> Path:
        """The same masks and the weights it ended with."""
        return self.folder / "trained.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Its state on the way."""
        return self.folder / "checkpoint.safetensors"

    @property
    def done(self) -> bool:
        """Whether it has finished; nothing of it is written afterwards."""
        return (self.folder / RECORD).exists()

    def record(self) -> dict[str, Any]:
        """Its numbers.

        Raises:
            ValueError: If the file is damaged; it says what to do.
        """
        path = self.folder / RECORD
        try:
            return dict(json.loads(path.read_text()))
        except (ValueError, TypeError, OSError) as error:
            raise ValueError(
                f"Cannot read {str(path)!r}: {error}. Remove the folder {str(self.folder)!r} to "
                "train that round again."
            ) from error

    def begin(self) -> None:
        """Makes the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def finish(
        self, record: dict[str, Any], ticket: Ticket, trained: Ticket, keep_state: bool = False
    ) -> None:
        """Writes the results, the record last: with it the training is done."""
        ticket.save(self.ticket)
        trained.save(self.trained)
        write_json(self.folder / RECORD, record)
        if not keep_state:
            self.checkpoint.unlink(missing_ok=True)


class Store:
    """A run's folder.

    Args:
        folder: Where the run lives.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)

    def config(self) -> dict[str, Any]:
        """Settings, plan, facts and versions.

        Raises:
            ValueError: If the folder is no run, or one of another format.
        """
        path = self.folder / CONFIG
        try:
            config = dict(json.loads(path.read_text()))
        except FileNotFoundError:
            raise ValueError(f"{str(self.folder)!r} is not the folder of a run.") from None
        except (ValueError, TypeError, OSError) as error:
            raise ValueError(f"Cannot read {str(path)!r}: {error}") from error
        if config.get("format") != FORMAT:
            raise ValueError(
                f"{str(self.folder)!r} is a run of format {config.get('format')}, this package "
                f"reads {FORMAT}. Start it anew in another folder."
            )
        return config

    def save_config(self, config: dict[str, Any]) -> None:
        """Writes the config, atomically; makes the folder.

        Raises:
            ValueError: If the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / CONFIG, config)
        except OSError as error:
            raise ValueError(f"Cannot write to {str(self.folder)!r}: {error}") from error

    def replicate(self, index: int) -> Path:
        """The folder of a replicate."""
        return self.folder / f"replicate_{index}"

    def branch(self, replicate: int, kind: str = TICKET, seed: int = 0) -> Path:
        """The folder of a replicate's search, or of a control's branch."""
        name = TICKET if kind == TICKET else f"{_safe(kind)}-{seed}"
        return self.replicate(replicate) / name

    def place(self, replicate: int, round: int, kind: str = TICKET, seed: int = 0) -> Place:
        """The folder of one training."""
        return Place(self.branch(replicate, kind, seed) / f"round_{round:02d}")

    def records(self) -> list[dict[str, Any]]:
        """All finished trainings: tickets first, by replicate, kind, seed and round.

        Raises:
            ValueError: If a record is damaged.
        """
        found = self.folder.glob(f"replicate_*/*/round_*/{RECORD}")
        return sorted((Place(path.parent).record() for path in found), key=_order)

    def lock(self) -> filelock.BaseFileLock:
        """The lock of the run, taken; held until it is released or the process ends.

        Raises:
            ValueError: If another process holds it, or the folder cannot be written.
        """
        lock = filelock.FileLock(self.folder / LOCK, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise ValueError(
                f"Another process works on the run {str(self.folder)!r}. Wait until it has "
                "finished (see `keras-lottery status`), or stop it."
            ) from None
        except OSError as error:
            raise ValueError(f"Cannot write to {str(self.folder)!r}: {error}") from error
        return lock

    def locked(self) -> bool:
        """Whether a process works on the run now."""
        if not (self.folder / LOCK).exists():
            return False
        try:
            self.lock().release()
        except ValueError:
            return True
        return False


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, atomically; NaN becomes null."""
    text = json.dumps(_finite(content), indent=1)
    write_atomic(path, re.sub(r"\[[^\[\]{}]*\]", _one_line, text).encode() + b"\n")


def newest_run(parent: str | os.PathLike[str]) -> Path:
    """The run under a folder whose config was written last.

    Raises:
        ValueError: If there is none.
    """
    runs = all_runs(parent)
    if not runs:
        raise ValueError(
            f"There is no run under {os.fspath(parent)!r}. Make one with `keras-lottery find`, or "
            "name a run's folder or a ticket."
        )
    return max(runs, key=lambda folder: (folder / CONFIG).stat().st_mtime_ns)


def all_runs(parent: str | os.PathLike[str]) -> list[Path]:
    """The folders of all runs right under a folder, by name."""
    return sorted(path.parent for path in Path(parent).glob(f"*/{CONFIG}"))


def sparsest_within(records: list[dict[str, Any]], tolerance: float) -> int:
    """The sparsest round whose validation accuracy is that of the dense one, but for a bit.

    Accuracies at the end of each training; test images choose nothing.

    Args:
        records: Of one replicate of a run.
        tolerance: How much lower it may be, in [0, 1]: 0.01 is one point.

    Raises:
        ValueError: If the tolerance is out of range, or the run has no finished round, or no
            validation accuracy to compare with.

    Example:

    >>> rows = [(0, 1.0, 0.98), (1, 0.5, 0.97), (2, 0.25, 0.90)]
    >>> records = [
    ...     {"kind": "ticket", "round": r, "density": d, "end": {"val_accuracy": a}}
    ...     for r, d, a in rows
    ... ]
    >>> sparsest_within(records, 0.02)
    1
    """
    if not 0 <= tolerance <= 1:
        raise ValueError(f"`tolerance` must lie in [0, 1]. Received: {tolerance}")
    rows = [r for r in records if r["kind"] == TICKET]
    if not rows:
        raise ValueError("The run has no finished round.")
    dense = max(rows, key=lambda r: float(r["density"]))
    least = _accuracy(dense) - tolerance - 1e-9  # 0.8 - 0.1 is a little more than 0.7
    good = [r for r in rows if _accuracy(r) >= least]
    if not good:
        raise ValueError("The dense round has no validation accuracy. Name a round: --round")
    return int(min(good, key=lambda r: (float(r["density"]), -_accuracy(r)))["round"])


def _accuracy(record: dict[str, Any]) -> float:
    value = record["end"].get("val_accuracy")
    return math.nan if value is None else float(value)


def _safe(kind: str) -> str:
    """A control's name as a file name; what had to be replaced stays told apart."""
    name = re.sub(r"[^\w.=+-]", "_", kind.replace(":", "+"))[:_LONGEST]
    told_apart = name.replace("+", ":") == kind
    return name if told_apart else f"{name}-{zlib.crc32(kind.encode()):08x}"


def _order(record: dict[str, Any]) -> tuple[Any, ...]:
    kind = record["kind"]
    return kind != TICKET, kind, record["replicate"], record["branch_seed"], record["round"]


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _one_line(match: re.Match[str]) -> str:
    return re.sub(r"\s*\n\s*", " ", match[0])


def present(folder: Path) -> Iterator[Place]:
    """The trainings of a branch's folder, by round, done or not."""
    for path in sorted(folder.glob("round_*")):
        yield Place(path)
