"""The page of a report, with its figures and numbers beside it."""

import importlib.util
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from keras_lottery import drawing
from keras_lottery.experiments.analyzing.findings import Finding
from keras_lottery.experiments.reporting import curves, figures, rows, sections, styles, tables
from keras_lottery.experiments.reporting.rows import TICKET, RunData
from keras_lottery.experiments.reporting.statistics import (
    ACCURACY,
    END,
    INTERVALS,
    STEP,
    Interval,
    dense,
    points,
)
from keras_lottery.experiments.reporting.tables import Format
from keras_lottery.files import write_atomic

PAGE, FINDINGS = "report.html", "analysis.html"


def check_installed() -> None:
    """Raises `ImportError`, naming the extra, unless a report can be written."""
    missing = [m for m in ("matplotlib", "jinja2") if importlib.util.find_spec(m) is None]
    if missing:
        raise ImportError(
            f"The report needs {' and '.join(missing)}: pip install 'keras-lottery[plots]'"
        )


def write(
    runs: Sequence[RunData],
    folder: Path,
    interval: Interval = "range",
    rounds: Sequence[int] | None = None,
    formats: Sequence[Format] = tables.FORMATS,
) -> Path:
    """Writes `report.html`, its figures as PNG and SVG, and the numbers.

    Everything is drawn before the first file is written; a run in progress is reported as
    far as it has come. Several runs are compared on one page.

    Args:
        runs: The runs, each with one finished round or more and a name of its own.
        folder: Where the files shall be; made if missing. Files of the same names are
            replaced.
        interval: Error bars. `"range"`: minimum to maximum of all trainings; `"ci"`: 95% t
            confidence interval of the mean over replicates.
        rounds: Rounds whose learning curves are drawn. Default: the dense round, those
            nearest to 50, 21, 10 and 3.6% density, and the last.
        formats: The numbers to write: `"csv"` as `numbers.csv`, `"json"` as `numbers.json`.

    Returns:
        The path of the page.

    Raises:
        ImportError: If matplotlib or jinja2 is missing.
        ValueError: For a run without a finished round, or an argument out of its values;
            then nothing is written.

    Example:

    >>> import tempfile
    >>> row = {"kind": "ticket", "round": 0, "density": 1.0, "early_stop": {"step": 10}}
    >>> write([RunData("mine", {}, [row])], tempfile.mkdtemp()).name
    'report.html'
    """
    check_installed()
    _check(runs, interval, rounds, formats)
    looks = styles.of_kinds(r["kind"] for run in runs for r in run.records)
    files = {f"numbers.{f}": tables.numbers(runs, f).encode() for f in formats}
    shown = []
    with drawing.drawing():
        drawn = {} if len(runs) == 1 else {"comparison": _comparison(runs, interval)}
        compared = _pictures(drawn, files)
        for run, prefix in zip(runs, _prefixes(runs), strict=True):
            drawn = _drawn(run, looks, interval, rounds)
            named = {f"{prefix}{name}": figure for name, figure in drawn.items()}
            shown.append({**sections.section(run), "pictures": _pictures(named, files)})
    files[PAGE] = _page(runs, shown, compared, interval, list(files)).encode()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomic(folder / name, content)
    return folder / PAGE


def _check(
    runs: Sequence[RunData], interval: str, rounds: Sequence[int] | None, formats: Sequence[str]
) -> None:
    rows.check(runs)
    tables.check_formats(formats)
    if interval not in INTERVALS:
        raise ValueError(f"`interval` must be one of {list(INTERVALS)}. Received: {interval!r}")
    finished = {r["round"] for run in runs for r in run.records if r["kind"] == TICKET}
    if rounds is not None and not finished & set(rounds):
        raise ValueError(
            f"`rounds` must name finished rounds of a ticket, out of {sorted(finished)}. "
            f"Received: {list(rounds)}"
        )


def _prefixes(runs: Sequence[RunData]) -> list[str]:
    """What the files of each run start with; nothing for a single run."""
    if len(runs) == 1:
        return [""]
    names = [re.sub(r"[^\w-]+", "_", run.name, flags=re.ASCII).strip("_") for run in runs]
    return [f"{i}_{name}_" for i, name in enumerate(names, start=1)]


def _comparison(runs: Sequence[RunData], interval: Interval) -> Any:
    """The tickets of all runs in one figure."""
    lines = []
    for i, run in enumerate(runs):
        own = [p for p in points(run.records) if p.kind == TICKET]
        lines.append(figures.Line(run.name, styles.style(i), own, dense(own)))
    title = "Test accuracy at early stop, tickets of all runs"
    return figures.against_density(lines, ACCURACY, title, interval)


def _drawn(
    run: RunData, looks: dict[str, Any], interval: Interval, rounds: Sequence[int] | None
) -> dict[str, Any]:
    """The figures of a run by file name."""
    found = points(run.records)
    lines = figures.lines_of_kinds(found, dense(found), looks)
    finished = {p.round for p in found if p.kind == TICKET}
    chosen = curves.default_rounds(found) if rounds is None else sorted(finished & set(rounds))
    titles = {
        "accuracy": (ACCURACY, "Test accuracy at early stop"),
        "accuracy_end": (END, "Test accuracy at the end of training"),
        "early_stop": (STEP, "Step of minimum validation loss (early stop)"),
    }
    drawn = {
        name: figures.against_density(lines, metric, title, interval)
        for name, (metric, title) in titles.items()
    }
    learning = "Learning curves of the ticket at several densities"
    drawn["curves"] = curves.learning_curves(run.records, chosen, learning, interval)
    layers = "Density of each layer of the ticket, first replicate"
    return {**drawn, "layers": curves.layer_densities(run.records, layers)}


def _pictures(drawn: dict[str, Any], files: dict[str, bytes]) -> list[dict[str, str]]:
    """Adds each figure to `files` as PNG and SVG; returns what the page shows of it."""
    shown = []
    for name, figure in drawn.items():
        files[f"{name}.png"] = drawing.save(figure, "png")
        files[f"{name}.svg"] = drawing.save(figure, "svg")
        width, alt = round(100 * figure.get_figwidth()), figure.axes[0].get_title()
        shown.append(sections.picture(name, alt, files[f"{name}.svg"], width))
    return shown


def _page(
    runs: Sequence[RunData],
    shown: list[dict[str, Any]],
    compared: list[dict[str, str]],
    interval: Interval,
    files: list[str],
) -> str:
    return _rendered(
        title=sections.title(runs[0]) if len(runs) == 1 else f"Comparison of {len(runs)} runs",
        runs=shown,
        compared=compared,
        differences=rows.differences(runs),
        interval=INTERVALS[interval],
        tables=[f for f in files if f.startswith("numbers.")],
    )


def write_findings(findings: Sequence[Finding], title: str, folder: Path) -> Path:
    """Writes a page of analyses alone, `analysis.html`.

    Args:
        findings: What they found.
        title: The page's.
        folder: Where it shall be; made if missing.

    Returns:
        The path of the page.

    Raises:
        ImportError: If jinja2 is missing.

    Example:

    >>> import tempfile
    >>> found = Finding("overlap", "Overlap", ["Nothing alike."])
    >>> "Nothing alike." in write_findings([found], "Two", Path(tempfile.mkdtemp())).read_text()
    True
    """
    check_installed()
    page = _rendered(title=title, runs=[], findings=sections.findings(findings))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / FINDINGS, page.encode())
    return folder / FINDINGS


def _rendered(**content: Any) -> str:
    import jinja2

    template = resources.files(__package__).joinpath("page.html.j2").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(**content)
