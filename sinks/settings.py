"""What every `[sinks.NAME]` of casewire.toml has, and `[exclusions.NAME]`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, get_args

from msgspec import Meta

from schemas.settings import NotNegative, Positive, Table
from schemas.times import from_rfc3339
from schemas.topics import MEBIBYTE
from schemas.values import Json
from sinks.base import Source
from sinks.match import problems

_STATES: tuple[Source, ...] = ("case-state", "form-state")
_EVENTS: tuple[Source, ...] = ("cases", "forms")


class SinkTable(Table, frozen=True, kw_only=True, tag_field="type"):
    """What all sinks can be told, whatever their type."""

    topics: Annotated[
        Sequence[Source],
        Meta(
            description="What is written: any of "
            f"{', '.join(get_args(Source))}. Empty: both states, or with `every` both events.",
            examples=[["case-state"]],
        ),
    ] = ()
    every: Annotated[
        bool,
        Meta(
            description="Take each event as it came (topics `cases` and `forms`), not only the "
            "latest state.",
            examples=[False],
        ),
    ] = False
    match: Annotated[
        Mapping[str, Json],
        Meta(
            description="Only what contains this: see docs/sinks.md.",
            examples=[{"case_type": "patient"}],
        ),
    ] = MappingProxyType({})
    exclude: Annotated[
        Sequence[str],
        Meta(
            description="Names of [exclusions.NAME]: what one of them matches is not written.",
            examples=[["test-users"]],
        ),
    ] = ()
    since: Annotated[
        str,
        Meta(
            description="Only what CommCare HQ has sent since this moment, and what is replayed "
            "to this sink. Empty: everything, beginning with the latest state of each.",
            examples=["2026-11-22T12:00:00Z"],
        ),
    ] = ""
    batch_rows: Annotated[
        Positive, Meta(description="The most that one write holds.", examples=[2000])
    ] = 2000
    batch_bytes: Annotated[
        Positive,
        Meta(
            description="Records of more bytes than this are not gathered for one write.",
            examples=[4 * MEBIBYTE],
        ),
    ] = 4 * MEBIBYTE
    batch_seconds: Annotated[
        NotNegative,
        Meta(
            description="How long to gather; of a case that changes meanwhile only the last "
            "version is written. 0: whatever came during the last write is the next batch.",
            examples=[300],
        ),
    ] = 0
    max_per_second: Annotated[
        NotNegative,
        Meta(description="The most that is written in a second; 0: no limit.", examples=[50]),
    ] = 0
    errors_are_safe: Annotated[
        bool,
        Meta(
            description="The target's own words quote no data: alerts may carry them.",
            examples=[False],
        ),
    ] = False

    @property
    def sources(self) -> Sequence[Source]:
        """The topics to read."""
        return self.topics or (_EVENTS if self.every else _STATES)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong between keys that are each right: `key: what; remedy`."""
        allowed = _EVENTS if self.every else _STATES
        for topic in self.topics:
            if topic not in allowed:
                yield (
                    f"topics: {topic!r} needs every = {'false' if self.every else 'true'}; "
                    f"take {' or '.join(allowed)}, or change `every`"
                )
        if self.since and from_rfc3339(self.since) is None:
            yield "since: is no moment; write it with its zone, as 2026-11-22T12:00:00Z"
        yield from problems(self.match)

    def place(self, data_dir: Path) -> str:
        """Return where the sink writes to, for people, without a secret."""
        raise NotImplementedError


class ExclusionSettings(Table, frozen=True, kw_only=True):
    """A named set of events that sinks may leave out, such as those of test users."""

    match: Mapping[str, Json]
