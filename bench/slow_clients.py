"""What slow clients can hold, and what the others notice.

600 connections send one byte of a request head every half second, 200 send one byte of a body each
second; whoever is cut off comes back at once. Meanwhile other clients poll a job and upload small
files at a steady rate, each request on its own clock. Calm and attack take turns; the figures are
the longest time that one slow connection was held, and the others' p99 under attack over calm.

Writes bench/results/slow_clients.json.
Run on a quiet machine: python bench/slow_clients.py [ROUNDS]
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "slow_clients.json"
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

HEADS, BODIES = 600, 200
HEAD_PAUSE, BODY_PAUSE = 0.5, 1.0
CALM_SECONDS, ATTACK_SECONDS = 15.0, 30.0
RATE = 100  # requests a second of the others, three quarters of them polls
MOST_SECONDS = 15.0
MOST_RATIO = 2.0
BODY = b"POST /files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
HEAD = b"GET /jobs HTTP/1.1\r\nHost: localhost\r\nX-Slow: "


def main() -> None:
    """Measure, publish, exit with 1 when a target is missed."""
    if sys.argv[1:2] == ["--attack"]:
        held = asyncio.run(attack(sys.argv[2], float(sys.argv[3]), HEADS, BODIES))
        print(json.dumps(held))
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    from http_path import planish, submit

    with tempfile.TemporaryDirectory(prefix="planish-bench-") as name, planish(Path(name)) as run:
        api, _ = run
        figures = asyncio.run(measure(api, submit(api), rounds))
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    met = figures["longest_held_seconds"] <= MOST_SECONDS and figures["p99_ratio"] <= MOST_RATIO
    sys.exit(not met)


async def measure(api: str, job: str, rounds: int) -> dict[str, Any]:
    """Return the figures of all rounds."""
    calm: list[float] = []
    attacked: list[float] = []
    p99s: list[tuple[float, float]] = []
    held: dict[str, list[float]] = {"head": [], "body": []}
    refused = 0
    for _ in range(rounds):
        quiet, _ = await others(api, job, CALM_SECONDS)
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--attack", api, str(ATTACK_SECONDS),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await asyncio.sleep(2)
        busy, turned_away = await others(api, job, ATTACK_SECONDS - 4)
        for kind, seconds in json.loads((await process.communicate())[0]).items():
            held[kind] += seconds
        calm, attacked, refused = calm + quiet, attacked + busy, refused + turned_away
        p99s.append((percentile(quiet, 99), percentile(busy, 99)))
        await asyncio.sleep(1)
    return {
        "slow_head_connections": HEADS,
        "slow_body_connections": BODIES,
        "connections_cut": {kind: len(seconds) for kind, seconds in held.items()},
        "longest_held_seconds": max(max(seconds) for seconds in held.values()),
        "longest_held": {kind: max(seconds) for kind, seconds in held.items()},
        "others_p50_ms": {"calm": percentile(calm, 50), "attack": percentile(attacked, 50)},
        "others_p99_ms": {"calm": percentile(calm, 99), "attack": percentile(attacked, 99)},
        "p99_ratio": statistics.median(busy / quiet for quiet, busy in p99s),
        "others_requests": len(calm) + len(attacked),
        "others_uploads_told_to_come_back": refused,
        "rounds_p99_ms": p99s,
    }


async def others(api: str, job: str, seconds: float) -> tuple[list[float], int]:
    """Send requests at a steady rate; return their milliseconds, and how many got a 503."""
    import httpx

    took: list[float] = []
    refused = 0

    async def one(client: httpx.AsyncClient, number: int) -> None:
        nonlocal refused
        began = time.perf_counter()
        if number % 4:
            answer = await client.get(job)
        else:
            answer = await client.post("/files", content=b"%d" % (number % 100))
        took.append((time.perf_counter() - began) * 1000)
        refused += answer.status_code == 503
        assert answer.status_code in (200, 201, 503), answer.text

    async with httpx.AsyncClient(base_url=api, timeout=30, trust_env=False) as client:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(seconds * RATE)):
                await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))
                group.create_task(one(client, number))
    return took, refused


async def attack(api: str, seconds: float, heads: int, bodies: int) -> dict[str, list[float]]:
    """Keep so many slow connections for some seconds; return how long each was held."""
    until = time.monotonic() + seconds
    held: dict[str, list[float]] = {"head": [], "body": []}

    async def keep(kind: str, start: bytes, pause: float) -> None:
        while time.monotonic() < until:
            held[kind].append(await slow(api, start, pause))

    slots = [keep("head", HEAD, HEAD_PAUSE) for _ in range(heads)]
    slots += [keep("body", BODY, BODY_PAUSE) for _ in range(bodies)]
    await asyncio.gather(*slots)
    return held


async def slow(api: str, start: bytes, pause: float) -> float:
    """Send a byte now and then until the server ends it; return the seconds it lasted."""
    address = urlsplit(api)
    began = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(start)
        ended = asyncio.create_task(reader.read())
        while not ended.done():
            writer.write(b"a")
            await asyncio.wait({ended}, timeout=pause)
        ended.exception()
        writer.close()
    except OSError:
        await asyncio.sleep(pause)
    return time.monotonic() - began


def percentile(values: list[float], share: int) -> float:
    """Return a percentile of milliseconds."""
    return sorted(values)[min(len(values) * share // 100, len(values) - 1)]


if __name__ == "__main__":
    main()
