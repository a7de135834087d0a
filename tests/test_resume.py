"""Runs that are killed at any moment end in the same bits as undisturbed ones."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from runs import results, wait_until

from keras_lottery.experiments.store import Store

COMMAND = [sys.executable, "-c", "import keras_lottery_command as c; c.run()", "find"]
SMALL = ["--subset=120", "--steps=12it", "--eval_every=4it", "--batch_size=20", "--rewind_to=2it"]
FIND = [*SMALL, "--checkpoint_seconds=0", "--rounds=4", "--controls=random_mask,continued_training"]
PARALLEL = [*SMALL, "--checkpoint_seconds=0", "--rounds=3", "--jobs=2", "--replicates=2"]


def start(folder, arguments):
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [*COMMAND, *arguments, f"--workdir={folder}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, cwd=folder.parent, **pipes)


def finish(folder, arguments):
    process = start(folder, arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def stamps(folder):
    """Every file of a folder and when it was changed, as far as they stay while one looks."""
    found = set()
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                found.add((parent, name, os.stat(Path(parent, name)).st_mtime_ns))
            except FileNotFoundError:
                continue
    return found


def kill_after(process, folder, events, delay):
    """Kills a process once so many files are new or changed; whether it still ran."""
    before, seen = stamps(folder), 0
    while process.poll() is None and seen < events:
        time.sleep(0.002)
        now = stamps(folder)
        seen, before = seen + len(now - before), now
    time.sleep(delay)
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def children(pid):
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bits(tmp_path):
    finish(tmp_path / "whole", FIND)
    draw = random.Random(0)
    folder, kills = tmp_path / "killed", 0
    process = start(folder, FIND)
    time.sleep(1.0)  # while it imports
    process.kill()
    process.communicate()
    for _ in range(11):
        process = start(folder, FIND)
        kills += kill_after(process, folder, draw.randint(1, 14), draw.random() * 0.01)
    assert kills >= 8
    finish(folder, FIND)
    assert results(folder) == results(tmp_path / "whole")
    assert not list(folder.glob("replicate_*/**/.*"))


def test_workers_end_with_their_killed_run_and_the_next_command_finishes_it(tmp_path):
    finish(tmp_path / "whole", PARALLEL)
    folder = tmp_path / "killed"
    process = start(folder, PARALLEL)
    try:
        wait_until(lambda: list(folder.glob("replicate_*/ticket/round_00/*")))
        workers = children(process.pid)
        assert len(workers) == 2 and all(alive(w) for w in workers)
    finally:
        process.kill()
        process.communicate()
    wait_until(lambda: not any(alive(w) for w in workers))
    assert not Store(folder).locked()
    finish(folder, PARALLEL)
    assert results(folder) == results(tmp_path / "whole")
