"""`[sinks.NAME]` with `type = "sql"`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from sinks.settings import SinkTable

SQLITE: Final = "sqlite:///"
POSTGRES: Final = ("postgresql://", "postgres://")


class SqlSettings(SinkTable, frozen=True, kw_only=True, tag="sql"):
    """A table for each case type and form, in PostgreSQL or SQLite."""

    url: Annotated[
        str,
        Meta(
            description="`postgresql://…`: a schema a project space. `sqlite:///FOLDER`: a file a "
            "project space. Empty: SQLite in the data directory.",
            examples=["postgresql://casewire@db.example.org/warehouse"],
        ),
    ] = ""
    url_file: Annotated[
        str,
        Meta(
            description="A file that holds the URL, if there is a password in it.",
            examples=["/etc/casewire/warehouse-url"],
        ),
    ] = ""
    on_delete: Annotated[
        Literal["delete", "mark"],
        Meta(
            description="What becomes of the row of a case that is gone, or of a form that was "
            "archived: it goes too, or stays with `cw_deleted`.",
            examples=["mark"],
        ),
    ] = "delete"

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        folder = self.url.removeprefix(SQLITE)
        sqlite = self.url.startswith(SQLITE) and folder
        if self.url and not sqlite and not self.url.startswith(POSTGRES):
            yield f"url: is for no known database; write postgresql://… or {SQLITE}FOLDER"
        if self.every:
            yield "every: a table holds the latest state of each; remove it"

    def place(self, data_dir: Path) -> str:
        if not self.url:
            return f"{data_dir / 'sqlite'}/DOMAIN.db"
        if self.url.startswith(SQLITE):
            return f"{self.url.removeprefix(SQLITE)}/DOMAIN.db"
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
