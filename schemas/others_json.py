"""Users, locations and custom bodies as HQ's JSON has them (protocol.md §1.1)."""

from typing import Final

from schemas.envelope import Captured
from schemas.fields import identifier, of_type, passed_through
from schemas.others import CustomEvent, LocationEvent, LocationState, UserEvent, UserState
from schemas.values import Json

_USER: Final = frozenset(UserEvent.names())
_LOCATION: Final = frozenset(LocationEvent.names())
#: What a state adds: a key of that name that was sent means something else.
_USER_RESERVED: Final = frozenset(UserState.names()) - _USER
_LOCATION_RESERVED: Final = frozenset(LocationState.names()) - _LOCATION


def user_from_json(sent: dict[str, Json], captured: Captured) -> UserEvent:
    extra = passed_through(sent, _USER, _USER_RESERVED, captured.domain)
    return UserEvent(
        domain=captured.domain,
        id=identifier(sent["id"], "id"),
        username=of_type(str, "username", sent, extra),
        extra=extra,
    )


def location_from_json(sent: dict[str, Json], captured: Captured) -> LocationEvent:
    extra = passed_through(sent, _LOCATION, _LOCATION_RESERVED, captured.domain)
    return LocationEvent(
        domain=captured.domain,
        location_id=identifier(sent["location_id"], "location_id"),
        name=of_type(str, "name", sent, extra),
        extra=extra,
    )


def custom_from_json(sent: Json, captured: Captured) -> CustomEvent:
    return CustomEvent(domain=captured.domain, label=captured.label or None, body=sent)
