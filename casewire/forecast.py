"""What a replay would change, without changing anything."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, TypeAlias

from casewire.config import Config
from casewire.reading import read_topic
from casewire.replaying import Chosen, decoded_again
from casewire.sink_config import choice_of
from schemas.errors import DeliveryError, InvalidEventError, Rejection, UnavailableError
from schemas.settings import KafkaSettings
from sinks.base import Message, Sink, Versioned
from sinks.registry import make_sink
from streams.app import SECOND_MICROSECONDS
from streams.delivery import message_of
from streams.records import Out, Record, Stored
from streams.state import (
    CaseJudge,
    Judge,
    Judged,
    case_judge,
    change_judge,
    form_judge,
    location_judge,
    user_judge,
)

Fate: TypeAlias = Literal["newer", "same", "older", "excluded", "sent", "dead"]
"""What is sent is newer than what the target has, the same, or older: then it stays as it is.

`sent`: the target cannot say what it has, or keeps each event. `dead`: it is a dead letter again.
"""

#: Messages whose versions are asked for at once.
_AT_ONCE: Final = 1000


@dataclass(slots=True)
class Forecast:
    """How many events would end how, and the keys of those, each once."""

    counts: Counter[Fate] = field(default_factory=Counter)
    keys: dict[Fate, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, fate: Fate, key: str) -> None:
        self.counts[fate] += 1
        self.keys[fate][key] = None


async def forecast_sink(config: Config, name: str, chosen: Sequence[Chosen]) -> Forecast:
    """Compare what was chosen with what a sink's target has. Raises UnavailableError."""
    settings = config.sinks[name]
    choice = choice_of(settings, config.exclusions)
    target = make_sink(name, settings, config.data_dir)
    forecast = Forecast()
    try:
        await target.open()
        for each in chosen:
            waiting: list[Message] = []
            async for record in each.records(config.cluster):
                message = message_of(record)
                if isinstance(message, Rejection):
                    forecast.add("dead", (record.key or b"").decode())
                elif choice.rule_against(message):
                    forecast.add("excluded", message.key)
                else:
                    waiting.append(message)
                if len(waiting) >= _AT_ONCE:
                    await _compare(target, waiting, forecast)
            await _compare(target, waiting, forecast)
    except DeliveryError as error:
        raise UnavailableError(f"the sink {name} cannot be asked: {error}") from error
    finally:
        await target.close()
    return forecast


async def _compare(target: Sink, waiting: list[Message], forecast: Forecast) -> None:
    held: Sequence[int | None] = [None] * len(waiting)
    told = isinstance(target, Versioned)
    if isinstance(target, Versioned):
        held = await target.versions(waiting)
    for message, version in zip(waiting, held, strict=True):
        forecast.add(fate(message.version, version) if told else "sent", message.key)
    waiting.clear()


def fate(version: int, held: int | None) -> Fate:
    """Return what becomes of a version where another one, or none, is held."""
    if held is None or version > held:
        return "newer"
    return "same" if version == held else "older"


async def forecast_states(config: Config, chosen: Chosen) -> Forecast:
    """Judge captured events as streams would, one after the other, from the states there are."""
    kafka = config.cluster
    wanted = set(chosen.keys.values())
    async for record in chosen.records(kafka):
        wanted |= {out.key for out in (await decoded_again(kafka, record)).changes}
    window = config.streams.doubt_window_seconds * SECOND_MICROSECONDS
    judges = _Judges({name: await _held(kafka, name, wanted) for name in _STATES}, window)
    forecast = Forecast()
    async for record in chosen.records(kafka):
        decoded = await decoded_again(kafka, record)
        for topic, out in ((decoded.topic, decoded.out), *_changes(decoded.changes)):
            forecast.add(judges.fate(topic, out), out.key.decode())
    return forecast


_STATES: Final = ("case-state", "case-folds", "form-state", "user-state", "location-state")


def _changes(changes: Iterable[Out]) -> Sequence[tuple[str, Out]]:
    return [("case-changes", change) for change in changes]


async def _held(kafka: KafkaSettings, topic: str, keys: set[bytes]) -> dict[bytes, bytes | None]:
    return {
        record.key: record.value
        async for record in read_topic(kafka, topic)
        if record.key is not None and record.key in keys
    }


class _Judges:
    """The judges of streams, on states that are held here."""

    def __init__(self, held: Mapping[str, dict[bytes, bytes | None]], window: int) -> None:
        self._held = held
        self._cases: Mapping[str, CaseJudge] = {
            "cases": case_judge(writer="", window_microseconds=window),
            "case-changes": change_judge(writer="", window_microseconds=window),
        }
        self._others: Mapping[str, tuple[str, Judge]] = {
            "forms": ("form-state", form_judge(writer="")),
            "users": ("user-state", user_judge(writer="")),
            "locations": ("location-state", location_judge(writer="")),
        }

    def fate(self, topic: str, out: Out) -> Fate:
        """Judge an event, and hold what follows."""
        record: Record = Stored(topic, out.key, out.value, out.headers)
        try:
            if topic in self._cases:
                held, folds = (self._held[name].get(out.key) for name in _STATES[:2])
                judged = self._cases[topic](record, held, folds)
                self._put("case-folds", judged.fold)
                return self._end("case-state", judged)
            if topic in self._others:
                state, judge = self._others[topic]
                return self._end(state, partial(judge, record)(self._held[state].get(out.key)))
        except InvalidEventError:
            return "dead"
        return "sent"

    def _end(self, state: str, judged: Judged) -> Fate:
        self._put(state, judged.publish)
        if judged.outcome == "stale":
            return "older"
        return "newer" if judged.publish is not None else "same"

    def _put(self, topic: str, out: Out | None) -> None:
        if out is not None:
            self._held[topic][out.key] = out.value
