"""``python -m service.main --host 127.0.0.1 --port 8000``: the API alone."""

from __future__ import annotations

import argparse
import sys

from service.server import run_api
from service.settings import InvalidSettingsError, ServiceSettings


def main(arguments: list[str] | None = None) -> int:
    """Run the API; return the exit code."""
    parser = argparse.ArgumentParser(prog="planish api", description=__doc__)
    parser.add_argument("--host", help="address to listen on (PLANISH_HOST, 127.0.0.1)")
    parser.add_argument("--port", type=int, help="TCP port, 0 for a free one (PLANISH_PORT, 8000)")
    options = parser.parse_args(arguments)
    try:
        settings = ServiceSettings.from_env(options.host, options.port)
    except InvalidSettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201 - for people
        return 2
    run_api(settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
