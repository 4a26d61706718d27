"""Checks a folder of artifacts: hashes, fresh-process runs, and the report's claims.

Nothing in the folder is executed: models are opened by this package's own copy of the loader, and
only after a look at the file has found no code in it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from planish.contract.errors import MissingPart, PlanishError, VerificationFailed
from planish.contract.report import Report
from planish.contract.wire import MANIFEST, REPORT_JSON, beside
from planish.gate.identify import identify_model
from planish.launch.apps import apps_folder, environment

RUN_SECONDS = 600
LOADER_MODULE = Path("worker", "engine", "save", "standalone.py")  # what travels as load.py
MODEL_SUFFIXES = (".onnx", ".xml", ".pt2")


class Outcome(StrEnum):
    """How a check went; SKIPPED says in its detail what is missing."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


class Check(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(frozen=True)

    name: str
    outcome: Outcome
    detail: str


class Verification(BaseModel):
    """Everything that was looked at; `ok` when nothing failed."""

    model_config = ConfigDict(frozen=True)

    folder: str
    ok: bool
    checks: tuple[Check, ...]


class _Entry(BaseModel):
    name: str
    size: int
    sha256: str


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="ignore")

    files: tuple[_Entry, ...]


class _Run(BaseModel):
    """What the fresh process prints for each model."""

    error: str | None = None
    missing: str | None = None
    outputs: list[str] = []
    difference: float | None = None


def verify(folder: Path) -> Verification:
    """Check a folder as `Client.download` leaves it.

    Raises:
        MissingPart: there is no such folder.
        VerificationFailed: it has no readable manifest.
    """
    if not folder.is_dir():
        raise MissingPart(f"there is no folder {folder}")
    manifest = _manifest(folder)
    checks = [_hash_check(folder, entry) for entry in manifest.files]
    intact = {check.name for check in checks if check.outcome is Outcome.OK}
    models = [e.name for e in manifest.files if e.name.endswith(MODEL_SUFFIXES)]
    checks += _runs(folder, [name for name in models if intact.issuperset(_parts(name))])
    checks += _claims(folder, models)
    failed = any(check.outcome is Outcome.FAILED for check in checks)
    return Verification(folder=str(folder), ok=not failed, checks=tuple(checks))


def _parts(name: str) -> tuple[str, ...]:
    """Return a model file's name, and that of the weights beside it."""
    second = beside(name)
    return (name,) if second is None else (name, second)


def _manifest(folder: Path) -> _Manifest:
    try:
        return _Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise VerificationFailed(f"{folder} has no {MANIFEST}; was it downloaded whole?") from None
    except ValidationError:
        raise VerificationFailed(f"{folder / MANIFEST} cannot be read") from None


def _hash_check(folder: Path, entry: _Entry) -> Check:
    if Path(entry.name).name != entry.name:
        return Check(name=entry.name, outcome=Outcome.FAILED, detail="not a plain file name")
    try:
        with (folder / entry.name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        return Check(name=entry.name, outcome=Outcome.FAILED, detail=error.strerror or "unreadable")
    if (size, digest) != (entry.size, entry.sha256):
        detail = (
            f"{size} bytes with sha256 {digest}; the manifest says {entry.size}, {entry.sha256}"
        )
        return Check(name=entry.name, outcome=Outcome.FAILED, detail=detail)
    return Check(name=entry.name, outcome=Outcome.OK, detail=f"sha256 {digest[:16]}…")


def _runs(folder: Path, models: list[str]) -> Iterator[Check]:
    """Open and run the models, all on the same inputs, each in a process of its own."""
    safe = []
    for name in models:
        if (refusal := _refusal(folder / name)) is not None:
            yield Check(name=f"run {name}", outcome=Outcome.FAILED, detail=refusal)
        else:
            safe.append(name)
    if not safe:
        return
    for name, run in _run_fresh(folder, safe).items():
        yield _run_check(name, run)


def _refusal(path: Path) -> str | None:
    """Return why a file is not opened: `.pt2` files can carry code."""
    if path.suffix != ".pt2":
        return None
    try:
        found = identify_model(path)
    except PlanishError as error:
        return f"not opened: {error.detail}"
    return None if found == "pt2" else f"not opened: its content is {found}"


def _run_fresh(folder: Path, models: list[str]) -> dict[str, _Run]:
    if find_spec("numpy") is None:
        return dict.fromkeys(models, _Run(missing="numpy"))
    loader = apps_folder() / LOADER_MODULE
    command = [sys.executable, "-m", "planish.verify.fresh", str(loader)]
    try:
        done = subprocess.run(
            [*command, str(folder.resolve()), *models],
            env=environment({}),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return dict.fromkeys(models, _Run(error=f"not finished after {RUN_SECONDS} seconds"))
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return dict.fromkeys(models, _Run(error=f"the fresh process failed: {last}"))
    answers: dict[str, JsonValue] = json.loads(lines[-1])
    return {name: _Run.model_validate(answers[name]) for name in models}


def _run_check(name: str, run: _Run) -> Check:
    if run.missing is not None:
        detail = f"{run.missing} is not installed: pip install {run.missing}"
        return Check(name=f"run {name}", outcome=Outcome.SKIPPED, detail=detail)
    if run.error is not None:
        return Check(name=f"run {name}", outcome=Outcome.FAILED, detail=run.error)
    detail = "opens in a fresh process: " + ", ".join(run.outputs)
    if run.difference is not None:
        detail += f"; {run.difference:.2%} of the norm from the first model's outputs"
    return Check(name=f"run {name}", outcome=Outcome.OK, detail=detail)


def _claims(folder: Path, models: list[str]) -> Iterator[Check]:
    """Hold the report's claims against the files."""
    path = folder / REPORT_JSON
    if not path.is_file():
        yield Check(name="report", outcome=Outcome.SKIPPED, detail=f"no {REPORT_JSON} here")
        return
    try:
        report = Report.model_validate_json(path.read_bytes())
    except ValidationError:
        yield Check(name="report", outcome=Outcome.FAILED, detail=f"{REPORT_JSON} cannot be read")
        return
    stated = report.optimized.size_bytes
    sizes = {
        name: sum((folder / part).stat().st_size for part in _parts(name))
        for name in models
        if all((folder / part).is_file() for part in _parts(name))
    }
    if stated in sizes.values():
        yield Check(name="report", outcome=Outcome.OK, detail=f"states the size: {stated} bytes")
    elif sizes:
        detail = f"states {stated} bytes; the models have {', '.join(map(str, sizes.values()))}"
        yield Check(name="report", outcome=Outcome.FAILED, detail=detail)
    if not report.reload.ok:
        yield Check(name="report", outcome=Outcome.FAILED, detail="says that reloading failed")
