"""A job of about a minute: through the service, and by calling the engine directly.

Both sides take turns in one run (direct, service, service, direct), with the same spec, files and
threads. The service's time runs from the 202 until the client knows of the end; the engine's own
time is taken from the job's log, and from a clock around the direct call (its imports are left
out: the service has them done). Target: the overhead is at most 1 %.

Two figures: what the service adds around the engine's call (exact, also on a busy machine), and the
ratio of the two sides' medians (holds the effect of the service's own processor time too, and the
machine's noise). Writes bench/results/service_overhead.json.
Run on a quiet machine: python bench/service_overhead.py [SECONDS] [ROUNDS]
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

TARGET = 0.01
FINISHED = re.compile(r"finished after ([\d.]+) s")


def direct(folder: Path) -> float:
    """Call the engine in this process; return the seconds of the call."""
    import torch

    from planish.contract.spec import Spec
    from worker.engine.pipeline import JobInputs, optimize
    from worker.engine.progress import Silent
    from worker.machine import cores

    torch.set_num_threads(cores())
    spec = Spec.model_validate_json((folder / "spec.json").read_bytes())
    inputs = JobInputs("direct", spec, folder / "model.pt2", folder / "data.npz")
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        optimize(inputs, Path(out), Silent())
        return time.perf_counter() - began


def in_fresh_process(folder: Path, spec: dict[str, Any]) -> float:
    """Call the engine in a process of its own, as the service does."""
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, __file__, "--direct", str(folder)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(run.stdout.split()[-1])


def main(seconds: float, rounds: int) -> int:
    """Measure; return 1 when the target is missed."""
    from bench._stack import Stack, publish, service, small_model

    def through_service(stack: Stack, spec: dict[str, Any]) -> tuple[float, float, float]:
        """Return seconds from the 202 to the known end, the engine's, and the service's CPU."""
        cpu = stack.cpu_seconds()
        job_id = stack.client.post("/jobs", json=spec).raise_for_status().json()["id"]
        began = time.perf_counter()
        job = stack.wait(job_id)
        took = time.perf_counter() - began
        if not job["succeeded"]:
            raise SystemExit(f"the job did not succeed: {job['error']}")
        found = FINISHED.search(stack.client.get(f"/jobs/{job_id}/logs").text)
        if found is None:
            raise SystemExit("the job's log does not say when it finished")
        return took, float(found[1]), stack.cpu_seconds() - cpu

    model, data = small_model()
    with tempfile.TemporaryDirectory() as name, service() as stack:
        folder = Path(name)
        (folder / "model.pt2").write_bytes(model)
        (folder / "data.npz").write_bytes(data)
        files = {"model": stack.upload(model), "data": stack.upload(data)}
        epochs = _epochs_for(seconds, lambda count: in_fresh_process(folder, _spec(count)))
        spec = _spec(epochs)
        directs, services = [], []
        for _ in range(rounds):
            directs.append(in_fresh_process(folder, spec))
            services += [through_service(stack, {**spec, "files": files}) for _ in range(2)]
            directs.append(in_fresh_process(folder, spec))
    added = [took - engine for took, engine, _ in services]
    share = statistics.median(a / engine for a, (_, engine, _) in zip(added, services, strict=True))
    totals = [took for took, _, _ in services]
    figures = {
        "epochs": epochs,
        "direct_seconds": [round(value, 2) for value in directs],
        "service_seconds": [round(value, 2) for value in totals],
        "added_around_the_call_ms": [round(value * 1000, 1) for value in added],
        "added_share": round(share, 5),
        "service_cpu_share": round(statistics.median(cpu / took for took, _, cpu in services), 5),
        "ratio_of_medians": round(statistics.median(totals) / statistics.median(directs), 4),
        "target_share": TARGET,
        "met": share <= TARGET,
    }
    publish("service_overhead", figures)
    return 0 if figures["met"] else 1


def _spec(epochs: int) -> dict[str, Any]:
    recipe = [{"op": "retrain", "train": {"epochs": epochs}}, {"op": "quantize", "samples": 128}]
    return {"recipe": recipe, "target": {"threads": 2}}


def _epochs_for(seconds: float, run: Callable[[int], float]) -> int:
    """Return how many epochs make a job of about so many seconds, from two short runs."""
    few, more = 1, 9
    base = run(few)
    each = max((run(more) - base) / (more - few), 1e-3)
    return max(1, round((seconds - base) / each))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--direct"]:
        print(direct(Path(sys.argv[2])))
    else:
        numbers = [float(text) for text in sys.argv[1:]]
        sys.exit(main(numbers[0] if numbers else 60.0, int(numbers[1]) if len(numbers) > 1 else 1))
