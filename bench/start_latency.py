"""From the 202 to the job's process, forked from the zygote with torch loaded, on an idle worker.

Target: p50 at most 60 ms. For scale, the same run starts fresh interpreters that import torch.
Writes bench/results/start_latency.json. Run: python bench/start_latency.py [JOBS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from bench._stack import Stack, publish, service, small_model  # noqa: E402

TARGET_MS = 60.0
FRESH = 5
PAUSE_SECONDS = 0.3


def start_once(stack: Stack, spec: dict[str, Any]) -> tuple[float, float]:
    """Submit a job and cancel it once it runs; return ms from the request and from the 202."""
    sent = time.time()
    answer = stack.client.post("/jobs", json=spec).raise_for_status()
    accepted = time.time()
    job_id = answer.json()["id"]
    while "started" not in (log := stack.client.get(f"/jobs/{job_id}/logs").text):
        time.sleep(0.02)
    line = next(line for line in log.splitlines() if "started" in line)
    started = datetime.fromisoformat(line.split()[0]).timestamp()
    stack.client.post(f"/jobs/{job_id}/cancel")
    stack.wait(job_id)
    time.sleep(PAUSE_SECONDS)
    return (started - sent) * 1000, (started - accepted) * 1000


def start_fresh() -> float:
    """Return ms until a new interpreter has torch and its compiler and optimizers imported."""
    began = time.perf_counter()
    code = "import torch, torch._dynamo, torch.optim"
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def main(jobs: int) -> int:
    """Measure; return 1 when the target is missed."""
    model, data = small_model()
    with service() as stack:
        files = {"model": stack.upload(model), "data": stack.upload(data)}
        recipe = [{"op": "retrain", "train": {"epochs": 1000}}]
        spec = {"recipe": recipe, "files": files}
        start_once(stack, spec)
        runs = [start_once(stack, spec) for _ in range(jobs)]
    since_request, since_accepted = (sorted(column) for column in zip(*runs, strict=True))
    p50 = statistics.median(since_accepted)
    figures = {
        "jobs": jobs,
        "from_202_ms": _spread(since_accepted),
        "from_request_ms": _spread(since_request),
        "fresh_interpreter_ms": round(statistics.median(start_fresh() for _ in range(FRESH)), 1),
        "target_p50_ms": TARGET_MS,
        "met": p50 <= TARGET_MS,
    }
    publish("start_latency", figures)
    return 0 if figures["met"] else 1


def _spread(ordered: list[float]) -> dict[str, float]:
    last = len(ordered) - 1
    return {f"p{q}": round(ordered[round(last * q / 100)], 1) for q in (50, 90, 99)}


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 40))
