"""When each project space last sent what, as a metric with bounded labels."""

from collections.abc import Mapping
from typing import Final

from streams import metrics

#: Project spaces that have a label of their own; later ones share one.
MOST_DOMAINS: Final = 1000
OTHER_DOMAIN: Final = "other"


class LastEvents:
    """Keeps what came last, by label: partitions are read in any order."""

    def __init__(self) -> None:
        self._domains: set[str] = set()
        self._last: dict[tuple[str, str], int] = {}

    def came(self, latest: Mapping[tuple[str, str], int]) -> None:
        """Take when something came last, by project space and kind; in milliseconds since 1970."""
        for (domain, kind), appended_ms in latest.items():
            labels = (self._label(domain), kind)
            if appended_ms > self._last.get(labels, 0):
                self._last[labels] = appended_ms
                metrics.LAST_EVENT.labels(*labels).set(appended_ms / 1000)

    def _label(self, domain: str) -> str:
        if domain not in self._domains:
            if len(self._domains) >= MOST_DOMAINS:
                return OTHER_DOMAIN
            self._domains.add(domain)
        return domain
