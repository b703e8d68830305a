"""Metrics in the Prometheus text format: counts and times only, no name of an owner, a user or a job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from tieline.exchange.reading import count_jobs, count_sites

if TYPE_CHECKING:
    from tieline.api.platform import Platform

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

Readings = Callable[[], Mapping[str, tuple[str, str, Mapping[str, float]]]]


class Metrics:
    """A registry of its own, so that several exchanges in one process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.requests = Counter(
            "tieline_http_requests", "requests by operation and status", ("operation", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "tieline_http_seconds",
            "time from a request's head to the end of its answer, streams excepted",
            ("operation",),
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self.received = Counter("tieline_http_received_bytes", "bytes of bodies", registry=self.registry)
        self.relayed = Counter(
            "tieline_relay_bytes", "bytes that were handed from one end to the other", registry=self.registry
        )
        self.resyncs = Counter(
            "tieline_stream_resyncs", "streams that were ended because their reader was slow", registry=self.registry
        )

    def watch(self, readings: Readings) -> None:
        """Read gauges when somebody scrapes: name -> (help, label, value by label value)."""
        self.registry.register(_Gauges(readings))

    def text(self) -> bytes:
        """What a scrape is answered."""
        return generate_latest(self.registry)


class _Gauges:
    """Values that are looked up at the moment of a scrape."""

    def __init__(self, readings: Readings) -> None:
        self.readings = readings

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before a scrape."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The gauges as they stand."""
        for name, (meaning, label, values) in self.readings().items():
            family = GaugeMetricFamily(f"tieline_{name}", meaning, labels=[label] if label else None)
            for key, value in values.items():
                family.add_metric([key] if label else [], value)
            yield family


def watch_writer(platform: Platform) -> None:
    """Gauges of the writer, the store, the sites and the streams, looked up when somebody scrapes."""

    def readings() -> dict[str, tuple[str, str, Mapping[str, float]]]:
        writer, meters, view = platform.writer, platform.writer.meters, platform.view
        sizes = platform.sizes()
        return {
            "up_seconds": ("age of the process", "", {"": (platform.clock.now_ms() - platform.started_ms) / 1000}),
            "events": ("entries of the log", "", {"": writer.position[0]}),
            "queue_depth": ("commands that wait for the writer", "", {"": writer.queue_depth}),
            "writable": ("1 while changes are taken", "", {"": float(writer.is_writable)}),
            "live_jobs": ("jobs that have not ended, by state", "state", count_jobs(view)),
            "sites": ("sites by how they stand; one may count twice", "state", count_sites(view)),
            "streams": ("open event streams", "", {"": platform.rates.streams}),
            "stored_bytes": ("bytes on disk, and what is free there", "what", sizes),
            "collected": ("what garbage collection removed", "what", platform.collected()),
            "writer": (
                "what the writer did since it started",
                "what",
                {
                    "batches": meters.batches,
                    "commands": meters.commands,
                    "events": meters.events,
                    "rejects": meters.rejects,
                    "replays": meters.replays,
                    "overloads": meters.overloads,
                    "defects": meters.defects,
                    "failures": meters.failures,
                },
            ),
            "commit_seconds_sum": ("time spent in transactions", "", {"": meters.commit_s.total}),
            "commit_seconds_count": ("transactions", "", {"": meters.commit_s.count}),
        }

    platform.metrics.watch(readings)
