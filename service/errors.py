"""Every failure as ``application/problem+json`` (RFC 9457), FastAPI's own ones too."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping

import redis.exceptions
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from planish.contract.errors import (
    BadRequest,
    InternalError,
    InvalidParameter,
    MethodNotAllowed,
    NotFound,
    PlanishError,
    StorageFull,
    Unavailable,
)
from planish.contract.problem import PROBLEM_MEDIA_TYPE, FieldError

RETRY_AFTER_SECONDS = 2
_FULL = (errno.ENOSPC, errno.EDQUOT)


def problem_response(
    error: PlanishError, scope: Scope, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the response for an error; 503 says when to try again, 401 says how to get in."""
    extra = dict(headers or {})
    if error.status == Unavailable.status:
        extra.setdefault("retry-after", str(RETRY_AFTER_SECONDS))
    if error.status == 401:
        extra.setdefault("www-authenticate", "Bearer")
    problem = error.problem(scope.get("state", {}).get("request_id"))
    return Response(
        problem.model_dump_json(exclude_none=True),
        error.status,
        headers=extra,
        media_type=PROBLEM_MEDIA_TYPE,
    )


def add_error_handlers(app: FastAPI) -> None:
    """Make the app answer every exception with a problem."""
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(HTTPException, _http_exception)
    for kind in (PlanishError, RequestValidationError, redis.exceptions.RedisError, OSError):
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(Exception, _last_resort)


def as_planish_error(error: Exception) -> PlanishError:
    """Return what a client is told about an exception."""
    if isinstance(error, PlanishError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid_parameter(error)
    if isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError):
        return Unavailable("Redis cannot be reached; nothing was changed, try again")
    if isinstance(error, ConnectionError | TimeoutError):
        return Unavailable("a part of the service cannot be reached; try again")
    if isinstance(error, OSError) and error.errno in _FULL:
        return StorageFull("no space is left on the storage; nothing of this request was kept")
    return InternalError("this is a fault of Planish; the log has it under this request_id")


def _invalid_parameter(error: RequestValidationError) -> InvalidParameter:
    """Say which query parameter or header is wrong; bodies never reach FastAPI's validation."""
    faults = [(".".join(map(str, e["loc"][1:])), str(e["msg"])) for e in error.errors()]
    return InvalidParameter(
        "; ".join(f"{name}: {message[:1].lower()}{message[1:]}" for name, message in faults),
        tuple(FieldError(pointer=f"/{name}", detail=message) for name, message in faults),
    )


async def _answer(request: Request, error: Exception) -> Response:
    told = as_planish_error(error)
    if isinstance(told, InternalError):
        raise error  # comes back as the last resort, and into the log
    return problem_response(told, request.scope)


async def _last_resort(request: Request, error: Exception) -> Response:
    return problem_response(as_planish_error(error), request.scope)


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody is there to read it; 499 is nginx's number for this, seen in the metrics only."""
    return Response(status_code=499)


async def _http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):  # registered for HTTPException only
        return await _last_resort(request, error)
    builders: dict[int, Callable[[Request], Response]] = {404: _not_found, 405: _wrong_method}
    if error.status_code in builders:
        return builders[error.status_code](request)
    return problem_response(BadRequest(str(error.detail)), request.scope, error.headers)


def _not_found(request: Request) -> Response:
    detail = f"there is nothing at {request.url.path[:200]!r}; GET /openapi.json lists all paths"
    return problem_response(NotFound(detail), request.scope)


def _wrong_method(request: Request) -> Response:
    methods = sorted(
        {
            method
            for route in request.app.routes
            if route.matches(request.scope)[0] is not Match.NONE
            for method in (getattr(route, "methods", None) or ())
        }
    )
    detail = f"{request.method} is not for this path; it takes {', '.join(methods)}"
    error = MethodNotAllowed(detail)
    return problem_response(error, request.scope, {"allow": ", ".join(methods)})
