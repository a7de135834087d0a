"""The numbers of runs as text: CSV of the trainings, JSON of everything."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from keras_lottery.experiments.reporting.rows import Record, RunData, check
from keras_lottery.experiments.reporting.statistics import points
from keras_lottery.experiments.reporting.verdicts import verdicts

Format = Literal["csv", "json"]
FORMATS: tuple[Format, ...] = ("csv", "json")
_PLAIN = (
    "kind", "replicate", "branch_seed", "round", "density", "first_step", "steps", "seconds",
)  # fmt: skip
_EARLY = ("step", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
_END = (*_EARLY, "train_accuracy")


def numbers(runs: Sequence[RunData], format: Format = "csv") -> str:
    """The numbers of one or several runs.

    Args:
        runs: The runs, each with one record or more.
        format: `"csv"`: a header and one line for each training, without its curve and its
            layers; a number that is missing or not finite is empty. `"json"`: names,
            settings, records with curves, the points over replicates, and the verdicts;
            such a number is null.

    Returns:
        The text.

    Raises:
        ValueError: If there is no run, a run without a record, or another format.

    Example:

    >>> row = {"kind": "ticket", "round": 0, "density": 1.0, "early_stop": {"step": 10}}
    >>> lines = numbers([RunData("mine", {}, [row])]).splitlines()
    >>> lines[0][:36], lines[1]
    ('run,kind,replicate,branch_seed,round', 'mine,ticket,0,0,0,1.0,,,,10,,,,,,,,,,')
    """
    check_formats([format])
    check(runs)
    return _csv(runs) if format == "csv" else _json(runs)


def check_formats(formats: Sequence[str]) -> None:
    """Raises `ValueError` for a format that is not known."""
    if isinstance(formats, str) or any(f not in FORMATS for f in formats):
        raise ValueError(f"Expected formats out of {list(FORMATS)}. Received: {formats!r}")


def _csv(runs: Sequence[RunData]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns = [*_PLAIN, *(f"early_stop_{k}" for k in _EARLY), *(f"end_{k}" for k in _END)]
    writer.writerow(["run", *columns])
    for run in runs:
        writer.writerows([run.name, *clean(_line(record))] for record in run.records)
    return buffer.getvalue()


def _line(record: Record) -> list[Any]:
    full = {"replicate": 0, "branch_seed": 0, **record}
    early, end = record.get("early_stop") or {}, record.get("end") or {}
    cells = [full.get(k) for k in _PLAIN] + [early.get(k) for k in _EARLY]
    return cells + [end.get(k) for k in _END]


def _json(runs: Sequence[RunData]) -> str:
    content = [
        {
            "name": run.name,
            "config": run.config,
            "records": run.records,
            "points": [asdict(p) for p in points(run.records)],
            "verdicts": [asdict(v) for v in verdicts(run.records, run.n_test)],
        }
        for run in runs
    ]
    return json.dumps(clean({"runs": content}), indent=1, allow_nan=False, default=str) + "\n"


def clean(value: Any) -> Any:
    """The value with `None` for numbers that are not finite, all the way down.

    Example:

    >>> clean({"loss": [0.5, float("nan")]})
    {'loss': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
