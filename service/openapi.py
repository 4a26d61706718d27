"""The OpenAPI document: FastAPI's, made true about bodies, problems, headers and keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from planish.contract.parts import MAX_PARTS
from planish.contract.problem import PROBLEM_MEDIA_TYPE, Problem
from planish.contract.spec import Spec
from planish.contract.storage import StorageUrl
from service.auth import OPEN_PATHS
from service.multipart import FILE_PARTS

Json = dict[str, Any]

DESCRIPTION = """\
Give Planish a trained PyTorch model, some data and a recipe; it gives back a smaller, faster one,
with evidence.

Errors are `application/problem+json` (RFC 9457) with a stable `code`, `errors[]` for each bad
field and a `request_id`. Every response carries `X-Request-Id`. Times are RFC 3339 in UTC, sizes
are bytes, durations seconds, latencies milliseconds.
"""

_REF = "#/components/schemas/"
_EVERYWHERE = {
    401: "No valid API key.",
    403: "The key does not allow this, or a page of another site asks.",
    408: "The request came too slowly.",
    421: "The request names a host that this service is not.",
    429: "More than the tenant's share; see `Retry-After`.",
    431: "The request head is too large.",
    500: "A fault of Planish.",
    503: "A part of the service is down or busy; see `Retry-After`.",
}
_TEXTS = {
    400: "Malformed request or parameter.",
    404: "There is no such thing.",
    409: "The state does not allow this.",
    410: "It has expired.",
    412: "The request speaks another version of tus.",
    413: "The body is too large.",
    415: "This content type is not taken.",
    416: "The range lies outside the file.",
    422: "Well-formed, but it cannot be used; `code` and `errors` say why.",
    423: "Another request is writing to it.",
    460: "The bytes do not match their checksum.",
    507: "No storage space is left.",
}


def problems(*statuses: int) -> dict[int | str, Json]:
    """Return the documentation of problem responses, for a route's ``responses``."""
    return {status: _problem(_TEXTS[status]) for status in statuses}


def body(media_types: Json) -> Json:
    """Return a route's ``openapi_extra`` for a request body that FastAPI does not read."""
    return {"requestBody": {"required": True, "content": media_types}}


def sent_headers(**patterns: str) -> Json:
    """Return a route's ``openapi_extra`` for headers that it reads itself: pattern by name.

    Names are written with underscores; one that ends with an underscore may be left out.
    """
    return {
        "parameters": [
            {
                "in": "header",
                "name": name.rstrip("_").replace("_", "-"),
                "required": not name.endswith("_"),
                "schema": {"type": "string", "pattern": pattern},
            }
            for name, pattern in patterns.items()
        ]
    }


def content(description: str, *media_types: str, schema: Json | None = None) -> Json:
    """Return the documentation of a response that is not a model."""
    shape = {"type": "string", "format": "binary"} if schema is None else schema
    return {
        "description": description,
        "content": {kind: {"schema": shape} for kind in media_types},
    }


def submission_body() -> Json:
    """Return the body of ``POST /jobs`` and ``POST /plans``."""
    parts: Json = {"spec": {"$ref": f"{_REF}Spec"}}
    one: Json = {"type": "string", "format": "binary"}
    several: Json = {"type": "array", "items": one, "maxItems": MAX_PARTS}
    parts |= {name: {"oneOf": [one, several]} for name in FILE_PARTS}
    multipart = {
        "schema": {"type": "object", "required": ["spec", "model"], "properties": parts},
        "encoding": {"spec": {"contentType": "application/json"}},
    }
    return body(
        {
            "multipart/form-data": multipart,
            "application/json": {"schema": {"$ref": f"{_REF}Spec"}},
        }
    )


def make_openapi(app: FastAPI, needs_key: bool) -> Json:
    """Return the document; made once. Without a key, none is asked for in it either."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas |= _models()
        for path, operation in _operations(document):
            _correct(operation, needs_key and path not in OPEN_PATHS)
        if needs_key:
            document["components"]["securitySchemes"] = {
                "key": {"type": "http", "scheme": "bearer"}
            }
        app.openapi_schema = document
    return app.openapi_schema


def _models() -> Json:
    """Return schemas that no response model brings in: what is sent to us, and problems."""
    wanted = [(Spec, "validation"), (StorageUrl, "validation"), (Problem, "serialization")]
    _, top = models_json_schema(wanted, ref_template=_REF + "{model}")  # type: ignore[arg-type]
    definitions: Json = top["$defs"]
    _allow_urls(definitions)
    return definitions


def _allow_urls(schemas: Json) -> None:
    """Add storage URLs to the files of a spec: they are resolved before it is a `Spec`."""
    url, named = schemas["StorageUrl"], "NamedStorageUrl"
    schemas[named] = {
        **url,
        "title": named,
        "description": "One of several files, from a storage.",
        "properties": {**url["properties"], "name": schemas["NamedFile"]["properties"]["name"]},
        "required": ["url", "name"],
    }
    for role in schemas["Files"]["properties"].values():
        kinds = role.get("oneOf") or next(k["oneOf"] for k in role["anyOf"] if "oneOf" in k)
        several = next(kind for kind in kinds if kind.get("type") == "array")
        several["items"] = {"anyOf": [several["items"], {"$ref": f"{_REF}{named}"}]}
        kinds.append({"$ref": f"{_REF}StorageUrl"})


def _operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, item in document["paths"].items():
        for operation in item.values():
            yield path, operation


def _correct(operation: Json, needs_key: bool) -> None:
    responses = operation["responses"]
    validation = responses.get("422", {}).get("content", {}).get("application/json", {})
    if validation.get("schema", {}).get("$ref", "").endswith("HTTPValidationError"):
        del responses["422"]
        responses.setdefault("400", _problem(_TEXTS[400]))
    for status, text in _EVERYWHERE.items():
        if status != 401 or needs_key:
            responses.setdefault(str(status), _problem(text))
    for response in responses.values():
        response.setdefault("headers", {})["X-Request-Id"] = {"schema": {"type": "string"}}
    operation["responses"] = dict(sorted(responses.items()))
    if needs_key:
        operation["security"] = [{"key": []}]


def _problem(description: str) -> Json:
    return {
        "description": description,
        "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": f"{_REF}Problem"}}},
    }
