"""One side of a latency comparison: a process that holds one model and times calls when told to.

It imports numpy and ONNX Runtime alone, and says on its standard output, one JSON value a line:
``"ready"`` once the model is loaded and warm, the milliseconds of each timed call after every
``go`` on its standard input, and its peak memory in bytes when the input ends.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from worker.engine.measure.memory import peak_memory_bytes
from worker.engine.measure.session import open_session

FIRST_CALLS = 5
WARM_CALLS = 2
TIMED_CALLS = 3


def main() -> None:
    """Serve turns until the standard input ends; arguments: model, npz of its inputs, threads."""
    model, inputs, threads = sys.argv[1:]
    session = open_session(Path(model), int(threads))
    with np.load(inputs, allow_pickle=False) as stored:
        feed = {name: stored[name] for name in stored.files}
    for _ in range(FIRST_CALLS):
        session.run(None, feed)
    _say("ready")
    for _ in sys.stdin:
        for _ in range(WARM_CALLS):
            session.run(None, feed)
        times = []
        for _ in range(TIMED_CALLS):
            start = time.perf_counter()
            session.run(None, feed)
            times.append((time.perf_counter() - start) * 1e3)
        _say(times)
    _say(peak_memory_bytes())


def _say(value: str | list[float] | int | None) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
