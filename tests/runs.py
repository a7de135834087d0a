"""What the tests of runs share."""

import time

from keras_lottery.experiments.store import Store


def results(folder):
    """All bytes that a run's trainings left, and their records without times."""
    files = sorted(folder.glob("replicate_*/**/t*.safetensors"))
    records = Store(folder).records()
    for record in records:
        del record["seconds"]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}, records


def wait_until(condition, seconds=300.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("waited in vain")
