"""Which credential is still in use, and who fails: as metrics, and as few log lines."""

from collections.abc import Collection, Mapping
from typing import Final, Literal, TypeAlias

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

Name: TypeAlias = Literal[
    "casewire_ingress_credential_uses_total",  # counter: requests that proved a credential
    "casewire_ingress_auth_failures_total",  # counter: requests that proved none
    "casewire_ingress_tokens_total",  # counter: access tokens given out
    "casewire_ingress_config_current",  # gauge: 1, or 0 if the newest configuration is broken
]
Failure: TypeAlias = Literal["missing", "wrong", "not judged"]

#: Name: (explanation, labels).
METRICS: Final[Mapping[Name, tuple[str, tuple[str, ...]]]] = {
    "casewire_ingress_credential_uses_total": ("Requests by credential.", ("credential",)),
    "casewire_ingress_auth_failures_total": (
        "Requests without a good credential, by domain (the token end points: 'token').",
        ("domain", "failure"),
    ),
    "casewire_ingress_tokens_total": ("Access tokens given out.", ("credential",)),
    "casewire_ingress_config_current": (
        "1 if the configuration of the files is in use, 0 if they are broken and an older one is.",
        (),
    ),
}

_LOG_SECONDS: Final = 60.0
_log = structlog.get_logger(__name__)


class AuthMetrics:
    """What the authenticator counts. One of these a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: Name) -> Counter:
            return Counter(name, *METRICS[name], registry=registry)

        self._uses = counter("casewire_ingress_credential_uses_total")
        self._failures = counter("casewire_ingress_auth_failures_total")
        self._tokens = counter("casewire_ingress_tokens_total")
        name: Name = "casewire_ingress_config_current"
        self.config_current = Gauge(name, *METRICS[name], registry=registry)
        self.config_current.set(1)
        self._children: dict[str, Counter] = {}
        self._logged: dict[str, float] = {}

    def used(self, credential: str, domain: str, now: float) -> None:
        """Count a use; log it if that credential has not been in the log for a minute."""
        child = self._children.get(credential)
        if child is None:
            child = self._children[credential] = self._uses.labels(credential)
        child.inc()
        if now - self._logged.get(credential, -_LOG_SECONDS) >= _LOG_SECONDS:
            self._logged[credential] = now
            _log.info("a credential is in use", credential=credential, domain=domain)

    def issued(self, credential: str) -> None:
        self._tokens.labels(credential).inc()

    def failed(self, domain: str, failure: Failure) -> None:
        self._failures.labels(domain, failure).inc()

    def keep(self, names: Collection[str]) -> None:
        """Forget the credentials that there are no more, so that labels stay bounded."""
        for gone in set(self._children) - set(names):
            del self._children[gone]
            self._logged.pop(gone, None)
            self._uses.remove(gone)
            self._tokens.remove(gone)
