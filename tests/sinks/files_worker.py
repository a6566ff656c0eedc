"""A process that writes events to files, a batch after the other, and may be killed at any moment.

Like a worker it begins again at the offset that it committed last, which it does after each write.
It says `writing` when it begins, and `done` at the end.
"""

import random
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
from msgspec.structs import replace

from sinks.base import Message
from sinks.files_settings import FilesSettings, Format
from sinks.files_sink import make
from tests.sinks.http_target import message

EVENTS = 2000


def events() -> Sequence[Message]:
    """Return the events of one partition, on two days and in two windows."""
    return [
        replace(
            message(f"c{number % 50}", number),
            offset=9000 + number,
            timestamp=1_790_000_000_000 + 60_000 * number,
        )
        for number in range(EVENTS)
    ]


async def work(root: Path, form: Format, seed: int) -> None:
    committed = root / "committed"
    sizes = random.Random(seed)  # noqa: S311 - no secret
    everything = events()
    sink = make(FilesSettings(url=str(root / "lake"), format=form), root)
    await sink.open()
    sys.stdout.write("writing\n")
    sys.stdout.flush()
    start = int(committed.read_text()) if committed.exists() else 0
    while start < EVENTS:
        end = min(start + sizes.randint(1, 120), EVENTS)
        assert await sink.write(everything[start:end]) == ["written"] * (end - start)
        new = root / "new"
        new.write_text(str(end))
        new.replace(committed)
        start = end
    await sink.close()
    sys.stdout.write("done\n")


if __name__ == "__main__":
    anyio.run(
        work,
        Path(sys.argv[1]),
        "parquet" if sys.argv[2] == "parquet" else "jsonl",
        int(sys.argv[3]),
    )
