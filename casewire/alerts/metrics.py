"""What the alerts role counts. One visible table of names."""

from typing import Final

from prometheus_client import Counter, Gauge

OPEN: Final = Gauge("casewire_alerts_open", "Troubles that are open now.")
TOLD: Final = Counter("casewire_alerts_total", "Alerts by what they told.", ["status"])
SENT: Final = Counter("casewire_alert_messages_total", "Messages taken.", ["channel"])
FAILED: Final = Counter(
    "casewire_alert_failures_total", "Messages not taken; they are tried again.", ["channel"]
)
