"""Doing the tasks of a run: in this process, or in several that share the processors."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from keras_lottery.experiments.live import Live
from keras_lottery.experiments.plan import Task
from keras_lottery.experiments.work import Job


def do_all(job: Job, tasks: Sequence[Task], live: Live, jobs: int = 1) -> None:
    """Does tasks that do not need one another.

    Args:
        job: What they share.
        tasks: In the order in which they are begun.
        live: Shows them.
        jobs: How many processes; each gets its share of the processor's threads.

    Raises:
        ValueError: If a task cannot be done; the others that run are stopped.
        OSError: If a file cannot be written.
    """
    if jobs == 1 or len(tasks) < 2:
        watch = live.watch()
        for task in tasks:
            job.do(task, watch)
        watch.end()
        return
    waiting: queue.Queue[Task] = queue.Queue()
    for task in tasks:
        waiting.put(task)
    n = min(jobs, len(tasks))
    failures: list[Exception] = []
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_Worker(job, jobs)) for _ in range(n)]
        threads = [
            threading.Thread(target=_drain, args=(w, waiting, live, failures), daemon=True)
            for w in workers
        ]
        for thread in threads:
            thread.start()
        while any(t.is_alive() for t in threads) and not failures:
            for thread in threads:
                thread.join(timeout=0.1)
    if failures:
        raise failures[0]


def _drain(
    worker: "_Worker", waiting: "queue.Queue[Task]", live: Live, failures: list[Exception]
) -> None:
    watch = live.watch()
    try:
        while not failures:
            worker.do(waiting.get_nowait(), watch)
    except queue.Empty:
        pass
    except Exception as error:
        failures.append(error)
    finally:
        watch.end()


class _Worker:
    """A process that does one task after another."""

    def __init__(self, job: Job, jobs: int):
        threads = max(1, (os.cpu_count() or 1) // jobs)
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import keras_lottery_command as c; c.work()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._send({"job": asdict(job), "threads": threads})

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def do(self, task: Task, watch: Any) -> None:
        """Does a task in the process; shows here what it tells."""
        self._send(asdict(task))
        for line in self._process.stdout:  # type: ignore[union-attr]
            what, *content = json.loads(line)
            if what == "done":
                return
            if what == "failed":
                kind, text = content
                raise OSError(text) if kind == "OSError" else ValueError(text)
            getattr(watch, what)(*content)
        raise ValueError(
            f"The process of the {task.title} ended with code {self._process.wait()}. The same "
            "command goes on from its last checkpoint."
        )

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message) + "\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
