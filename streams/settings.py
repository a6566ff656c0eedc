"""`[streams]` of casewire.toml."""

from typing import Annotated, Literal

import msgspec

from schemas.settings import NotNegative, Positive, Table

Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class StreamsSettings(Table, frozen=True, kw_only=True):
    """`doubt_window_seconds`: see contract §5, rule 2.

    `dead_letter_limit`: the share of a kind's events from which on failures stop the worker; 1 is
    no limit (streams/flood.py).

    `bind` is the first address that a worker tries for its state API; it takes the next port while
    one is in use. `token_file` holds the token that the API asks for; all workers have the same.
    Empty: one in the data directory, made when it is not there.

    `tables`: where states are held. `table_cache_mb`: of those on disk, what is kept in memory.
    `standby_replicas`: how many workers follow a partition's changelog, ready to take it over.
    """

    bind: str = "127.0.0.1:8082"
    token_file: str = ""
    doubt_window_seconds: Positive = 10
    session_timeout_seconds: Positive = 10
    batches_ahead: Positive = 4
    dead_letter_limit: Share = 0.9
    tables: Literal["memory", "rocksdb"] = "memory"
    table_cache_mb: Positive = 64
    standby_replicas: NotNegative = 0
