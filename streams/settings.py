"""`[streams]` of casewire.toml."""

from schemas.settings import Positive, Table


class StreamsSettings(Table, frozen=True, kw_only=True):
    """`doubt_window_seconds`: see contract §5, rule 2."""

    bind: str = "127.0.0.1:8082"
    doubt_window_seconds: Positive = 10
    session_timeout_seconds: Positive = 10
    batches_ahead: Positive = 4
