"""The other things that HQ forwards: app changes, users, locations, and custom bodies."""

from dataclasses import dataclass, field

from schemas.values import Json, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class AppChange(Value):
    """That an app, or a build of one, was saved. HQ sends no more than the id."""

    domain: str
    app_id: str
    extra: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEvent(Value):
    """A mobile worker as HQ's user API gives it; everything but the id is in `extra`."""

    domain: str
    id: str
    username: str | None = None
    extra: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserState(UserEvent):
    """A mobile worker as last saved. `version` only grows; copies are guarded by it alone."""

    version: int
    captured_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LocationEvent(Value):
    """A location as HQ's `location.to_json()` gives it."""

    domain: str
    location_id: str
    name: str | None = None
    extra: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocationState(LocationEvent):
    """A location as last saved. `version` only grows; copies are guarded by it alone."""

    version: int
    captured_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomEvent(Value):
    """What a configurable or a data-source forwarder sent.

    `label` is that of the address, None for a data source posted without one. `body` is any JSON,
    None too where nothing was sent.
    """

    domain: str
    label: str | None
    body: Json
    extra: dict[str, Json] = field(default_factory=dict)
