"""What the alerts role counts. One visible table of names."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge

ACTIVE: Final = Gauge(
    "casewire_alerts_active", "1 if this process tells people, 0 if it waits to take over."
)
OPEN: Final = Gauge("casewire_alerts_open", "Troubles that are open now.")
TOLD: Final = Counter("casewire_alerts_total", "Alerts by what they told.", ["status"])
SENT: Final = Counter("casewire_alert_messages_total", "Messages taken.", ["channel"])
FAILED: Final = Counter(
    "casewire_alert_failures_total", "Messages not taken; they are tried again.", ["channel"]
)


def begin(channels: Iterable[str]) -> None:
    """Have the counters begin at 0: what only appears does not increase."""
    for status in ("opened", "updated", "recovered"):
        TOLD.labels(status)
    for channel in channels:
        SENT.labels(channel)
        FAILED.labels(channel)
