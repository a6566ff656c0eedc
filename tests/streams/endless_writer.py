"""A process that writes a made-up changelog to a store on disk until it is killed.

`python -m tests.streams.endless_writer FOLDER [--file-bytes N]` prints the offset of each batch
once it is written; no file of it may become larger than N bytes.
"""

import resource
import sys
from pathlib import Path

from streams.disk import StoreError, WorkerDisk
from streams.stores import Mark, packed

BATCH = 50
KEYS = 500


def record(offset: int) -> tuple[bytes, bytes | None]:
    """Return key and value of the changelog's record at an offset; some are deletions."""
    key = b"demo/%d" % (offset * 7919 % KEYS)
    return key, None if offset % 11 == 0 else b"%d:" % offset + b"x" * (offset % 300)


def stored(offset: int) -> tuple[bytes, bytes | None]:
    key, value = record(offset)
    return key, None if value is None else packed(offset, value)


def held_after(offset: int) -> dict[bytes, bytes]:
    """Return what a store holds that follows the changelog up to an offset, inclusive."""
    newest = dict(stored(number) for number in range(offset + 1))
    return {key: value for key, value in newest.items() if value is not None}


def main(folder: Path, file_bytes: int) -> None:
    disk = WorkerDisk(folder / "worker", 1024 * 1024)
    stores = disk.stores("table")
    store = stores.open(0)
    if file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    start = 0 if store.mark is None else store.mark.offset + 1
    while True:
        last = start + BATCH - 1
        changes = dict(stored(number) for number in range(start, last + 1))
        try:
            store.write(changes, Mark.at(last, *record(last)))
        except StoreError:
            stores.close()  # as a worker does when it ends
            raise
        sys.stdout.write(f"{last}\n")
        sys.stdout.flush()
        start = last + 1


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    except StoreError as error:
        sys.exit(str(error))
