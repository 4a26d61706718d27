"""Prometheus metrics of the API.

Requests are counted by plain numbers in the event loop and turned into metric families when
somebody scrapes: a locked counter and a histogram cost as much as half a status poll.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
UNKNOWN_ROUTE = "(none)"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "OTHER"
BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)

Gauges = dict[str, dict[str, float]]

_GAUGES = {
    "jobs": ("Jobs by status.", "status"),
    "queue_length": ("Doorbells that wait in a queue.", "queue"),
    "workers": ("Workers that take from a queue.", "queue"),
}


class Durations:
    """A histogram of one route."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one request."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Return (upper bound, requests up to it) as Prometheus wants them."""
        bounds = [*map(str, BUCKETS), "+Inf"]
        sums = [float(sum(self.counts[: n + 1])) for n in range(len(bounds))]
        return list(zip(bounds, sums, strict=True))


class Metrics(Collector):
    """Counts of one API process; only its event loop changes them.

    Attributes:
        upload_bytes: bytes of files received.
    """

    def __init__(self) -> None:
        self.upload_bytes = 0
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._durations: dict[str, Durations] = {}
        self._gauges: Callable[[], Gauges] = dict
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request that is answered."""
        self._requests[route, method, status] += 1
        durations = self._durations.get(route)
        if durations is None:
            durations = self._durations[route] = Durations()
        durations.add(seconds)

    def watch(self, read: Callable[[], Gauges]) -> None:
        """Ask `read` for ``{"jobs": {status: n}, …}`` at each scrape."""
        self._gauges = read

    def render(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self._registry)

    def describe(self) -> Iterator[Metric]:
        """Return nothing: no gauge is read at registration."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families."""
        requests = CounterMetricFamily(
            "planish_http_requests", "Requests.", labels=("route", "method", "status")
        )
        for (route, method, status), count in list(self._requests.items()):
            requests.add_metric((route, method, str(status)), count)
        yield requests
        seconds = HistogramMetricFamily(
            "planish_http_request_seconds", "Time to the end of the response.", labels=("route",)
        )
        for route, durations in list(self._durations.items()):
            seconds.add_metric((route,), durations.cumulative(), durations.total)
        yield seconds
        yield CounterMetricFamily(
            "planish_upload_bytes", "Bytes of files received.", value=self.upload_bytes
        )
        for name, values in self._gauges().items():
            yield _gauge(name, values)


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
            # labels are never a client's free text
            route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
            method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
            self.metrics.count(route, method, status, time.perf_counter() - started)


def _gauge(name: str, values: dict[str, float]) -> GaugeMetricFamily:
    text, label = _GAUGES[name]
    family = GaugeMetricFamily(f"planish_{name}", text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family
