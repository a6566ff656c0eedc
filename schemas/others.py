"""The other things that HQ forwards: app changes, users, locations, and custom bodies."""

from schemas.values import Json, Value


class AppChange(Value, frozen=True, kw_only=True):
    """That an app, or a build of one, was saved. HQ sends no more than the id."""

    domain: str
    app_id: str


class UserEvent(Value, frozen=True, kw_only=True):
    """A mobile worker as HQ's user API gives it; everything but the id is in `extra`."""

    domain: str
    id: str
    username: str | None = None


class UserState(UserEvent, frozen=True, kw_only=True):
    """A mobile worker as last saved. `version` only grows; copies are guarded by it alone."""

    version: int
    captured_id: str


class LocationEvent(Value, frozen=True, kw_only=True):
    """A location as HQ's `location.to_json()` gives it."""

    domain: str
    location_id: str
    name: str | None = None


class LocationState(LocationEvent, frozen=True, kw_only=True):
    """A location as last saved. `version` only grows; copies are guarded by it alone."""

    version: int
    captured_id: str


class CustomEvent(Value, frozen=True, kw_only=True):
    """What a configurable or a data-source forwarder sent.

    `label` is that of the address, None for a data source posted without one. `body` is any JSON,
    None too where nothing was sent.
    """

    domain: str
    label: str | None
    body: Json
