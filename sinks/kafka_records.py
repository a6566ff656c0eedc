"""A message as a record for a subscriber (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from schemas.envelope import Headers
from schemas.errors import InvalidEventError, Rejection
from sinks.base import Message
from sinks.redaction import Redaction
from sinks.renaming import Renaming

#: What a record batch and its varints may take beside a record's own bytes.
_OVERHEAD_BYTES: Final = 1024

#: HQ's headers that a subscriber may want, and the keys of the value that say the same.
_SENT: Final[Mapping[str, str]] = {
    "received-on": "received_on",
    "server-modified-on": "server_date_modified",
}
#: Not where HQ sent it to, who in our house wrote it, or what a replay is aimed at.
_KEPT: Final = frozenset(
    {
        "content-type",
        "casewire-captured-id",
        "casewire-content-type",
        "casewire-domain",
        "casewire-doubt",
        "casewire-label",
        "casewire-origin",
        "casewire-schema",
        "casewire-version",
    }
)


@dataclass(frozen=True, slots=True)
class Out:
    """A record to send."""

    key: bytes
    value: bytes | None
    headers: Headers

    @property
    def size(self) -> int:
        """At most how many bytes of a batch it takes alone, uncompressed."""
        named = sum(4 * len(name) + len(text) + 10 for name, text in self.headers)
        return _OVERHEAD_BYTES + len(self.key) + len(self.value or b"") + named


def record_of(message: Message, redaction: Redaction, renaming: Renaming) -> Out | Rejection:
    """Return the record: a state's null stays one, so that a compacted topic forgets it too."""
    value = None
    if not message.forgotten:
        try:
            value = orjson.dumps(renaming.applied(redaction.applied(message.value)))
        except InvalidEventError as error:
            return Rejection(error.cause, error.explanation, path=error.path)
    return Out(message.key.encode(), value, kept_headers(message.headers, redaction))


def kept_headers(headers: Headers, redaction: Redaction) -> Headers:
    """Return the headers that tell a subscriber nothing that he is not to see.

    Of the request's own only HQ's two times are known to be harmless, and only if the value may say
    them: others are whatever stood between HQ and us (addresses, cookies of proxies).
    """
    return [
        (name, text)
        for name, text in headers
        if name.startswith("ce_")
        or name in _KEPT
        or (name in _SENT and redaction.leaves(_SENT[name]))
    ]
