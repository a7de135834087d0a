"""What a run tells while it runs; whoever listens shows it, sends it on, or nothing."""

from typing import Any, Protocol


class Watch(Protocol):
    """Is told of a task's trainings."""

    def begin(self, title: str, steps: int) -> None:
        """A task of so many optimizer steps begins, or goes on."""

    def advance(self, steps: int, numbers: dict[str, Any]) -> None:
        """So many more steps are done; numbers of the last evaluation."""

    def row(self, record: dict[str, Any]) -> None:
        """A training has finished."""

    def say(self, text: str) -> None:
        """A sentence for people."""


class Silent:
    """A watch that shows nothing."""

    def begin(self, title: str, steps: int) -> None:
        """Nothing."""

    def advance(self, steps: int, numbers: dict[str, Any]) -> None:
        """Nothing."""

    def row(self, record: dict[str, Any]) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""
