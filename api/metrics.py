"""Numbers for Prometheus: what this process has answered, and how the whole service is."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from jobs.gauges import Gauges

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """Of one API process. Safe to share between threads."""

    def __init__(self, version: str) -> None:
        self._registry = CollectorRegistry()
        labels = ["method", "route"]
        self._requests = Counter(
            "dmft_http_requests", "Requests answered.", [*labels, "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "dmft_http_request_seconds",
            "Time until an answer began; that of event streams and waiting submits is their waiting.",
            labels,
            buckets=_SECONDS,
            registry=self._registry,
        )
        about = Gauge("dmft_build_info", "The version that runs.", ["version"], registry=self._registry)
        about.labels(version).set(1)
        self._jobs = Gauge(
            "dmft_jobs", "Solves that are kept, by status.", ["status"], registry=self._registry
        )
        self._free = Gauge(
            "dmft_free_bytes", "Room left on the disk of a folder.", ["folder"], registry=self._registry
        )
        self._plain = {
            name: Gauge(f"dmft_{name}", words, registry=self._registry)
            for name, words in {
                "oldest_queued_seconds": "How long the solve that was queued first has been there.",
                "overdue": "Running solves whose worker has been silent for a lease.",
                "workers": "Live worker processes.",
                "redis_bytes": "Memory that Redis uses.",
            }.items()
        }

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer. `route` is the path with the names of its parameters: few, whatever is asked."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def exposition(self, gauges: Gauges) -> bytes:
        """Everything, in Prometheus' text format."""
        for status, count in gauges.jobs.items():
            self._jobs.labels(status).set(count)
        for folder, free in gauges.free_bytes.items():
            self._free.labels(folder).set(free)
        for name, gauge in self._plain.items():
            gauge.set(getattr(gauges, name))
        return generate_latest(self._registry)
