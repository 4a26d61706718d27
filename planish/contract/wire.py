"""Names that both sides of a border must spell alike."""

from __future__ import annotations

import re

TASK_NAME = "planish.run"
JOB_QUEUE = "planish.jobs"
PLAN_QUEUE = "planish.plans"

DEFAULT_TENANT = "default"

PREFIX_JOB = "job_"
PREFIX_PLAN = "plan_"
ULID_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
JOB_ID = re.compile(rf"^(job|plan)_[{ULID_ALPHABET}]{{26}}$")

HEADER_REQUEST_ID = "X-Request-Id"
HEADER_IDEMPOTENCY_KEY = "Idempotency-Key"
MAX_IDEMPOTENCY_KEY = 255

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
MANIFEST = "manifest.json"
LOADER = "load.py"
REBUILDER = "rebuild.py"
ARCHITECTURE = "architecture.json"
REQUIREMENTS = "requirements.txt"
REFERENCE = "reference.npz"

MEDIA_TYPES = {
    ".onnx": "application/vnd.onnx",
    ".pt2": "application/vnd.pytorch.pt2",
    ".xml": "application/xml",
    ".json": "application/json",
    ".html": "text/html; charset=utf-8",
    ".py": "text/x-python; charset=utf-8",
    ".safetensors": "application/vnd.safetensors",
    ".txt": "text/plain; charset=utf-8",
    ".npz": "application/zip",
}


def beside(name: str) -> str | None:
    """Return the second file of a model file: IR's weights, or the network that weights belong to.

    None for formats of one file.
    """
    if name.endswith(".xml"):
        return f"{name.removesuffix('.xml')}.bin"
    return ARCHITECTURE if name.endswith(".safetensors") else None


def media_type_of(name: str) -> str:
    """Return the media type of an artifact by its suffix."""
    return next(
        (kind for suffix, kind in MEDIA_TYPES.items() if name.endswith(suffix)),
        "application/octet-stream",
    )
