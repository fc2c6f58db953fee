"""What is counted and timed while the agent runs, for Prometheus.

Owns the instruments: their names, units and labels, which docs/metrics.md explains. What is a state
of the moment, and not a count, is set when somebody asks (status/metrics.py). Labels take few
values, known beforehand; none is ever a customer's.
"""

from __future__ import annotations

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# From a quick disk to one that makes a cashier wait.
_SYNC_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
# An answer may wait for Engage, 9 seconds at most.
_ANSWER_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# A call to Engage ends by its time limit at the latest.
_CALL_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)


class Metrics:
    """The instruments of one agent. Safe to use from any thread."""

    def __init__(self) -> None:
        # When a counter was made is of no use here, and doubles the lines.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = CollectorRegistry()
        self._taken = Counter(
            "till_agent_changes_taken",
            "Changes taken from POS software and stored, since the start.",
            ("kind",),
            registry=registry,
        )
        self._attempts = Counter(
            "till_agent_attempts",
            "Attempts to deliver a change, by route and outcome, since the start.",
            ("route", "outcome"),
            registry=registry,
        )
        self._commits = Histogram(
            "till_agent_journal_commit_seconds",
            "How long a commit of the journal took, its sync to the disk included.",
            buckets=_SYNC_S,
            registry=registry,
        )
        self._answers = Histogram(
            "till_agent_answer_seconds",
            "How long answers took: Engage's calls that write or read, and the agent's own.",
            ("call", "status"),
            buckets=_ANSWER_S,
            registry=registry,
        )
        self._calls = Histogram(
            "till_agent_engage_call_seconds",
            "How long calls to Engage's API took, by how they ended.",
            ("answer",),
            buckets=_CALL_S,
            registry=registry,
        )
        self.info = Gauge(
            "till_agent_info",
            "Always 1; the labels say what runs where.",
            ("version", "store", "till"),
            registry=registry,
        )
        self.start_time = self._gauge(
            "start_time_seconds", "When the agent was started, as Unix time by the till's clock."
        )
        self.can_accept = self._gauge(
            "can_accept", "1 while a sign-up would be stored, else 0 and the POS is told so."
        )
        self.needs_person = self._gauge(
            "needs_person", "How many different things need a person; the status page names them."
        )
        self.changes = self._gauge("changes", "Changes in the journal, by state.", ("state",))
        self.unsent = self._gauge(
            "unsent_changes", "Changes that are not in Engage yet and not set aside."
        )
        self.oldest_waiting = self._gauge(
            "oldest_waiting_seconds",
            "How long the oldest unsent change has waited; 0 if none does.",
        )
        self.batches = self._gauge("batches", "Batch files that are not settled.", ("state",))
        self.line = self._gauge(
            "line_state",
            "1 for the state in which a line is seen, 0 for the others.",
            ("line", "state"),
        )
        self.route = self._gauge(
            "route_state",
            "1 for the state in which a route is, 0 for the others.",
            ("route", "state"),
        )
        self.free_bytes = self._gauge("journal_free_bytes", "Room left on the journal's disk.")

    def _gauge(self, name: str, about: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"till_agent_{name}", about, labels, registry=self.registry)

    def taken(self, kind: str) -> None:
        """Count a change that is durable: create, update or upgrade."""
        self._taken.labels(kind).inc()

    def attempted(self, route: str, outcome: str) -> None:
        """Count an attempt: api or file; delivered, deferred, unknown, rejected or halted."""
        self._attempts.labels(route, outcome).inc()

    def committed(self, seconds: float) -> None:
        """Time a commit of the journal."""
        self._commits.observe(seconds)

    def answered(self, call: str, status: int, seconds: float) -> None:
        """Time an answer to a call: write, read or own, and its HTTP status."""
        self._answers.labels(call, f"{status // 100}xx").observe(seconds)

    def called(self, answer: str, seconds: float) -> None:
        """Time a call to Engage: ok, refused, throttled, unauthorised, failed or unreachable."""
        self._calls.labels(answer).observe(seconds)

    def text(self) -> bytes:
        """Give everything as Prometheus reads it."""
        return prometheus_client.generate_latest(self.registry)
