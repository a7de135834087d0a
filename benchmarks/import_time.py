"""What `import keras_lottery` adds to importing Keras, in seconds of wall time."""

import statistics
import subprocess
import sys

CODE = """
import time
import keras
start = time.perf_counter()
import keras_lottery
print(time.perf_counter() - start)
"""


def main():
    runs = [
        float(subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True).stdout)
        for _ in range(5)
    ]
    print(f"import keras_lottery after keras: median {statistics.median(runs):.3f} s of {runs}")


if __name__ == "__main__":
    main()
