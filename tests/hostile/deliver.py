"""Ways in for an upload of the corpus: straight to gate and loader, or over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from planish.contract.errors import PlanishError
from planish.contract.validation import parse_spec
from planish.gate.check import check_upload
from planish.gate.parts import Part, Parts, Source
from tests.hostile.corpus.case import HARMLESS, Upload


def deliver_here(upload: Upload, folder: Path) -> str:
    """Give an upload to the gate, and to the worker's loaders where the gate takes it.

    Returns:
        The code of the refusal, or `HARMLESS`.
    """
    try:
        spec = parse_spec(json.dumps(upload.spec).encode())
        sources = _sources(upload, folder)
        check_upload(spec, sources)
        _load(upload, folder)
    except PlanishError as error:
        return error.code
    return HARMLESS


def _load(upload: Upload, folder: Path) -> None:
    from worker.engine.prepare import JobInputs, prepare

    sources = _sources(upload, folder)
    spec = parse_spec(json.dumps(upload.spec).encode())
    prepare(JobInputs(None, spec, sources["model"], sources.get("data")))


def _sources(upload: Upload, folder: Path) -> dict[str, Source]:
    """Write the files under names of ours, as the store does."""
    parts: dict[str, list[Part]] = {}
    for index, (role, name, content) in enumerate(upload.files):
        path = folder / f"file-{index}"
        path.write_bytes(content)
        parts.setdefault(role, []).append(Part(name, path))
    return {
        role: found[0].path if len(found) == 1 else Parts(tuple(found))
        for role, found in parts.items()
    }


def deliver_over_http(upload: Upload, client: httpx.Client, route: str = "/jobs") -> httpx.Response:
    """Send an upload as a form."""
    spec = ("spec", ("spec.json", json.dumps(upload.spec), "application/json"))
    files = [
        (role, (name, content, "application/octet-stream")) for role, name, content in upload.files
    ]
    return client.post(route, files=[spec, *files])
