"""Addresses that servers bind, as `host:port`."""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Self

from schemas.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class Address:
    """A host without brackets and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `host:port`, IPv6 as `[::1]:8080`. Raises ValueError that says what is wrong."""
        host, colon, port = text.rpartition(":")
        if not colon or not host:
            raise ValueError(f"{text!r} is no address; write host:port, such as 127.0.0.1:8080")
        if not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise ValueError(f"{text!r} has no port; write one from 1 to 65535 after the colon")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise ValueError(f"{text!r} is ambiguous; write an IPv6 host in brackets")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only programs of this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def listening(self) -> socket.socket:
        """Return a socket that listens on it. Raises OSError."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
            listener.listen()
        except OSError:
            listener.close()
            raise
        return listener


def require_free(address: Address, setting: str) -> None:
    """Raise UnavailableError, naming the setting to change, if the address is taken."""
    try:
        address.listening().close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UnavailableError(
            f"{address} cannot be used ({reason}); end the program that has it, "
            f"or set {setting} to another address"
        ) from error
