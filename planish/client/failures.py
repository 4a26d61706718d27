"""From an HTTP answer to the contract's error classes."""

from __future__ import annotations

from http import HTTPStatus

from pydantic import ValidationError

from planish.client.exchange import Reply, Request
from planish.contract.errors import (
    BadRequest,
    Conflict,
    InternalError,
    InvalidInput,
    NotFound,
    PlanishError,
    TooLarge,
    Unauthorized,
    Unavailable,
    error_from,
)
from planish.contract.problem import Problem

# For answers that are no problem document: a proxy in between, or some other server.
_BY_STATUS: dict[int, type[PlanishError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: InvalidInput,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
_SHOWN_BYTES = 200


def check(request: Request, reply: Reply) -> Reply:
    """Return a reply that is no error (status below 400).

    Raises:
        PlanishError: the class of the answer's `code`.
    """
    if reply.status < HTTPStatus.BAD_REQUEST:
        return reply
    raise error_of(request, reply)


def error_of(request: Request, reply: Reply) -> PlanishError:
    """Return the error that an answer of 400 or above stands for."""
    try:
        problem = Problem.model_validate_json(reply.content)
    except ValidationError:
        said = reply.content[:_SHOWN_BYTES].decode("utf-8", "replace").strip() or "nothing more"
        kind = _BY_STATUS.get(reply.status, InternalError)
        return kind(f"{request.name} was answered {reply.status}: {said}")
    return error_from(problem.code, problem.detail, problem.errors)
