"""The address of who forwards, when proxies stand in front."""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, TypeAlias

from schemas.errors import ConfigError

Client: TypeAlias = tuple[str, int]
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_FORWARDED_FOR: Final = b"x-forwarded-for"


class Proxies:
    """The proxies that are believed, by address or network; `key` is where they are configured.

    Raises ConfigError for one that is neither.
    """

    def __init__(self, trusted: Sequence[str], key: str = "[ingress] trusted_proxies") -> None:
        try:
            self._networks: Sequence[Network] = [ipaddress.ip_network(text) for text in trusted]
        except ValueError as error:
            raise ConfigError(
                f"{key}: {error}; write addresses, or networks as 10.0.0.0/8"
            ) from error
        self._trusts = lru_cache(maxsize=1024)(self._among)

    def client(self, peer: Client | None, headers: Sequence[tuple[bytes, bytes]]) -> Client | None:
        """Return who sent a request: the peer, or whom the last proxy that is believed names.

        A client can write whatever it likes into X-Forwarded-For; each proxy adds its own peer at
        the end. So it is read from the end, for as long as proxies that are believed wrote it.
        """
        if peer is None or not self.believes(peer):
            return peer
        named = b",".join(value for name, value in headers if name == _FORWARDED_FOR)
        sender = peer
        for hop in reversed(named.decode("latin-1").split(",")):
            host = _host(hop)
            if host is None:
                break
            sender = (host, 0)
            if not self._trusts(host):
                break
        return sender

    def believes(self, peer: Client | None) -> bool:
        """Whether what a peer says of others is believed."""
        return peer is not None and bool(self._networks) and self._trusts(peer[0])

    def _among(self, host: str) -> bool:
        address = ipaddress.ip_address(host)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


def _host(hop: str) -> str | None:
    """Return the address of a hop, which may carry a port or brackets; None if it is none."""
    host = hop.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None
