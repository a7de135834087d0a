"""397,000 weights as subset sums of 21 candidates: CPU seconds, kept candidates, memory.

The weights are drawn like those of the paper's trained 784-500-10 network; the candidates are
uniform between the smallest and largest weight, each weight's own or shared by a row. About one
weight in a million gets candidates no subset of which is near it, almost all of one sign: these
are drawn again.
"""

import time

import common
import numpy as np

from keras_lottery.strong import subset_sum

LOW, HIGH, CANDIDATES, TOLERANCE = -0.4642, 0.5407, 21, 0.01
SHAPES = ((500, 784), (10, 500))


def run(name, weights, rows_share, best):
    rng = np.random.default_rng(1)
    start, cpu = time.perf_counter(), time.process_time()
    kept, redrawn, error = 0, 0, 0.0
    for targets in weights:
        shape = (len(targets), 1 if rows_share else targets.shape[1], CANDIDATES)
        candidates = rng.uniform(LOW, HIGH, shape)
        found = subset_sum(targets, candidates, TOLERANCE, best=best)
        while len(found.missing):
            redrawn += len(found.missing)
            rows, columns = found.missing.T
            columns = 0 if rows_share else columns
            candidates[rows, columns] = rng.uniform(LOW, HIGH, (len(rows), CANDIDATES))
            found = subset_sum(targets, candidates, TOLERANCE, best=best)
        kept += int(found.kept.sum())
        error = max(error, float(found.errors.max()))
    seconds = time.process_time() - cpu, time.perf_counter() - start
    count = sum(targets.size for targets in weights)
    print(
        f"{name}: {seconds[0]:.2f} s of CPU, {seconds[1]:.2f} s; {kept / count:.2f} kept a weight, "
        f"{redrawn} of {count:,} drawn again, largest error {error:.2e}",
        flush=True,
    )


def main():
    print(common.about())
    rng = np.random.default_rng(0)
    weights = [np.clip(rng.normal(0, 0.04, shape), LOW, HIGH) for shape in SHAPES]
    with common.Peak() as peak:
        run("candidates of each weight", weights, rows_share=False, best=False)
    print(f"  peak memory: {(peak.most - peak.start) / 1e6:.0f} MB")
    run("shared by a row", weights, rows_share=True, best=False)
    run("shared by a row, the nearest of all", weights, rows_share=True, best=True)


if __name__ == "__main__":
    main()
