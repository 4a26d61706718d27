"""The command that runs one machine's processes, and its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from worker.engine.train.run import Nodes

ROOT = Path(__file__).resolve().parents[4]
STOP_SECONDS = 10.0


def torchrun(folder: Path, processes: int, nodes: Nodes) -> list[str]:
    """Return the command that runs this machine's processes."""
    meeting = ["--standalone"]
    if nodes.meet is not None:
        meeting = [
            f"--nnodes={nodes.count}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={nodes.meet}",
            f"--rdzv-id={nodes.name}",
        ]
    return [
        *(sys.executable, "-m", "worker.engine.train.spread.agent", str(os.getpid())),
        *meeting,
        f"--nproc-per-node={processes}",
        "--max-restarts=0",
        *("-m", "worker.engine.train.spread.rank", str(folder)),
    ]


def environment(nodes: Nodes) -> dict[str, str]:
    """Return the environment of torchrun: ours, and the way to our modules."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    there = dict(os.environ) | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    if nodes.meet is None:
        there |= {"GLOO_SOCKET_IFNAME": "lo"}
    return there


def stop(agent: subprocess.Popen[bytes]) -> None:
    """End torchrun, which ends its processes; when it does not, they die with it."""
    if agent.poll() is None:
        agent.terminate()
        try:
            agent.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            agent.kill()
