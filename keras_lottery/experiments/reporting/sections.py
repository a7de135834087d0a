"""The words and numbers of a run, as the page shows them."""

import base64
from collections.abc import Sequence
from typing import Any

from keras_lottery.experiments.analyzing.findings import Finding
from keras_lottery.experiments.reporting import rows, styles
from keras_lottery.experiments.reporting.rows import RunData
from keras_lottery.experiments.reporting.statistics import (
    ACCURACY,
    END,
    SECONDS,
    STEP,
    TRAIN,
    Point,
    Summary,
    dense,
    points,
)
from keras_lottery.experiments.reporting.verdicts import Verdict, verdicts

DASH = "\N{EN DASH}"


def title(run: RunData) -> str:
    """A run in words: its name, model and data set.

    Example:

    >>> title(RunData("mine", {"model": "conv_2", "dataset": "cifar10"}, []))
    'mine: conv_2 on cifar10'
    """
    model, dataset = run.config.get("model"), run.config.get("dataset")
    return f"{run.name}: {model} on {dataset}" if model and dataset else run.name


def section(run: RunData) -> dict[str, Any]:
    """What the template shows of a run, but for its figures."""
    found = points(run.records)
    judged = verdicts(run.records, run.n_test)
    basis = f"{judged[0].basis} ({100 * judged[0].margin:.2g} points)" if judged else ""
    return {
        "name": run.name,
        "title": title(run),
        "verdicts": [_verdict(v) for v in judged],
        "basis": basis,
        "dense": dense(found) is not None,
        "numbers": [_numbers(p) for p in found],
        "sizes": run.config.get("facts", {}).get("sizes", {}),
        "settings": rows.flat(run.config),
        "findings": findings(run.findings),
    }


def findings(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """What the template shows of analyses."""
    return [
        {
            "name": one.name,
            "title": one.title,
            "words": one.words,
            "tables": [vars(table) for table in one.tables],
            "pictures": [picture(p.name, p.alt, p.files["svg"], p.width) for p in one.pictures],
        }
        for one in found
    ]


def picture(name: str, alt: str, svg: bytes, width: int) -> dict[str, str]:
    """What the template shows of a figure; the width is in pixels."""
    content = base64.b64encode(svg).decode()
    return {"name": name, "alt": alt, "content": content, "width": str(width)}


def _numbers(point: Point) -> list[Any]:
    """A row of the table of all numbers."""
    of = point.values
    return [
        styles.label(point.kind),
        point.round,
        f"{styles.percent(point.density)}%",
        point.n,
        _range(of[ACCURACY], point.n),
        _mean(of[STEP], ",.0f", scale=1),
        _range(of[END], point.n),
        _mean(of[TRAIN], ".2f"),
        _mean(of[SECONDS], ".1f", scale=1),
    ]


def _mean(summary: Summary, form: str, scale: float = 100) -> str:
    return format(scale * summary.mean, form) if summary.n else DASH


def _range(summary: Summary, n: int) -> str:
    """Mean, range and, if some of the `n` trainings have no number, how many have it."""
    shown = _mean(summary, ".2f")
    if summary.n > 1:
        shown += f" ({100 * summary.least:.2f}{DASH}{100 * summary.most:.2f})"
    return shown if summary.n in (0, n) else f"{shown}, n = {summary.n}"


def _verdict(verdict: Verdict) -> list[Any]:
    """A row of the table of verdicts."""
    peak, fastest = verdict.peak, verdict.fastest
    return [
        styles.label(verdict.kind),
        _density(verdict.matches_to),
        _density(verdict.falls_at),
        verdict.exceptions,
        DASH if peak is None else f"{100 * peak:.2f} at {_density(verdict.peak_density)}",
        DASH if fastest is None else f"{fastest:.2f} at {_density(verdict.fastest_density)}",
    ]


def _density(fraction: float | None) -> str:
    return DASH if fraction is None else f"{styles.percent(fraction)}%"
