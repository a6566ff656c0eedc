"""`casewire sink NAME --rebuild`: latest states into tables that somebody dropped."""

from collections import Counter
from collections.abc import Callable, Mapping

from casewire.config import Config
from casewire.progress import end_offsets
from casewire.reading import read_topic
from casewire.sink_config import choice_of
from schemas.errors import ConfigError
from sinks.registry import make_sink
from sinks.settings import SinkTable
from sinks.sql_settings import SqlSettings
from streams.delivery import Delivery, Pace, SinkRecord


def rebuildable(name: str, settings: SinkTable) -> SqlSettings:
    """Return the settings of a sink that can be rebuilt. Raises ConfigError for any other."""
    if isinstance(settings, SqlSettings):
        return settings
    raise ConfigError(
        f"[sinks.{name}] has no tables to rebuild; casewire replay sends it what it is to get again"
    )


async def states_to_read(config: Config, settings: SqlSettings) -> int:
    """Return how many records there are at most: what compaction has removed counts too."""
    topics = [config.cluster.topic(source) for source in settings.sources]
    return sum((await end_offsets(config.cluster, topics)).values())


async def rebuild(
    config: Config, name: str, settings: SqlSettings, done: Callable[[object], None]
) -> Mapping[str, int]:
    """Write all latest states there are now; return how many ended how.

    `done` is called for each. The sink may be running: what it has written meanwhile is newer, and
    stays. Nothing is committed, and what is refused is a dead letter already.
    """
    sink = make_sink(name, settings, config.data_dir, restore=True)
    pace = Pace(settings.batch_rows, settings.max_per_second)
    delivery = Delivery(name, sink, choice_of(settings, config.exclusions), pace)
    ends: Counter[str] = Counter()
    waiting: list[SinkRecord] = []

    async def write() -> None:
        ends.update((await delivery.deliver(waiting)).ends)
        waiting.clear()

    try:
        for source in settings.sources:
            async for record in read_topic(config.cluster, source):
                waiting.append(record)
                done(record)
                if len(waiting) >= settings.batch_rows:
                    await write()
        await write()
    finally:
        await delivery.close()
    return ends


def told(name: str, ends: Mapping[str, int]) -> str:
    """Return the result for a person."""
    counts = [f"{count:,} {end}" for end, count in sorted(ends.items())]
    return f"{name}: {', '.join(counts) or 'there are no states yet'}"
