"""What a report reads: runs and their records, one record for each finished training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_lottery.experiments.analyzing.findings import Finding

Record = dict[str, Any]
TICKET = "ticket"


@dataclass(frozen=True)
class RunData:
    """The finished trainings of one run.

    Attributes:
        name: What the run is called in figures and tables.
        config: Its settings, with `facts` (`sizes` of `train`, `validation` and `test`,
            `parameters`, `device`, ...) and `versions` (package to version).
        records: One dict for each finished training, in any order: `kind` (`"ticket"` or a
            control), `replicate`, `branch_seed`, `round`, `density` in [0, 1],
            `layer_density` (path to density), `first_step`, `steps`, `seconds`,
            `early_stop`, `end` and `curve`. Numbers may be `None` or NaN.
        findings: What analyses of the run found.
    """

    name: str
    config: dict[str, Any]
    records: list[Record]
    findings: Sequence[Finding] = ()

    @property
    def n_test(self) -> int | None:
        """The number of test images, if the settings tell it."""
        found = self.config.get("facts", {}).get("sizes", {}).get("test")
        return None if found is None else int(found)


def check(runs: Sequence[RunData]) -> None:
    """Raises `ValueError` unless there are runs and each has a finished round."""
    if not runs:
        raise ValueError("A report needs one run or more. Received: none")
    empty = [run.name for run in runs if not run.records]
    if empty:
        raise ValueError(
            "A report needs one finished round or more of each run. Received: no finished round "
            f"of {', '.join(map(repr, empty))}. Wait for the first round, or leave the run out."
        )
    twice = {run.name for run in runs if sum(run.name == other.name for other in runs) > 1}
    if twice:
        raise ValueError(f"Every run needs its own name. Received twice: {sorted(twice)}")


def number(record: Record, *keys: str) -> float:
    """The number at `record[keys[0]][keys[1]]...`, NaN where there is none.

    Example:

    >>> number({"end": {"test_accuracy": 0.5}}, "end", "test_accuracy"), number({}, "seconds")
    (0.5, nan)
    """
    found: Any = record
    for key in keys:
        found = (found or {}).get(key)
    return math.nan if found is None else float(found)


def by_kind(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records of each kind; the ticket's first, the others in the order of the records.

    Example:

    >>> list(by_kind([{"kind": "random_mask"}, {"kind": "ticket"}]))
    ['ticket', 'random_mask']
    """
    kinds: dict[str, list[Record]] = {TICKET: []}
    for record in records:
        kinds.setdefault(record["kind"], []).append(record)
    return {kind: rows for kind, rows in kinds.items() if rows}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict as one of dotted names.

    Example:

    >>> flat({"seed": 0, "facts": {"sizes": {"test": 10}}})
    {'seed': 0, 'facts.sizes.test': 10}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def differences(runs: Sequence[RunData]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs: name to one value for each run.

    Example:

    >>> differences([RunData("a", {"seed": 0, "steps": 5}, []), RunData("b", {"steps": 9}, [])])
    {'seed': [0, None], 'steps': [5, 9]}
    """
    configs = [flat(run.config) for run in runs]
    names = dict.fromkeys(name for config in configs for name in config)
    rows = {name: [config.get(name) for config in configs] for name in names}
    return {name: row for name, row in rows.items() if any(v != row[0] for v in row)}
