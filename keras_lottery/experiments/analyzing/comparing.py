"""Copies of one run or several, trained and compared: what stability and connectivity share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from keras_lottery.analysis.comparing import Comparison, Stability, compare
from keras_lottery.analysis.evaluating import Evaluation
from keras_lottery.experiments.analyzing.copies import Copies, kinds
from keras_lottery.experiments.analyzing.runs import Run
from keras_lottery.experiments.live import Live
from keras_lottery.settings import check_integer


@dataclass(frozen=True)
class Wanted:
    """Which copies of a run are compared.

    Attributes:
        run: The run.
        rounds: Whose masks.
        steps: The steps k from which the copies train.
        replicates: Of the run.
        orders: How many data orders.
    """

    run: Run
    rounds: list[int]
    steps: list[int]
    replicates: list[int]
    orders: int


@dataclass(frozen=True)
class Compared:
    """Comparisons of one run's copies, or of several runs'.

    Attributes:
        stability: All comparisons; with several runs that share a step, kinds name the run.
        accuracies: Test accuracies at the end of the copies, by kind and step.
    """

    stability: Stability
    accuracies: dict[tuple[str, int], list[float]]


def wanted(
    runs: Sequence[Run],
    rounds: Sequence[int],
    steps: Sequence[str],
    orders: int,
    replicates: int | None,
) -> list[Wanted]:
    """What is compared of each run, checked before anything is trained.

    Raises:
        ValueError: If a run has no such round, step or replicate.
    """
    check_integer("orders", orders, least=2)
    found = []
    for run in runs:
        chosen = run.replicates(replicates)
        found.append(Wanted(run, run.rounds(rounds, chosen), run.steps(steps), chosen, orders))
    return found


def compared(
    all_wanted: Sequence[Wanted],
    live: Live,
    seconds: float,
    points: int = 2,
    evaluation: Callable[[Run], Evaluation] | None = None,
) -> Compared:
    """Trains the copies that are missing and compares them.

    Args:
        all_wanted: What, see `wanted`.
        live: Shows it.
        seconds: The least time between two checkpoints of a training.
        points: On the line between two copies.
        evaluation: What barriers are measured by, made for a run. Default: no barriers.
    """
    told_apart = len({s for w in all_wanted for s in w.steps}) < sum(
        len(w.steps) for w in all_wanted
    )
    comparisons: list[Comparison] = []
    accuracies: dict[tuple[str, int], list[float]] = {}
    for one in all_wanted:
        suffix = f", {one.run.name}" if told_apart else ""
        copies = Copies(one.run, kinds(one.rounds), seconds)
        found = _compared(copies, one, live, points, evaluation)
        comparisons += [replace(c, kind=f"{c.kind}{suffix}") for c in found.comparisons]
        for case in copies.cases(one.steps, one.replicates, one.orders):
            end = copies.place(case).record()["end"]["test_accuracy"]
            accuracies.setdefault((f"{case.kind}{suffix}", case.step), []).append(end)
    return Compared(Stability(comparisons), accuracies)


def _compared(
    copies: Copies,
    one: Wanted,
    live: Live,
    points: int,
    evaluation: Callable[[Run], Evaluation] | None,
) -> Stability:
    cases = copies.cases(one.steps, one.replicates, one.orders)
    watch = live.watch()
    n = copies.train(cases, watch)
    watch.end()
    live.say(f"{one.run.name}: {n} copies trained, {len(cases) - n} were there")
    if evaluation is None:
        return compare(copies.trained, copies.masks, cases)
    one.run.release()
    return compare(
        copies.trained,
        copies.masks,
        cases,
        one.run.trainer.model,
        evaluation(one.run),
        points,
        lambda comparison: _tell(comparison, live),
    )


def _tell(comparison: Comparison, live: Live) -> None:
    """A line for each barrier."""
    if comparison.barrier is not None:
        heights = ", ".join(f"{p} {100 * h:.2f}" for p, h in comparison.barrier.heights.items())
        orders = " and ".join(map(str, comparison.orders))
        live.say(
            f"  {comparison.kind}@{comparison.step}, replicate {comparison.replicate}, orders "
            f"{orders}: error barrier in points: {heights}"
        )


def spread(values: Sequence[float], form: str = ".2f", scale: float = 1.0) -> str:
    """Mean and sample standard deviation, as a table shows them.

    Example:

    >>> spread([1.0, 2.0]), spread([1.0])
    ('1.50 ± 0.71', '1.00')
    """
    return shown(fmean(values), stdev(values) if len(values) > 1 else float("nan"), form, scale)


def shown(mean: float, std: float, form: str = ".2f", scale: float = 1.0) -> str:
    """A mean and its deviation, which is left out if it is NaN.

    Example:

    >>> shown(0.5, 0.1234, ".3g")
    '0.5 ± 0.12'
    """
    text = format(scale * mean, form)
    narrow = ".2g" if form.endswith("g") else form
    return text if std != std else f"{text} \N{PLUS-MINUS SIGN} {format(scale * std, narrow)}"


def about(all_wanted: Sequence[Wanted]) -> list[dict[str, Any]]:
    """What was compared, for programs."""
    return [
        {
            "run": w.run.name,
            "rounds": w.rounds,
            "steps": w.steps,
            "replicates": w.replicates,
            "orders": w.orders,
            "rewind_step": w.run.trainer.lengths.rewind,
        }
        for w in all_wanted
    ]


def copies_in_words(all_wanted: Sequence[Wanted]) -> str:
    """Sentences on which copies there are."""
    texts = []
    for w in all_wanted:
        several = len(w.replicates) > 1
        texts.append(
            f"{w.run.name}: round{'s' * (len(w.rounds) > 1)} {', '.join(map(str, w.rounds))}, "
            f"k = {', '.join(f'{s:,}' for s in w.steps)}, {len(w.replicates)} "
            f"replicate{'s' * several}, {w.orders} data orders; the masks are those of the run, "
            f"found with its rewind point, step {w.run.trainer.lengths.rewind:,}."
        )
    return " ".join(texts)
