"""The report of a run: one HTML page with its picture and tables."""

import base64
import importlib.util
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from keras_lottery.experiments import datasets
from keras_lottery.experiments.store import FIGURE, REPORT, Store
from keras_lottery.files import write_atomic

Records = Sequence[dict[str, Any]]
_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple")


def check_installed() -> None:
    """Raises `ImportError`, naming the extra, unless a report can be written."""
    missing = [m for m in ("matplotlib", "jinja2") if importlib.util.find_spec(m) is None]
    if missing:
        raise ImportError(
            f"The report needs {' and '.join(missing)}: pip install 'keras-lottery[plots]'"
        )


@dataclass(frozen=True)
class Verdict:
    """Where a kind of training still matches the dense network.

    Attributes:
        kind: `"ticket"` or the control's name.
        margin: What counts as a match: test accuracy above the dense one's minus this, one
            standard error of the difference of two accuracies on that many test images.
        matches_to: The smallest density at which a round matches, or `None`.
        falls_at: The density below it, from which on no round matches, or `None`.
        exceptions: How many denser rounds do not match all the same.
    """

    kind: str
    margin: float
    matches_to: float | None
    falls_at: float | None
    exceptions: int

    def sentence(self) -> str:
        """The verdict in words."""
        within = f"within {self.margin * 100:.1f} points of the dense accuracy"
        if self.matches_to is None:
            return f"{self.kind}: never {within}"
        rounds = "round" if self.exceptions == 1 else "rounds"
        but = f" (but for {self.exceptions} denser {rounds})" if self.exceptions else ""
        falls = f", below from {self.falls_at:.1%} on" if self.falls_at else ", the last round"
        return f"{self.kind}: {within} down to {self.matches_to:.1%} density{but}{falls}"


def verdicts(records: Records, n_test: int) -> list[Verdict]:
    """One verdict for the ticket and for each control, in the order of the records.

    Accuracies are test accuracies at the early stop, which validation loss chose.

    Example:

    >>> rows = [
    ...     {"kind": "ticket", "round": r, "density": d, "early_stop_test_accuracy": a}
    ...     for r, (d, a) in enumerate([(1.0, 0.98), (0.5, 0.98), (0.25, 0.90)])
    ... ]
    >>> verdicts(rows, n_test=500)[0].sentence()
    'ticket: within 0.9 points of the dense accuracy down to 50.0% density, below from 25.0% on'
    """
    if not records:
        return []
    dense = _dense(records)
    margin = math.sqrt(2 * max(dense * (1 - dense), 1e-9) / n_test)
    found = []
    for kind, rows in by_kind(records).items():
        ok = [r["early_stop_test_accuracy"] >= dense - margin for r in rows]
        n = len(ok) - ok[::-1].index(True) if True in ok else 0
        matches_to = rows[n - 1]["density"] if n else None
        falls_at = rows[n]["density"] if n < len(rows) else None
        found.append(Verdict(kind, margin, matches_to, falls_at, ok[:n].count(False)))
    return found


def by_kind(records: Records) -> dict[str, list[dict[str, Any]]]:
    """Records of each kind, densest first; the ticket's first."""
    kinds: dict[str, list[dict[str, Any]]] = {"ticket": []}
    for record in records:
        kinds.setdefault(record["kind"], []).append(record)
    return {k: sorted(rows, key=lambda r: -r["density"]) for k, rows in kinds.items() if rows}


def write(store: Store) -> None:
    """Writes `accuracy.png` and `report.html` into the run's folder."""
    import jinja2

    records, config = store.records(), store.config()
    title = f"{config['model']} on {datasets.short_name(config['dataset'])}"
    picture = plot(records, title)
    write_atomic(store.folder / FIGURE, picture)
    template = resources.files(__package__).joinpath("report.html.j2").read_text()
    page = (
        jinja2.Environment(autoescape=True)
        .from_string(template)
        .render(
            title=title,
            config=config,
            kinds=by_kind(records),
            verdicts=[v.sentence() for v in verdicts(records, config["sizes"]["test"])],
            picture=base64.b64encode(picture).decode(),
        )
    )
    write_atomic(store.folder / REPORT, page.encode())


def plot(records: Records, title: str) -> bytes:
    """Accuracy and early stop against density, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 7), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for (kind, rows), colour in zip(by_kind(records).items(), _COLOURS, strict=False):
        density = [100 * r["density"] for r in rows]
        accuracy = [100 * r["early_stop_test_accuracy"] for r in rows]
        style = {"color": colour, "marker": "o", "markersize": 4, "label": kind.replace("_", " ")}
        top.plot(density, accuracy, **style)
        bottom.plot(density, [r["early_stop_epoch"] for r in rows], **style)
    top.axhline(100 * _dense(records), color="grey", linestyle="--", label="dense")
    top.set_title(title, parse_math=False)
    top.set(ylabel="test accuracy at early stop, %")
    bottom.set(ylabel="early-stop epoch", xlabel="density, % of weights alive", xscale="log")
    densities = [100 * r["density"] for r in by_kind(records)["ticket"]]
    bottom.set_xlim(max(densities) * 1.1, min(densities) / 1.1)
    ticks = [t for t in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1) if t >= min(densities) / 1.1]
    bottom.set_xticks(ticks, [f"{t:g}" for t in ticks])
    bottom.minorticks_off()
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    top.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    return buffer.getvalue()


def _dense(records: Records) -> float:
    """Test accuracy of the dense round at its early stop."""
    return float(by_kind(records)["ticket"][0]["early_stop_test_accuracy"])
