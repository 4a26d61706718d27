"""``python -m planish.launch.keeper DATA_DIR``: holds the embedded Redis while it is needed.

Stdin is a pipe whose other end the launcher, the API and the worker hold. It closes when the last
of them is gone, by an orderly stop or by ``kill -9``: Redis is shut down then, never before.
The first line on stdout is ``{"url": …}`` or ``{"error": …}``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from planish.contract.errors import PlanishError
from planish.store.embedded import EmbeddedRedis

PIECE = 4096


def main(data_dir: str) -> int:
    """Run Redis until nobody holds the pipe any more."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    server = EmbeddedRedis(Path(data_dir))
    try:
        url = server.start()
    except PlanishError as error:
        _say({"error": error.detail})
        return 1
    try:
        _say({"url": url})
        while os.read(sys.stdin.fileno(), PIECE):
            pass
    finally:
        server.stop()
    return 0


def _say(message: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
