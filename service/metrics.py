"""Prometheus metrics of the API, in a registry of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
UNKNOWN_ROUTE = "(none)"
_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)


class Metrics:
    """Counts of one API process."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "planish_http_requests",
            "Requests.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "planish_http_request_seconds",
            "Time to the end of the response.",
            ("route",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.upload_bytes = Counter(
            "planish_upload_bytes", "Bytes of files received.", registry=self.registry
        )
        self._poll_ok = self.requests.labels("/jobs/{job_id}", "GET", "200")
        self._poll_same = self.requests.labels("/jobs/{job_id}", "GET", "304")
        self._poll_seconds = self.seconds.labels("/jobs/{job_id}")

    def poll(self, started: float, unchanged: bool) -> None:
        """Count one status poll; its own method, because it is most of all requests."""
        (self._poll_same if unchanged else self._poll_ok).inc()
        self._poll_seconds.observe(time.perf_counter() - started)

    def watch(self, read: Callable[[], dict[str, dict[str, float]]]) -> None:
        """Add gauges that are read at each scrape: ``{"jobs": {status: n}, "queue_length": …}``."""
        self.registry.register(_Gauges(read))

    def render(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self.registry)


_GAUGES = {
    "jobs": ("Jobs by status.", "status"),
    "queue_length": ("Doorbells that wait in a queue.", "queue"),
    "workers": ("Workers that take from a queue.", "queue"),
}


class _Gauges(Collector):
    def __init__(self, read: Callable[[], dict[str, dict[str, float]]]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, values in self._read().items():
            text, label = _GAUGES[name]
            family = GaugeMetricFamily(f"planish_{name}", text, labels=(label,))
            for key, value in values.items():
                family.add_metric((key,), value)
            yield family

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing is read at registration."""
        return iter(())


class MetricsMiddleware:
    """Counts requests by route; pure ASGI."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_look)
        finally:
            route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
            self.metrics.requests.labels(route, _method(scope), str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - started)


def _method(scope: Scope) -> str:
    """Return the method; free text from a client must not become a label."""
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return scope["method"] if scope["method"] in known else "OTHER"
