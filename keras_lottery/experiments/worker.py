"""A process that does tasks for a run; `keras_lottery_command.work` starts it.

It reads one JSON object a line: first the job, then tasks. It writes what it has to tell as
JSON lines, last for each task that it is done or why not. When its input ends, because the
run has no more tasks or has died, it ends too, at once.
"""

import json
import os
import queue
import signal
import sys
import threading
from typing import Any, TextIO

import tensorflow as tf

from keras_lottery.experiments.config import from_dict
from keras_lottery.experiments.plan import Task
from keras_lottery.experiments.work import Job


class Sender:
    """A watch that sends everything on, one JSON object a line."""

    def __init__(self, out: TextIO):
        self._out = out

    def send(self, what: str, *content: Any) -> None:
        """Writes one message."""
        self._out.write(json.dumps([what, *content]) + "\n")
        self._out.flush()

    def begin(self, title: str, steps: int) -> None:
        """A task begins."""
        self.send("begin", title, steps)

    def advance(self, steps: int, numbers: dict[str, Any]) -> None:
        """Steps are done."""
        self.send("advance", steps, numbers)

    def row(self, record: dict[str, Any]) -> None:
        """A training has finished; the table needs no curve."""
        self.send("row", {k: v for k, v in record.items() if k != "curve"})

    def say(self, text: str) -> None:
        """A sentence."""
        self.send("say", text)


def main() -> None:
    """Does tasks until the input ends."""
    # Ctrl-C reaches all processes of a terminal; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What user code prints must not come between the messages.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    lines: queue.Queue[str] = queue.Queue()
    about = json.loads(sys.stdin.readline())
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    sender = Sender(out)
    _limit_threads(about["threads"])
    job = Job(**{**about["job"], "config": from_dict(about["job"]["config"])})
    while True:
        values = json.loads(lines.get())
        try:
            job.do(Task(**{**values, "rounds": tuple(values["rounds"])}), sender)
            sender.send("done")
        except (ValueError, ImportError, OSError) as error:
            kind = OSError if isinstance(error, OSError) else ValueError
            sender.send("failed", kind.__name__, str(error))


def _read(lines: "queue.Queue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def _limit_threads(n: int) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(n)
    tf.config.threading.set_inter_op_parallelism_threads(n)
