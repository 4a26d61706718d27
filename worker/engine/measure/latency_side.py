"""One side of a latency comparison: a process that holds one model and times calls when told to.

It imports numpy and the runtime alone, and says on its standard output, one JSON value a line: the
precision that the runtime computes in once the model is loaded and warm, the milliseconds of each
timed call after every ``go`` on its standard input, and its peak memory in bytes when that ends.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from worker.engine.measure.memory import peak_memory_bytes
from worker.engine.measure.opened import Settings, open_model

FIRST_CALLS = 5
WARM_CALLS = 2
TIMED_CALLS = 3


def main() -> None:
    """Serve turns until the standard input ends.

    Arguments: model, npz of its inputs, settings, and how many rows of them to use (0: all).
    """
    model, inputs, settings, rows = sys.argv[1:]
    with np.load(inputs, allow_pickle=False) as stored:
        arrays = [stored[name][: int(rows) or None] for name in stored.files]
    shapes = [array.shape for array in arrays]
    network = open_model(Path(model), Settings.from_json(settings), shapes)
    for _ in range(FIRST_CALLS):
        network.run(arrays)
    _say(network.precision)
    for _ in sys.stdin:
        for _ in range(WARM_CALLS):
            network.run(arrays)
        times = []
        for _ in range(TIMED_CALLS):
            start = time.perf_counter()
            network.run(arrays)
            times.append((time.perf_counter() - start) * 1e3)
        _say(times)
    _say(peak_memory_bytes())


def _say(value: str | list[float] | int | None) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
