"""What every process tells of itself, whatever its role."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal, TypeAlias

from prometheus_client import Metric, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

Name: TypeAlias = Literal[
    "casewire_build_info", "casewire_live", "casewire_ready", "casewire_disk_bytes",
    "casewire_disk_free_bytes",
]  # fmt: skip

METRICS: Final[Mapping[Name, str]] = {
    "casewire_build_info": "1; the labels say which role and version this is.",
    "casewire_live": "1 while the process does its work, 0 if it has to be started anew.",
    "casewire_ready": "1 while the process can take work, 0 if not now.",
    "casewire_disk_bytes": "Bytes of the disk that the data directory is on.",
    "casewire_disk_free_bytes": "Bytes that are free on that disk.",
}

Probe: TypeAlias = Callable[[], str | None]

# A time beside each counter would double what is stored of them, and nobody asks for it.
disable_created_metrics()  # type: ignore[no-untyped-call]


class RoleMetrics(Collector):
    """`role` as the process is announced; `folder` is in its data directory."""

    def __init__(self, role: str, folder: Path, *, live: Probe, ready: Probe) -> None:
        self._role = role
        self._live = live
        self._ready = ready
        self._folder = folder
        self._version = version("casewire")

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "casewire_build_info", METRICS["casewire_build_info"], labels=("role", "version")
        )
        info.add_metric((self._role, self._version), 1)
        yield info
        yield self._gauge("casewire_live", self._live() is None)
        yield self._gauge("casewire_ready", self._ready() is None)
        disk = shutil.disk_usage(self._folder)
        yield self._gauge("casewire_disk_bytes", disk.total)
        yield self._gauge("casewire_disk_free_bytes", disk.free)

    def _gauge(self, name: Name, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, METRICS[name], labels=("role",))
        family.add_metric((self._role,), value)
        return family
