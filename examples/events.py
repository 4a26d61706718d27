"""Follow a job live: python examples/events.py job_….  Reconnects by itself, misses nothing."""

from __future__ import annotations

import sys

import planish

if __name__ == "__main__":
    with planish.Client() as client:
        for event in client.events(sys.argv[1]):
            print(event.id, event.time.isoformat(), event.type, event.data)
