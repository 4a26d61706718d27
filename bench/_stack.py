"""API, one worker and an embedded Redis on a temporary folder, for the measurements."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
BOOT_SECONDS = 180
SERVICE = ("service.main", "worker.main", "celery")


@dataclass(frozen=True)
class Stack:
    """The running service.

    Attributes:
        client: talks to its API.
        roots: the processes that it was started with.
    """

    client: httpx.Client
    roots: tuple[psutil.Process, ...]

    def cpu_seconds(self) -> float:
        """Return the processor time that the service itself has taken; jobs are not counted."""
        total = 0.0
        for root in self.roots:
            for process in [root, *root.children(recursive=True)]:
                if any(name in process.cmdline() for name in SERVICE):
                    times = process.cpu_times()
                    total += times.user + times.system
        return total

    def upload(self, content: bytes) -> str:
        """Store a file; return its id."""
        answer = self.client.post("/files", content=content).raise_for_status()
        return str(answer.json()["id"])

    def wait(self, job_id: str) -> dict[str, Any]:
        """Long-poll until the job is over; return it."""
        while True:
            job = self.client.get(f"/jobs/{job_id}", headers={"Prefer": "wait=30"}).json()
            if job["terminal"]:
                return dict(job)


@contextmanager
def service() -> Iterator[Stack]:
    """Start everything, wait until it is ready, stop everything."""
    from planish.store.embedded import EmbeddedRedis

    with tempfile.TemporaryDirectory(prefix="planish-bench-") as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        redis = EmbeddedRedis(Path(folder))
        env = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PLANISH_DATA_DIR": folder,
            "PLANISH_REDIS_URL": redis.start(),
        }
        commands = [["service.main", "--port", str(port)], ["worker.main"]]
        processes = [
            subprocess.Popen([sys.executable, "-m", *command], env=env, stderr=subprocess.DEVNULL)
            for command in commands
        ]
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                _await_ready(client)
                yield Stack(client, tuple(psutil.Process(process.pid) for process in processes))
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                process.wait(30)
            redis.stop()


def _await_ready(client: httpx.Client) -> None:
    until = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < until:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit("the service did not become ready")


def small_model() -> tuple[bytes, bytes]:
    """Return a small residual network as .pt2, and noise with labels as .npz."""
    from tests.exports import export_pt2
    from tests.zoo import small_residual_cnn

    torch.manual_seed(0)
    module, example = small_residual_cnn()
    with tempfile.TemporaryDirectory() as folder:
        model = export_pt2(module, example, Path(folder) / "model.pt2").read_bytes()
    noise = np.random.default_rng(0)
    data = io.BytesIO()
    images = noise.integers(0, 255, (4096, 8, 8, 1), dtype=np.uint8)
    np.savez(data, x=images, targets=noise.integers(0, 10, 4096))
    return model, data.getvalue()


def publish(name: str, figures: dict[str, Any]) -> None:
    """Print the figures and keep them in bench/results."""
    text = json.dumps(figures, indent=2)
    print(text)
    (RESULTS / f"{name}.json").write_text(text + "\n")
