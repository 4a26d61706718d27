"""Latency of models side by side, so that the ratio means something.

Each side is a process of its own. They take turns, in an order that rotates from round to round,
with a pause after every turn and untimed calls at its begin: threads of the side that just ran spin
on for a while and would slow the next one down, which turns verdicts around. The ratio is the
median of the rounds' own ratios, so that a disturbance hits both sides of it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planish.contract.report import Latency
from worker.engine.measure.opened import Settings
from worker.engine.measure.side import Side, start_side

PAUSE_SECONDS = 0.03
MIN_ROUNDS = 5
_SIDE = "worker.engine.measure.latency_side"

Inputs = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Contender:
    """A model file, how its runtime is set, and how many of the samples it gets at once."""

    path: Path
    settings: Settings
    batch: int | None = None


@dataclass(frozen=True)
class SideTimes:
    """What one side measured.

    Attributes:
        latency: of single calls, over all timed calls.
        rounds: median of each round, in milliseconds.
        peak_memory_bytes: of the side's process; None where the system does not tell.
        precision: what the runtime computes in, where the file does not say integers.
    """

    latency: Latency
    rounds: tuple[float, ...]
    peak_memory_bytes: int | None
    precision: str = "float32"


def compare_latency(
    contenders: Mapping[str, Contender],
    inputs: Inputs,
    *,
    rounds: int = 40,
    budget_seconds: float = 60.0,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, SideTimes]:
    """Time model files against each other.

    Args:
        contenders: files and settings by the names of their sides.
        inputs: one call's inputs by name, in the model's order, the same for every side; one
            with a `batch` gets its first rows.
        rounds: turns of each side.
        budget_seconds: no further round begins after it, but 5 are done at least.
        on_progress: told the done fraction after each round.

    Raises:
        JobFailed: a side cannot load or run its model.
    """
    with tempfile.TemporaryDirectory(prefix="planish-") as folder, ExitStack() as stack:
        stored = Path(folder, "inputs.npz")
        np.savez(stored, **dict(inputs))  # type: ignore[arg-type]  # the stub mixes up a keyword
        sides = []
        for name, contender in contenders.items():
            batch = str(contender.batch or 0)
            arguments = (str(contender.path), str(stored), contender.settings.to_json(), batch)
            sides.append(stack.enter_context(start_side(name, _SIDE, arguments)))
        precisions = {side.name: str(side.hear()) for side in sides}
        turns = _take_turns(sides, rounds, budget_seconds, on_progress)
        return {
            side.name: _side_times(turns[side.name], side.finish(), precisions[side.name])
            for side in sides
        }


def paired_ratio(baseline: SideTimes, other: SideTimes) -> float:
    """Return the median of baseline / other over the rounds: above 1, `other` is faster."""
    return float(np.median(np.divide(baseline.rounds, other.rounds)))


def _take_turns(
    sides: list[Side], rounds: int, budget_seconds: float, on_progress: Callable[[float], None]
) -> dict[str, list[list[float]]]:
    """Return the milliseconds of the timed calls, by side and turn."""
    turns: dict[str, list[list[float]]] = {side.name: [] for side in sides}
    deadline = time.monotonic() + budget_seconds
    for index in range(rounds):
        if index >= MIN_ROUNDS and time.monotonic() > deadline:
            break
        shift = index % len(sides)
        for side in sides[shift:] + sides[:shift]:
            turns[side.name].append(_times(side.ask("go")))
            time.sleep(PAUSE_SECONDS)
        on_progress((index + 1) / rounds)
    return turns


def _times(answer: object) -> list[float]:
    if not isinstance(answer, list):
        raise TypeError(f"a measuring process answers with a list of times, not {answer!r}")
    return [float(value) for value in answer]


def _side_times(turns: list[list[float]], peak: object, precision: str) -> SideTimes:
    calls = np.array(turns)
    p50, p90, p99 = np.percentile(calls, (50, 90, 99)).tolist()
    return SideTimes(
        latency=Latency(p50=p50, p90=p90, p99=p99, samples=calls.size),
        rounds=tuple(np.median(calls, axis=1).tolist()),
        peak_memory_bytes=peak if isinstance(peak, int) else None,
        precision=precision,
    )
