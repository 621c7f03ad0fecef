"""/metrics for Prometheus: the engine's tallies as they are at the scrape, and the gateway's own counts."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from minimodal import __version__
from minimodal.types import WebRoute

CONTENT_TYPE = CONTENT_TYPE_LATEST
LABELS = ("app", "function")
SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """A registry of our own: a program that embeds us keeps its own metrics apart."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        info = Gauge("minimodal_info", "The version", ("version",), registry=self._registry)
        info.labels(__version__).set(1)
        self._requests = Counter(
            "minimodal_http_requests",
            "Requests to endpoints that were answered",
            (*LABELS, "status"),
            registry=self._registry,
        )
        self._latency = Histogram(
            "minimodal_http_request_seconds",
            "From a request's headers to the end of its answer",
            LABELS,
            buckets=SECONDS,
            registry=self._registry,
        )
        self._series: dict[tuple[tuple[str, str], int], tuple[Counter, Histogram, Counts[int]]] = {}
        self.statuses: dict[tuple[str, str], Counts[int]] = {}  # by app and function
        self._tallies = _Tallies()
        self._registry.register(self._tallies)

    def observe(self, route: WebRoute, status: int, seconds: float) -> None:
        """One finished request; status 0: the client left before there was an answer."""
        status = status or 499
        names = (route.app, route.function)
        series = self._series.get((names, status))
        if series is None:  # looking up labels costs more than counting
            counts = self.statuses.setdefault(names, Counts())
            series = (
                self._requests.labels(*names, str(status)),
                self._latency.labels(*names),
                counts,
            )
            self._series[names, status] = series
        requests, latency, counts = series
        counts[status] += 1
        requests.inc()
        latency.observe(seconds)

    def text(self, tallies: Mapping[str, Any]) -> bytes:
        """The whole page; `tallies` is the answer of function.tally."""
        self._tallies.fields = tallies
        return generate_latest(self._registry)


class _Tallies:
    def __init__(self) -> None:
        self.fields: Mapping[str, Any] = {"functions": [], "bounds": []}

    def collect(self) -> Iterable[Metric]:
        rows = _merged(self.fields["functions"])
        calls = CounterMetricFamily(
            "minimodal_calls", "Calls that ended, by outcome", labels=(*LABELS, "state")
        )
        for names, row in rows.items():
            for state, count in row["states"].items():
                calls.add_metric((*names, state), count)
        yield calls
        for name, field, text in (
            ("queue_depth", "queued", "Calls that wait"),
            ("running_calls", "running", "Calls that run"),
            ("containers", "containers", "Containers, starting ones too"),
            ("ready_containers", "ready", "Containers that take calls"),
        ):
            gauge = GaugeMetricFamily(f"minimodal_{name}", text, labels=LABELS)
            for names, row in rows.items():
                gauge.add_metric(names, row[field])
            yield gauge
        for name, field, text in (
            ("call_wait_seconds", "waits", "From a call's arrival to its start"),
            ("call_service_seconds", "service", "From a call's start to its end"),
            ("cold_start_seconds", "cold_starts", "From a container's start to its first call"),
        ):
            histogram = HistogramMetricFamily(f"minimodal_{name}", text, labels=LABELS)
            for names, row in rows.items():
                buckets = _buckets(self.fields["bounds"], row[field]["counts"])
                histogram.add_metric(names, buckets, row[field]["total"])
            yield histogram
        builds = self.fields.get("builds")
        if builds is not None:
            histogram = HistogramMetricFamily(
                "minimodal_image_build_seconds", "To build an image, or to find it built"
            )
            histogram.add_metric(
                (), _buckets(self.fields["bounds"], builds["counts"]), builds["total"]
            )
            yield histogram
        decisions = CounterMetricFamily(
            "minimodal_scheduler_decisions",
            "What the planner decided about containers; wait: no room for one that is wanted",
            labels=("decision",),
        )
        for decision, count in self.fields.get("decisions", {}).items():
            decisions.add_metric((decision,), count)
        yield decisions


def _merged(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """One row for each function: variants and versions of it are counted together."""
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        names = (row["app"], row["name"])
        known = merged.get(names)
        merged[names] = dict(row) if known is None else _sum(known, row)
    return merged


def _sum(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    summed = dict(a)
    for name in ("queued", "running", "containers", "ready"):
        summed[name] = a[name] + b[name]
    summed["states"] = {state: count + b["states"][state] for state, count in a["states"].items()}
    for name in ("waits", "service", "cold_starts"):
        pairs = zip(a[name]["counts"], b[name]["counts"], strict=True)
        total = a[name]["total"] + b[name]["total"]
        summed[name] = {"counts": [x + y for x, y in pairs], "total": total}
    return summed


def _buckets(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets
