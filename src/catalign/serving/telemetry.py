"""Metrics for Prometheus and one line of JSON per request; histories stay out of both unless asked for."""

import json
import logging
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from catalign.decoding.prompt_states import PromptStates

log = logging.getLogger("catalign.requests")
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Telemetry:
    """Counters of one service; each service has its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made = self.registry
        labels = ["route", "status"]
        self.requests = Counter("catalign_requests", "Requests answered.", labels, registry=made)
        self.seconds = Histogram(
            "catalign_request_seconds", "Time to answer.", ["route"], buckets=SECONDS, registry=made
        )
        self.answers = Counter("catalign_variant_answers", "Answers of each run.", ["variant"], registry=made)
        self.batches = Histogram("catalign_batch_requests", "Requests in a batch.", buckets=SIZES, registry=made)
        self.busy = Counter("catalign_model_seconds", "Time that the model worked.", registry=made)
        self.queue = Gauge("catalign_queue_requests", "Requests that wait for the model.", registry=made)
        self.version = Gauge("catalign_catalogue_version", "Version of the catalogue.", registry=made)
        self.items = Gauge("catalign_catalogue_items", "Items in the catalogue.", registry=made)
        self.cache_bytes = Gauge("catalign_prompt_cache_bytes", "Memory of prompt states.", ["variant"], registry=made)
        self.cache_prompts = Gauge("catalign_prompt_cache_prompts", "Prompt states kept.", ["variant"], registry=made)
        self.prompt_tokens = Gauge("catalign_prompt_tokens", "Tokens of prompts so far.", ["variant"], registry=made)
        self.prompt_tokens_found = Gauge(
            "catalign_prompt_tokens_found", "Tokens of prompts so far that were found in the cache.", ["variant"],
            registry=made,
        )  # fmt: skip

    def batch(self, jobs: int, seconds: float) -> None:
        """Count one batch."""
        self.batches.observe(jobs)
        self.busy.inc(seconds)

    def request(self, route: str, status: int, seconds: float, fields: dict[str, Any]) -> None:
        """Count one request and write its line.

        Args:
            route: the route's pattern, not the path that was sent.
            status: of HTTP.
            seconds: to the last byte of the answer.
            fields: what else the line says.
        """
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)
        log.info(json.dumps({"route": route, "status": status, "ms": round(1000 * seconds, 2), **fields}))

    def prompt_states(self, variant: str, states: PromptStates) -> None:
        """Take over what a cache of prompt states counts."""
        self.cache_bytes.labels(variant).set(states.bytes)
        self.cache_prompts.labels(variant).set(len(states))
        self.prompt_tokens.labels(variant).set(states.tokens)
        self.prompt_tokens_found.labels(variant).set(states.tokens_found)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
