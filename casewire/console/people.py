"""Judges who logs in, and what a session is worth now."""

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from casewire.console.sessions import Session, binding_of, new_id
from casewire.console.users import read_users
from ingress.attempts import Attempts
from ingress.secrets_store import Scrypt, parse_secret, scrypt_text
from schemas.errors import ConfigError

#: Who logs in with `console.token` instead of a password of their own.
OPERATOR: Final = "operator"
#: Wrong passwords that an address has at once, and the seconds until it may try another one.
BURST: Final = 5
SECONDS_PER_ATTEMPT: Final = 30.0

#: A check takes 16 MiB.
_CHECKS_AT_ONCE: Final = 2
#: Takes as long to be wrong as a real one.
_NOBODY: Final = scrypt_text(new_id())


def read_token_file(file: Path) -> Mapping[str, str]:
    """Return what the one user's token is. Raises ConfigError."""
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read; delete it, and start the console") from error
    if not token:
        raise ConfigError(f"{file} is empty; delete it, and start the console")
    return {OPERATOR: token}


@dataclass(slots=True)
class People:
    """Reads its file again when it changes. `by_token`: the file has one token, no users."""

    file: Path
    by_token: bool
    _read: tuple[int, Mapping[str, str]] | None = None
    _attempts: Attempts = field(
        default_factory=lambda: Attempts(burst=BURST, seconds_per_attempt=SECONDS_PER_ATTEMPT)
    )
    _checks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_CHECKS_AT_ONCE))
    _ended: dict[str, int] = field(default_factory=dict)

    def stored(self) -> Mapping[str, str]:
        """Return what is stored of each user's password. Raises ConfigError."""
        changed = self._modified()
        if self._read is None or self._read[0] != changed:
            read: Callable[[Path], Mapping[str, str]] = (
                read_token_file if self.by_token else read_users
            )
            self._read = (changed, read(self.file))
        return self._read[1]

    def may_try(self, client: str, now: float) -> bool:
        """Return whether an address may try another password; if so, it has one try less."""
        return self._attempts.take(client, now)

    async def login(self, user: str, password: str, client: str) -> str | None:
        """Return what is stored of the user who is proven; None if the password is wrong.

        Raises ConfigError if nobody can be proven now.
        """
        name = OPERATOR if self.by_token else user
        stored = self.stored().get(name)
        async with self._checks:
            right = await asyncio.to_thread(_proves, stored or _NOBODY, password)
        if stored is None or not right:
            return None
        self._attempts.give_back(client)
        return stored

    def session(self, user: str, stored: str, expires: float) -> Session:
        name = OPERATOR if self.by_token else user
        return Session(new_id(), name, int(expires), binding_of(stored))

    def holds(self, session: Session, now: float) -> bool:
        """Whether a session still holds: its user is there, with the same password."""
        stored = self.stored().get(session.user)
        self._ended = {each: until for each, until in self._ended.items() if now < until}
        return (
            stored is not None
            and hmac.compare_digest(binding_of(stored), session.binding)
            and session.id not in self._ended
        )

    def end(self, session: Session) -> None:
        """Have a session hold no longer in this process."""
        self._ended[session.id] = session.expires

    def _modified(self) -> int:
        try:
            return self.file.stat().st_mtime_ns
        except OSError:
            return 0


def _proves(stored: str, password: str) -> bool:
    secret = parse_secret(stored)
    presented = password.encode()
    if isinstance(secret, Scrypt):
        return secret.proves(presented)
    return hmac.compare_digest(hashlib.sha256(presented).digest(), secret.sha256)
