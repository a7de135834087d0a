"""Whether tickets are alike: of runs, their controls, files, folders."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import safetensors

from keras_lottery.analysis import plots
from keras_lottery.analysis.overlap import OverlapMatrix, overlap_matrix
from keras_lottery.experiments.analyzing import findings
from keras_lottery.experiments.analyzing.findings import Finding, Table, pictures, plain
from keras_lottery.experiments.analyzing.runs import Run
from keras_lottery.experiments.live import Live
from keras_lottery.experiments.plan import parse_control
from keras_lottery.experiments.store import CONFIG, TICKET, Place, Store
from keras_lottery.masks import Masks
from keras_lottery.masks import density as density_of
from keras_lottery.tickets import FORMAT, Ticket

_MOST = 40
WORDS = (
    "The Jaccard overlap of two masks is the share of weights alive in both out of those alive "
    "in either. Chance is what independent random masks with the same counts in each layer would "
    "have; z says how many standard deviations of chance the overlap lies above it.",
    "How to read it: near chance (z between -3 and 3) the two searches kept unrelated weights. "
    "Even a small overlap can be far above chance, since the counts are large: compare the "
    "overlap with the one in brackets. Replicates start from other initial weights, so that an "
    "overlap above chance tells of the data (pixels that never vary), not of the weights.",
)


def overlap(
    sources: Sequence[Path],
    live: Live,
    rounds: Sequence[int] = (),
    replicates: int | None = None,
    controls: Sequence[str] = (),
) -> Finding:
    """Overlaps of all pairs of tickets, against chance.

    Args:
        sources: Runs' folders, ticket files, or folders with ticket files in them.
        live: Shows how many tickets there are.
        rounds: Of a run, which rounds' tickets. Default: the one nearest to 10.7 % density.
        replicates: Of a run, how many, from the first. Default: all.
        controls: Of a run, which controls' tickets too, as `random_mask`.

    Returns:
        The finding.

    Raises:
        ValueError: If there are fewer than two tickets, a file is damaged, a run has no such
            round or control, or two tickets are of different architectures.
    """
    for control in controls:
        parse_control(control)
    found: dict[str, Masks] = {}
    common = os.path.commonpath([s.resolve() for s in sources]) if sources else ""
    for source in sources:
        prefix = f"{source.resolve().name}: " if len(sources) > 1 and source.is_dir() else ""
        for name, masks in _of(source, Path(common), rounds, replicates, controls):
            found[_unused(f"{prefix}{name}", found)] = masks
    if not 2 <= len(found) <= _MOST:
        raise ValueError(
            f"Overlaps need 2 to {_MOST} tickets. Received: {len(found)} in "
            f"{', '.join(repr(str(s)) for s in sources)}. Name more runs, replicates, rounds or "
            "ticket files, or fewer."
        )
    live.say(f"{len(found)} tickets")
    matrix = overlap_matrix(found)
    return Finding(
        "overlap",
        "Overlap of tickets",
        list(WORDS),
        [_table(matrix), _densities(found)],
        pictures("overlap", {"": plots.overlap(matrix)}),
        {"densities": {n: density_of(m) for n, m in found.items()}, **plain(matrix)},
    )


def _of(
    source: Path,
    common: Path,
    rounds: Sequence[int],
    replicates: int | None,
    controls: Sequence[str],
) -> Iterator[tuple[str, Masks]]:
    """Names and masks of one argument's tickets; a file is named by its path below `common`."""
    if (source / CONFIG).exists():
        yield from _of_run(Run(source), rounds, replicates, controls)
    elif source.is_dir():
        for path in sorted(source.rglob("*.safetensors")):
            below = path.relative_to(source)
            is_copy = findings.FOLDER in below.parts or path.name == Place(path.parent).trained.name
            if not is_copy and _is_ticket(path):
                yield str(below.with_suffix("")), Ticket.load(path).masks
    else:
        below = source.resolve().relative_to(common)
        yield str(below.with_suffix("")) if below.name else source.stem, Ticket.load(source).masks


def _of_run(
    run: Run, rounds: Sequence[int], replicates: int | None, controls: Sequence[str]
) -> Iterator[tuple[str, Masks]]:
    store, chosen = Store(run.folder), run.replicates(replicates)
    wanted = run.rounds(rounds, chosen)
    for r in wanted:
        for kind in (TICKET, *controls):
            for replicate in chosen:
                place = store.place(replicate, r, kind)
                if not place.done:
                    raise ValueError(
                        f"{str(run.folder)!r} has no finished {kind!r} of replicate {replicate} at "
                        f"round {r}. Train it: keras-lottery branch {run.folder} "
                        f"--controls={kind} --rounds={r}"
                    )
                words = [] if kind == TICKET else [kind.replace("_", " ")]
                words += [f"replicate {replicate}"] if len(run.replicates()) > 1 else []
                words += [f"round {r}"]
                yield ", ".join(words), Ticket.load(place.ticket).masks


def _is_ticket(path: Path) -> bool:
    """Whether a safetensors file says that it is a ticket; a damaged one is left to its reader."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return FORMAT in (file.metadata() or {})
    except (OSError, safetensors.SafetensorError):
        return path.name == Place(path.parent).ticket.name


def _unused(name: str, taken: dict[str, Masks]) -> str:
    found, n = name, 1
    while found in taken:
        n += 1
        found = f"{name} ({n})"
    return found


def _densities(found: dict[str, Masks]) -> Table:
    rows = [[name, f"{100 * density_of(masks):.3g}"] for name, masks in found.items()]
    return Table("Tickets", ["ticket", "density, %"], rows)


def _table(matrix: OverlapMatrix) -> Table:
    rows = [
        [
            matrix.names[i],
            matrix.names[j],
            f"{100 * matrix.jaccard[i, j]:.2f}",
            f"{100 * matrix.expected_jaccard[i, j]:.2f}",
            f"{matrix.z[i, j]:+.1f}",
        ]
        for i, j in zip(*np.triu_indices(len(matrix.names), 1), strict=True)
    ]
    columns = ["ticket", "and", "Jaccard overlap, %", "by chance, %", "z"]
    return Table("All pairs", columns, rows)
