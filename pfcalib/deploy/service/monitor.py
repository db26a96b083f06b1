"""What the models have done and what waits, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pfcalib.deploy.service.repository import Repository

LABELS = ("model", "version")
# name of a counter: what it tells, and the field of batching.Statistics
COUNTERS = {
    "requests_answered": ("Requests with an answer.", "n_answered"),
    "requests_refused": ("Requests without an answer.", "n_refused"),
    "clusters": ("Clusters that were run.", "n_clusters"),
    "runs": ("Batches that were run.", "n_runs"),
    "answer_seconds": ("From arrival to answer, summed over requests.", "answered_ns"),
    "queue_seconds": ("From arrival to the run, summed over requests.", "queue_ns"),
    "run_seconds": ("In ONNX Runtime.", "run_ns"),
}


class _Collector:
    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        served = list(self._repository.served)
        for name, (text, field) in COUNTERS.items():
            counter = CounterMetricFamily(f"pfcalib_{name}", text, labels=LABELS)
            scale = 1e-9 if field.endswith("_ns") else 1
            for of in served:
                value = scale * getattr(of.batcher.statistics, field)
                counter.add_metric((of.model, of.version), value)
            yield counter
        waiting = GaugeMetricFamily("pfcalib_clusters_waiting", "In the queue.", labels=LABELS)
        for of in served:
            waiting.add_metric((of.model, of.version), of.batcher.n_waiting)
        yield waiting


def exposition(repository: Repository) -> tuple[bytes, str]:
    """Text for Prometheus, and its type."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Collector(repository))
    return generate_latest(registry), CONTENT_TYPE_LATEST
