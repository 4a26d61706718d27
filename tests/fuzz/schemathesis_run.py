"""Requests generated from ``/openapi.json`` against a live API, answers held against it.

    python -m tests.fuzz.schemathesis_run [--examples N] [--seed N] [--json FILE] [OPTIONS]

OPTIONS are schemathesis' own (``--include-path-regex uploads``).

Starts an API with a key, a Redis, a finished job, a file and an unfinished upload; workers are
announced, but none runs: what passes the gate stays queued. Exit code 0: no server error, no answer
that the document does not describe, no way in without the key.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import httpx

from planish.contract.wire import JOB_QUEUE, PLAN_QUEUE
from planish.store.settings import StoreSettings
from service.settings import ServiceSettings
from tests.conftest import ROOT, run_redis
from tests.engine.report.sample import sample_report
from tests.service.conftest import ARTIFACTS, SPEC, Api, finish, form, safetensors, serve

KEY = "a-key-for-the-fuzzer-0123456789"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ignored_auth",
)
JOBS = 24
TTL_SECONDS = 3600.0


class Figures(TypedDict):
    """What a run found."""

    exit_code: int
    seed: int
    cases: int
    server_errors: int
    failed_checks: dict[str, int]
    statuses: dict[str, int]


@dataclass(frozen=True)
class World:
    """What there is to ask for."""

    url: str
    ids: dict[str, list[str]]


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Run an API with something in it."""
    for redis_url in run_redis(folder / "redis"):
        store = StoreSettings(folder / "data", redis_url)
        for api in serve(ServiceSettings(store, port=0, api_key=KEY, max_upload_bytes=32 << 20)):
            yield World(api.url, furnish(api))


def furnish(api: Api) -> dict[str, list[str]]:
    """Put jobs, a file and uploads in; return their ids by the names of path parameters."""
    import numpy as np

    for queue in (JOB_QUEUE, PLAN_QUEUE):
        api.ledger.register_worker(f"announced-{queue}", 0, (queue,), TTL_SECONDS)
    model = safetensors({"conv.weight": np.zeros((4, 3, 3, 3), np.float32)})
    made = {**ARTIFACTS, "report.json": sample_report().model_dump_json().encode()}
    with api.client(authorization=f"Bearer {KEY}") as client:
        jobs = [submit(client, model) for _ in range(JOBS)]
        for number, job_id in enumerate(jobs):  # streams of live ones would not end
            if number % 2:
                finish(api, job_id, made)
            else:
                client.post(f"/jobs/{job_id}/cancel").raise_for_status()
        file_id = client.post("/files", content=b"only to be looked at").json()["id"]
        tus = {"tus-resumable": "1.0.0", "upload-length": "100"}
        uploads = [client.post("/uploads", headers=tus).headers["location"] for _ in range(4)]
    return {
        "job_id": jobs,
        "file_id": [file_id],
        "name": ["model.onnx", "report.json"],
        "upload_id": [path.rpartition("/")[2] for path in uploads],
    }


def submit(client: httpx.Client, model: bytes) -> str:
    """Submit a job that nobody runs."""
    return str(client.post("/jobs", files=form(SPEC, model=model)).json()["id"])


def fuzz(
    there: World, examples: int, seed: int, phases: str, folder: Path, more: Sequence[str] = ()
) -> Figures:
    """Run schemathesis on all operations; return how many cases there were and what they met."""
    report = folder / "events.ndjson"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{there.url}/openapi.json"]
    command += ["-c", ",".join(CHECKS), "-n", str(examples), "--seed", str(seed)]
    command += ["-H", f"Authorization: Bearer {KEY}", "--phases", phases, "--request-timeout", "30"]
    command += ["--suppress-health-check", "all", "--warnings", "off", "--continue-on-failure"]
    command += ["--report", "ndjson", "--report-ndjson-path", str(report), *more]
    variables = {
        "PLANISH_FUZZ_IDS": json.dumps(there.ids),
        "SCHEMATHESIS_HOOKS": "tests.fuzz.schemathesis_hooks",
        "PYTHONPATH": str(ROOT),
    }
    ended = subprocess.run(command, env={**os.environ, **variables}, cwd=folder, check=False)
    cases, statuses, failures = counted(report)
    return {
        "exit_code": ended.returncode,
        "seed": seed,
        "cases": cases,
        "server_errors": sum(n for status, n in statuses.items() if status >= 500),
        "failed_checks": dict(failures),
        "statuses": {str(status): n for status, n in sorted(statuses.items())},
    }


def counted(report: Path) -> tuple[int, Counter[int], Counter[str]]:
    """Return the requests that were answered, by status, and the checks that failed."""
    statuses: Counter[int] = Counter()
    failures: Counter[str] = Counter()
    for line in report.read_text().splitlines():
        for kind, event in json.loads(line).items():
            if kind == "ScenarioFinished":
                recorder = event["recorder"]
                for interaction in recorder.get("interactions", {}).values():
                    answer = interaction.get("response")
                    statuses[answer["status_code"] if answer else 0] += 1
                for checks in recorder.get("checks", {}).values():
                    failures.update(c["name"] for c in checks if c["status"] == "failure")
            elif kind == "NonFatalError":
                failures["error of the fuzzer"] += 1
    return sum(statuses.values()), statuses, failures


def main() -> int:
    """Fuzz, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=350, help="for each operation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--phases", default="examples,coverage,fuzzing,stateful")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="planish-fuzz-") as name, world(Path(name)) as there:
        figures = fuzz(there, options.examples, options.seed, options.phases, Path(name), more)
    print(json.dumps(figures, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return int(figures["exit_code"] != 0 or bool(figures["failed_checks"]))


if __name__ == "__main__":
    sys.exit(main())
