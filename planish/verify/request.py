"""What the fresh process is asked, and what it says."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

CALLS = 30
"""Timed calls of the model whose latency is looked at."""


class Request(BaseModel):
    """What to run.

    Attributes:
        loader: the script that opens models.
        folder: where they lie.
        models: their names, the main one first.
        batch: samples of a timed call.
        threads: computing threads.
        timed: the model to time; None for none.
    """

    loader: Path
    folder: Path
    models: tuple[str, ...]
    batch: int = 1
    threads: int | None = None
    timed: str | None = None


class Run(BaseModel):
    """What one model did.

    Attributes:
        error: why it does not run.
        missing: a package that this machine lacks for it.
        outputs: their shapes.
        difference: from the first model, as a share of the norm.
        stored: from the outputs that were stored with it.
        cosine: with the outputs of the original, on the same noise.
        median_ms: of `CALLS` calls.
    """

    error: str | None = None
    missing: str | None = None
    outputs: tuple[str, ...] = ()
    difference: float | None = None
    stored: float | None = None
    cosine: float | None = None
    median_ms: float | None = None


class Runs(BaseModel):
    """What the models did, by name."""

    runs: dict[str, Run]
