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

from planish.contract.errors import BY_CODE, PlanishError
from tests.hostile.fuzz.targets import TARGETS, Target

HANG_SECONDS = 1.0
STOP_SECONDS = 10
BATCH = 1_000


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

    @property
    def clean(self) -> bool:
        return not self.escapes and not self.hangs

    def json(self) -> dict[str, object]:
        return {
            "gate": self.target,
            "runs": self.runs,
            "codes": dict(self.codes.most_common()),
            "escapes": len(self.escapes),
            "hangs_over_1s": len(self.hangs),
            "slowest_ms": round(self.slowest_ms, 1),
            "seconds": round(self.seconds, 1),
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
    started = time.monotonic()
    for batch in range(-(-runs // BATCH)):
        rng = Random(f"{target.name} {seed} {batch}")
        for _ in range(min(BATCH, runs - tally.runs)):
            _one(target, target.mutate(rng), tally, keep)
    tally.seconds = time.monotonic() - started
    return tally


def _one(target: Target, raw: bytes, tally: Tally, keep: Path | None) -> None:
    tally.runs += 1
    started = time.perf_counter()
    fault = None
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
    spent = time.perf_counter() - started
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
    parser.add_argument("targets", nargs="*", metavar="gate", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--out", type=Path, help="a JSON file that gets the counts")
    options = parser.parse_args()
    tallies = []
    for name in options.targets or TARGETS:
        tally = fuzz(TARGETS[name], options.runs, options.seed, options.keep)
        tallies.append(tally)
        print(json.dumps(tally.json()), flush=True)
        for fault in list(dict.fromkeys(tally.escapes))[:3]:
            print(fault, file=sys.stderr)
        if options.out is not None:
            options.out.write_text(json.dumps([t.json() for t in tallies], indent=1) + "\n")
    sys.exit(not all(tally.clean for tally in tallies))


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    signal.signal(signal.SIGALRM, _stop)
    main()
