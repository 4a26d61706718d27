"""Checks a folder of artifacts: hashes, fresh-process runs, and the report's claims.

Nothing in the folder is executed, unless native code is asked for: models are opened by this
package's own copy of the loader, and only after a look at the file has found no code in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from planish.contract.errors import MissingPart, PlanishError
from planish.contract.report import Report
from planish.contract.wire import REPORT_JSON, beside
from planish.gate.identify import identify_model
from planish.verify.check import Check, Outcome, Verification
from planish.verify.manifest import Manifest, hash_check, read_manifest
from planish.verify.process import loader, run_fresh
from planish.verify.remeasure import metric_check
from planish.verify.request import CALLS, Request, Run

__all__ = ["Check", "Outcome", "Verification", "verify"]

NATIVE = ".aoti.pt2"
CONTENT = {".pt2": "pt2", ".safetensors": "safetensors"}
MODEL_SUFFIXES = (".onnx", ".xml", *CONTENT)


def verify(folder: Path, test_data: Path | None = None, *, native: bool = False) -> Verification:
    """Check a folder as `Client.download` leaves it.

    Args:
        folder: of the artifacts.
        test_data: labelled samples; the metric is measured on them anew (needs `planish[worker]`).
        native: whether to run compiled code (`.aoti.pt2`), which can do anything.

    Raises:
        MissingPart: there is no such folder or data.
        VerificationFailed: it has no readable manifest.
    """
    if not folder.is_dir():
        raise MissingPart(f"there is no folder {folder}")
    if test_data is not None and not test_data.is_file():
        raise MissingPart(f"there is no file {test_data}")
    manifest = read_manifest(folder)
    checks = [hash_check(folder, entry) for entry in manifest.files]
    intact = {check.name for check in checks if check.outcome is Outcome.OK}
    models = [e.name for e in manifest.files if _is_model(e.name)]
    whole = [name for name in models if intact.issuperset(_parts(name))]
    report, claims = _report(folder, models)
    checks += _runs(folder, whole, manifest, report, native)
    checks += claims
    if test_data is not None:
        checks.append(metric_check(folder, test_data, manifest.job(), report, whole))
    failed = any(check.outcome is Outcome.FAILED for check in checks)
    return Verification(folder=str(folder), ok=not failed, checks=tuple(checks))


def _is_model(name: str) -> bool:
    return name.startswith("model.") and name.endswith(MODEL_SUFFIXES)


def _parts(name: str) -> tuple[str, ...]:
    """Return a model file's name, and that of what belongs to it."""
    second = beside(name)
    return (name,) if second is None else (name, second)


def _runs(
    folder: Path, models: list[str], manifest: Manifest, report: Report | None, native: bool
) -> Iterator[Check]:
    """Open and run the models, all on the same inputs, each in a process of its own."""
    safe = []
    for name in models:
        if name.endswith(NATIVE):
            if native:
                safe.append(name)
            else:
                detail = "native code is not run; --native runs it, if you trust where it is from"
                yield Check(name=f"run {name}", outcome=Outcome.SKIPPED, detail=detail)
        elif (refusal := _refusal(folder / name)) is not None:
            yield Check(name=f"run {name}", outcome=Outcome.FAILED, detail=refusal)
        else:
            safe.append(name)
    if not safe:
        return
    timed = _measured(report, safe)
    job = manifest.job()
    request = Request(loader=loader(), folder=folder.resolve(), models=tuple(safe), timed=timed)
    if job is not None:
        target = job.target
        request = request.model_copy(update={"batch": target.batch_size, "threads": target.threads})
    for name, run in run_fresh(request).items():
        yield _run_check(name, run, report if name == timed else None)


def _measured(report: Report | None, models: list[str]) -> str | None:
    """Return the model that the report's latency belongs to."""
    suffixes = {"onnxruntime": ".onnx", "openvino": ".xml", "torch": ".pt2"}
    suffix = suffixes.get(report.optimized.runtime or "", "") if report is not None else ""
    return next((n for n in models if suffix and n == f"model{suffix}"), None)


def _refusal(path: Path) -> str | None:
    """Return why a file is not opened: `.pt2` files can carry code."""
    wanted = CONTENT.get(path.suffix)
    if wanted is None:
        return None
    try:
        found = identify_model(path)
    except PlanishError as error:
        return f"not opened: {error.detail}"
    return None if found == wanted else f"not opened: its content is {found}"


def _run_check(name: str, run: Run, timed: Report | None) -> Check:
    if run.missing is not None:
        detail = f"{run.missing} is not installed: pip install -r requirements.txt"
        return Check(name=f"run {name}", outcome=Outcome.SKIPPED, detail=detail)
    if run.error is not None:
        return Check(name=f"run {name}", outcome=Outcome.FAILED, detail=run.error)
    words = ["opens in a fresh process: " + ", ".join(run.outputs)]
    if run.stored is not None:
        words.append(f"{run.stored:.2%} of the norm from the outputs stored with it")
    if run.cosine is not None:
        words.append(f"cosine {run.cosine:.6f} with the original on stored noise")
    if run.difference is not None:
        words.append(f"{run.difference:.2%} of the norm from the first model's outputs")
    if run.median_ms is not None:
        words.append(_latency(run.median_ms, timed))
    return Check(name=f"run {name}", outcome=Outcome.OK, detail="; ".join(words))


def _latency(median: float, report: Report | None) -> str:
    """Say how long a call takes here and in the report: for information, machines differ."""
    here = f"{median:.3g} ms a call (median of {CALLS})"
    stated = report.optimized.latency_ms if report is not None else None
    if stated is None or not stated.p50:
        return here
    return f"{here}, {median / stated.p50:.2f} times the report's {stated.p50:.3g} ms"


def _report(folder: Path, models: list[str]) -> tuple[Report | None, list[Check]]:
    """Return the report, and its claims held against the files."""
    path = folder / REPORT_JSON
    if not path.is_file():
        missing = Check(name="report", outcome=Outcome.SKIPPED, detail=f"no {REPORT_JSON} here")
        return None, [missing]
    try:
        report = Report.model_validate_json(path.read_bytes())
    except ValidationError:
        damaged = f"{REPORT_JSON} cannot be read"
        return None, [Check(name="report", outcome=Outcome.FAILED, detail=damaged)]
    return report, list(_claims(folder, models, report))


def _claims(folder: Path, models: list[str], report: Report) -> Iterator[Check]:
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
