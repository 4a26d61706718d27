"""One gate, many inputs: every run must end with success or an error of the contract, quickly.

    python -m tests.hostile.fuzz.inprocess onnx --runs 1000000

An input that escapes or hangs is written to a file, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from planish.contract.errors import BY_CODE, PlanishError
from tests.hostile.fuzz.targets import TARGETS, Target

# Of the processor: on a busy machine anything may wait.
HANG_SECONDS = 1.0
STOP_SECONDS = 10
BATCH = 1_000
ROUND = 50_000
"""Runs of each gate before the next one has its turn: a broken-off session has some of each."""


class Hang(BaseException):
    """A run that did not end; not an `Exception`, so that no gate can swallow it."""


@dataclass
class Tally:
    """What became of the runs of one gate."""

    target: str
    runs: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    escapes: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    slowest_ms: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def clean(self) -> bool:
        return not self.escapes and not self.hangs

    def json(self) -> dict[str, Any]:
        return {
            "way": self.target,
            "runs": self.runs,
            "codes": dict(self.codes.most_common()),
            "escapes": len(self.escapes),
            "hangs_over_1s": len(self.hangs),
            "slowest_ms": round(self.slowest_ms, 1),
            "seconds": round(self.seconds, 1),
            "cpu_seconds": round(self.cpu_seconds, 1),
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        }


def fuzz(target: Target, runs: int, seed: int = 0, keep: Path | None = None) -> Tally:
    """Run mutated inputs; the same seed gives the same inputs.

    Args:
        target: the gate.
        runs: how many inputs.
        seed: of the mutator; each batch of a thousand has its own.
        keep: folder for inputs that escape or hang.
    """
    tally = Tally(target.name)
    target.mutate(Random(0))  # makes the seeds
    started, cpu = time.monotonic(), time.process_time()
    for batch in range(-(-runs // BATCH)):
        rng = Random(f"{target.name} {seed} {batch}")
        for _ in range(min(BATCH, runs - tally.runs)):
            _one(target, target.mutate(rng), tally, keep)
    tally.seconds, tally.cpu_seconds = time.monotonic() - started, time.process_time() - cpu
    return tally


def _one(target: Target, raw: bytes, tally: Tally, keep: Path | None) -> None:
    tally.runs += 1
    started = time.thread_time()
    fault = None
    signal.setitimer(signal.ITIMER_VIRTUAL, STOP_SECONDS)
    try:
        target.run(raw)
        code = "accepted"
    except PlanishError as error:
        code = error.code
        if error.status >= 500 or code not in BY_CODE:
            fault = f"{type(error).__name__}: {error}"
        error.problem("r").model_dump_json()
    except (Hang, Exception):
        code, fault = "escape", traceback.format_exc()
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    spent = time.thread_time() - started
    tally.codes[code] += 1
    tally.slowest_ms = max(tally.slowest_ms, spent * 1000)
    if fault is not None:
        tally.escapes.append(fault)
    if spent > HANG_SECONDS:
        tally.hangs.append(f"{spent:.1f} s")
    if keep is not None and (fault is not None or spent > HANG_SECONDS):
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{target.name}-{tally.runs}{target.suffix}").write_bytes(raw)


def _stop(signum: int, frame: object) -> None:
    raise Hang


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="way", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--runs", type=int, default=1_000_000, help="of each gate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--out", type=Path, help="a JSON file whose counts are added to")
    options = parser.parse_args()
    clean = True
    for number in range(-(-options.runs // ROUND)):
        size = min(ROUND, options.runs - number * ROUND)
        for target in [TARGETS[name] for name in options.targets or TARGETS]:
            seed = options.seed + number
            tally = fuzz(target, round(size * target.share), seed, options.keep)
            clean = clean and tally.clean
            print(json.dumps(tally.json()), flush=True)
            for fault in list(dict.fromkeys(tally.escapes))[:3]:
                print(fault, file=sys.stderr)
            if options.out is not None:
                _record(options.out, target, tally)
    sys.exit(not clean)


def _record(path: Path, target: Target, tally: Tally) -> None:
    """Add a way's counts to those of earlier runs with other seeds."""
    found = json.loads(path.read_text()) if path.exists() else {}
    ways = found.setdefault("ways", {})
    new, old = tally.json(), ways.get(target.name)
    if old is not None:
        for key in ("runs", "escapes", "hangs_over_1s", "seconds", "cpu_seconds"):
            new[key] = round(new[key] + old[key], 1)
        for key in ("slowest_ms", "peak_rss_mb"):
            new[key] = max(new[key], old[key])
        new["codes"] = dict((Counter(new["codes"]) + Counter(old["codes"])).most_common())
    ways[target.name] = {"gate": target.gate, **new}
    found["gates"] = {}
    for way in ways.values():
        found["gates"][way["gate"]] = found["gates"].get(way["gate"], 0) + way["runs"]
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    signal.signal(signal.SIGVTALRM, _stop)
    main()
