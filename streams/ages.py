"""How old what a sink writes is: from HQ's `received-on` to written. Pure."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from schemas.envelope import Headers
from schemas.times import to_microseconds
from streams.batches.raw import HeaderBlock
from streams.records import Record

_LIVE = b"live"


def ages(written: Iterable[Record], now: int) -> Iterator[float]:
    """Yield how old each record is at `now` (microseconds since 1970), in seconds, 0 at least.

    Left out is what HQ gave no time, what it gave none as it writes them (protocol.md §2), and what
    does not come live: a replay is as old as people want it.
    """
    for record in written:
        received = _received(record.headers)
        if received is not None:
            yield max(0.0, (now - received) / 1_000_000)


def _received(headers: Headers) -> int | None:
    """Return when HQ received what a record tells of, in microseconds since 1970.

    Forms have `received-on`. The `server-modified-on` of a case is the `received-on` of the form
    that changed it (protocol.md §6.5).
    """
    told = headers.likely if isinstance(headers, HeaderBlock) else dict(headers).get
    if told("casewire-origin") != _LIVE:
        return None
    return _time(told("received-on") or told("server-modified-on") or b"")


@lru_cache(maxsize=1024)  # what one form changed has one time
def _time(said: bytes) -> int | None:
    try:
        return to_microseconds(said.decode())
    except (TypeError, ValueError):  # no time, or one without a zone
        return None
