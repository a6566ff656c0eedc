"""The connector `files`: each event once, in files whose names follow from where events lie."""

import asyncio
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from schemas.envelope import DOMAIN_PATTERN
from schemas.errors import Rejection
from sinks.base import Message, Result, Sink
from sinks.files_rows import FORMATS
from sinks.files_settings import FilesSettings
from sinks.files_store import Store, store_at
from sinks.files_windows import by_file

_DOMAIN: Final = re.compile(DOMAIN_PATTERN)
_NO_FOLDER: Final = Rejection(
    "invalid_field", "the project space's name is not one of CommCare HQ's", path="domain"
)


def make(settings: FilesSettings, data_dir: Path) -> Sink:
    """Return the sink. Raises ConfigError if the storage cannot be one."""
    return FilesSink(store_at(settings.place(data_dir), settings.storage_options), settings.format)


class FilesSink:
    """Merges events into the files that they belong into.

    Nothing is kept between writes: what a file holds is read again, so that a worker that took a
    partition over, or has started anew, goes on where the file ends.
    """

    def __init__(self, store: Store, form: str) -> None:
        self._store = store
        self._ending = form
        self._merged = FORMATS[form]
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="files")

    async def open(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.check)

    async def write(self, messages: Sequence[Message]) -> Sequence[Result]:
        chosen = {
            place: message
            for place, message in enumerate(messages)
            if _DOMAIN.fullmatch(message.domain) and message.domain not in (".", "..")
        }
        files = by_file(chosen, self._ending)
        loop = asyncio.get_running_loop()
        for path in sorted(files):
            await loop.run_in_executor(self._thread, self._merge, path, files[path])
        return ["written" if place in chosen else _NO_FOLDER for place in range(len(messages))]

    async def close(self) -> None:
        self._thread.shutdown(wait=False)

    def _merge(self, path: str, messages: Sequence[Message]) -> None:
        content = self._merged(self._store.read(path), messages)
        if content is not None:
            self._store.write(path, content)
