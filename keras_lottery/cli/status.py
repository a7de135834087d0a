"""Shows what of a run is done, running and missing, and the time left.

RUN is the folder of a run; by default all runs under runs/ are shown.
"""

import datetime
from pathlib import Path

from rich.console import Console

from keras_lottery.display import say
from keras_lottery.experiments.status import State, Status, status
from keras_lottery.experiments.store import Store, all_runs


def main(run: str | None = None) -> None:
    """Prints the status of a run, or of all."""
    console = Console()
    folders = [Path(run)] if run else all_runs("runs")
    if not folders:
        raise ValueError("There is no run under 'runs'. Make one with `keras-lottery find`.")
    for folder in folders:
        try:
            found = status(Store(folder))
        except ValueError as error:
            if run:
                raise
            say(console, str(error))
            continue
        say(console, f"{folder}: {_headline(found)}", "bold")
        for state in found.states:
            say(console, f"  {state.task.title:40} {_words(state, found.working)}")


def _headline(found: Status) -> str:
    missing = sum(s.missing for s in found.states if s.stopped is None)
    if not missing:
        return "finished" if all(s.stopped is None for s in found.states) else "stopped early"
    left = "" if found.seconds_left is None else f", about {_time(found.seconds_left)} left"
    what = f"{missing} {'training' if missing == 1 else 'trainings'} missing{left}"
    return f"running, {what}" if found.working else f"not running, {what}; the same command goes on"


def _words(state: State, working: bool) -> str:
    text = f"{state.done} of {len(state.task.rounds)} done"
    for round, step in state.on_the_way:
        what = "running" if working else "cut off"
        text += f"; round {round} {what}" + ("" if step is None else f", saved at step {step:,}")
    return text if state.stopped is None else f"{text}; stopped: {state.stopped}"


def _time(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
