"""What ends a search or a control for good, as NaN does, and how that is written down."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_lottery.experiments.store import write_json
from keras_lottery.search import SearchStoppedError

STOPPED = "stopped.json"


@contextlib.contextmanager
def stopping(folder: Path, round: int) -> Iterator[None]:
    """Writes down in a search's or control's folder that a round of it stopped, and why.

    Args:
        folder: Of the search or control.
        round: Which trains inside.

    Raises:
        SearchStoppedError: If it stops, or had stopped before; nothing is trained then.
        ValueError: If the note of an earlier stop is damaged.

    Example:

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> try:
    ...     with stopping(folder, 3), as_stop():
    ...         raise ValueError("NaN")
    ... except SearchStoppedError:
    ...     print(stopped(folder)["reason"])
    round 3: NaN
    """
    before = stopped(folder)
    if before is not None:
        raise SearchStoppedError(before["reason"])
    try:
        yield
    except SearchStoppedError as error:
        reason = f"round {round}: {error}"
        write_json(folder / STOPPED, {"round": round, "reason": reason})
        raise SearchStoppedError(reason) from error


@contextlib.contextmanager
def as_stop() -> Iterator[None]:
    """Turns a `ValueError` into the one that ends a search."""
    try:
        yield
    except ValueError as error:
        raise SearchStoppedError(str(error)) from error


def stopped(folder: Path) -> dict[str, Any] | None:
    """The `round` at which a search or control stopped and the `reason`; `None` if it did not.

    Raises:
        ValueError: If the note is damaged.
    """
    path = folder / STOPPED
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"Cannot read {str(path)!r}: {error}. Remove it to try that round again."
        ) from error
