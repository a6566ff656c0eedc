"""`[sinks.NAME]` of casewire.toml."""

from typing import Literal

from schemas.settings import Positive, Table


class SqlSettings(Table, frozen=True, kw_only=True, tag_field="type", tag="sql"):
    """`url`: `postgresql://…`, or `sqlite:///FOLDER`; empty is SQLite in the data directory.

    SQLite keeps a file a domain in the folder, PostgreSQL a schema a domain. `url_file` holds the
    URL instead if it contains a password. `on_delete`: what becomes of the row of a case that is
    gone.
    """

    url: str = ""
    url_file: str = ""
    on_delete: Literal["delete", "mark"] = "delete"
    batch_rows: Positive = 2000
    retry_seconds: Positive = 60


SinkSettings = SqlSettings
