"""The corpus and many mutated files through a real server: API, worker, Redis, over HTTP.

    python -m tests.hostile.fuzz.over_http --files 20000 --out bench/results/fuzz_http.json

Exit status 1 where anything ran, restarted, answered without a stable code or took too much memory.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
import psutil

from planish.launch.stack import Stack, StackSettings
from tests.conftest import ROOT
from tests.hostile.canary import Canary
from tests.hostile.corpus import CASES, HARMLESS
from tests.hostile.corpus.case import Upload, data, model, weights
from tests.hostile.deliver import deliver_over_http
from tests.hostile.fuzz.armed import armed_data, armed_model
from tests.hostile.fuzz.targets import TARGETS

API_LIMIT_MB = 1_024
WORKER_LIMIT_MB = 4_096
ROUND = 500
WATCHED = 4
"""Files of each round whose jobs run to their end. The worker sleeps while the others come: what
the gate takes of those is cancelled in the queue."""

DOCUMENTED = frozenset(re.findall(r"`([a-z_]+)`", (ROOT / "docs" / "api.md").read_text()))

KINDS = ("pt2", "state_dict", "safetensors", "npz", "onnx", "parquet", "armed model", "armed data")


class Watch:
    """Looks at the server's processes while files are thrown at it."""

    def __init__(self, stack: Stack) -> None:
        self._parts = {name: psutil.Process(part.pid) for name, part in stack._parts.items()}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.peak_mb: dict[str, int] = dict.fromkeys(self._parts, 0)
        self.restarts = 0
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(0.5):
            for name, part in self._parts.items():
                for process in _tree(part):
                    size = _rss(process) >> 20
                    self.peak_mb[name] = max(self.peak_mb[name], size)

    def let_work(self, awake: bool) -> None:
        """Wake the worker's processes, or put them to sleep."""
        for process in _tree(self._parts["worker"]):
            with suppress(psutil.Error):
                process.resume() if awake else process.suspend()

    def end(self) -> None:
        """Stop looking; count the parts that are no longer what they were."""
        self._stop.set()
        self._thread.join()
        self.restarts = sum(not part.is_running() for part in self._parts.values())


def _tree(part: psutil.Process) -> list[psutil.Process]:
    try:
        return [part, *part.children(recursive=True)]
    except psutil.Error:
        return []


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


class Thrower:
    """Sends uploads and judges the answers."""

    def __init__(self, url: str, canary: Canary) -> None:
        self.client = httpx.Client(base_url=url, timeout=120, trust_env=False)
        self.canary = canary
        self.codes: Counter[str] = Counter()
        self.unstable: list[str] = []

    def throw(self, upload: Upload, name: str, wait: bool) -> str:
        """Send an upload; return the code of its refusal or failure, or how its job went on."""
        answer = deliver_over_http(upload, self.client)
        if answer.status_code == httpx.codes.ACCEPTED:
            code = self._follow(answer.json()["id"], name, wait)
        else:
            code = _code(answer)
            if answer.status_code >= 500 or code not in DOCUMENTED:
                self.unstable.append(f"{name}: {answer.status_code} {answer.text[:300]}")
        self.codes[code] += 1
        return code

    def _follow(self, job_id: str, name: str, wait: bool) -> str:
        if not wait:
            self.client.post(f"/jobs/{job_id}/cancel")
            return "accepted"
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            job = self.client.get(f"/jobs/{job_id}", headers={"Prefer": "wait=20"}).json()
            if job["terminal"]:
                break
        else:
            self.unstable.append(f"{name}: its job did not end")
            return "no end"
        self.client.delete(f"/jobs/{job_id}")
        if job["succeeded"]:
            return HARMLESS
        code = str((job["error"] or {}).get("code"))
        if code not in DOCUMENTED or code in ("internal_error", "worker_lost"):
            self.unstable.append(f"{name}: the job ended with {job['error']}")
        return code


def _code(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["code"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"


def mutant(rng: Random, canary: Canary) -> tuple[str, Upload]:
    """Return a mutated upload of a random kind."""
    kind = rng.choice(KINDS)
    if kind == "armed model":
        raw = armed_model(rng, canary)
        return kind, rng.choice((weights, model))(raw)
    if kind == "armed data":
        return kind, data(armed_data(rng, canary))
    raw = TARGETS[kind].mutate(rng)
    if kind in ("npz", "parquet"):
        return kind, data(raw)
    return kind, weights(raw) if kind in ("state_dict", "safetensors") else model(raw)


def throw_corpus(thrower: Thrower) -> dict[str, Any]:
    """Send every case of the corpus and wait for its end."""
    wrong = []
    for case in CASES:
        code = thrower.throw(case.make(thrower.canary), case.name, wait=True)
        if code not in case.codes:
            wrong.append(f"{case.name}: {code}, not {' or '.join(case.codes)}")
    return {"classes": len(CASES), "wrong": wrong}


def throw_mutants(
    thrower: Thrower, numbers: range, seed: int, threads: int, wait: bool = False
) -> Counter[str]:
    """Send mutated files from several threads; the same seed gives the same files."""
    kinds: Counter[str] = Counter()
    gate = threading.Lock()

    def one(number: int) -> None:
        rng = Random(f"http {seed} {number}")
        with gate:  # the canary's object and the seeds are shared
            kind, upload = mutant(rng, thrower.canary)
            kinds[kind] += 1
        thrower.throw(upload, f"{kind} {number}", wait)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, numbers))
    return kinds


@dataclass
class Tally:
    """What became of everything that was thrown."""

    thrower: Thrower
    watch: Watch
    corpus: dict[str, Any]
    files: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    fired: list[str] = field(default_factory=list)
    healthy: bool = False
    started: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Ask for signs of execution and of life."""
        self.fired += self.thrower.canary.fired()
        self.healthy = self.thrower.client.get("/healthz").status_code == httpx.codes.OK

    def json(self) -> dict[str, Any]:
        return {
            "corpus": self.corpus,
            "mutated_files": self.files,
            "kinds": dict(self.kinds.most_common()),
            "codes": dict(self.thrower.codes.most_common()),
            "executed": self.fired,
            "restarts": self.watch.restarts,
            "ready_at_the_end": self.healthy,
            "unstable_answers": self.thrower.unstable,
            "peak_rss_mb": self.watch.peak_mb,
            "limits_mb": {"API": API_LIMIT_MB, "worker": WORKER_LIMIT_MB},
            "seconds": round(time.monotonic() - self.started),
        }


def measure(files: int, seed: int, threads: int, corpus: bool, out: Path | None) -> dict[str, Any]:
    """Run a server and throw everything at it.

    Args:
        files: how many mutated files.
        seed: of the mutators.
        threads: that send at the same time.
        corpus: whether to send the hand-made cases too.
        out: gets the counts after every round.
    """
    with tempfile.TemporaryDirectory(prefix="planish-fuzz-") as folder:
        canary = Canary(Path(folder))
        settings = StackSettings(Path(folder, "data"), log=Path(folder, "serve.log"))
        with Stack(settings) as stack:
            thrower = Thrower(stack.url, canary)
            tally = Tally(thrower, Watch(stack), {"classes": 0, "wrong": []})
            if corpus:
                tally.corpus = throw_corpus(thrower)
            for first in range(0, files, ROUND):
                numbers = range(first, min(first + ROUND, files))
                tally.watch.let_work(awake=False)
                tally.kinds += throw_mutants(thrower, numbers[WATCHED:], seed, threads)
                tally.watch.let_work(awake=True)
                tally.kinds += throw_mutants(thrower, numbers[:WATCHED], seed, 1, wait=True)
                tally.files += len(numbers)
                tally.look()
                if out is not None:
                    out.write_text(json.dumps(tally.json(), indent=1) + "\n")
            tally.look()
            tally.watch.end()
        tally.fired += canary.fired()
        canary.close()
    return tally.json()


def clean(result: dict[str, Any]) -> bool:
    """Tell whether nothing ran, restarted, surprised or grew."""
    return (
        not (result["executed"] or result["restarts"] or result["unstable_answers"])
        and not result["corpus"]["wrong"]
        and result["ready_at_the_end"]
        and all(result["peak_rss_mb"][name] < most for name, most in result["limits_mb"].items())
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--no-corpus", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    corpus = not options.no_corpus
    result = measure(options.files, options.seed, options.threads, corpus, options.out)
    text = json.dumps(result, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")
    sys.exit(not clean(result))


if __name__ == "__main__":
    main()
