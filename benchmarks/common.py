"""What the benchmarks share: the machine in one line, CPU time, medians."""

import gc
import os
import resource
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from keras_lottery.versions import versions


def about():
    devices = ", ".join(d.device_type for d in tf.config.list_logical_devices())
    return f"{versions()}, device {devices}, {os.cpu_count()} cores"


def seconds(function):
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def cpu_seconds(function):
    return seconds(function)[1]


def interleaved_both(functions, repeats):
    """Wall and CPU seconds of each function, `repeats` times, in turns of changing order.

    The first turn is dropped, and garbage is collected outside of what is timed.
    """
    times = {name: [] for name in functions}
    names = list(functions)
    for turn in range(repeats + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            gc.collect()
            both = seconds(functions[name])
            if turn:
                times[name].append(both)
    return {name: np.array(both) for name, both in times.items()}


def interleaved(functions, repeats):
    """The CPU seconds of `interleaved_both`."""
    both = interleaved_both(functions, repeats)
    return {name: values[:, 1] for name, values in both.items()}


def show_ratio(name, times, base):
    """The ratio of the smallest times, which noise can only raise, and of paired ones."""
    low, middle, high = np.percentile(times[name] / times[base], (25, 50, 75))
    least = times[name].min() / times[base].min()
    print(f"{name} / {base}: least {least:.3f}, median {middle:.3f} ({low:.3f} to {high:.3f})")


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Peak:
    """The largest resident memory while it is open, sampled each millisecond."""

    def __enter__(self):
        self.start = self.most = resident()
        self.open = True
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while self.open:
            self.most = max(self.most, resident())
            time.sleep(0.001)

    def __exit__(self, *exc):
        self.open = False
        self.thread.join()
