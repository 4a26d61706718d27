"""Puts the front desk together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from service.audit import AuditMiddleware
from service.auth import AuthMiddleware
from service.desk import Desk
from service.docs_page import router as docs_router
from service.errors import add_error_handlers
from service.hosts import HostMiddleware, Hosts
from service.job_fast import JobFastPath
from service.metrics import MetricsMiddleware
from service.openapi import make_openapi
from service.request_id import RequestIdMiddleware
from service.routes import (
    artifacts,
    catalog,
    deliveries,
    events,
    files,
    health,
    jobs,
    links,
    plans,
    uploads,
)
from service.settings import ServiceSettings
from service.shares import ShareMiddleware


def create_app(settings: ServiceSettings) -> ASGIApp:
    """Return the ASGI application; it opens its connections in the lifespan."""
    return app_of(Desk(settings))


def app_of(desk: Desk) -> ASGIApp:
    """Return the application of a desk.

    Order, from the outside: status polls, request id and headers, metrics, host check, audit log,
    key check, shares, routes.
    """
    app = make_api(desk)
    shared = ShareMiddleware(app, desk.settings.shares, desk.reads, desk.quotas)
    checked = AuditMiddleware(
        AuthMiddleware(shared, desk.gate, desk.links, desk.owner_of), desk.audit
    )
    hosts = Hosts(desk.settings.hosts, desk.gate)
    inner = MetricsMiddleware(HostMiddleware(checked, hosts), desk.metrics)
    return JobFastPath(
        RequestIdMiddleware(inner), desk.pipe.owned, desk.gate, hosts, desk.reads, desk.metrics
    )


def make_api(desk: Desk) -> FastAPI:
    """Return the FastAPI app with all routes."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await desk.open()
        try:
            yield
        finally:
            await desk.close()

    app = FastAPI(
        title="Planish",
        version=_version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.desk = desk
    app.openapi = lambda: make_openapi(app, not desk.gate.is_open)  # type: ignore[method-assign]
    for module in (
        jobs,
        deliveries,
        events,
        artifacts,
        links,
        plans,
        files,
        uploads,
        catalog,
        health,
    ):
        app.router.routes.extend(module.router.routes)
    app.router.routes.extend(docs_router.routes)
    _serve_openapi(app)
    add_error_handlers(app)
    return app


def _serve_openapi(app: FastAPI) -> None:
    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(app.openapi())


def _version() -> str:
    """Return the installed version; a checkout that is not installed has none."""
    try:
        return version("planish")
    except PackageNotFoundError:
        return "0+source"
