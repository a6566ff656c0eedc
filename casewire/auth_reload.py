"""Keeps a running ingress on the configuration of the files: who may forward, and how.

Only project spaces, credentials and signing keys are read again; the rest needs a restart.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from casewire.config import Config
from ingress.access import Access
from ingress.auth import SIGNED_KINDS, Policy, policy
from ingress.tokens import Keys, make_key_file, read_keys
from schemas.errors import ConfigError, UnavailableError

POLL_SECONDS: Final = 1.0

#: Time of change, size and number of each file, None if it is not there. Unlike the time of
#: writing, that of change shows that a file has become readable.
Stamps: TypeAlias = dict[Path, tuple[int, int, int] | None]

_log = structlog.get_logger(__name__)


def read_policy(config: Config) -> Policy:
    """Return what a configuration says about who may forward, with its signing keys.

    Keys that cannot be read are no error: what needs them is answered 503. The default key file
    is made if it is not there.
    """
    return policy(
        config.domains,
        config.credentials,
        _keys(config),
        accept_unknown=config.ingress.unknown_domains != "refuse",
    )


def opened(old: Policy, new: Policy) -> Sequence[str]:
    """Return the project spaces that needed a credential and would now need none."""
    return [domain for domain in old.guards if new.knows(domain) and domain not in new.guards]


def tell_of_missing_keys(current: Policy) -> None:
    if _lacks_keys(current):
        _log.error("access tokens and Digest cannot be used", reason=current.keys.missing)


def _lacks_keys(current: Policy) -> bool:
    needed = any(guard.needs_keys for guard in current.guards.values())
    return needed and current.keys.signing is None


@contextlib.asynccontextmanager
async def following_files(
    access: Access, config: Config, load: Callable[[], Config]
) -> AsyncIterator[None]:
    """Keep `access` on what the files say until the end of the block; SIGHUP reads them at once."""
    reloader = Reloader(access, config, load)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reloader.wake.set)
    running = asyncio.create_task(reloader.run())
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        running.cancel()
        await asyncio.wait([running])


class Reloader:
    """Gives `access` the policy of the files whenever they change.

    What is broken, or would open a project space to everybody, is not taken: the log and a metric
    say so, and the files are tried again until they are right.
    """

    def __init__(
        self,
        access: Access,
        config: Config,
        load: Callable[[], Config],
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._access = access
        self._poll_seconds = poll_seconds
        self._load = load
        self._files = config.access_files
        self._in_use = stamps(self._files)
        self._seen = self._in_use
        self._complaint = ""
        self.wake = asyncio.Event()

    async def run(self) -> None:
        """Look every `poll_seconds`, and at once when `wake` is set."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), self._poll_seconds)
            if self.wake.is_set() or self._due():
                self.wake.clear()
                await self.reload()

    async def reload(self) -> None:
        """Read everything again; take it if it is right."""
        before = stamps(self._files)
        try:
            config = await asyncio.to_thread(self._load)
            new = await asyncio.to_thread(read_policy, config)
            self._check(config, before, new)
        except ConfigError as error:
            self._broken(str(error))
            return
        except Exception as error:  # noqa: BLE001 - the ingress goes on with what it has
            self._broken(type(error).__name__)
            return
        self._access.replace(new)
        self._access.metrics.config_current.set(1)
        self._files = config.access_files
        # A change while it was read is seen by the next look.
        now = stamps(self._files)
        self._in_use = {file: before.get(file, now[file]) for file in now}
        self._complaint = ""
        _log.info("the configuration was read again", count=len(new.names))
        tell_of_missing_keys(new)

    def _due(self) -> bool:
        """Return whether the files differ, and no longer change: some editors write in steps."""
        now = stamps(self._files)
        settled = now == self._seen
        self._seen = now
        return settled and (bool(self._complaint) or now != self._in_use)

    def _check(self, config: Config, before: Stamps, new: Policy) -> None:
        """Raise ConfigError for what nobody can have meant."""
        for file in set(config.access_files) - {config.token_key_file}:
            if self._in_use.get(file) and before.get(file) is None:
                raise ConfigError(f"{file} is gone; put it back, or restart the ingress")
        if domains := opened(self._access.policy, new):
            raise ConfigError(
                f"{domains[0]} would take events from anyone; add a credential for it, "
                "or restart the ingress if that is meant"
            )
        if self._access.policy.keys.signing and _lacks_keys(new):
            raise ConfigError(new.keys.missing)

    def _broken(self, complaint: str) -> None:
        self._access.metrics.config_current.set(0)
        if complaint != self._complaint:
            _log.error("the new configuration is not used", reason=complaint)
        self._complaint = complaint


def stamps(files: Sequence[Path]) -> Stamps:
    """Return what tells whether a file has changed."""
    found: Stamps = {}
    for file in files:
        try:
            stat = file.stat()
        except OSError:
            found[file] = None
        else:
            found[file] = (stat.st_ctime_ns, stat.st_size, stat.st_ino)
    return found


def _keys(config: Config) -> Keys:
    if not any(credential.kind in SIGNED_KINDS for credential in config.credentials):
        return Keys()
    try:
        if not config.ingress.token_key_file:
            make_key_file(config.token_key_file)
        return read_keys(config.token_key_file)
    except UnavailableError as error:
        return Keys(missing=str(error))
