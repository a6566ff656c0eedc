"""PostgreSQL: a schema a domain, written by psycopg 3.

This is the connection and its errors; what is written, and in which order, is in
`sinks/postgres_tables.py`.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor, IsolationLevel
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from schemas.errors import (
    ConfigError,
    DeliveryError,
    RejectedRowsError,
    Rejection,
    TargetError,
    TransientError,
)
from sinks.base import Message, Outcome
from sinks.catalog import Catalog
from sinks.guard import OnDelete, parts
from sinks.layout import FAMILIES, State
from sinks.postgres_tables import Connection, applied, at_once, grown, held_versions
from sinks.rows import Row, prepared, rows_of, suspects

Fault: TypeAlias = Literal["transient", "target", "row"]

#: Unless the URL says otherwise. A server that is gone without a word is noticed in time.
_DEFAULTS: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "tcp_user_timeout": "30000",
    "application_name": "casewire",
}

#: SQLSTATE prefixes. 54 (limits) has psycopg's OperationalError too, but no repeat helps.
_TRANSIENT: Final = ("08", "57P0", "40001", "40P01", "55P03", "57014", "53")
#: A statement is prepared once it was run so often: at 100 rows a batch planning it each time is
#: a quarter of PostgreSQL's work. Not through a pooler, which tells another session's number than
#: the server has: in transaction mode the next client would meet our statements, or we another's.
_PREPARED_AFTER: Final = 5
#: Rows of a batch that are tried alone because they look bad.
_MOST_SUSPECTS: Final = 20
_BAD_ROW: Final = ("22", "23", "54")

#: What a server says that was reached but does not let us in: psycopg has no SQLSTATE for it.
_REFUSALS: Final = (
    "authentication failed",
    "does not exist",
    "no password supplied",
    "no pg_hba.conf entry",
    "permission denied",
    "is not permitted to log in",
)


class PostgresSink:
    """Writes a schema for each domain of the database that `url` names.

    `restore`: tables, columns and views that somebody has dropped are made anew, empty. Raises
    ConfigError if `url` is not one.
    """

    def __init__(self, url: str, on_delete: OnDelete = "delete", *, restore: bool = False) -> None:
        try:
            self._address = make_conninfo("", **{**_DEFAULTS, **conninfo_to_dict(url)})
        except psycopg.Error:  # its text quotes the URL, and with it the password
            raise ConfigError(
                "this is no PostgreSQL URL: write postgresql://USER:PASSWORD@HOST:5432/DATABASE"
            ) from None
        self._on_delete: OnDelete = on_delete
        self._restore = restore
        self._connection: Connection | None = None
        self._catalogs: dict[str, Catalog] = {}

    async def open(self) -> None:
        with _translated_errors(rows_to_blame=False):
            await self._connected()

    def prepare(self, messages: Sequence[Message]) -> Sequence[Row | Rejection]:
        return rows_of(messages, takes_nul=False)

    async def write(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        return await self.write_prepared(prepared(messages, takes_nul=False))

    async def write_prepared(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        outcomes: dict[int, Outcome] = {}
        rejections: dict[int, Rejection] = {}
        for places in parts(rows).values():
            try:
                written = await self._write_part([rows[place] for place in places])
            except RejectedRowsError as error:
                rejections |= {places[place]: why for place, why in error.rows.items()}
            else:
                outcomes.update(zip(places, written, strict=True))
        if rejections:
            raise RejectedRowsError(rejections)
        return [outcomes[place] for place in range(len(rows))]

    async def versions(self, messages: Sequence[Message]) -> Sequence[int | None]:
        found: dict[tuple[str, State, str], int] = {}
        with _translated_errors(rows_to_blame=False):
            connection = await self._connected()
            ids: defaultdict[tuple[str, State], list[str]] = defaultdict(list)
            for message in messages:
                ids[message.domain, message.kind].append(message.subject)
            for (domain, state), subjects in ids.items():
                held = await held_versions(connection, domain, FAMILIES[state], subjects)
                found |= {(domain, state, each): version for each, version in held.items()}
        return [found.get((each.domain, each.kind, each.subject)) for each in messages]

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _connected(self) -> Connection:
        """Return the connection, a new one if there is none or something was left half done."""
        if self._connection is not None:
            if self._connection.info.transaction_status == TransactionStatus.IDLE:
                return self._connection
            await self.close()
        self._catalogs.clear()
        self._connection = await _connect(self._address)
        return self._connection

    async def _write_part(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        try:
            await self._grow(rows)
            refused = await self._bad_suspects(rows)
            if not refused:
                return await self._attempt(rows, commit=True)
        except RejectedRowsError as error:
            refused = error.rows if len(rows) == 1 else await _bisected(rows, self._why_refused)
        except DeliveryError:
            self._catalogs.pop(rows[0].domain, None)
            raise
        if not refused:
            raise TransientError("PostgreSQL refused a batch, but takes each part of it alone")
        raise RejectedRowsError(refused)

    async def _grow(self, rows: Sequence[Row]) -> None:
        domain = rows[0].domain
        with _translated_errors(rows_to_blame=False):
            connection = await self._connected()
            catalog = self._catalogs.get(domain)
            if catalog is None or not catalog.suffices(rows):
                self._catalogs[domain] = await grown(connection, rows, restore=self._restore)

    async def _attempt(self, rows: Sequence[Row], *, commit: bool) -> Sequence[Outcome]:
        domain = rows[0].domain
        with _translated_errors(rows_to_blame=True):
            connection = await self._connected()
            async with at_once(connection, commit=commit):
                decision, catalog = await applied(
                    connection, rows, self._catalogs.get(domain), self._on_delete
                )
        self._catalogs[domain] = catalog
        return decision.outcomes

    async def _bad_suspects(self, rows: Sequence[Row]) -> Mapping[int, Rejection]:
        """Return the rows that look bad and are: to try them is cheaper than a batch in vain."""
        places = suspects(rows)[:_MOST_SUSPECTS]
        found = {place: await self._why_refused([rows[place]]) for place in places}
        return {place: why for place, why in found.items() if why is not None}

    async def _why_refused(self, rows: Sequence[Row]) -> Rejection | None:
        try:
            await self._attempt(rows, commit=False)
        except RejectedRowsError as error:
            return error.rows[0]
        return None


@contextmanager
def _translated_errors(*, rows_to_blame: bool) -> Iterator[None]:
    """Raise RejectedRowsError for row 0 when some row, which need not be the first, is bad."""
    try:
        yield
    except psycopg.Error as error:
        words = (error.diag.message_primary or str(error)).partition("\n")[0]
        code = f"{type(error).__name__} {error.sqlstate or ''}".rstrip()
        fault = _fault(error)
        if fault == "transient":
            state = "cannot write now" if error.sqlstate else "does not answer"
            raise TransientError(f"PostgreSQL {state} ({code})", target_error=words) from error
        if fault == "target" or not rows_to_blame:
            raise TargetError(
                f"PostgreSQL refuses to work ({code}): check the sink's URL, its user's "
                "privileges, and the schema; PostgreSQL's own log says more",
                target_error=words,
            ) from error
        raise RejectedRowsError({0: _rejection(error)}) from error


def _fault(error: psycopg.Error) -> Fault:
    """Tell whether to wait, to call the operator, or to look for a bad row."""
    if error.sqlstate is None:
        if isinstance(error, psycopg.DataError):
            return "row"
        refused = any(text in str(error) for text in _REFUSALS)
        is_lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return "transient" if is_lost and not refused else "target"
    if error.sqlstate.startswith(_TRANSIENT):
        return "transient"
    return "row" if error.sqlstate.startswith(_BAD_ROW) else "target"


def _rejection(error: psycopg.Error) -> Rejection:
    state = error.sqlstate or ""
    return Rejection(
        cause="too_large" if state.startswith("54") else "rejected_by_target",
        explanation=f"PostgreSQL does not take the row ({type(error).__name__} {state})",
        target_error=error.diag.message_primary or str(error),
    )


async def _bisected(
    rows: Sequence[Row], why_refused: Callable[[Sequence[Row]], Awaitable[Rejection | None]]
) -> Mapping[int, Rejection]:
    """Return the bad rows by their place, found by halving a batch that was refused."""
    found: dict[int, Rejection] = {}
    middle = len(rows) // 2
    halves = [(0, middle), (middle, len(rows))]
    while halves:
        start, end = halves.pop()
        why = await why_refused(rows[start:end])
        if why is not None and end - start == 1:
            found[start] = why
        elif why is not None:
            middle = (start + end) // 2
            halves += [(start, middle), (middle, end)]
    return found


async def _connect(address: str) -> Connection:
    connection: Connection = await AsyncConnection.connect(
        address,
        autocommit=True,
        prepare_threshold=None,
        cursor_factory=AsyncRawCursor,
    )
    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        await connection.close()
        raise TargetError(f"the database is in {encoding}: make one WITH ENCODING 'UTF8'")
    session = await connection.execute(b"SELECT pg_backend_pid()")
    if await session.fetchone() == (connection.info.backend_pid,):
        connection.prepare_threshold = _PREPARED_AFTER
    return connection
