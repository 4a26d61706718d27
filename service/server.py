"""Runs the API: one uvicorn process with httptools, uvloop and our protocol class."""

from __future__ import annotations

import logging
import resource
import socket

import uvicorn

from service.app import app_of
from service.desk import Desk
from service.protocol import guarded_protocol
from service.settings import ServiceSettings

SHUTDOWN_SECONDS = 10
BACKLOG = 2048
OPEN_FILES = 65_536


class Server(uvicorn.Server):
    """Prints one line when it is ready; at the end lets open streams go instead of waiting."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self.desk = desk

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say where."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"planish api ready on http://{shown}:{port}", flush=True)  # noqa: T201 - for people

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let open streams go, then drain."""
        await self.desk.leave()
        await super().shutdown(sockets)


def make_server(settings: ServiceSettings) -> Server:
    """Return a server that is ready to run."""
    desk = Desk(settings)
    config = uvicorn.Config(
        app_of(desk),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=guarded_protocol(settings.limits),
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies),
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        backlog=BACKLOG,
    )
    return Server(config, desk)


def run_api(settings: ServiceSettings) -> None:
    """Serve until SIGINT or SIGTERM; open streams get a few seconds to end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft < most:  # the usual 1024 is less than the connections of one address
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO
    )
    make_server(settings).run()
