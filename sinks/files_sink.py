"""The connector `files`: each event once, in files whose names follow from where events lie."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeAlias

import pyarrow as pa  # has no types

from schemas.envelope import DOMAIN_PATTERN
from schemas.errors import Rejection
from sinks.base import Message, Result, Sink
from sinks.files_rows import FORMATS, Row
from sinks.files_settings import FilesSettings
from sinks.files_store import Store, store_at
from sinks.files_windows import file_of

Placed: TypeAlias = tuple[str, Row]
"""The path of an event's file, and its row there."""

_DOMAIN: Final = re.compile(DOMAIN_PATTERN)
_NO_FOLDER: Final = Rejection(
    "invalid_field", "the project space's name is not one of CommCare HQ's", path="domain"
)


def make(settings: FilesSettings, data_dir: Path) -> Sink:
    """Return the sink. Raises ConfigError if the storage cannot be one.

    Arrow is told to use the C library's allocator: with its own, which gives little back, a worker
    takes a third more memory.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    return FilesSink(store_at(settings.place(data_dir), settings.storage_options), settings.format)


class FilesSink:
    """Merges events into the files that they belong into.

    What waits to be written is rows: they take a fraction of the memory that events take.

    Nothing is kept between writes: what a file holds is read again, so that a worker that took a
    partition over, or has started anew, goes on where the file ends.
    """

    def __init__(self, store: Store, form: str) -> None:
        self._store = store
        self._ending = form
        self._format = FORMATS[form]
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="files")

    async def open(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.check)

    def prepare(self, messages: Sequence[Message]) -> Sequence[Placed | Rejection]:
        return [self._placed(message) for message in messages]

    async def write(self, messages: Sequence[Message]) -> Sequence[Result]:
        prepared = self.prepare(messages)
        await self.write_prepared([each for each in prepared if not isinstance(each, Rejection)])
        return [each if isinstance(each, Rejection) else "written" for each in prepared]

    async def write_prepared(self, prepared: Sequence[Placed]) -> Sequence[Result]:
        files: defaultdict[str, list[Row]] = defaultdict(list)
        for path, row in prepared:
            files[path].append(row)
        loop = asyncio.get_running_loop()
        for path in sorted(files):
            await loop.run_in_executor(self._thread, self._merge, path, files[path])
        return ["written"] * len(prepared)

    async def close(self) -> None:
        self._thread.shutdown(wait=False)

    def _placed(self, message: Message) -> Placed | Rejection:
        if not _DOMAIN.fullmatch(message.domain) or message.domain in (".", ".."):
            return _NO_FOLDER
        return file_of(message, self._ending), self._format.row(message)

    def _merge(self, path: str, rows: Sequence[Row]) -> None:
        content = self._format.merged(self._store.read(path), rows)
        if content is not None:
            self._store.write(path, content)
