"""`[sinks.NAME]` with `type = "files"`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, TypeAlias

import orjson
from msgspec import Meta

from schemas.settings import NotNegative, Positive
from schemas.topics import MEBIBYTE
from schemas.values import Json
from sinks.base import Source
from sinks.settings import SinkTable

Format: TypeAlias = Literal["parquet", "jsonl"]


class FilesSettings(SinkTable, frozen=True, kw_only=True, tag="files"):
    """Parquet or JSON lines in a folder or an object storage: each event once, by day."""

    url: Annotated[
        str,
        Meta(
            description="`s3://BUCKET/PREFIX`, `gs://…`, `abfs://CONTAINER/PREFIX`, what else "
            "fsspec knows, or a folder. Empty: `files` in the data directory.",
            examples=["s3://lake/commcare"],
        ),
    ] = ""
    format: Annotated[Format, Meta(description="What is written.", examples=["parquet"])] = (
        "parquet"
    )
    options: Annotated[
        Mapping[str, str | bool | int],
        Meta(
            description="Of the storage: for S3 `region`, `endpoint_override` (HOST:PORT), "
            "`scheme`; for Azure `account_name`; for others those of fsspec.",
            examples=[{"region": "eu-central-1"}],
        ),
    ] = MappingProxyType({})
    secrets: Annotated[
        str,
        Meta(
            description="Options that are secret, as a JSON object: for S3 `access_key` and "
            "`secret_key`, for Azure `account_key`. Empty: who the machine is (environment, role).",
            examples=['{"access_key": "AKEXAMPLE", "secret_key": "not-a-real-secret"}'],
        ),
    ] = ""
    secrets_file: Annotated[
        str,
        Meta(
            description="A file that holds `secrets`, which is where they should be.",
            examples=["/etc/casewire/lake.json"],
        ),
    ] = ""
    every: Annotated[
        bool,
        Meta(description="Files keep each event: it cannot be false.", examples=[True]),
    ] = True
    batch_rows: Annotated[
        Positive, Meta(description="The most that one write holds.", examples=[10_000])
    ] = 10_000
    batch_bytes: Annotated[
        Positive,
        Meta(
            description="Records of more bytes than this are not gathered for one write.",
            examples=[32 * MEBIBYTE],
        ),
    ] = 32 * MEBIBYTE
    batch_seconds: Annotated[
        NotNegative,
        Meta(
            description="How long to gather: each write makes the open files anew.",
            examples=[60],
        ),
    ] = 60

    @property
    def sources(self) -> Sequence[Source]:
        return self.topics or ("cases", "forms")

    @property
    def storage_options(self) -> Mapping[str, Json]:
        """All options, secret ones too. Raises ValueError if `secrets` is no JSON object."""
        secrets = orjson.loads(self.secrets) if self.secrets else {}
        if not isinstance(secrets, dict):
            raise ValueError("not an object")  # noqa: TRY004 - one error for whatever is wrong
        return {**self.options, **secrets}

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if not self.every:
            yield "every: files keep each event as it came; remove it"
        try:
            _ = self.storage_options
        except ValueError:
            yield 'secrets: is no JSON object; write {"access_key": "…", "secret_key": "…"}'

    def place(self, data_dir: Path) -> str:
        return self.url or str(data_dir / "files")
