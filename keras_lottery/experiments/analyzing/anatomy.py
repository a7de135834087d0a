"""What a run's tickets look like, round by round."""

from collections.abc import Sequence
from typing import Any

from keras_lottery.analysis import plots
from keras_lottery.analysis.anatomy import Anatomy, LayerAnatomy
from keras_lottery.analysis.early_stopping import EarlyStop, speed_up
from keras_lottery.experiments.analyzing.findings import DASH, Finding, Table, pictures, plain
from keras_lottery.experiments.analyzing.insides import Insides, chosen, read
from keras_lottery.experiments.analyzing.runs import Run
from keras_lottery.experiments.live import Live

WORDS = (
    "Effective weights lie on a path of alive weights from an input to an output; the others do "
    "nothing. A dead unit has no effective weight; a layer without any has collapsed. FLOPs are "
    "two for each weight and place where it is used, for one image, counted on the alive weights: "
    "what ideal hardware would compute, not what a dense library saves.",
    "How to read it: a gap between density and effective density says that the ticket is smaller "
    "than its masks. Speed-up is the dense network's early-stop step over the round's. A layer "
    "is Ramanujan if the second singular value of its mask is at most its bound: its connections "
    "are spread as well as their number allows. That is not defined where units have fewer than "
    "3 connections on average.",
)
FIGURES = (
    "The pictures: density and effective density of the layers, the same round by round; alive "
    "weights into each unit and out of each input, in the sparsest round; values at the rewind "
    "point, survivors against all; how far weights move in a round's training, whether away from "
    "0, and across it (for the dense round: the sparsest round's weights against the others); "
    "sign flips of the sparsest round's weights, from the rewind point over the ends of the "
    "rounds; the Ramanujan bound; and, where the first layer reads pixels, how many of its "
    "weights are alive for each."
)


def anatomy(
    runs: Sequence[Run], live: Live, rounds: Sequence[int] = (), replicate: int = 0
) -> Finding:
    """Layers, paths, connections, cost, values, movement and pixels of a run's rounds.

    Args:
        runs: One run or several.
        live: Shows which rounds are taken apart.
        rounds: Which. Default: dense, those nearest to 50, 21, 10.7 and 3.6 % density, and
            the last.
        replicate: Of the run.

    Returns:
        The finding.

    Raises:
        ValueError: If a run has no such round or replicate.
    """
    wanted = [chosen(run, rounds, replicate) for run in runs]
    tables: list[Table] = []
    figures: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    for i, (run, own) in enumerate(zip(runs, wanted, strict=True), start=1):
        live.say(f"{run.name}: rounds {', '.join(map(str, own))}")
        found = read(run, own, replicate)
        alone = len(runs) == 1
        tables += _tables("" if alone else f"{run.name}: ", found)
        for what, figure in _figures(found).items():
            figures[what if alone else f"{i}_{what}".rstrip("_")] = figure
        numbers[run.name] = _numbers(found)
    return Finding(
        "anatomy",
        "Anatomy of the tickets",
        [*WORDS, FIGURES, f"Replicate {replicate}."],
        tables,
        pictures("anatomy", figures),
        {"replicate": replicate, "runs": numbers},
    )


def _figures(found: Insides) -> dict[str, Any]:
    labelled = {_label(r): a for r, a in found.anatomies.items()}
    last = found.anatomies[found.rounds[-1]]
    figures = {
        "": plots.anatomy(labelled),
        "layers": plots.layers_over_rounds(labelled) if len(labelled) > 1 else None,
        "connections": plots.connectivity(last),
        "initial": plots.initial_values(found.initial),
        "movement": plots.movement({_label(r): m for r, m in found.movements.items()}),
        "signs": _signs(found),
        "ramanujan": plots.ramanujan(labelled) if _has_bounds(found) else None,
        "pixels": plots.pixels({_label(r): p for r, p in found.pixels.items()})
        if found.pixels
        else None,
    }
    return {what: figure for what, figure in figures.items() if figure is not None}


def _signs(found: Insides) -> Any:
    if found.signs is None:
        return None
    return plots.sign_flips(
        {f"{_label(found.rounds[-1])}'s ticket": found.signs},
        names=[_label(r) for r in found.rounds],
    )


def _has_bounds(found: Insides) -> bool:
    layers = [layer for a in found.anatomies.values() for layer in a.layers]
    return any(x.ramanujan is not None and x.ramanujan.holds is not None for x in layers)


def _label(round: int) -> str:
    return f"round {round}"


def _tables(prefix: str, found: Insides) -> list[Table]:
    columns = ["round", "density, %", "effective, %", "dead units", "collapsed", "parameters"]
    columns += ["FLOPs", "early stop", "accuracy, %", "speed-up"]
    rounds = Table(f"{prefix}Rounds", columns, [_of_round(found, r) for r in found.rounds])
    columns = ["layer", "round", "shape", "alive", "density, %", "effective, %", "dead units"]
    columns += ["FLOPs", "2nd singular value", "bound", "Ramanujan"]
    layers = [
        _of_layer(layer, r)
        for i in range(len(found.anatomies[found.rounds[0]].layers))
        for r in found.rounds
        for layer in [found.anatomies[r].layers[i]]
    ]
    return [rounds, Table(f"{prefix}Layers", columns, layers)]


def _of_round(found: Insides, round: int) -> list[str]:
    own, stop = found.anatomies[round], found.stops[round]
    layers, accuracy = own.layers, found.accuracies[round]
    return [
        str(round),
        _percent(own.density),
        _percent(own.effective_density),
        f"{sum(x.dead_units for x in layers):,} of {sum(x.units for x in layers):,}",
        ", ".join(own.collapsed) or "none",
        f"{own.parameters_alive:,}",
        _flops(own),
        DASH if stop is None else f"{stop.step:,}",
        DASH if accuracy is None else f"{100 * accuracy:.2f}",
        _speed(stop, found.stops[found.dense]),
    ]


def _of_layer(layer: LayerAnatomy, round: int) -> list[str]:
    bound = layer.ramanujan
    effective = None if layer.effective is None else layer.effective / max(1, layer.total)
    return [
        layer.path,
        str(round),
        "x".join(map(str, layer.shape)),
        f"{layer.alive:,}",
        _percent(layer.density),
        _percent(effective),
        f"{layer.dead_units:,} of {layer.units:,}",
        DASH if layer.macs_alive is None else f"{2 * layer.macs_alive:,}",
        DASH if bound is None else f"{bound.singular_value:.3g}",
        DASH if bound is None or bound.holds is None else f"{bound.bound:.3g}",
        DASH if bound is None or bound.holds is None else "yes" if bound.holds else "no",
    ]


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.3g}"


def _flops(own: Anatomy) -> str:
    """Alive FLOPs; what the count leaves out is said."""
    if own.flops_alive is None:
        return DASH
    return f"{own.flops_alive:,}" + (f" without {', '.join(own.unknown)}" if own.unknown else "")


def _speed(stop: EarlyStop | None, dense: EarlyStop | None) -> str:
    known = stop is not None and dense is not None and stop.step > 0
    return f"{speed_up(stop, dense):.2f}x" if known and stop and dense else DASH


def _numbers(found: Insides) -> dict[str, Any]:
    derived = {
        r: {
            "density": a.density,
            "effective_density": a.effective_density,
            "collapsed": a.collapsed,
            "parameters": a.parameters,
            "parameters_alive": a.parameters_alive,
            "flops": a.flops,
            "flops_alive": a.flops_alive,
        }
        for r, a in found.anatomies.items()
    }
    content: dict[str, Any] = plain({"totals": derived, **vars(found)})
    return content
