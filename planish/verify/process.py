"""The near end of the processes that verification starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pydantic import ValidationError

from planish.launch.apps import apps_folder, environment
from planish.verify.request import Request, Run, Runs

RUN_SECONDS = 600


def loader() -> Path:
    """Return this package's own copy of what travels as load.py."""
    return apps_folder() / "worker" / "engine" / "save" / "standalone.py"


def run_fresh(request: Request) -> dict[str, Run]:
    """Run models, each in a process of its own; return what they did, by name."""
    answer = ask("planish.verify.fresh", request.model_dump_json())
    try:
        runs = Runs.model_validate_json(answer).runs
    except ValidationError:
        runs = {}
    return {name: runs.get(name, Run(error=answer)) for name in request.models}


def ask(module: str, question: str) -> str:
    """Run ``python -m module``; return its last line, or a sentence that says how it failed."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=question,
            env=environment({}),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not finished after {RUN_SECONDS} seconds"
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return f"the fresh process failed: {last}"
    return lines[-1]
